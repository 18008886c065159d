"""Messages to our own workers: confirmed, or refused with a reason; and how many still wait."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from kombu import Queue

logger = logging.getLogger(__name__)

CONFIRM_S = 10  # until the broker has it on its disks


class NotPublished(Exception):
    """The broker did not take the message."""


def publish(task: str, *arguments: object) -> None:
    """Hand the task to the queue that it belongs to. Raises NotPublished."""
    from bookapi.celery import app  # noqa: PLC0415 - Celery takes a while to import, and not everybody has a broker

    try:
        # A connection of its own: such messages are rare, and one from a pool may have died hours ago.
        with app.connection_for_write(settings.BROKER_URL) as connection:
            app.send_task(task, args=arguments, connection=connection, confirm_timeout=CONFIRM_S)
    except Exception as error:  # kombu raises what its transports do
        logger.warning("the broker did not take a message", extra={"task": task, "error": repr(error)})
        raise NotPublished(f"The broker did not take it: {str(error) or type(error).__name__}") from error


def waiting_in(queue: Queue) -> int | None:
    """Messages that no worker has taken; None where the broker does not say."""
    from bookapi.celery import app  # noqa: PLC0415

    try:
        with app.connection_for_read(settings.BROKER_URL) as connection, connection.channel() as channel:
            return int(queue.bind(channel).queue_declare(passive=True).message_count)
    except Exception as error:
        logger.warning("the broker does not answer", extra={"queue": queue.name, "error": repr(error)})
        return None
