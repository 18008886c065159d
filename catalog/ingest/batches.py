"""`ingest`: a batch of what was read becomes rows; once, in any order, under any number of workers.

Cleaning happens before the lock. Under the lock the current rows are read, compared in Python, and only what differs
is written. An `ON CONFLICT ... WHERE newer AND differs` could not do this: an unchanged row would keep its old time and
let an older record in, and the database could not tell "unchanged" from "stale".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from operator import attrgetter

from django.db.models import DateTimeField, F, Max, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from catalog.bulk import Row, write_rows
from catalog.cleaning import CLEANER_VERSION
from catalog.ingest.applying import Differences, Shelves, apply_record, new_book
from catalog.ingest.errors import UnknownRun
from catalog.ingest.raw import restored, storable
from catalog.ingest.visits import Fate, Visit, clean_what_is_new
from catalog.models import Book, BookSource, Change, CrawlRun, PriceObservation, RejectedItem, Sighting
from catalog.records import FieldError, IngestCounts, Read, ScrapedBook
from catalog.revision import Writing, writing
from catalog.text import printable

#: Records a transaction: enough to spread its cost, few enough to hold the lock for a fraction of a second.
BATCH = 1000
#: An ETag beyond this is not kept, and its page is read in full each time: half an ETag matches nothing.
ETAG_MAX = 200

_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)
_SIGHTING = ("run_id", "book_id", "page", "scraped_at", "fingerprint")
_OBSERVATION = ("book_id", "at", "price", "stock", "rating")
_SOURCE = ("book_id", "fingerprint", "page", "scraped_at", "cleaner_version", "parser_version", "etag", "raw")
_BOOK = tuple(f.attname for f in Book._meta.concrete_fields)
_book_row = attrgetter(*_BOOK)


def ingest(batch: Iterable[Read], run_id: int) -> IngestCounts:
    """What became of each record of the batch. Idempotent and order-proof; a record delivered again is a duplicate.

    A batch beyond `BATCH` records becomes several transactions. About twelve queries a transaction, seven when
    nothing has changed, and some for each category that is new.

    Raises:
        UnknownRun: there is no such run.
        ValueError: a record of another shop than the run's, or one whose time is not aware.
    """
    total = IngestCounts()
    records = iter(batch)
    while chunk := list(islice(records, BATCH)):
        total += counts(take(chunk, run_id))
    return total


def take(batch: Sequence[Read], run_id: int, references: Sequence[str] | None = None) -> list[Visit]:
    """The records of one transaction, in their order, each with its fate: what `ingest` does with every `BATCH`.

    `references` tell where the records stand; a rejected one is kept with it. Raises what `ingest` raises.
    """
    shop, visits = prepare(batch, run_id, references)
    with writing() as turn:
        write(visits, run_id, shop, turn)
    return visits


def prepare(batch: Sequence[Read], run_id: int, references: Sequence[str] | None = None) -> tuple[str, list[Visit]]:
    """The run's shop and the visits, clean where that is needed: what `take` does before it takes the lock."""
    shop = CrawlRun.objects.filter(pk=run_id).values_list("shop", flat=True).first()
    if shop is None:
        raise UnknownRun(f"There is no run {run_id}.")
    if other := next((r.shop for r in batch if r.shop != shop), None):
        raise ValueError(f"A record of {other!r} was handed to a run of {shop!r}.")
    visits = [Visit.of(read) for read in batch]
    for visit, reference in zip(visits, references or (), strict=False):
        visit.reference = reference
    clean_what_is_new(visits)
    return shop, visits


def write(visits: Sequence[Visit], run_id: int, shop: str, turn: Writing) -> IngestCounts:
    """What became of prepared visits, now that it is their turn."""
    _Batch(run_id, shop, turn).take(visits)
    return counts(visits)


