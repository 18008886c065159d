"""What may be scheduled, when it is due, and how a schedule reads.

The rows are django-celery-beat's, so that people edit them in the administration. Of them we take the task's name and
its time; a row that names anything else, or brings arguments, is refused: whoever can write a row shall not thereby be
able to call whatever a worker knows. Times are UTC, where no hour is missing or comes twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from cron_descriptor import Options, get_description
from django.conf import settings
from django_celery_beat.models import PeriodicTask

START_CRAWL, START_TRAINING = "bookapi.tasks.start_crawl", "bookapi.tasks.start_training"
NO_BROKER = "needs a broker"


@dataclass(frozen=True, slots=True)
class Known:
    """A task that may be scheduled."""

    title: str
    needs_broker: bool = False


KNOWN = {
    START_CRAWL: Known("Read the configured shop"),
    START_TRAINING: Known("Train the recommender, and serve the new model if it is good enough"),
    "bookapi.tasks.resume_interrupted": Known("Close what died; resume a scheduled crawl, once; empty spools"),
    "bookapi.tasks.prune": Known("Delete what need not be kept any longer"),
    "catalog.tasks.settle_runs": Known("End the runs whose batches have all arrived", needs_broker=True),
    "catalog.tasks.collect_dead_letters": Known("Collect what the queue has given up", needs_broker=True),
}


class Misconfigured(Exception):
    """The row cannot be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task tells the schedule: in words, and what it has started, or found under way."""

    detail: str = ""
    crawl: int | None = None
    training: int | None = None
    under_way: bool = False


def known(row: PeriodicTask) -> Known:
    """What the row names. Raises Misconfigured."""
    if row.task not in KNOWN:
        raise Misconfigured(f"{row.task} is no task that may be scheduled.")
    for field in ("args", "kwargs"):
        try:
            given = json.loads(getattr(row, field) or "null")
        except ValueError:
            given = True
        if given:
            raise Misconfigured(f"A scheduled task takes no arguments: empty its {field}.")
    return KNOWN[row.task]


def next_at(row: PeriodicTask) -> datetime | None:
    """When the task is due next, perhaps in the past; None if it is not to run. Raises Misconfigured.

    It counts from the last time that it ran; for one that never did, from its last edit. So what was missed is due
    once, however often it was missed.
    """
    task = known(row)
    if not row.enabled or (task.needs_broker and not settings.BROKER_URL):
        return None
    after: datetime = row.last_run_at or row.date_changed
    try:
        due = _next_after(row, after)
    except Exception as error:  # whatever celery says of "61 * * * *", and Python of a million years
        raise Misconfigured(f"Its schedule makes no sense: {error}") from error
    if row.start_time and row.start_time > due:
        due = row.start_time
    return None if row.expires and due >= row.expires else due


def _next_after(row: PeriodicTask, after: datetime) -> datetime:
    chosen = [kind for kind in ("interval", "crontab", "solar", "clocked") if getattr(row, f"{kind}_id")]
    if chosen == ["interval"]:
        every = timedelta(**{row.interval.period: row.interval.every})
        if every <= timedelta(0):
            raise ValueError("an interval needs a length")
        return after + every
    if chosen == ["crontab"]:
        since, delta, _now = row.crontab.schedule.remaining_delta(after)
        due: datetime = since + delta
        return due
    raise ValueError("one interval or one crontab is needed")


def in_words(row: PeriodicTask) -> str:
    """The schedule for people: `every 30 seconds`, `at 03:00 (UTC)`."""
    if row.interval_id:
        every, period = row.interval.every, row.interval.period
        return f"every {period.removesuffix('s')}" if every == 1 else f"every {every} {period}"
    if row.crontab_id:
        cron = row.crontab
        line = f"{cron.minute} {cron.hour} {cron.day_of_month} {cron.month_of_year} {cron.day_of_week}"
        options = Options()
        options.use_24hour_time_format = True
        try:
            words = get_description(line, options)
        except Exception:  # it is said as it was written
            words = line
        return f"{words[:1].lower()}{words[1:]} ({cron.timezone})"
    return "never"
