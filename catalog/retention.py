"""What the catalogue forgets, and when: rows of the past of which nothing that is still to come depends.

Books, changes and runs stay: `/changes` can be followed from the beginning, and a run is compared with those before.
What goes, goes in small transactions, so that no writer waits for longer than one of them takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.utils import timezone

from catalog.models import CrawlRun, DeadLetter, PriceObservation, PublishedBatch, RejectedItem, Sighting
from catalog.revision import writing

logger = logging.getLogger(__name__)

#: Rows that one transaction deletes; ids that are looked up at once.
CHUNK, ROUND = 500, 100_000

#: Queries for what may go, given the time before which it is too old: one after the other, so that none sorts a table.
Finder = Callable[[datetime], Iterator[QuerySet[Any]]]


def prune(*, dry_run: bool = False, now: datetime | None = None) -> dict[str, int]:
    """How many rows of each kind were deleted; with `dry_run`, how many would be. What is kept for 0 days stays.

    Two prunings at once, or one that is killed, do no harm: what goes is decided by rows that never go.
    """
    now = now or timezone.now()
    gone = {}
    for name, days, find, turn in (
        ("sightings", settings.KEEP_SIGHTINGS_DAYS, _sightings, transaction.atomic),
        ("published batches", settings.KEEP_SIGHTINGS_DAYS, _batches, transaction.atomic),
        ("price observations", settings.KEEP_HISTORY_DAYS, _observations, _turn_of_readers),
        ("rejected items", settings.KEEP_REJECTED_DAYS, _rejected, transaction.atomic),
        ("dead letters", settings.KEEP_DEAD_LETTERS_DAYS, _letters, transaction.atomic),
    ):
        gone[name] = 0
        if days:
            for rows in find(now - timedelta(days=days)):
                gone[name] += rows.count() if dry_run else delete(rows, turn)
    if not dry_run:
        logger.info("pruned", extra={"rows": gone})
    return gone


def delete(rows: QuerySet[Any], turn: Callable[[], Any] = transaction.atomic) -> int:
    """How many rows were deleted: `CHUNK` of them in each transaction that `turn` opens."""
    model: type[Model] = rows.model
    gone = 0
    while ids := list(rows.order_by().values_list("pk", flat=True)[:ROUND]):
        for start in range(0, len(ids), CHUNK):
            with turn():
                model._default_manager.filter(pk__in=ids[start : start + CHUNK]).delete()
        gone += len(ids)
    return gone


@contextmanager
def _turn_of_readers() -> Iterator[None]:
    """A transaction that moves the revision: readers of the API see these rows go, so ETags must not stay."""
    with writing() as turn:
        turn.changed = True
        yield


def _closed_runs(before: datetime) -> QuerySet[CrawlRun]:
    """Runs that nobody goes on with: finished for so long, and without a batch whose records may still come.

    An interrupted run can be resumed at any time, and then asks what it has seen; it keeps everything. So does one
    with dead letters that somebody may replay, after which it is closed anew.
    """
    letters = DeadLetter.objects.filter(batch=OuterRef("pk"), state=DeadLetter.State.OPEN)
    may_come = Q(state=PublishedBatch.State.PENDING) | Q(Exists(letters), state=PublishedBatch.State.DEAD)
    open_batches = PublishedBatch.objects.filter(may_come, run=OuterRef("pk"))
    finished = CrawlRun.objects.filter(state=CrawlRun.State.FINISHED, finished_at__lt=before)
    return finished.exclude(Exists(open_batches)).order_by("pk")


def _sightings(before: datetime) -> Iterator[QuerySet[Any]]:
    """Sightings of closed runs, but for the newest of each book: it decides whether a record that comes late is stale.

    The newest is never deleted by anybody, so what was found to be older than another one stays so.
    """
    newer = Q(scraped_at__gt=OuterRef("scraped_at")) | Q(scraped_at=OuterRef("scraped_at"), pk__gt=OuterRef("pk"))
    overtaken = Exists(Sighting.objects.filter(newer, book=OuterRef("book")))
    for run in _closed_runs(before).values_list("pk", flat=True):
        yield Sighting.objects.filter(overtaken, run=run)


def _batches(before: datetime) -> Iterator[QuerySet[Any]]:
    """Settled batches of closed runs. One that is delivered once more after all that time finds its books newer."""
    letters = DeadLetter.objects.filter(batch=OuterRef("pk"), state=DeadLetter.State.OPEN)
    settled = PublishedBatch.objects.filter(run__in=_closed_runs(before).order_by(), state=PublishedBatch.State.SETTLED)
    yield settled.exclude(Exists(letters))


def _observations(before: datetime) -> Iterator[QuerySet[Any]]:
    """Observations that another one had followed by then: what a book cost at the time is told, and the newest stays.

    This is what `/books/{id}/history` shows, so each transaction moves the revision.
    """
    later = Q(at__gt=OuterRef("at")) | Q(at=OuterRef("at"), pk__gt=OuterRef("pk"))
    followed = Exists(PriceObservation.objects.filter(later, book=OuterRef("book"), at__lte=before))
    yield PriceObservation.objects.filter(followed, at__lt=before)


def _rejected(before: datetime) -> Iterator[QuerySet[Any]]:
    """Rejected items of closed runs that somebody has decided about; the sums of the runs stay as they are."""
    decided = RejectedItem.objects.exclude(state=RejectedItem.State.OPEN)
    yield decided.filter(scraped_at__lt=before, run__in=_closed_runs(before).order_by())


def _letters(before: datetime) -> Iterator[QuerySet[Any]]:
    """Dead letters that were replayed or dropped so long ago that nobody delivers them again; open ones never were."""
    yield DeadLetter.objects.filter(settled_at__lt=before)
