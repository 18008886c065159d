"""The end of a run: its sums, what it warns of, and which books have left the shop.

A run whose books came through the queue ends twice: it has read everything, and waits; and all of it has arrived.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, Exists, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from catalog.ingest.raw import restored
from catalog.models import Book, Change, CrawlRun, FailedPage, PublishedBatch, RejectedItem, Sighting
from catalog.records import page_key
from catalog.revision import Writing, writing

logger = logging.getLogger(__name__)

#: Fields whose coverage a run reports, and the query that tells whether a book has them.
COVERAGE = {
    "title": ~Q(title=""),
    "authors": ~Q(authors=[]),
    "description": ~Q(description=""),
    "category": Q(category__isnull=False),
    "price": Q(price__isnull=False),
    "rating": Q(rating__isnull=False),
    "stock": Q(stock__isnull=False),
    "image_url": ~Q(image_url=""),
}
#: A field's coverage, the number of books and the mean price may move by this share before a run warns.
COVERAGE_FELL, BOOKS_FELL, PRICES_JUMPED = 0.05, 0.10, 0.20
#: Codes of the warnings that closing a run finds by itself.
OUR_WARNINGS = {
    "list_pages_failed",
    "sums_do_not_hold",
    "not_settled",
    "dead",
    "queue_sums_do_not_hold",
    "coverage_fell",
    "books_fell",
    "prices_jumped",
    "delisting_withheld",
}


def finish_run(
    run_id: int, *, state: str = CrawlRun.State.FINISHED, warnings: Iterable[dict[str, str]] = ()
) -> CrawlRun:
    """The run, closed: its sums, coverage and warnings; and what a complete run did not see is delisted.

    A run is complete when it finished, was not filtered, and the sums hold for what the shop announced. It delists
    only if it is not itself suspect: one that saw much less than the one before delists nothing. While the queue
    holds books of it, the run is settling instead, and `settle` closes it.
    """
    with writing() as turn:
        run = CrawlRun.objects.get(pk=run_id)
        if run.state == CrawlRun.State.FINISHED:
            return run
        run.state, run.warnings, run.heartbeat_at = state, list(warnings), turn.at
        if state == CrawlRun.State.FINISHED and pending_records(run_id):
            run.state = CrawlRun.State.SETTLING
            run.save()
        else:
            _close(run, turn)
    logger.info("run ended", extra=run.log_context())
    return run


def settle(run_id: int) -> CrawlRun:
    """The run, closed if it waited for the queue alone and that holds nothing of it any more, or has stopped moving.

    A run that was closed without all of its books gets its sums again once they have arrived. One query for a run
    that is being read.
    """
    run = CrawlRun.objects.get(pk=run_id)
    if not _can_settle(run):
        return run
    with writing() as turn:
        run = CrawlRun.objects.get(pk=run_id)
        if not _can_settle(run):
            return run
        if run.state == CrawlRun.State.SETTLING:
            run.heartbeat_at = turn.at
        # Those that the spider gave stay; the others are found again, if they still hold.
        run.warnings = [warning for warning in run.warnings if warning["code"] not in OUR_WARNINGS]
        late, run.state = run.state == CrawlRun.State.FINISHED, CrawlRun.State.FINISHED
        _close(run, turn, late=late)
    logger.info("run settled", extra=run.log_context())
    return run


def _can_settle(run: CrawlRun) -> bool:
    """Up to one query."""
    if run.state == CrawlRun.State.SETTLING:
        silent = timezone.now() - run.heartbeat_at > timedelta(seconds=settings.SETTLE_TIMEOUT_S)
        return silent or not pending_records(run.pk)
    late = run.state == CrawlRun.State.FINISHED and bool(run.published) and not run.complete
    return late and not pending_records(run.pk)


def pending_records(run_id: int) -> int:
    """How many records of the run are on their way through the queue. One query."""
    pending = PublishedBatch.objects.filter(run=run_id, state=PublishedBatch.State.PENDING)
    return pending.aggregate(n=Sum("records"))["n"] or 0


def unsettled_pages(run_id: int) -> set[int]:
    """Hashes of the pages in the run's batches that are pending or dead. One query."""
    batches = PublishedBatch.objects.filter(run=run_id).exclude(state=PublishedBatch.State.SETTLED)
    return {page for pages in batches.values_list("pages", flat=True) for page in pages}


def _close(run: CrawlRun, turn: Writing, *, late: bool = False) -> None:
    """Do the sums of a run whose state and warnings are set, delist what it may, and save it.

    `late` is a run that was closed before, without all of its books.
    """
    failures = list(run.failed.values_list("url", "kind"))
    pending = pending_records(run.pk)
    run.finished_at = run.finished_at or turn.at
    run.failed_pages = sum(kind == FailedPage.Kind.BOOK for _, kind in failures)
    run.complete = (
        run.state == CrawlRun.State.FINISHED
        and not run.filters
        and run.announced is not None
        and run.announced == run.seen + run.failed_pages
        and not pending
        and _queue_sums_hold(run, pending)
    )
    _measure(run)
    before = CrawlRun.objects.complete().filter(shop=run.shop, kind=run.kind).exclude(pk=run.pk).first()
    withheld = run.complete and _is_suspect(run, before)
    run.warnings += [*_sums_warnings(run, failures), *_queue_warnings(run, pending), *_comparison(run, before)]
    if withheld:
        run.warnings.append({"code": "delisting_withheld", "detail": "It saw so much less: nothing was delisted."})
    if run.complete and not withheld and not (late and _has_successor(run)):
        run.delisted += _delist(run, {page_key(run.shop, url, "") for url, _ in failures}, turn)
    run.save()


