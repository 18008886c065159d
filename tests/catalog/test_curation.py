"""What people do to the catalogue, and that no crawl undoes it."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from catalog import curation
from catalog.ingest import ingest as ingest_records
from catalog.ingest import retry_rejected, start_run
from catalog.ingest.applying import as_json
from catalog.models import Book, Category, Change, CrawlRun, PriceObservation, RejectedItem
from catalog.revision import current_revision, writing
from tests.catalog.crawled import crawl, crawled, scraped

pytestmark = pytest.mark.django_db


def last_change() -> Change:
    return Change.objects.order_by("revision", "id").last()  # type: ignore[return-value]


# -- editing ----------------------------------------------------------------------------------------------------------


def test_an_edited_field_is_locked_and_the_next_crawl_updates_only_the_others() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "A Light in the Attic, corrected"})
    crawl(scraped("a", day=1, title="A LIGHT IN THE ATTIC", price="£10.00", price_excl_tax="£10.00"))
    book.refresh_from_db()
    assert book.title == "A Light in the Attic, corrected"
    assert book.price == Decimal("10.00")
    assert book.locked_fields == ["title"]
    assert book.shop_values == {"title": "A LIGHT IN THE ATTIC"}


def test_an_edit_moves_the_revision_once_and_tells_readers_what_changed() -> None:
    book = crawled("a")
    before = current_revision()
    edit = curation.edit_book(book.pk, {"price": Decimal("12.5"), "stock": 0, "title": book.title})
    assert current_revision() == before + 1
    change = last_change()
    assert (change.revision, change.kind) == (before + 1, Change.Kind.UPDATED)
    expected = {
        "price": {"old": "51.77", "new": "12.50"},
        "stock": {"old": 22, "new": 0},
        "in_stock": {"old": True, "new": False},
    }
    assert change.fields == edit.fields == expected
    book.refresh_from_db()
    assert book.locked_fields == ["price", "stock"]
    assert (book.updated_at, book.in_stock) == (change.at, False)
    latest = PriceObservation.objects.filter(book=book).last()
    assert latest is not None
    assert (latest.price, latest.stock, latest.at) == (Decimal("12.50"), 0, change.at)


def test_an_edit_that_changes_nothing_locks_nothing_and_writes_nothing() -> None:
    book = crawled("a")
    before = current_revision()
    with CaptureQueriesContext(connection) as queries:
        edit = curation.edit_book(book.pk, {"price": Decimal("51.77"), "title": f" {book.title}\n"})
    assert edit == curation.Edit({})
    assert current_revision() == before
    assert not [q for q in queries if q["sql"].startswith(("UPDATE", "INSERT"))]
    book.refresh_from_db()
    assert book.locked_fields == []


def test_a_second_edit_keeps_what_the_shop_said_before_the_first() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "First"})
    curation.edit_book(book.pk, {"title": "Second"})
    book.refresh_from_db()
    assert book.shop_values == {"title": "A Light in the Attic"}


def test_a_corrected_title_is_found_under_its_new_name() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Été", "authors": ["Böll", " Böll ", ""]})
    book.refresh_from_db()
    assert (book.title_key, book.search_key) == ("ete", "ete\nboll\npoems.")
    assert book.authors == ["Böll"]


def test_only_edited_fields_are_written_and_an_overtaken_one_is_told() -> None:
    book = crawled("a")
    seen = {name: as_json(getattr(book, name)) for name in Book.CURATED_FIELDS}
    crawl(scraped("a", day=1, title="Renamed by the shop", price="£10.00", price_excl_tax="£10.00"))
    edit = curation.edit_book(book.pk, {"price": Decimal("12.00")}, seen=seen)
    assert edit.overtaken == ("price",)
    assert edit.fields == {"price": {"old": "10.00", "new": "12.00"}}
    book.refresh_from_db()
    assert (book.title, book.price) == ("Renamed by the shop", Decimal("12.00"))
    assert book.shop_values == {"price": "10.00"}


def test_a_shelf_that_was_only_renamed_is_not_an_overtaken_edit() -> None:
    book = crawled("a")
    crawled("b", category="Travel")
    seen = {"category": as_json(book.category)}
    curation.rename_category(book.category_id, "Verse")
    edit = curation.edit_book(book.pk, {"category": Category.objects.get(name="Travel")}, seen=seen)
    assert edit.overtaken == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "  "),
        ("title", "x" * 501),
        ("title", "half \ud800"),
        ("price", Decimal("-1")),
        ("price", Decimal("1000000000000")),
        ("price", Decimal("1.001")),
        ("price", Decimal("NaN")),
        ("rating", 6),
        ("stock", 10_000_000_000),
        ("currency", "pounds"),
        ("image_url", "javascript:alert(1)"),
        ("authors", "one name"),
        ("authors", ["x" * 201]),
        ("authors", ["x" + str(n) for n in range(101)]),
        ("description", "x" * 50_001),
        ("category", 0),
        ("upc", "b"),
        ("in_stock", False),
        ("hidden", True),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_nothing_is_written(field: str, value: Any) -> None:
    book = crawled("a")
    before = current_revision()
    with pytest.raises(curation.InvalidValue) as refusal:
        curation.edit_book(book.pk, {"product_type": "Paperback", field: value})
    assert refusal.value.field == field
    assert str(refusal.value)
    book.refresh_from_db()
    assert (book.product_type, book.locked_fields) == ("Books", [])
    assert current_revision() == before


def test_a_hidden_book_can_be_edited_without_telling_readers() -> None:
    book = crawled("a")
    curation.set_hidden([book.pk], True)
    before = current_revision()
    curation.edit_book(book.pk, {"title": "Corrected"})
    book.refresh_from_db()
    assert (book.title, current_revision()) == ("Corrected", before)


def test_an_unknown_book_is_an_error_that_says_so() -> None:
    with pytest.raises(curation.UnknownBook, match="no book 404"):
        curation.edit_book(404, {"title": "x"})


# -- giving back ------------------------------------------------------------------------------------------------------


def test_a_field_given_back_shows_at_once_what_the_shop_says_now() -> None:
    book = crawled("a", category="Poetry")
    crawled("b", category="Travel")
    values = {"title": "Mine", "price": Decimal("1.00"), "category": Category.objects.get(name="Travel"), "stock": 0}
    curation.edit_book(book.pk, values)
    crawl(scraped("a", day=1, title="Theirs", price="£9.90", price_excl_tax="£9.90", category="New shelf"))
    before = current_revision()
    assert curation.give_back([book.pk], ["price", "category", "stock"]) == 1
    book.refresh_from_db()
    assert (book.price, book.category.name, book.stock, book.in_stock) == (Decimal("9.90"), "New shelf", 22, True)
    assert (book.title, book.locked_fields, book.shop_values) == ("Mine", ["title"], {"title": "Theirs"})
    assert current_revision() == before + 1
    assert last_change().fields["price"] == {"old": "1.00", "new": "9.90"}
    latest = PriceObservation.objects.filter(book=book).last()
    assert latest is not None
    assert (latest.price, latest.stock) == (Decimal("9.90"), 22)


def test_giving_back_what_the_shop_says_too_unlocks_it_and_tells_readers_nothing() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Corrected"})
    crawl(scraped("a", day=1, title="Corrected"))
    before = current_revision()
    assert curation.give_back([book.pk], ["title"]) == 1
    book.refresh_from_db()
    assert (book.locked_fields, book.shop_values, current_revision()) == ([], {}, before)


def test_giving_back_twice_or_what_was_never_locked_changes_nothing() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Mine"})
    assert curation.give_back([book.pk]) == 1
    before = current_revision()
    assert curation.give_back([book.pk]) == 0
    assert curation.give_back([book.pk], ["title"]) == 0
    assert current_revision() == before


def test_a_field_given_back_follows_the_next_crawl_again() -> None:
    book = crawled("a")
    curation.edit_book(book.pk, {"title": "Mine", "authors": ["Me"], "description": "Mine."})
    curation.give_back([book.pk])
    book.refresh_from_db()
    assert (book.title, book.authors, book.description) == ("A Light in the Attic", [], "Poems.")
    crawl(scraped("a", day=1, title="Theirs"))
    book.refresh_from_db()
    assert book.title == "Theirs"


def queries_of(work: Any) -> int:
    with CaptureQueriesContext(connection) as queries:
        work()
    return len(queries)


def test_giving_back_hiding_and_merging_need_as_many_queries_for_thirty_books_as_for_two() -> None:
    crawl(*(scraped(f"u{n}", category=f"Shelf {n % 7}") for n in range(33)))
    ids = list(Book.objects.order_by("pk").values_list("pk", flat=True))
    shelf = Category.objects.create(shop_name="Mine", name="Mine")
    for pk in ids:
        curation.edit_book(pk, {"title": "Mine", "category": shelf, "price": Decimal(1)})
    few, many, survivor = ids[:2], ids[2:32], ids[32]
    counts = [
        (queries_of(lambda ids=ids: curation.give_back(ids)),
         queries_of(lambda ids=ids: curation.set_hidden(ids, True)),
         queries_of(lambda ids=ids: curation.merge(survivor, ids)))
        for ids in (few, many)
    ]  # fmt: skip
    assert counts[0] == counts[1]
    assert Book.objects.filter(merged_into=survivor, hidden=True, locked_fields=[]).count() == 32


# -- hiding -----------------------------------------------------------------------------------------------------------


def test_a_hidden_book_is_gone_for_readers_and_comes_back() -> None:
    book = crawled("a")
    assert curation.set_hidden([book.pk], True) == 1
    assert last_change().kind == Change.Kind.DELISTED
    assert not Book.objects.visible().exists()
    assert curation.set_hidden([book.pk], False) == 1
    assert last_change().kind == Change.Kind.RELISTED
    assert Book.objects.listed().get() == book


def test_hiding_twice_is_hiding_once() -> None:
    book = crawled("a")
    curation.set_hidden([book.pk], True)
    before = current_revision()
    assert curation.set_hidden([book.pk], True) == 0
    assert current_revision() == before


def test_a_crawl_neither_shows_a_hidden_book_nor_tells_of_it() -> None:
    book = crawled("a")
    curation.set_hidden([book.pk], True)
    before = current_revision()
    crawl(scraped("a", day=1, price="£1.00", price_excl_tax="£1.00"))
    book.refresh_from_db()
    assert (book.hidden, book.price, current_revision()) == (True, Decimal("1.00"), before)


def test_a_book_that_left_the_shop_is_not_in_it_again_when_it_is_shown() -> None:
    book = crawled("a")
    Book.objects.update(listed=False)
    curation.set_hidden([book.pk], True)
    curation.set_hidden([book.pk], False)
    assert last_change().kind == Change.Kind.UPDATED


# -- merging ----------------------------------------------------------------------------------------------------------


def test_a_merged_book_is_a_shadow_that_crawls_go_on_feeding_silently() -> None:
    survivor, twin = crawled("a"), crawled("b")
    assert curation.merge(survivor.pk, [twin.pk]) == 1
    change = last_change()
    assert (change.book_id, change.kind) == (twin.pk, Change.Kind.MERGED)
    assert change.fields == {"into": {"old": None, "new": survivor.pk}}
    assert list(Book.objects.visible()) == [survivor]
    before = current_revision()
    crawl(scraped("b", day=1, price="£1.00", price_excl_tax="£1.00"))
    twin.refresh_from_db()
    assert (twin.merged_into, twin.price, current_revision()) == (survivor, Decimal("1.00"), before)


def test_chains_of_merges_are_flat() -> None:
    a, b, c, d = (crawled(upc) for upc in "abcd")
    curation.merge(b.pk, [a.pk])
    curation.merge(c.pk, [b.pk])
    assert set(Book.objects.filter(merged_into=c)) == {a, b}
    assert curation.merge(d.pk, [c.pk, a.pk, b.pk]) == 3
    assert set(Book.objects.filter(merged_into=d)) == {a, b, c}
    assert Change.objects.filter(revision=current_revision(), kind=Change.Kind.MERGED).count() == 3


def test_merging_again_changes_nothing() -> None:
    a, b = crawled("a"), crawled("b")
    curation.merge(a.pk, [b.pk, b.pk])
    before = current_revision()
    assert curation.merge(a.pk, [b.pk]) == 0
    assert current_revision() == before


def test_books_that_cannot_be_merged_are_refused_with_the_reason() -> None:
    a, b, c, d = (crawled(upc) for upc in "abcd")
    elsewhere = crawled("a", shop="elsewhere")
    curation.merge(b.pk, [c.pk])
    curation.set_hidden([d.pk], True)
    for survivor, duplicate, reason in [
        (a.pk, a.pk, "into itself"),
        (c.pk, a.pk, f"was merged into book {b.pk}"),
        (a.pk, c.pk, "undo that first"),
        (d.pk, a.pk, "is hidden"),
        (a.pk, elsewhere.pk, "each shop's price"),
        (a.pk, 404, "no book 404"),
        (404, a.pk, "no book 404"),
    ]:
        with pytest.raises(curation.CurationError, match=reason):
            curation.merge(survivor, [duplicate])
    assert Book.objects.filter(merged_into__isnull=False).count() == 1


def test_a_merge_can_be_undone() -> None:
    a, b = crawled("a"), crawled("b")
    curation.merge(a.pk, [b.pk])
    assert curation.unmerge(b.pk)
    change = last_change()
    assert (change.book_id, change.kind) == (b.pk, Change.Kind.RELISTED)
    assert change.fields == {"into": {"old": a.pk, "new": None}}
    assert Book.objects.visible().count() == 2
    assert not curation.unmerge(b.pk)


# -- shelves ----------------------------------------------------------------------------------------------------------


def test_a_renamed_shelf_keeps_its_slug_and_the_next_crawl_does_not_bring_the_old_name_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curation, "CHUNK", 1)  # chunks of ten ids
    crawl(*(scraped(f"u{n}") for n in range(25)), scraped("other", category="Travel"))
    hidden = Book.objects.get(upc="u3")
    curation.set_hidden([hidden.pk], True)
    shelf = Category.objects.get(name="Poetry")
    before = current_revision()
    assert curation.rename_category(shelf.pk, " Verse ") == 24
    assert current_revision() == before + 1
    changes = Change.objects.filter(revision=before + 1)
    assert {c.book_id for c in changes} == set(
        Book.objects.visible().filter(category=shelf).values_list("pk", flat=True)
    )
    renamed = {"old": {"name": "Poetry", "slug": "poetry"}, "new": {"name": "Verse", "slug": "poetry"}}
    assert all(c.fields == {"category": renamed} for c in changes)
    crawl(scraped("u1", day=1, price="£1.00", price_excl_tax="£1.00"), scraped("new", day=1))
    shelf.refresh_from_db()
    assert (shelf.name, shelf.name_key, shelf.slug) == ("Verse", "verse", "poetry")
    assert Book.objects.get(upc="new").category == shelf
    assert Category.objects.count() == 2


def test_renaming_an_empty_shelf_moves_the_revision_for_the_list_of_shelves() -> None:
    crawled("a")  # the revision exists
    shelf = Category.objects.create(shop_name="Empty", name="Empty")
    before = current_revision()
    assert curation.rename_category(shelf.pk, "Void") == 0
    assert current_revision() == before + 1
    assert curation.rename_category(shelf.pk, "Void") == 0
    assert current_revision() == before + 1


@pytest.mark.parametrize("name", ["", " \n", "x" * 101, "travel", "TRAVÉL", "half \ud800"])
def test_a_shelf_is_not_given_a_blank_a_long_or_a_taken_name(name: str) -> None:
    book = crawled("a")
    crawled("b", category="Travel")
    with pytest.raises(curation.InvalidValue):
        curation.rename_category(book.category_id, name)
    assert Category.objects.get(pk=book.category_id).name == "Poetry"


# -- rejected items ---------------------------------------------------------------------------------------------------


def rejected(upc: str, **facts: Any) -> RejectedItem:
    run = crawl(scraped(upc, **facts))
    return RejectedItem.objects.get(run=run)


def test_a_dismissed_item_is_not_retried() -> None:
    item = rejected("a", price="cheap")
    assert curation.dismiss_rejected([item.pk]) == 1
    assert curation.dismiss_rejected([item.pk]) == 0
    assert retry_rejected([item.pk]).seen == 0
    item.refresh_from_db()
    assert item.state == RejectedItem.State.DISMISSED


# -- with others at work ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_edit_waits_for_a_crawl_that_is_writing_and_keeps_what_it_wrote() -> None:
    """The crawl holds the lock while the curator saves; neither loses what it wrote."""
    book = crawled("a")
    seen = {"title": book.title}
    run = start_run("shop", "https://shop.example", filters={"limit": 1})
    crawl_holds_the_lock, let_go, saved = threading.Event(), threading.Event(), threading.Event()

    def crawl_slowly() -> None:
        try:
            with writing():
                crawl_holds_the_lock.set()
                record = scraped("a", day=1, title="Theirs", price="£9.00", price_excl_tax="£9.00")
                ingest_records([record], run.pk)
                let_go.wait(10)
        finally:
            connection.close()

    def save() -> None:
        try:
            curation.edit_book(book.pk, {"title": "Mine"}, seen=seen)
            saved.set()
        finally:
            connection.close()

    crawler, curator = threading.Thread(target=crawl_slowly), threading.Thread(target=save)
    crawler.start()
    assert crawl_holds_the_lock.wait(10)
    curator.start()
    assert not saved.wait(0.3)
    let_go.set()
    crawler.join(20)
    curator.join(20)
    book.refresh_from_db()
    assert (book.title, book.price) == ("Mine", Decimal("9.00"))
    assert book.shop_values == {"title": "Theirs"}
    assert CrawlRun.objects.get(pk=run.pk).updated == 1
