"""What `ingest` makes of records: rows, changes, history, counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from catalog.ingest import UnknownRun, batches, finish_run, ingest, known_pages, retry_rejected, start_run, visits
from catalog.models import (
    Book,
    BookSource,
    CatalogueRevision,
    Category,
    Change,
    CrawlRun,
    PriceObservation,
    RejectedItem,
    Sighting,
)
from catalog.records import BookRecord, FieldError, IngestCounts, RejectedRecord, RevisitedBook, ScrapedBook
from catalog.revision import current_revision, writing
from tests.catalog.crawled import START, scraped
from tests.factories import unsaved_book

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> CrawlRun:
    return start_run("shop", "https://shop.example")


def changes(**lookups: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(Change.objects.filter(**lookups).values_list("kind", "fields"))


def revisit(upc: str, day: int) -> RevisitedBook:
    return RevisitedBook("shop", upc, f"https://shop.example/{upc}", START + timedelta(days=day))


# -- one record -----------------------------------------------------------------------------------------------------


def test_a_new_record_becomes_a_book_with_source_sighting_history_and_change(run: CrawlRun) -> None:
    record = scraped("a1", etag='"x"', parser_version=3)
    assert ingest([record], run.pk) == IngestCounts(created=1)
    book = Book.objects.get()
    assert (book.shop, book.upc, book.title, book.category.name) == ("shop", "a1", "A Light in the Attic", "Poetry")
    assert (book.price, book.currency, book.rating, book.stock) == (Decimal("51.77"), "GBP", 3, 22)
    assert (book.in_stock, book.listed, book.hidden, book.locked_fields, book.shop_values) == (
        True,
        True,
        False,
        [],
        {},
    )
    assert (book.title_key, book.search_key) == ("a light in the attic", "a light in the attic\npoems.")
    assert book.source.raw == {**record.raw_fields(), "authors": []}
    assert (book.source.etag, book.source.parser_version, book.source.scraped_at) == ('"x"', 3, START)
    assert list(Sighting.objects.values_list("run", "book", "scraped_at")) == [(run.pk, book.pk, START)]
    seen = PriceObservation.objects.get()
    assert (seen.book, seen.at, seen.price, seen.stock, seen.rating) == (book, START, Decimal("51.77"), 22, 3)
    assert changes() == [("created", {})]
    run.refresh_from_db()
    assert (run.created, run.seen) == (1, 1)


def test_every_text_survives_the_way_through_the_database(run: CrawlRun) -> None:
    odd = "Quotes \" ' \\ and \\N and {braces}, “Œuvre” 漢字 🙂 %s \t end"
    ingest([scraped("a1", title=odd, authors=("Zoë \\ O'Hara", '"B"'), description=odd)], run.pk)
    book = Book.objects.get()
    assert book.title == odd.replace("\t", "").replace("  ", " ")
    assert book.authors == ["Zoë \\ O'Hara", '"B"']
    assert book.source.raw["description"] == odd


def test_a_second_identical_ingest_changes_nothing_but_the_sightings(run: CrawlRun) -> None:
    ingest([scraped("a1"), scraped("a2")], run.pk)
    before = current_revision(), Change.objects.count(), list(Book.objects.values())
    again = start_run("shop", "x", kind="file")
    assert ingest([scraped("a1", day=1), scraped("a2", day=1)], again.pk) == IngestCounts(unchanged=2)
    assert (current_revision(), Change.objects.count(), list(Book.objects.values())) == before
    assert (Sighting.objects.count(), PriceObservation.objects.count()) == (4, 2)


def test_a_record_delivered_twice_is_counted_once(run: CrawlRun) -> None:
    records = [scraped("a1"), scraped("a2"), scraped("a1")]
    assert ingest(records, run.pk) == IngestCounts(created=2, duplicates=1)
    assert ingest(records, run.pk) == IngestCounts(duplicates=3)
    run.refresh_from_db()
    assert (run.seen, Sighting.objects.count()) == (2, 2)


def test_the_same_record_in_another_run_is_unchanged(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    assert ingest([scraped("a1")], start_run("shop", "x", kind="file").pk) == IngestCounts(unchanged=1)


def test_a_changed_price_is_updated_published_and_kept_in_history(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    first = Book.objects.get()
    changed = scraped("a1", day=1, price="£9.99", price_excl_tax="£9.99")
    assert ingest([changed], run.pk) == IngestCounts(updated=1)
    book = Book.objects.get()
    assert (book.pk, book.price, book.first_seen_at) == (first.pk, Decimal("9.99"), first.first_seen_at)
    assert book.updated_at > first.updated_at
    kind, fields = changes(revision=current_revision())[0]
    assert (kind, fields) == (
        "updated",
        {"price": {"old": "51.77", "new": "9.99"}, "price_excl_tax": {"old": "51.77", "new": "9.99"}},
    )
    assert [o.price for o in book.observations.all()] == [Decimal("51.77"), Decimal("9.99")]


def test_a_change_of_words_alone_makes_no_price_observation(run: CrawlRun) -> None:
    ingest([scraped("a1"), scraped("a1", day=1, title="Another", category="Fiction")], run.pk)
    book = Book.objects.select_related("category").get()
    assert (book.title, book.title_key, book.category.name) == ("Another", "another", "Fiction")
    assert book.observations.count() == 1


def test_selling_out_tells_of_in_stock_too(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    ingest([scraped("a1", day=1, availability="Out of stock")], run.pk)
    fields = changes(kind="updated")[0][1]
    assert fields["in_stock"] == {"old": True, "new": False}
    assert fields["stock"] == {"old": 22, "new": 0}


def test_a_category_that_moved_is_told_by_name_and_slug(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    ingest([scraped("a1", day=1, category="Food & Drink")], run.pk)
    assert changes(kind="updated")[0][1]["category"] == {
        "old": {"name": "Poetry", "slug": "poetry"},
        "new": {"name": "Food & Drink", "slug": "food-drink"},
    }


def test_several_records_of_one_book_in_a_batch_end_at_the_latest(run: CrawlRun) -> None:
    prices = ["£3.00", "£1.00", "£2.00"]
    records = [scraped("a1", day=d, price=p, price_excl_tax=p) for d, p in zip([3, 1, 2], prices, strict=True)]
    assert ingest(records, run.pk) == IngestCounts(created=1, updated=2)
    book = Book.objects.get()
    assert book.price == Decimal("3.00")
    assert [o.price for o in book.observations.all()] == [Decimal("1.00"), Decimal("2.00"), Decimal("3.00")]
    assert changes() == [("created", {})]


def test_a_known_book_that_changes_twice_in_a_batch_is_published_step_by_step(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    later = [scraped("a1", day=2, title="Three"), scraped("a1", day=1, title="Two")]
    assert ingest(later, run.pk) == IngestCounts(updated=2)
    steps = [fields["title"]["new"] for _, fields in changes(kind="updated")]
    assert (steps, Book.objects.get().title) == (["Two", "Three"], "Three")


def test_a_book_that_changes_there_and_back_in_a_batch_is_two_updates(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    assert ingest([scraped("a1", day=1, title="Two"), scraped("a1", day=2)], run.pk) == IngestCounts(updated=2)
    assert Book.objects.get().title == "A Light in the Attic"


def test_upcs_in_other_case_are_other_books(run: CrawlRun) -> None:
    assert ingest([scraped("abc"), scraped("ABC")], run.pk) == IngestCounts(created=2)
    assert ingest([scraped("ABC", day=1)], run.pk) == IngestCounts(unchanged=1)


def test_one_upc_in_two_shops_is_two_books(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    other = start_run("other", "https://other.example")
    assert ingest([scraped("a1", shop="other")], other.pk) == IngestCounts(created=1)


@pytest.mark.parametrize("raw", [" a1\n", "Cafe\u0301"])
def test_a_upc_is_found_however_it_is_written(run: CrawlRun, raw: str) -> None:
    page = {"source_url": "https://shop.example/page", "image_url": ""}
    assert ingest([scraped(raw, **page)], run.pk) == IngestCounts(created=1)
    assert ingest([scraped(raw, day=1, **page)], run.pk) == IngestCounts(unchanged=1)
    assert ingest([scraped(raw, day=2, title="New", **page)], run.pk) == IngestCounts(updated=1)


def test_times_of_any_zone_are_compared_as_moments(run: CrawlRun) -> None:
    ingest([scraped("a1", title="Late")], run.pk)
    east = timezone(timedelta(hours=9))
    earlier = replace(scraped("a1", title="Early"), scraped_at=(START - timedelta(hours=1)).astimezone(east))
    assert earlier.scraped_at.hour > START.hour
    assert ingest([earlier], run.pk) == IngestCounts(stale=1)
    assert ingest([replace(scraped("a1"), scraped_at=START.astimezone(east))], run.pk) == IngestCounts(duplicates=1)
    assert set(Sighting.objects.values_list("scraped_at", flat=True)) == {START, START - timedelta(hours=1)}


def test_a_time_without_zone_is_refused(run: CrawlRun) -> None:
    with pytest.raises(ValueError, match="no offset"):
        ingest([replace(scraped("a1"), scraped_at=datetime(2026, 1, 1))], run.pk)  # noqa: DTZ001 - the very point


def test_a_record_of_another_shop_is_refused(run: CrawlRun) -> None:
    with pytest.raises(ValueError, match="'other'"):
        ingest([scraped("a1"), scraped("a2", shop="other")], run.pk)
    assert not Book.objects.exists()


def test_an_unknown_run_is_refused() -> None:
    with pytest.raises(UnknownRun, match="no run 404"):
        ingest([scraped("a1")], 404)


def test_nothing_is_a_batch_too(run: CrawlRun) -> None:
    assert ingest([], run.pk) == IngestCounts()


def test_a_book_that_a_person_made_takes_the_record_over(run: CrawlRun) -> None:
    unsaved_book(shop="shop", upc="a1").save()
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(rejected=1)
    assert ingest([scraped("a1", day=2)], run.pk) == IngestCounts(updated=1)
    assert Book.objects.get().source.raw["title"] == "A Light in the Attic"


# -- order ------------------------------------------------------------------------------------------------------------


def test_an_older_record_is_stale(run: CrawlRun) -> None:
    ingest([scraped("a1", day=5)], run.pk)
    assert ingest([scraped("a1", day=1, title="Old")], run.pk) == IngestCounts(stale=1)
    assert Book.objects.get().title == "A Light in the Attic"


def test_a_record_between_two_that_say_the_same_is_stale(run: CrawlRun) -> None:
    ingest([scraped("a1", day=1)], run.pk)
    ingest([scraped("a1", day=5)], run.pk)
    assert ingest([scraped("a1", day=3, title="Between")], run.pk) == IngestCounts(stale=1)


def test_the_latest_visit_counts_even_if_its_run_is_deleted_from_the_books(run: CrawlRun) -> None:
    ingest([scraped("a1", day=1)], run.pk)
    other = start_run("shop", "x", kind="file")
    ingest([scraped("a1", day=5, title="Newest")], other.pk)
    other.delete()
    assert ingest([scraped("a1", day=3, title="Between")], run.pk) == IngestCounts(stale=1)


def test_equal_times_are_decided_by_content_in_every_order(run: CrawlRun) -> None:
    one, two = scraped("a1", title="One"), scraped("a1", title="Two", source_url="https://shop.example/other")
    ends = set()
    for number, order in enumerate([[one, two], [two, one]]):
        shop = f"shop-{number}"
        for record in order:
            ingest([replace(record, shop=shop)], start_run(shop, "x").pk if record is order[0] else _run_of(shop))
        ends.add(Book.objects.get(shop=shop).title)
    assert len(ends) == 1


def _run_of(shop: str) -> int:
    return CrawlRun.objects.get(shop=shop).pk


# -- revisits ---------------------------------------------------------------------------------------------------------


def test_a_page_that_has_not_changed_is_seen_and_unchanged(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    revision = current_revision()
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(unchanged=1)
    assert current_revision() == revision
    assert Sighting.objects.count() == 2
    assert ingest([scraped("a1", day=0, title="Older", source_url="https://shop.example/b")], run.pk).stale == 1


def test_an_unchanged_page_of_an_unknown_book_is_rejected_once(run: CrawlRun) -> None:
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(rejected=1)
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(duplicates=1)
    item = RejectedItem.objects.get()
    assert item.errors[0]["code"] == "unknown"
    assert retry_rejected([item.pk]) == IngestCounts(rejected=1)


def test_a_new_etag_or_parser_is_remembered_without_a_change(run: CrawlRun) -> None:
    ingest([scraped("a1", etag='"1"', parser_version=1)], run.pk)
    revision = current_revision()
    for day, etag, parser in [(1, '"2"', 1), (2, '"2"', 2)]:
        found = scraped("a1", day=day, etag=etag, parser_version=parser)
        assert ingest([found], run.pk) == IngestCounts(unchanged=1)
        page = known_pages(run.pk, "shop", ["https://shop.example/a1"])["https://shop.example/a1"]
        assert (page.upc, page.etag, page.parser_version, page.read) == ("a1", etag, parser, True)
    assert current_revision() == revision


def test_the_last_etag_of_a_batch_is_remembered(run: CrawlRun) -> None:
    ingest([scraped("a1", etag='"1"')], run.pk)
    ingest([scraped("a1", day=day, etag=etag) for day, etag in [(1, '"2"'), (2, '"1"')]], run.pk)
    assert BookSource.objects.get().etag == '"1"'


def test_an_endless_etag_is_not_kept(run: CrawlRun) -> None:
    ingest([scraped("a1", etag="x" * 201)], run.pk)
    with CaptureQueriesContext(connection) as queries:
        ingest([scraped("a1", day=1, etag="x" * 201)], run.pk)
    assert BookSource.objects.get().etag == ""
    assert not any("INSERT INTO catalog_booksource" in q["sql"] for q in queries)


@pytest.fixture
def new_cleaner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner that has learned to shout, and refuses books of nothing."""
    old = visits.clean

    def clean(record: ScrapedBook) -> BookRecord:
        if record.title == "Nothing":
            raise RejectedRecord([FieldError("title", "invalid", "Is nothing.")])
        cleaned = old(record)
        return replace(cleaned, title=cleaned.title.upper())

    monkeypatch.setattr(visits, "clean", clean)
    monkeypatch.setattr(visits, "CLEANER_VERSION", 99)
    monkeypatch.setattr(batches, "CLEANER_VERSION", 99)


