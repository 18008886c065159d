"""A rejected item gets another chance, after the cleaner has learned or a person has looked."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import F

from catalog.cleaning import clean
from catalog.ingest.batches import ingest
from catalog.ingest.raw import restored
from catalog.models import CrawlRun, RejectedItem
from catalog.records import IngestCounts, RejectedRecord, ScrapedBook
from catalog.revision import writing


def retry_rejected(ids: Collection[int]) -> IngestCounts:
    """Clean the rejected items again and ingest those that are books now; `rejected` counts those that are still not.

    The run's sums move with them: one rejected less, one created (or updated, unchanged, stale) more.
    """
    total = IngestCounts()
    for item in RejectedItem.objects.filter(pk__among=ids, state=RejectedItem.State.OPEN).order_by("pk"):
        try:
            scraped = ScrapedBook.from_json(restored(item.raw))
            clean(scraped)
        except (RejectedRecord, TypeError, KeyError, ValueError):  # the last three: a line that is no record at all
            total.rejected += 1
            continue
        with writing():
            taken = RejectedItem.objects.filter(pk=item.pk, state=RejectedItem.State.OPEN).update(
                state=RejectedItem.State.RETRIED
            )
            if taken:
                CrawlRun.objects.filter(pk=item.run_id).update(rejected=F("rejected") - 1, seen=F("seen") - 1)
                total += ingest([scraped], item.run_id)
    return total
