"""Batches on their way through the queue: written down before they are published, and settled once.

The sums of a run move with them, in the same transaction: published = seen + what is still pending. Each of these
functions takes the catalogue's lock first; a caller with a transaction of its own opens it by `writing()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from catalog.ingest.batches import prepare, write
from catalog.ingest.closing import settle
from catalog.ingest.errors import UnknownRun
from catalog.models import CrawlRun, PublishedBatch
from catalog.records import IngestCounts, Read, page_key
from catalog.revision import writing
from catalog.text import printable

PENDING, SETTLED, DEAD = PublishedBatch.State.PENDING, PublishedBatch.State.SETTLED, PublishedBatch.State.DEAD


def register(run_id: int, key: UUID, records: Sequence[Read]) -> bool:
    """Write down a batch, before it is published for the first time; False for one that is known.

    Raises:
        UnknownRun: there is no such run.
    """
    with writing() as turn:
        if PublishedBatch.objects.filter(pk=key).exists():
            return False
        published = F("published") + len(records)
        if not CrawlRun.objects.filter(pk=run_id).update(published=published, heartbeat_at=turn.at):
            raise UnknownRun(f"There is no run {run_id}.")
        pages = [page_key(r.shop, r.source_url, r.upc) for r in records]
        PublishedBatch.objects.create(pk=key, run_id=run_id, records=len(records), pages=pages, published_at=turn.at)
    return True


def ingest_published(key: UUID, run_id: int, records: Sequence[Read]) -> IngestCounts:
    """What became of a batch that came through the queue; nothing, where it came before.

    The books and the batch's row are written in one transaction, so a worker that is killed has done all or nothing.

    Raises:
        UnknownRun, ValueError: as `ingest` does.
    """
    state = PublishedBatch.objects.filter(pk=key).values_list("state", flat=True).first()
    if state == SETTLED:
        settle(run_id)  # whoever wrote it may have died before
        return IngestCounts()
    shop, visits = prepare(records, run_id)
    if state is None:  # the database was restored from before
        register(run_id, key, records)
    with writing() as turn:
        batch = PublishedBatch.objects.get(pk=key)
        if batch.state == SETTLED:  # another worker was faster
            return IngestCounts()
        if batch.state == DEAD:  # delivered after all
            _take_up(batch)
        counts = write(visits, run_id, shop, turn)
        if counts.duplicates:  # counted before, so they are not on their way
            CrawlRun.objects.filter(pk=run_id).update(published=F("published") - counts.duplicates)
        batch.state, batch.settled_at, batch.pages, batch.error = SETTLED, turn.at, [], ""
        batch.save()
    settle(run_id)
    return counts


def note_error(key: UUID, error: Exception) -> None:
    """Keep what a worker says of a batch that it cannot take, for whoever looks at its dead letter."""
    detail = printable(f"{type(error).__name__}: {error}")[:500]
    PublishedBatch.objects.filter(pk=key).exclude(state=SETTLED).update(error=detail)


def mark_dead(key: UUID) -> bool:
    """The queue has given up the batch: its records are dead in the sums of its run. False unless it was pending."""
    with writing() as turn:
        batch = PublishedBatch.objects.filter(pk=key, state=PENDING).first()
        if batch is None:
            return False
        PublishedBatch.objects.filter(pk=key).update(state=DEAD, settled_at=turn.at)
        _count_dead(batch, batch.records)
        settle(batch.run_id)
    return True


def mark_pending(key: UUID) -> bool:
    """The batch is about to be published again, and its run is not complete until it is settled. False unless dead."""
    with writing():
        batch = PublishedBatch.objects.filter(pk=key, state=DEAD).first()
        if batch is None:
            return False
        PublishedBatch.objects.filter(pk=key).update(
            state=PENDING, settled_at=None, error="", published_at=timezone.now()
        )
        _take_up(batch)
    return True


def _take_up(batch: PublishedBatch) -> None:
    """It is dead no more. Its run is not complete until it is closed anew, with other sums."""
    _count_dead(batch, -batch.records)
    CrawlRun.objects.filter(pk=batch.run_id).update(complete=False)


def _count_dead(batch: PublishedBatch, n: int) -> None:
    CrawlRun.objects.filter(pk=batch.run_id).update(dead=F("dead") + n, seen=F("seen") + n, heartbeat_at=timezone.now())
