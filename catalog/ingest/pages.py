"""What a run knows of pages: which it has read, which the catalogue knows, which gave no record."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import F
from django.utils import timezone

from catalog.models import BookSource, CrawlRun, FailedPage, RejectedItem, Sighting
from catalog.records import page_key
from catalog.revision import writing


@dataclass(frozen=True, slots=True)
class KnownPage:
    """What the catalogue knows of the page of a book."""

    upc: str = ""  # "" where the page gave no book so far
    etag: str = ""
    parser_version: int = 0
    read: bool = False  # read in this run already, so that a resumed run need not read it again


def known_pages(run_id: int, shop: str, urls: Collection[str]) -> dict[str, KnownPage]:
    """What is known of the pages at `urls`; unknown ones are left out. Three queries.

    Ask for some hundred at most: SQLite allows 999 variables.
    """
    by_key = {page_key(shop, url, ""): url for url in urls}
    read = set(Sighting.objects.filter(run=run_id, page__in=by_key).values_list("page", flat=True))
    read |= set(RejectedItem.objects.filter(run=run_id, page__in=by_key).values_list("page", flat=True))
    found = {by_key[key]: KnownPage(read=True) for key in read}
    sources = BookSource.objects.filter(page__in=by_key, book__shop=shop)
    for key, upc, etag, version in sources.values_list("page", "book__upc", "etag", "parser_version"):
        found[by_key[key]] = KnownPage(upc, etag, version, read=key in read)
    return found


def record_failed_page(run_id: int, url: str, kind: str, reason: str, detail: str = "") -> None:
    """Keep a page that gave no record, once a run, however often it fails. One query."""
    page = FailedPage(run_id=run_id, url=url[:2000], kind=kind, reason=reason[:50], detail=detail[:500])
    FailedPage.objects.bulk_create([page], ignore_conflicts=True)


def record_rejected_line(run_id: int, reference: str, line: str, detail: str) -> None:
    """Keep a line of a file that is not even a record."""
    now = timezone.now()
    with writing():
        RejectedItem.objects.create(
            run_id=run_id,
            reference=reference[:500],
            page=page_key("", reference, ""),
            raw={"line": line[:10_000]},
            errors=[{"field": "line", "code": "invalid", "detail": detail[:200]}],
            scraped_at=now,
        )
        CrawlRun.objects.filter(pk=run_id).update(rejected=F("rejected") + 1, seen=F("seen") + 1, heartbeat_at=now)