@pytest.mark.parametrize("again", [scraped("a1", day=1), revisit("a1", 1)])
def test_a_new_cleaner_cleans_unchanged_records_again(
    run: CrawlRun, again: ScrapedBook | RevisitedBook, request: pytest.FixtureRequest
) -> None:
    ingest([scraped("a1")], run.pk)
    request.getfixturevalue("new_cleaner")
    assert ingest([again], run.pk) == IngestCounts(updated=1)
    assert Book.objects.get().title == "A LIGHT IN THE ATTIC"
    assert BookSource.objects.get().cleaner_version == 99
    assert ingest([revisit("a1", 2)], run.pk) == IngestCounts(unchanged=1)


def test_a_new_cleaner_that_finds_nothing_to_do_leaves_the_revision(
    run: CrawlRun, request: pytest.FixtureRequest
) -> None:
    ingest([scraped("a1", title="LOUD")], run.pk)
    request.getfixturevalue("new_cleaner")
    revision = current_revision()
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(unchanged=1)
    assert (current_revision(), BookSource.objects.get().cleaner_version) == (revision, 99)


def test_what_a_new_cleaner_refuses_is_rejected_and_the_book_stays(
    run: CrawlRun, request: pytest.FixtureRequest
) -> None:
    ingest([scraped("a1", title="Nothing")], run.pk)
    request.getfixturevalue("new_cleaner")
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(rejected=1)
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(duplicates=1)
    assert Book.objects.get().title == "Nothing"
    assert RejectedItem.objects.get().raw["title"] == "Nothing"


