"""`ingest`: a batch of what was read becomes rows; once, in any order, under any number of workers.

Cleaning happens before the lock. Under the lock the current rows are read, compared in Python, and only what differs
is written. An `ON CONFLICT ... WHERE newer AND differs` could not do this: an unchanged row would keep its old time and
let an older record in, and the database could not tell "unchanged" from "stale".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from django.db.models import F, Max, OuterRef, Subquery
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from catalog.cleaning import CLEANER_VERSION, clean
from catalog.ingest.applying import Shelves, apply_record, new_book, observation
from catalog.ingest.errors import UnknownRun
from catalog.models import Book, BookSource, Change, CrawlRun, PriceObservation, RejectedItem, Sighting
from catalog.records import (
    BookRecord,
    FieldError,
    IngestCounts,
    RejectedRecord,
    RevisitedBook,
    ScrapedBook,
    fingerprint,
    page_key,
)
from catalog.revision import Writing, writing

#: Records a transaction: enough to spread its cost, few enough for SQLite's limit of variables and a short lock.
BATCH = 400


def ingest(batch: Iterable[ScrapedBook | RevisitedBook], run_id: int) -> IngestCounts:
    """What became of each record of the batch. Idempotent and order-proof; a record delivered again is a duplicate.

    A batch beyond `BATCH` records becomes several transactions. About ten queries a transaction, six when nothing
    has changed.

    Raises:
        UnknownRun: there is no such run.
        ValueError: a record of another shop than the run's.
    """
    shop = CrawlRun.objects.filter(pk=run_id).values_list("shop", flat=True).first()
    if shop is None:
        raise UnknownRun
    total = IngestCounts()
    records = iter(batch)
    while chunk := list(islice(records, BATCH)):
        visits = _visits(chunk, shop)
        _clean_what_is_new(visits, shop)
        with writing() as turn:
            total += _Batch(run_id, shop, turn).take(visits)
    return total


@dataclass(slots=True)
class _Visit:
    """One record on its way through `ingest`."""

    scraped: ScrapedBook | None  # None: the page answered 304
    upc: str
    page: int
    scraped_at: datetime
    fingerprint: int | None
    record: BookRecord | None = None
    errors: list[FieldError] = field(default_factory=list)

    def clean(self) -> None:
        """Fill `record` and the clean UPC, or `errors`."""
        if self.scraped is None or self.record is not None or self.errors:
            return
        try:
            self.record = clean(self.scraped)
            self.upc = self.record.upc
        except RejectedRecord as rejected:
            self.errors = rejected.errors


def _visits(batch: Sequence[ScrapedBook | RevisitedBook], shop: str) -> list[_Visit]:
    """The batch in the order of its times, so that several records of one book end at the latest."""
    if other := next((r.shop for r in batch if r.shop != shop), None):
        raise ValueError(f"A record of {other!r} was handed to a run of {shop!r}.")
    visits = [
        _Visit(
            scraped=r if isinstance(r, ScrapedBook) else None,
            upc=r.upc.strip(),
            page=page_key(shop, r.source_url, r.upc),
            scraped_at=r.scraped_at,
            fingerprint=fingerprint(r) if isinstance(r, ScrapedBook) else None,
        )
        for r in batch
    ]
    visits.sort(key=lambda v: (v.scraped_at, v.fingerprint or 0))
    return visits


def _clean_what_is_new(visits: list[_Visit], shop: str) -> None:
    """Clean outside of the lock whatever is not known to be unchanged. One query."""
    known = set(
        BookSource.objects.filter(
            book__shop=shop, book__upc__in=[v.upc for v in visits], cleaner_version=CLEANER_VERSION
        ).values_list("book__upc", "fingerprint")
    )
    for visit in visits:
        if (visit.upc, visit.fingerprint) not in known:
            visit.clean()


@dataclass(slots=True)
class _Known:
    """What is known of a book when its visit is judged."""

    id: int | None  # None: made in this batch
    book: Book | None  # the whole row, where it may have to be written
    listed: bool
    fingerprint: int
    at: datetime  # of the latest visit, whether or not it found something new
    etag: str
    current: bool  # made by this version of the cleaner

    def is_newer_than(self, visit: _Visit) -> bool:
        """Whether the visit comes too late. Equal times are decided by content, so that every order ends alike."""
        if visit.fingerprint is None or visit.fingerprint == self.fingerprint:
            return visit.scraped_at < self.at
        return (visit.scraped_at, visit.fingerprint) < (self.at, self.fingerprint)


class _Batch:
    """One transaction's worth of visits: judged one by one, written together."""

    def __init__(self, run_id: int, shop: str, turn: Writing) -> None:
        self.run_id = run_id
        self.shop = shop
        self.turn = turn
        self.counts = IngestCounts()
        self.shelves = Shelves()
        self.known: dict[str, _Known] = {}
        self.created: dict[str, Book] = {}
        self.changed: dict[int, Book] = {}
        self.updates: list[tuple[Book, Change.Kind, dict[str, dict[str, object]]]] = []
        self.sources: dict[str, BookSource] = {}
        self.sightings: list[Sighting] = []
        self.observations: list[PriceObservation] = []
        self.rejections: list[RejectedItem] = []

    def take(self, visits: list[_Visit]) -> IngestCounts:
        self._load(visits)
        done = self._pages_done(visits)
        for visit in visits:
            if (visit.page, visit.scraped_at) in done:
                self.counts.duplicates += 1
            else:
                done.add((visit.page, visit.scraped_at))
                self._judge(visit)
        self._write()
        return self.counts

    def _load(self, visits: list[_Visit]) -> None:
        """Read the current state of the visited books: a narrow row each, and the whole row where something differs."""
        latest = (
            Sighting.objects.filter(book=OuterRef("pk"))
            .order_by()
            .values("book")
            .annotate(latest=Max("scraped_at"))
            .values("latest")
        )
        rows = Book.objects.filter(shop=self.shop, upc__in={v.upc for v in visits}).values_list(
            "id",
            "upc",
            "listed",
            "source__fingerprint",
            Greatest("source__scraped_at", Coalesce(Subquery(latest), "source__scraped_at")),
            "source__etag",
            "source__cleaner_version",
        )
        for pk, upc, listed, known_print, at, etag, version in rows:
            self.known[upc] = _Known(pk, None, listed, known_print, at, etag, version == CLEANER_VERSION)
        differing = {
            known.id
            for visit in visits
            if (known := self.known.get(visit.upc)) and not self._finds_the_same(visit, known)
        }
        for book in Book.objects.filter(pk__in=differing).select_related("category", "source"):
            self.known[book.upc].book = book

    @staticmethod
    def _finds_the_same(visit: _Visit, known: _Known) -> bool:
        same = visit.fingerprint is None or visit.fingerprint == known.fingerprint
        return same and known.listed and known.current

    def _pages_done(self, visits: list[_Visit]) -> set[tuple[int, datetime]]:
        """Visits of this run that were counted before: delivered twice by a queue, or read again after a crash."""
        pages = [v.page for v in visits]
        done = set(Sighting.objects.filter(run=self.run_id, page__in=pages).values_list("page", "scraped_at"))
        if any(v.errors for v in visits):
            done |= set(RejectedItem.objects.filter(run=self.run_id, page__in=pages).values_list("page", "scraped_at"))
        return done

    def _judge(self, visit: _Visit) -> None:
        known = self.known.get(visit.upc)
        if visit.errors:
            self._reject(visit)
        elif known is None:
            self._create(visit)
        else:
            self._revisit(visit, known)

    def _create(self, visit: _Visit) -> None:
        visit.clean()  # already done, unless the book went away between the two reads
        if visit.scraped is None:
            visit.errors = [
                FieldError("upc", "unknown", "The page has not changed, but the catalogue has no such book.")
            ]
        if visit.record is None:
            self._reject(visit)
            return
        book = new_book(visit.record, self.shop, self.shelves, self.turn.at)
        self.created[book.upc] = book
        self.known[book.upc] = _Known(None, book, True, 0, visit.scraped_at, "", current=True)
        self.counts.created += 1
        self.observations.append(observation(book, visit.scraped_at))
        self._remember(visit, self.known[book.upc], book)

    def _revisit(self, visit: _Visit, known: _Known) -> None:
        if known.is_newer_than(visit):
            self.counts.stale += 1
            self._sight(visit, known)
            return
        if self._finds_the_same(visit, known):
            self.counts.unchanged += 1
            if visit.scraped is not None and visit.scraped.etag != known.etag:
                self._remember(visit, known, known.book or Book(pk=known.id))
            else:
                known.at = visit.scraped_at
                self._sight(visit, known)
            return
        self._apply(visit, known)

    def _apply(self, visit: _Visit, known: _Known) -> None:
        """Write what a visit found that differs, or what an older cleaner made of the same."""
        book = known.book or self._fetch(visit.upc, known)
        if visit.scraped is None:
            visit.scraped = _as_scraped(book, visit.scraped_at)
            visit.fingerprint = known.fingerprint
        visit.clean()
        if visit.record is None:
            self._reject(visit)
            return
        before = (book.price, book.stock, book.rating)
        fields, touched = apply_record(book, visit.record, self.shelves)
        relisted = not book.listed
        book.listed = True
        known.listed = True
        known.current = True
        if fields or relisted:
            self.counts.updated += 1
            if book.pk is not None:
                self.updates.append((book, Change.Kind.RELISTED if relisted else Change.Kind.UPDATED, fields))
            book.updated_at = self.turn.at
        else:
            self.counts.unchanged += 1
        if (fields or relisted or touched) and book.pk is not None:
            self.changed[book.pk] = book
        if (book.price, book.stock, book.rating) != before:
            self.observations.append(observation(book, visit.scraped_at))
        self._remember(visit, known, book)

    def _fetch(self, upc: str, known: _Known) -> Book:
        known.book = Book.objects.select_related("category", "source").get(pk=known.id)
        return known.book

    def _remember(self, visit: _Visit, known: _Known, book: Book) -> None:
        """Keep the record as the book's source, for the next comparison, and note the sighting."""
        assert visit.scraped is not None and visit.fingerprint is not None  # noqa: S101, PT018 - for the type checker
        known.fingerprint, known.at, known.etag = visit.fingerprint, visit.scraped_at, visit.scraped.etag
        self.sources[visit.upc] = BookSource(
            book=book,
            fingerprint=visit.fingerprint,
            page=visit.page,
            scraped_at=visit.scraped_at,
            cleaner_version=CLEANER_VERSION,
            parser_version=visit.scraped.parser_version,
            etag=visit.scraped.etag[:200],
            raw=visit.scraped.raw_fields(),
        )
        self._sight(visit, known)

    def _sight(self, visit: _Visit, known: _Known) -> None:
        sighting = Sighting(
            run_id=self.run_id,
            page=visit.page,
            scraped_at=visit.scraped_at,
            fingerprint=known.fingerprint if visit.fingerprint is None else visit.fingerprint,
        )
        if known.id is None:
            sighting.book = self.created[visit.upc]
        else:
            sighting.book_id = known.id
        self.sightings.append(sighting)

    def _reject(self, visit: _Visit) -> None:
        self.counts.rejected += 1
        scraped = visit.scraped
        self.rejections.append(
            RejectedItem(
                run_id=self.run_id,
                reference=((scraped.source_url if scraped else "") or f"UPC {visit.upc}")[:500],
                page=visit.page,
                upc=visit.upc[:200],
                raw=scraped.to_json() if scraped else {},
                errors=[{"field": e.field, "code": e.code, "detail": e.detail} for e in visit.errors],
                scraped_at=visit.scraped_at,
            )
        )

    def _write(self) -> None:
        if self.created:
            Book.objects.bulk_create(self.created.values())
            for book in self.created.values():
                self.turn.change(book.pk, Change.Kind.CREATED)
        if self.changed:
            _upsert(Book, list(self.changed.values()), key="id")
        for book, kind, fields in self.updates:
            if book.visible:
                self.turn.change(book.pk, kind, fields)
        if self.sources:
            _upsert(BookSource, list(self.sources.values()), key="book")
        for model, rows in (
            (PriceObservation, self.observations),
            (Sighting, self.sightings),
            (RejectedItem, self.rejections),
        ):
            if rows:
                model.objects.bulk_create(rows)  # type: ignore[attr-defined]
        c = self.counts
        CrawlRun.objects.filter(pk=self.run_id).update(
            created=F("created") + c.created,
            updated=F("updated") + c.updated,
            unchanged=F("unchanged") + c.unchanged,
            stale=F("stale") + c.stale,
            rejected=F("rejected") + c.rejected,
            seen=F("seen") + c.seen,
            heartbeat_at=timezone.now(),
        )


def _upsert(model: type[Book] | type[BookSource], rows: list, key: str) -> None:  # type: ignore[type-arg]
    """Write whole rows that may be there already: one statement where `bulk_update` would need a CASE per value."""
    columns = [f.name for f in model._meta.concrete_fields if not f.primary_key]
    model.objects.bulk_create(rows, update_conflicts=True, unique_fields=[key], update_fields=columns)


def _as_scraped(book: Book, scraped_at: datetime) -> ScrapedBook:
    """The record that the book was last written from, as if the page had been read again."""
    source = book.source
    return ScrapedBook.from_json(
        {
            **source.raw,
            "shop": book.shop,
            "scraped_at": scraped_at.isoformat(),
            "etag": source.etag,
            "parser_version": source.parser_version,
        }
    )
