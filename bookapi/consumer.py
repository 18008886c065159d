"""The worker's consumer, which loses nothing that it cannot read."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer

logger = logging.getLogger(__name__)


class SafeConsumer(Consumer):  # type: ignore[misc]  # it comes without types
    """Sends what it cannot decode to the dead letters: Celery's own acknowledges it, and it is gone."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.error("message cannot be decoded", extra={"error": str(exc), "content_type": message.content_type})
        message.reject(requeue=False)
