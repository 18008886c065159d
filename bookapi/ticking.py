"""The scheduler: finds what is due, writes it down, and hands it over once.

The same for `celery -A bookapi beat` and `manage.py scheduler`. With a broker a worker performs the task, without one
this process does. Three things keep it exact:

- A lease: of several schedulers one is at work, and another one takes over when it has died.
- A claim: the task's time of last run is moved by a conditional update, in one transaction with the row of the run. So
  even two schedulers that both believe in their lease, since their clocks differ, start nothing twice.
- A row before a deed: what a dying scheduler has claimed and not handed over, the next one hands over.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.module_loading import import_string
from django_celery_beat.models import PeriodicTask

from bookapi.models import DETAIL_MAX, Lease, ScheduledRun
from bookapi.publishing import NotPublished, publish
from bookapi.schedule import KNOWN, Misconfigured, Outcome, known, next_at

logger = logging.getLogger(__name__)

#: Seconds between two looks at the rows, so that an edit counts soon.
POLL_S = 5.0
LEASE = "schedule"
#: What was begun and has not ended after so long died with its worker; what was sent and not begun is sent again.
PERFORMING = timedelta(minutes=15)
#: What nobody took for so long is not wanted any more: its next time has come.
WAITING = timedelta(days=1)


class Scheduler:
    """One of several schedulers; the one that has the lease works."""

    def __init__(self) -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.leads = False

    def tick(self) -> float:
        """Do what is due now, if it is this one's turn. Seconds until the next look."""
        poll = min(POLL_S, settings.SCHEDULE_LEASE_S / 3)
        try:
            led = self.leads
            if not self._lead():
                return poll
            _give_up(takes_over=not led)
            upcoming = _claim_what_is_due()
            _hand_over_what_waits()
        except (OperationalError, InterfaceError):
            logger.exception("the schedule cannot be read")
            return poll
        seconds = (upcoming - timezone.now()).total_seconds() if upcoming else poll
        return min(poll, max(seconds, 0.05))

    def close(self) -> None:
        """Let another one lead at once. Does nothing twice."""
        try:
            Lease.objects.filter(name=LEASE, holder=self.holder).delete()
        except Exception:  # it runs out by itself
            logger.warning("the lease was not given back", exc_info=True)
        self.leads = False

    def _lead(self) -> bool:
        now = timezone.now()
        until = now + timedelta(seconds=settings.SCHEDULE_LEASE_S)
        free = Q(holder=self.holder) | Q(expires_at__lt=now)
        leads = bool(Lease.objects.filter(free, name=LEASE).update(holder=self.holder, expires_at=until))
        if not leads:
            first = Lease(name=LEASE, holder=self.holder, expires_at=until)
            Lease.objects.bulk_create([first], ignore_conflicts=True)
            leads = Lease.objects.filter(name=LEASE, holder=self.holder).exists()
        if leads != self.leads:
            logger.info("scheduler leads" if leads else "another scheduler leads", extra={"scheduler": self.holder})
        self.leads = leads
        return leads


def run_now(row: PeriodicTask, requested_by: str) -> ScheduledRun | None:
    """The run of a task that a person asked for, handed over; None while its last one is not over.

    Raises:
        Misconfigured: the row names no task that may be scheduled.
    """
    task = known(row)
    if task.needs_broker and not settings.BROKER_URL:
        raise Misconfigured("It needs a broker.")
    entry = _claim(row, due_at=timezone.now(), requested_by=requested_by)
    if entry is not None:
        hand_over(entry)
        entry.refresh_from_db()
    return entry


def _claim_what_is_due() -> datetime | None:
    """Write down a run of each task that is due. When the next one will be."""
    upcoming = None
    now = timezone.now()
    for row in PeriodicTask.objects.filter(enabled=True).select_related("interval", "crontab"):
        try:
            at = next_at(row)
        except Misconfigured as error:  # told, and the others go on
            _complain(row, str(error))
            continue
        if at is not None and at > now:
            upcoming = min(at, upcoming or at)
        elif at is not None:
            _claim(row, due_at=at)
    return upcoming


def _claim(row: PeriodicTask, *, due_at: datetime, requested_by: str = "") -> ScheduledRun | None:
    """The run, if nobody else claimed it and the last one is over."""
    now = timezone.now()
    as_read = PeriodicTask.objects.filter(pk=row.pk, last_run_at=row.last_run_at)
    moved = {"last_run_at": now, "total_run_count": F("total_run_count") + 1}
    try:
        with transaction.atomic():
            if not as_read.update(**moved, **({"enabled": False} if row.one_off else {})):
                return None
            return ScheduledRun.objects.create(
                schedule=row, task=row.task, due_at=due_at, started_at=now, requested_by=requested_by
            )
    except IntegrityError:
        return None


