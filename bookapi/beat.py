"""The scheduler of `celery -A bookapi beat`. See `bookapi.ticking` for what it does."""

from __future__ import annotations

from typing import Any

from celery import beat
from django.db import close_old_connections

from bookapi.ticking import Scheduler


class DatabaseScheduler(beat.Scheduler):  # type: ignore[misc]  # it comes without types
    """Reads the rows at each tick, and keeps nothing between two of them.

    Not django-celery-beat's own, which shares its rows: that one writes the times of last runs every three minutes, so
    that what it had started was started again after a crash, and two of them start everything twice.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.scheduler = Scheduler()
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """There is none but the rows."""

    def tick(self, *_: Any, **__: Any) -> float:
        close_old_connections()
        return self.scheduler.tick()

    def should_sync(self) -> bool:
        return False

    def close(self) -> None:
        self.scheduler.close()

    @property
    def info(self) -> str:
        return "    . schedule -> the database"