# -- rejected items ---------------------------------------------------------------------------------------------------


def test_a_rejected_record_keeps_its_raw_fields_and_a_reason_a_field(run: CrawlRun) -> None:
    bad = scraped("a1", price="free", rating="Six")
    assert ingest([bad, scraped("a2")], run.pk) == IngestCounts(created=1, rejected=1)
    item = RejectedItem.objects.get()
    assert ScrapedBook.from_json(item.raw) == bad
    assert [e["field"] for e in item.errors] == ["price", "rating"]
    assert (item.reference, item.upc, item.scraped_at, item.state) == (bad.source_url, "a1", START, "open")


def test_a_rejected_record_delivered_again_is_a_duplicate(run: CrawlRun) -> None:
    bad = scraped("a1", price="free")
    assert ingest([bad, bad], run.pk) == IngestCounts(rejected=1, duplicates=1)
    assert ingest([bad], run.pk) == IngestCounts(duplicates=1)
    run.refresh_from_db()
    assert (run.rejected, run.seen) == (1, 1)


@pytest.mark.parametrize("field", ["title", "upc", "description", "rating", "source_url", "image_url", "category"])
@pytest.mark.parametrize("dirt", ["\0", "\ud83d", "\x1b[31m"])
def test_no_character_can_break_a_batch(run: CrawlRun, field: str, dirt: str) -> None:
    dirty = scraped("a1", **({field: f"x{dirt}y"} if field != "upc" else {}))
    if field == "upc":
        dirty = replace(dirty, upc=f"x{dirt}y")
    counts = ingest([dirty, scraped("fine")], run.pk)
    assert (counts.seen, counts.created + counts.rejected) == (2, 2)
    assert Book.objects.filter(upc="fine").exists()
    assert ingest([dirty], run.pk) == IngestCounts(duplicates=1)
    for item in RejectedItem.objects.all():
        assert retry_rejected([item.pk]) == IngestCounts(rejected=1)
    finish_run(run.pk)