def counts(visits: Iterable[Visit]) -> IngestCounts:
    return IngestCounts(**Counter(str(visit.fate) for visit in visits if visit.fate))


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of a book when its visit is judged."""

    id: int  # 0 until the book is inserted
    listed: bool
    fingerprint: int | None  # None: no record of it was ever read
    at: datetime  # of the latest visit, whether or not it found something new
    etag: str
    parser_version: int
    current: bool  # made by this version of the cleaner
    book: Book | None = None  # the whole row, where it may have to be written

    def is_newer_than(self, visit: Visit) -> bool:
        """Whether the visit comes too late. Equal times are decided by content, so that every order ends alike."""
        if visit.scraped_at != self.at or visit.fingerprint is None or self.fingerprint is None:
            return visit.scraped_at < self.at
        return visit.fingerprint < self.fingerprint

    def finds_the_same(self, visit: Visit) -> bool:
        same = visit.fingerprint is None or visit.fingerprint == self.fingerprint
        return same and self.listed and self.current


class _Batch:
    """One transaction's worth of visits: judged one by one, written together."""

    def __init__(self, run_id: int, shop: str, turn: Writing) -> None:
        self.run_id = run_id
        self.shop = shop
        self.turn = turn
        self.shelves = Shelves()
        self.known: dict[str, _Known] = {}
        self.created: dict[str, _Known] = {}
        self.changed: dict[int, Book] = {}
        self.published: list[tuple[Book, Change.Kind, Differences]] = []
        self.sources: dict[str, tuple[_Known, Visit, ScrapedBook]] = {}
        self.sightings: list[tuple[_Known, Visit]] = []
        self.observations: list[tuple[_Known, Row]] = []
        self.rejections: list[RejectedItem] = []

    def take(self, visits: Sequence[Visit]) -> None:
        """Judge the visits in the order of their times, so that several of one book end at the latest; then write."""
        self._load(visits)
        done = self._visits_done(visits)
        for visit in sorted(visits, key=lambda v: v.scraped_at):
            if (visit.page, visit.scraped_at) in done:
                visit.fate = "duplicates"
            else:
                done.add((visit.page, visit.scraped_at))
                visit.fate = self._judge(visit)
        self._write()
        self._count(visits)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _load(self, visits: Sequence[Visit]) -> None:
        """Read the current state of the visited books: a narrow row each, and the whole row where something differs."""
        latest = Sighting.objects.filter(book=OuterRef("pk")).order_by("-scraped_at").values("scraped_at")[:1]
        never = Value(_LONG_AGO, DateTimeField())
        books = Book.objects.filter(shop=self.shop, upc__among={v.upc for v in visits}).order_by()
        rows = books.values_list(
            "upc",
            "id",
            "listed",
            "source__fingerprint",
            Greatest(Coalesce("source__scraped_at", never), Coalesce(Subquery(latest), never)),
            "source__etag",
            "source__parser_version",
            "source__cleaner_version",
        )
        for upc, pk, listed, fingerprint, at, etag, parser, cleaner in rows:
            self.known[upc] = _Known(pk, listed, fingerprint, at, etag, parser, cleaner == CLEANER_VERSION)
        differing = {known.id for v in visits if (known := self.known.get(v.upc)) and not known.finds_the_same(v)}
        if differing:
            for book in Book.objects.filter(pk__among=differing).select_related("category", "source"):
                self.known[book.upc].book = book
        names = {v.record.category for v in visits if v.record is not None}
        if names:
            self.shelves.find(names)

    def _visits_done(self, visits: Sequence[Visit]) -> set[tuple[int, datetime]]:
        """Visits of this run that were counted before: delivered twice by a queue, or read again after a crash."""
        here = {"run": self.run_id, "page__among": {v.page for v in visits}}
        sighted = Sighting.objects.filter(**here).values_list("page", "scraped_at")
        # A retried one was taken out of the sums, to be judged again.
        rejected = RejectedItem.objects.filter(**here).exclude(state=RejectedItem.State.RETRIED).order_by()
        return set(sighted.union(rejected.values_list("page", "scraped_at"), all=True))

    @cached_property
    def _left_at(self) -> datetime:
        """Since when unlisted books are known to have left: an older record, come late, does not bring one back."""
        runs = CrawlRun.objects.filter(shop=self.shop, delisted__gt=0)
        return runs.aggregate(at=Max("started_at"))["at"] or _LONG_AGO

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judge(self, visit: Visit) -> Fate:
        known = self.known.get(visit.upc)
        if visit.errors:
            return self._reject(visit)
        if visit.scraped is None and (known is None or known.fingerprint is None):
            visit.errors = [FieldError("upc", "unknown", "The page has not changed, but the catalogue has no record.")]
            return self._reject(visit)
        if known is None:
            return self._create(visit)
        if known.is_newer_than(visit):
            self.sightings.append((known, visit))
            return "stale"
        if known.finds_the_same(visit):
            return self._confirm(visit, known)
        return self._apply(visit, known)

    def _create(self, visit: Visit) -> Fate:
        visit.clean()  # already done, unless the book went away between the two reads
        if visit.record is None:
            return self._reject(visit)
        known = _Known(0, True, None, visit.scraped_at, "", 0, current=True)
        known.book = new_book(visit.record, self.shop, self.shelves, self.turn.at)
        self.known[visit.upc] = self.created[visit.upc] = known
        self._observe(known, known.book, visit)
        self._remember(visit, known)
        return "created"

    def _confirm(self, visit: Visit, known: _Known) -> Fate:
        """Note a visit that found nothing new about the book, though perhaps about its page."""
        scraped = visit.scraped
        if scraped and (_kept_etag(scraped), scraped.parser_version) != (known.etag, known.parser_version):
            self._remember(visit, known)
        else:
            known.at = visit.scraped_at
            self.sightings.append((known, visit))
        return "unchanged"

    def _apply(self, visit: Visit, known: _Known) -> Fate:
        """Take over what a visit found that differs, or what an older cleaner made of the same."""
        book = known.book
        assert book is not None  # noqa: S101 - `_load` read it: the visit differed then as well
        if visit.scraped is None:
            visit.scraped, visit.fingerprint = _as_scraped(book, visit), known.fingerprint
        visit.clean()
        if visit.record is None:
            return self._reject(visit)
        before = (book.price, book.stock, book.rating)
        fields, kept_aside = apply_record(book, visit.record, self.shelves)
        relisted = not book.listed and visit.scraped_at >= self._left_at
        if relisted:
            book.listed = known.listed = True
        if fields or relisted:
            book.updated_at = self.turn.at
            self.published.append((book, Change.Kind.RELISTED if relisted else Change.Kind.UPDATED, fields))
        if (fields or relisted or kept_aside) and known.id:
            self.changed[known.id] = book
        if (book.price, book.stock, book.rating) != before:
            self._observe(known, book, visit)
        known.current = True
        self._remember(visit, known)
        return "updated" if fields or relisted else "unchanged"

    def _observe(self, known: _Known, book: Book, visit: Visit) -> None:
        self.observations.append((known, (visit.scraped_at, book.price, book.stock, book.rating)))

    def _remember(self, visit: Visit, known: _Known) -> None:
        """Keep the record as the book's source, for the next comparison, and note the sighting."""
        scraped = visit.scraped
        assert scraped is not None  # noqa: S101 - only a record is remembered
        known.fingerprint, known.at = visit.fingerprint, visit.scraped_at
        known.etag, known.parser_version = _kept_etag(scraped), scraped.parser_version
        self.sources[visit.upc] = (known, visit, scraped)
        self.sightings.append((known, visit))

    def _reject(self, visit: Visit) -> Fate:
        scraped = visit.scraped
        raw = {"shop": self.shop, "upc": visit.upc, "source_url": visit.url, "scraped_at": visit.scraped_at.isoformat()}
        self.rejections.append(
            RejectedItem(
                run_id=self.run_id,
                reference=printable(visit.reference or visit.url or f"UPC {visit.upc}")[:500],
                page=visit.page,
                upc=visit.upc[:200],
                raw=storable(scraped.to_json() if scraped else raw),
                errors=[{"field": e.field, "code": e.code, "detail": printable(e.detail)} for e in visit.errors],
                scraped_at=visit.scraped_at,
            )
        )
        return "rejected"

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        self._insert_created()
        write_rows(Book, _BOOK, map(_book_row, self.changed.values()), key="id")
        for book, kind, fields in self.published:
            if book.visible and book.upc not in self.created:
                self.turn.change(book.pk, kind, fields)
        self._relist_survivors()
        self._keep_sources()
        write_rows(PriceObservation, _OBSERVATION, [(known.id, *seen) for known, seen in self.observations])
        write_rows(
            Sighting,
            _SIGHTING,
            [
                (self.run_id, k.id, v.page, v.scraped_at, k.fingerprint if v.fingerprint is None else v.fingerprint)
                for k, v in self.sightings
            ],
        )
        if self.rejections:
            RejectedItem.objects.bulk_create(self.rejections)

    def _insert_created(self) -> None:
        if not self.created:
            return
        write_rows(Book, _BOOK[1:], [_book_row(known.book)[1:] for known in self.created.values()])
        ids = Book.objects.filter(shop=self.shop, upc__among=self.created).order_by().values_list("upc", "id")
        for upc, pk in ids:
            self.created[upc].id = pk
            self.turn.change(pk, Change.Kind.CREATED)

    def _keep_sources(self) -> None:
        """A created book has no source yet: what needs no comparison is written faster."""
        first = [_source_row(*source) for upc, source in self.sources.items() if upc in self.created]
        later = [_source_row(*source) for upc, source in self.sources.items() if upc not in self.created]
        write_rows(BookSource, _SOURCE, first)
        write_rows(BookSource, _SOURCE, later, key="book_id")

    def _relist_survivors(self) -> None:
        """A UPC that was merged away is its survivor's: seen again, it brings the survivor back."""
        merged = [b.merged_into_id for b, kind, _ in self.published if kind == Change.Kind.RELISTED]
        while survivors := [pk for pk in merged if pk is not None]:
            unlisted = Book.objects.filter(pk__among=survivors, listed=False)
            for pk in unlisted.visible().values_list("pk", flat=True):
                self.turn.change(pk, Change.Kind.RELISTED)
            unlisted.update(listed=True, updated_at=self.turn.at)
            merged = list(Book.objects.filter(pk__among=survivors).values_list("merged_into_id", flat=True))

    def _count(self, visits: Sequence[Visit]) -> None:
        fates = Counter(visit.fate for visit in visits)
        duplicates = fates.pop("duplicates", 0)
        CrawlRun.objects.filter(pk=self.run_id).update(
            **{fate: F(fate) + n for fate, n in fates.items() if fate},
            seen=F("seen") + len(visits) - duplicates,
            heartbeat_at=timezone.now(),
        )


def _source_row(known: _Known, visit: Visit, scraped: ScrapedBook) -> Row:
    return (
        known.id,
        visit.fingerprint,
        visit.page,
        visit.scraped_at,
        CLEANER_VERSION,
        scraped.parser_version,
        _kept_etag(scraped),
        storable(scraped.raw_fields()),
    )


def _kept_etag(scraped: ScrapedBook) -> str:
    return scraped.etag if len(scraped.etag) <= ETAG_MAX and scraped.etag.isprintable() else ""


def _as_scraped(book: Book, visit: Visit) -> ScrapedBook:
    """The record that the book was last written from, as if the page had been read again."""
    source = book.source
    return ScrapedBook.from_json(
        {
            **restored(source.raw),
            "shop": book.shop,
            "scraped_at": visit.scraped_at.isoformat(),
            "etag": source.etag,
            "parser_version": source.parser_version,
        }
    )
