"""One record on its way through ingest: what was read, what cleaning made of it, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from catalog.cleaning import CLEANER_VERSION, clean
from catalog.models import BookSource
from catalog.records import BookRecord, FieldError, RejectedRecord, RevisitedBook, ScrapedBook, fingerprint, page_key
from catalog.text import printable

#: What can become of a record: the fields of IngestCounts.
Fate = Literal["created", "updated", "unchanged", "stale", "rejected", "duplicates"]


@dataclass(slots=True)
class Visit:
    """One record, or one page that answered 304."""

    scraped: ScrapedBook | None  # None: the page answered 304
    upc: str  # as it was read, until it is clean
    url: str
    page: int
    scraped_at: datetime
    fingerprint: int | None  # None: the page answered 304
    record: BookRecord | None = None
    errors: Sequence[FieldError] = ()
    reference: str = ""  # where the record stands, FILE:LINE
    fate: Fate | None = None

    @classmethod
    def of(cls, read: ScrapedBook | RevisitedBook) -> Visit:
        """Raises ValueError when the time of the record is not aware."""
        if read.scraped_at.utcoffset() is None:
            raise ValueError(f"The time of {read.source_url or read.upc} has no offset from UTC.")
        scraped = read if isinstance(read, ScrapedBook) else None
        return cls(
            scraped,
            printable(read.upc.strip()),
            read.source_url,
            page_key(read.shop, read.source_url, read.upc),
            read.scraped_at,
            None if scraped is None else fingerprint(scraped),
        )

    def clean(self) -> None:
        """Fill `record` and the clean UPC, or `errors`. What is clean already stays."""
        if self.scraped is None or self.record is not None or self.errors:
            return
        try:
            self.record = clean(self.scraped)
            self.upc = self.record.upc
        except RejectedRecord as rejected:
            self.errors = rejected.errors


def clean_what_is_new(visits: Sequence[Visit]) -> None:
    """Clean whatever is not known to be unchanged: done before the lock is taken. One query."""
    sources = BookSource.objects.filter(page__among={v.page for v in visits}, cleaner_version=CLEANER_VERSION)
    known = set(sources.values_list("page", "fingerprint"))
    for visit in visits:
        # A UPC beyond ASCII may be spelled in several ways: its clean form finds the book.
        if (visit.page, visit.fingerprint) not in known or not visit.upc.isascii():
            visit.clean()
