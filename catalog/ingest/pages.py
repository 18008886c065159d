"""What a run knows of pages: which it has read, which the catalogue knows, which gave no record."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from django.db.models import F

from catalog.models import BookSource, CrawlRun, FailedPage, RejectedItem, Sighting
from catalog.records import page_key
from catalog.revision import writing
from catalog.text import printable


@dataclass(frozen=True, slots=True)
class KnownPage:
    """What the catalogue knows of the page of a book."""

    upc: str = ""  # "" where the page gave no book so far
    etag: str = ""
    parser_version: int = 0
    read: bool = False  # read in this run already, so that a resumed run need not read it again


def known_pages(
    run_id: int, shop: str, urls: Collection[str], unsettled: Set[int] = frozenset()
) -> dict[str, KnownPage]:
    """What is known of the pages at `urls`; unknown ones are left out. Three queries.

    `unsettled` are the hashes of pages that this run has read and the queue still holds: see `unsettled_pages`.
    """
    by_key = {page_key(shop, url, ""): url for url in urls}
    read = by_key.keys() & unsettled
    read |= set(Sighting.objects.filter(run=run_id, page__among=by_key).values_list("page", flat=True))
    read |= set(RejectedItem.objects.filter(run=run_id, page__among=by_key).values_list("page", flat=True))
    found = {by_key[key]: KnownPage(read=True) for key in read}
    sources = BookSource.objects.filter(page__among=by_key, book__shop=shop)
    for key, upc, etag, version in sources.values_list("page", "book__upc", "etag", "parser_version"):
        found[by_key[key]] = KnownPage(upc, etag, version, read=key in read)
    return found


@dataclass(frozen=True, slots=True)
class PageFailure:
    """A page that gave no record."""

    url: str
    kind: str  # FailedPage.Kind
    reason: str  # a stable word: "http_404", "cut_short"
    detail: str


def record_failed_pages(run_id: int, failures: Collection[PageFailure]) -> None:
    """Keep pages that gave no record, each once a run, however often it fails. One query, none for none."""
    FailedPage.objects.bulk_create(
        [
            FailedPage(
                run_id=run_id,
                url=printable(f.url)[:2000],
                kind=f.kind,
                reason=printable(f.reason)[:50],
                detail=printable(f.detail)[:500],
            )
            for f in failures
        ],
        ignore_conflicts=True,
    )


def record_rejected_line(run_id: int, reference: str, line: str, detail: str, upc: str = "") -> None:
    """Keep a line of a file that is not even a record, once a run. `upc`, where it is known, spares its book."""
    with writing() as turn:
        run = CrawlRun.objects.get(pk=run_id)
        _, is_new = RejectedItem.objects.get_or_create(
            run=run,
            page=page_key("", reference, ""),
            scraped_at=run.started_at,
            defaults={
                "reference": printable(reference)[:500],
                "upc": printable(upc)[:200],
                "raw": {"line": printable(line[:10_000])},
                "errors": [{"field": "line", "code": "invalid", "detail": printable(detail)[:200]}],
            },
        )
        if is_new:
            CrawlRun.objects.filter(pk=run_id).update(
                rejected=F("rejected") + 1, seen=F("seen") + 1, heartbeat_at=turn.at
            )
