"""The life of a run: opened under a lock, kept alive, closed with its sums."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Avg, Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from catalog.ingest.errors import NotResumable, RunUnderWay, UnknownRun
from catalog.ingest.raw import restored
from catalog.liveness import is_dead
from catalog.models import Book, Change, CrawlRun, FailedPage, RejectedItem, Sighting
from catalog.records import page_key
from catalog.revision import Writing, writing

logger = logging.getLogger(__name__)

#: A run whose process has not been heard of for this long is dead, wherever it runs.
SILENCE_S = 120
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


def start_run(
    shop: str,
    source: str,
    *,
    kind: str = CrawlRun.Kind.CRAWL,
    filters: dict[str, Any] | None = None,
    requested_by: str = "",
    resume: int | None = None,
) -> CrawlRun:
    """A new run, or with `resume` the interrupted one of that number, opened again.

    The database allows one running crawl a shop. A running one whose process is dead is closed as interrupted first.

    Raises:
        RunUnderWay: a crawl of the shop is under way.
        UnknownRun, NotResumable: `resume` names no run of this shop, or one that ended well.
    """
    _close_dead_runs(shop)
    try:
        with transaction.atomic():
            if resume is not None:
                return _reopen(resume, shop, kind)
            return CrawlRun.objects.create(
                shop=shop, source=source, kind=kind, filters=filters or {}, requested_by=requested_by
            )
    except IntegrityError:
        raise RunUnderWay(CrawlRun.objects.running().filter(shop=shop, kind=CrawlRun.Kind.CRAWL).first()) from None


def _reopen(run_id: int, shop: str, kind: str) -> CrawlRun:
    # Of two who resume it at once, one moves the state.
    ended = CrawlRun.objects.filter(pk=run_id, shop=shop, kind=kind).exclude(
        state__in=[CrawlRun.State.RUNNING, CrawlRun.State.FINISHED]
    )
    reopened = ended.update(
        state=CrawlRun.State.RUNNING, finished_at=None, heartbeat_at=timezone.now(), pid=None, host=""
    )
    run = CrawlRun.objects.filter(pk=run_id, shop=shop, kind=kind).first()
    if run is None:
        raise UnknownRun(f"There is no run {run_id} of {shop}.")
    if not reopened:
        if run.state == CrawlRun.State.RUNNING:
            raise RunUnderWay(run)
        raise NotResumable(f"Run {run_id} is finished: start a new one.")
    run.failed.all().delete()  # they are tried again
    return run


def adopt_run(run_id: int, pid: int | None = None) -> CrawlRun:
    """The run, now the process's of this number, or this one's: while the process lives, so does the run.

    Raises:
        UnknownRun: there is no such run.
        NotResumable: it has ended.
        RunUnderWay: another living process has it.
    """
    run = CrawlRun.objects.filter(pk=run_id).first()
    if run is None:
        raise UnknownRun(f"There is no run {run_id}.")
    if run.state != CrawlRun.State.RUNNING:
        raise NotResumable(f"Run {run_id} is {run.state}.")
    if run.pid is not None and not _is_dead(run):
        raise RunUnderWay(run)
    as_read = CrawlRun.objects.running().filter(pk=run_id, pid=run.pid, host=run.host)
    run.pid, run.host, run.heartbeat_at = pid or os.getpid(), socket.gethostname(), timezone.now()
    if not as_read.update(pid=run.pid, host=run.host, heartbeat_at=run.heartbeat_at):
        raise RunUnderWay(run)  # another process was faster
    return run


def heartbeat(run_id: int) -> None:
    CrawlRun.objects.filter(pk=run_id).update(heartbeat_at=timezone.now())


def announce(run_id: int, books: int) -> None:
    """Note how many books the shop says it has."""
    CrawlRun.objects.filter(pk=run_id).update(announced=books)


def _close_dead_runs(shop: str) -> None:
    for run in CrawlRun.objects.running().filter(shop=shop):
        if _is_dead(run):
            CrawlRun.objects.running().filter(pk=run.pk).update(
                state=CrawlRun.State.INTERRUPTED, finished_at=run.heartbeat_at
            )
            logger.warning("run interrupted", extra={"run_id": run.pk, "shop": shop})


def _is_dead(run: CrawlRun) -> bool:
    return is_dead(run.pid, run.host, run.heartbeat_at, SILENCE_S)


def finish_run(
    run_id: int, *, state: str = CrawlRun.State.FINISHED, warnings: Iterable[dict[str, str]] = ()
) -> CrawlRun:
    """The run, closed: its sums, coverage and warnings; and what a complete run did not see is delisted.

    A run is complete when it finished, was not filtered, and the sums hold for what the shop announced. It delists
    only if it is not itself suspect: one that saw much less than the one before delists nothing.
    """
    with writing() as turn:
        run = CrawlRun.objects.get(pk=run_id)
        if run.state == CrawlRun.State.FINISHED:
            return run
        failures = list(run.failed.values_list("url", "kind"))
        run.state = state
        run.finished_at = run.heartbeat_at = turn.at
        run.failed_pages = sum(kind == FailedPage.Kind.BOOK for _, kind in failures)
        run.complete = (
            state == CrawlRun.State.FINISHED
            and not run.filters
            and run.announced is not None
            and run.announced == run.seen + run.failed_pages
        )
        _measure(run)
        before = CrawlRun.objects.complete().filter(shop=run.shop, kind=run.kind).exclude(pk=run.pk).first()
        withheld = run.complete and _is_suspect(run, before)
        run.warnings = [*warnings, *_sums_warnings(run, failures), *_comparison(run, before)]
        if withheld:
            run.warnings.append({"code": "delisting_withheld", "detail": "It saw so much less: nothing was delisted."})
        if run.complete and not withheld:
            run.delisted = _delist(run, {page_key(run.shop, url, "") for url, _ in failures}, turn)
        run.save()
    logger.info("run ended", extra=run.log_context())
    return run


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
    unread = {*run.rejections.values_list("page", flat=True), *failed}
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