def _has_successor(run: CrawlRun) -> bool:
    """Whether a newer run tells more about what is in the shop now."""
    return CrawlRun.objects.filter(shop=run.shop, kind=run.kind, pk__gt=run.pk).exists()


def _seen_by(run: CrawlRun) -> QuerySet[Book]:
    return Book.objects.filter(Exists(Sighting.objects.filter(run=run, book=OuterRef("pk"))), shop=run.shop)


def _delist(run: CrawlRun, failed: Collection[int], turn: Writing) -> int:
    """How many books are listed no more."""
    gone = _not_seen(run, failed)
    books = Book.objects.filter(pk__among=gone)
    for pk in books.visible().order_by("pk").values_list("pk", flat=True):
        turn.change(pk, Change.Kind.DELISTED)
    books.update(listed=False, updated_at=turn.at)
    return len(gone)


def _not_seen(run: CrawlRun, failed: Collection[int]) -> set[int]:
    """Listed books of the shop that neither this run nor a later visit saw, and whose page did not just fail.

    A book lives on in the UPCs that were merged into it: while one of them is seen, it has not left.
    """
    seen = Q(run=run) | Q(scraped_at__gte=run.started_at)
    rows = (
        Book.objects.filter(shop=run.shop, listed=True)
        .exclude(Exists(Sighting.objects.filter(seen, book=OuterRef("pk"))))
        .values_list("pk", "upc", "source__page")
    )
    unread = {*run.rejections.values_list("page", flat=True), *failed, *unsettled_pages(run.pk)}
    unclear = set(run.rejections.values_list("upc", flat=True))
    gone = {pk for pk, upc, page in rows if page not in unread and upc not in unclear}
    merged = dict(Book.objects.filter(merged_into__isnull=False).values_list("pk", "merged_into"))
    listed = set(Book.objects.filter(merged_into__isnull=False, listed=True).values_list("pk", flat=True))
    for alias in listed - gone:
        survivor: int | None = merged[alias]
        while survivor in gone:
            gone.discard(survivor)
            survivor = merged.get(survivor)
    return gone


def _measure(run: CrawlRun) -> None:
    """Coverage of the seen books, and their mean price. One query for the books, one for the rejected items."""
    counts: dict[str, Any] = _seen_by(run).aggregate(
        n=Count("pk"), mean=Avg("price"), **{f"n_{name}": Count("pk", filter=has) for name, has in COVERAGE.items()}
    )
    have = {name: counts[f"n_{name}"] for name in COVERAGE}
    rejected = 0
    for kept, errors in run.rejections.exclude(state=RejectedItem.State.RETRIED).values_list("raw", "errors"):
        rejected += 1
        raw = restored(kept)
        wrong = {error["field"] for error in errors}
        for name in COVERAGE:
            have[name] += bool(raw.get(name)) and name not in wrong
    total = counts["n"] + rejected
    run.coverage = {name: round(n / total, 4) for name, n in have.items()} if total else {}
    run.price_mean = None if counts["mean"] is None else round(Decimal(counts["mean"]), 4)


def _sums_warnings(run: CrawlRun, failures: list[tuple[str, str]]) -> list[dict[str, str]]:
    found = []
    lists = sum(kind == FailedPage.Kind.LISTING for _, kind in failures)
    if lists:
        found.append({"code": "list_pages_failed", "detail": f"{lists} list pages could not be read."})
    if run.state == CrawlRun.State.FINISHED and not run.filters and not run.complete:
        announced = "an unknown number of" if run.announced is None else run.announced
        found.append(
            {
                "code": "sums_do_not_hold",
                "detail": f"The shop announced {announced} books; {run.seen} were seen, {run.failed_pages} failed.",
            }
        )
    return found


def _queue_sums_hold(run: CrawlRun, pending: int) -> bool:
    return not run.published or run.published == run.seen + pending


def _queue_warnings(run: CrawlRun, pending: int) -> list[dict[str, str]]:
    found = []
    if pending and run.state == CrawlRun.State.FINISHED:
        detail = f"{pending} of the books that it read have not come out of the queue."
        found.append({"code": "not_settled", "detail": detail})
    if run.dead:
        found.append({"code": "dead", "detail": f"The queue gave up {run.dead} books: see the dead letters."})
    if not _queue_sums_hold(run, pending):
        detail = f"{run.published} books were published; {run.seen} were seen, {pending} are on their way."
        found.append({"code": "queue_sums_do_not_hold", "detail": detail})
    return found


def _comparison(run: CrawlRun, before: CrawlRun | None) -> list[dict[str, str]]:
    """What got worse since the last complete run."""
    if before is None or not run.complete:
        return []
    found = []
    for name, share in before.coverage.items():
        now = run.coverage.get(name, 0.0)
        if now < share - COVERAGE_FELL:
            found.append({"code": "coverage_fell", "detail": f"{name}: {now:.1%} of the books, {share:.1%} before."})
    if run.seen < (1 - BOOKS_FELL) * before.seen:
        found.append({"code": "books_fell", "detail": f"{run.seen} books were seen, {before.seen} before."})
    if run.price_mean and before.price_mean:
        jump = run.price_mean / before.price_mean - 1
        if abs(jump) > PRICES_JUMPED:
            detail = f"The mean price is {run.price_mean:.2f}, {before.price_mean:.2f} before."
            found.append({"code": "prices_jumped", "detail": detail})
    return found


def _is_suspect(run: CrawlRun, before: CrawlRun | None) -> bool:
    """Whether it saw much less than the run before it; than the catalogue, where there is none."""
    known = before.seen if before is not None else Book.objects.filter(shop=run.shop, listed=True).count()
    return run.seen < settings.DELIST_MIN_SHARE * known
