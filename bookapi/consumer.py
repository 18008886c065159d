"""The worker's consumer, which loses nothing that it cannot read."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer

from bookapi import queues

logger = logging.getLogger(__name__)


class SafeConsumer(Consumer):  # type: ignore[misc]  # it comes without types
    """Sends what it cannot decode to the dead letters: Celery's own acknowledges it, and it is gone."""

    def connect(self) -> Any:
        """The connection, to a broker that has all of our queues: Celery declares those alone that it reads."""
        connection = super().connect()
        queues.declare(connection)
        return connection

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.error("message cannot be decoded", extra={"error": str(exc), "content_type": message.content_type})
        message.reject(requeue=False)