def _complain(row: PeriodicTask, reason: str) -> None:
    """Keep why the row is not run: once, until something else happens to it."""
    last = ScheduledRun.objects.filter(schedule=row).first()
    if last is not None and (last.finished_at is None or last.detail == reason[:DETAIL_MAX]):
        return
    logger.error("schedule is misconfigured", extra={"schedule": row.name, "reason": reason})
    now = timezone.now()
    ScheduledRun.objects.create(
        schedule=row,
        task=row.task,
        due_at=now,
        started_at=now,
        finished_at=now,
        outcome=ScheduledRun.Outcome.FAILED,
        detail=reason[:DETAIL_MAX],
    )


def _give_up(*, takes_over: bool) -> None:
    """Close what nobody will finish, so that its task can run again.

    Without a broker the scheduler performs what it starts, so what the one before us had begun died with it. Should it
    live after all, and only have been slow, then what it finds out replaces what is said here.
    """
    now = timezone.now()
    died_before = now if takes_over and not settings.BROKER_URL else now - PERFORMING
    begun = ScheduledRun.objects.filter(finished_at=None, taken_at__lt=died_before)
    begun.update(finished_at=now, outcome=ScheduledRun.Outcome.FAILED, detail="It was begun, and never ended.")
    # The queue gives a message up when the database is away for as long as its deliveries last. Twice does no harm.
    ScheduledRun.objects.filter(finished_at=None, taken_at=None, sent_at__lt=now - PERFORMING).update(sent_at=None)
    waiting = ScheduledRun.objects.filter(finished_at=None, taken_at=None, started_at__lt=now - WAITING)
    waiting.update(finished_at=now, outcome=ScheduledRun.Outcome.FAILED, detail="Nobody took it for a day.")


# --- Handing over -----------------------------------------------------------------------------------------------------
def _hand_over_what_waits() -> None:
    """Also what the scheduler before us claimed, and what the broker refused."""
    for entry in ScheduledRun.objects.filter(finished_at=None, sent_at=None, taken_at=None).order_by("id"):
        hand_over(entry)


def hand_over(entry: ScheduledRun) -> None:
    """To the broker, for a worker; without one it is performed here and now."""
    if not settings.BROKER_URL:
        perform(entry.pk)
        return
    waiting = ScheduledRun.objects.filter(pk=entry.pk, finished_at=None)
    try:
        publish("bookapi.tasks.perform", entry.pk)
    except NotPublished as error:  # the next tick tries again
        waiting.update(detail=str(error)[:DETAIL_MAX])
    else:
        waiting.update(sent_at=timezone.now(), detail="")


def perform(pk: int, again: bool = False) -> None:
    """Do what the run is for, and keep the outcome. Once: `again` is for a message whose worker died.

    Raises:
        OperationalError, InterfaceError: the database is away.
    """
    waiting = ScheduledRun.objects.filter(pk=pk, finished_at=None)
    if not waiting.filter(**({} if again else {"taken_at": None})).update(taken_at=timezone.now()):
        logger.info("scheduled run is taken", extra={"scheduled_run": pk})
        return
    entry = ScheduledRun.objects.get(pk=pk)
    extra = {"scheduled_run": pk, "schedule": entry.task}
    try:
        result = _call(entry.task)
    except Exception as error:
        logger.exception("scheduled task failed", extra=extra)
        fields: dict[str, Any] = {"outcome": ScheduledRun.Outcome.FAILED, "detail": str(error) or type(error).__name__}
    else:
        kinds = ScheduledRun.Outcome
        fields = {
            "outcome": kinds.UNDER_WAY if result.under_way else kinds.OK,
            "detail": result.detail,
            "crawl": result.crawl,
            "training": result.training,
        }
        logger.info("scheduled task ran", extra={**extra, **fields})
    fields["detail"] = fields["detail"][:DETAIL_MAX]
    ScheduledRun.objects.filter(pk=pk).update(**fields, finished_at=timezone.now())


def _call(name: str) -> Outcome:
    if name not in KNOWN:  # asked again here: the row may have been written by anybody
        raise Misconfigured(f"{name} is no task that may be scheduled.")
    result = import_string(name)()
    return result if isinstance(result, Outcome) else Outcome()
