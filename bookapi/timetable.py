"""The schedule as people see it: each row with its last outcome and its next time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Max, Prefetch, QuerySet
from django_celery_beat.models import PeriodicTask

from bookapi.models import ScheduledRun
from bookapi.schedule import KNOWN, NO_BROKER, Misconfigured, in_words, next_at


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the schedule, and what is known of it."""

    row: PeriodicTask
    last: ScheduledRun | None

    @property
    def words(self) -> str:
        return in_words(self.row)

    @property
    def last_at(self) -> datetime | None:
        return self.last.started_at if self.last else None

    @property
    def outcome(self) -> str:
        return self.last.get_outcome_display().lower() if self.last else "-"

    @property
    def detail(self) -> str:
        """What came of it; of a crawl or training that it started, how that stands now."""
        if self.last is None:
            return ""
        started = self.last.crawl or self.last.training
        return f"{self.last.detail} It is {started.state}." if started else self.last.detail

    @property
    def next_at(self) -> datetime | None:
        try:
            return next_at(self.row)
        except Misconfigured:
            return None

    @property
    def next_told(self) -> str:
        """When it runs next, or why it does not."""
        try:
            at = next_at(self.row)
        except Misconfigured as error:
            return f"never: {error}"
        if at is not None:
            return f"{at:%Y-%m-%d %H:%M:%S}"
        if not self.row.enabled:
            return "never: disabled"
        if KNOWN[self.row.task].needs_broker and not settings.BROKER_URL:
            return NO_BROKER
        return "never: expired"

    def as_json(self) -> dict[str, Any]:
        last = self.last
        return {
            "name": self.row.name,
            "task": self.row.task,
            "schedule": self.words,
            "enabled": self.row.enabled,
            "last_run_at": self.last_at,
            "outcome": last.outcome if last else None,
            "detail": self.detail,
            "crawl": last.crawl_id if last else None,
            "training": last.training_id if last else None,
            "next_run_at": self.next_at,
        }


def rows() -> QuerySet[PeriodicTask]:
    """The rows of the schedule with what is needed to show them. One more query, for their last runs."""
    newest = ScheduledRun.objects.order_by().values("schedule").annotate(last=Max("id")).values("last")
    runs = ScheduledRun.objects.filter(pk__in=newest).select_related("crawl", "training")
    found: QuerySet[PeriodicTask] = PeriodicTask.objects.select_related("interval", "crontab")
    return found.prefetch_related(Prefetch("runs", queryset=runs, to_attr="newest_runs"))


def line_of(row: PeriodicTask) -> Line:
    """For a row of `rows()`. No query."""
    return Line(row, next(iter(row.newest_runs), None))


def timetable() -> list[Line]:
    """All rows, by name. Two queries."""
    return [line_of(row) for row in rows().order_by("name")]