def test_nul_is_dropped_from_the_book_and_kept_in_its_source(run: CrawlRun, request: pytest.FixtureRequest) -> None:
    ingest([scraped("a1", title="Ti\0tle")], run.pk)
    assert Book.objects.get().title == "Title"
    request.getfixturevalue("new_cleaner")
    assert ingest([revisit("a1", 1)], run.pk) == IngestCounts(updated=1)
    assert Book.objects.get().title == "TITLE"


def test_a_retried_item_moves_the_sums_of_its_run(run: CrawlRun, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest([scraped("a1", rating="Six"), scraped("a2", rating="Seven")], run.pk)
    learned = {"Six": "Five"}

    def clean(record: ScrapedBook, old: Any = visits.clean) -> BookRecord:
        result: BookRecord = old(replace(record, rating=learned.get(record.rating, record.rating)))
        return result

    monkeypatch.setattr(visits, "clean", clean)
    monkeypatch.setattr("catalog.ingest.retry.clean", clean)
    ids = list(RejectedItem.objects.values_list("pk", flat=True))
    assert retry_rejected(ids) == IngestCounts(created=1, rejected=1)
    run.refresh_from_db()
    assert (run.created, run.rejected, run.seen) == (1, 1, 2)
    assert set(RejectedItem.objects.values_list("upc", "state")) == {("a1", "retried"), ("a2", "open")}
    assert retry_rejected(ids) == IngestCounts(rejected=1), "what was retried is not retried again"
    assert ingest([scraped("a1", rating="Six")], run.pk) == IngestCounts(duplicates=1)


# -- what people decided ----------------------------------------------------------------------------------------------


def test_a_locked_field_keeps_its_value_and_remembers_what_the_shop_says(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(locked_fields=["price", "category"], price=Decimal("1.00"))
    ingest([scraped("a1", day=1, price="£60.00", price_excl_tax="£60.00", category="Fiction", rating="Five")], run.pk)
    book = Book.objects.select_related("category").get()
    assert (book.price, book.price_excl_tax, book.rating) == (Decimal("1.00"), Decimal("60.00"), 5)
    assert book.category.name == "Poetry"
    assert book.shop_values == {"price": "60.00", "category": {"name": "Fiction", "slug": "fiction"}}
    assert set(changes(kind="updated")[0][1]) == {"price_excl_tax", "rating"}


def test_a_change_of_locked_fields_alone_is_not_published(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(locked_fields=["title"])
    revision, touched = current_revision(), Book.objects.get().updated_at
    assert ingest([scraped("a1", day=1, title="New")], run.pk) == IngestCounts(unchanged=1)
    book = Book.objects.get()
    assert (book.title, book.shop_values) == ("A Light in the Attic", {"title": "New"})
    assert (current_revision(), book.updated_at) == (revision, touched)


def test_a_locked_stock_decides_what_is_in_stock(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(locked_fields=["stock"])
    ingest([scraped("a1", day=1, availability="Out of stock")], run.pk)
    book = Book.objects.get()
    assert (book.stock, book.in_stock, book.availability) == (22, True, "Out of stock")
    assert book.shop_values == {"stock": 0}


def test_a_hidden_book_stays_hidden_is_kept_up_to_date_and_not_spoken_of(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(hidden=True)
    revision = current_revision()
    assert ingest([scraped("a1", day=1, title="New")], run.pk) == IngestCounts(updated=1)
    assert (Book.objects.get().title, Book.objects.get().hidden) == ("New", True)
    assert (current_revision(), changes()) == (revision, [("created", {})])


def test_a_merged_upc_keeps_receiving_its_records_in_silence(run: CrawlRun) -> None:
    ingest([scraped("a1"), scraped("a2")], run.pk)
    survivor = Book.objects.get(upc="a1")
    Book.objects.filter(upc="a2").update(merged_into=survivor)
    revision = current_revision()
    assert ingest([scraped("a2", day=1, title="New")], run.pk) == IngestCounts(updated=1)
    assert current_revision() == revision
    shadow = Book.objects.get(upc="a2")
    assert (shadow.title, shadow.merged_into) == ("New", survivor)
    assert Book.objects.get(upc="a1").title == "A Light in the Attic"


def test_a_merged_upc_seen_again_brings_its_survivor_back(run: CrawlRun) -> None:
    ingest([scraped("a1"), scraped("a2"), scraped("a3")], run.pk)
    top, middle, low = Book.objects.order_by("upc")
    Book.objects.filter(pk=middle.pk).update(merged_into=top)
    Book.objects.filter(pk=low.pk).update(merged_into=middle)
    Book.objects.update(listed=False)
    ingest([scraped("a3", day=1)], run.pk)
    assert Book.objects.get(pk=top.pk).listed
    assert list(Change.objects.filter(kind="relisted").values_list("book", flat=True)) == [top.pk]


# -- relisting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [scraped("a1", day=1), revisit("a1", 1)])
def test_a_book_seen_again_is_relisted(run: CrawlRun, again: ScrapedBook | RevisitedBook) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(listed=False)
    assert ingest([again], run.pk) == IngestCounts(updated=1)
    assert Book.objects.get().listed
    assert changes(kind="relisted") == [("relisted", {})]


def test_a_relisted_book_tells_what_changed_meanwhile(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(listed=False)
    ingest([scraped("a1", day=1, title="New")], run.pk)
    assert changes(kind="relisted")[0][1]["title"]["new"] == "New"


def test_an_old_record_come_late_does_not_bring_a_book_back(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    Book.objects.update(listed=False)
    CrawlRun.objects.create(shop="shop", source="x", kind="file", delisted=1, started_at=START + timedelta(days=9))
    assert ingest([scraped("a1", day=8, title="New")], run.pk) == IngestCounts(updated=1)
    assert (Book.objects.get().listed, Book.objects.get().title) == (False, "New")
    assert ingest([scraped("a1", day=9, title="New")], run.pk) == IngestCounts(updated=1)
    assert Book.objects.get().listed


# -- cost -------------------------------------------------------------------------------------------------------------

UNCHANGED = 7  # shop, sources before the lock, the lock, books, visits done, sightings, the run
NEW = 14  # and: categories, books, their ids, sources, observations, changes, the revision


@pytest.mark.parametrize("n", [20, 200])
def test_queries_are_counted_a_batch_not_a_record(run: CrawlRun, n: int) -> None:
    Category.objects.create(shop_name="Poetry", name="Poetry")
    with writing():  # makes the revision row of a database that tests have emptied
        pass
    batch = [scraped(f"u{i}") for i in range(n)]

    def queries(records: list[ScrapedBook]) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            ingest(records, run.pk)
        return [q["sql"] for q in captured if "SAVEPOINT" not in q["sql"]]

    assert len(queries(batch)) == NEW
    assert len(queries([replace(r, scraped_at=START + timedelta(days=1)) for r in batch])) == UNCHANGED
    changed = [replace(r, scraped_at=START + timedelta(days=2), rating="Five") for r in batch]
    assert len(queries(changed)) == NEW, "the rows that differ are read instead of ids"


# -- the database's own rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"upc": "a2"},
        {"rating": 0},
        {"rating": 6},
        {"price": Decimal("-0.01")},
        {"price_excl_tax": Decimal("-0.01")},
        {"tax": Decimal("-0.01")},
        {"in_stock": False},
        {"stock": 0},
    ],
    ids=str,
)
def test_the_database_refuses_a_book_that_cannot_be(run: CrawlRun, wrong: dict[str, Any]) -> None:
    ingest([scraped("a1"), scraped("a2")], run.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        Book.objects.filter(upc="a1").update(**wrong)


def test_the_database_refuses_a_book_merged_into_itself(run: CrawlRun) -> None:
    ingest([scraped("a1")], run.pk)
    book = Book.objects.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Book.objects.update(merged_into=book)


def test_the_database_refuses_a_second_sighting_or_rejection_of_a_visit(run: CrawlRun) -> None:
    ingest([scraped("a1"), scraped("a2", price="free")], run.pk)
    for model in (Sighting, RejectedItem):
        row = model.objects.get()
        row.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)


def test_the_database_refuses_sums_that_do_not_hold(run: CrawlRun) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        CrawlRun.objects.update(seen=1)


def test_the_database_refuses_a_second_revision_row(run: CrawlRun) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        CatalogueRevision.objects.create(pk=2)


def test_a_batch_that_fails_leaves_nothing_behind(run: CrawlRun, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = current_revision()

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(batches._Batch, "_count", fail)
    with pytest.raises(RuntimeError):
        ingest([scraped("a1"), scraped("a2", price="free")], run.pk)
    assert not Book.objects.exists()
    assert not RejectedItem.objects.exists()
    assert current_revision() == revision


def test_times_keep_their_microseconds(run: CrawlRun) -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    ingest([replace(scraped("a1"), scraped_at=at)], run.pk)
    assert BookSource.objects.get().scraped_at == at
    earlier = replace(scraped("a1", title="x"), scraped_at=at - timedelta(microseconds=1))
    assert ingest([earlier], run.pk) == IngestCounts(stale=1)
