"""Books: what one looks like, which a list holds, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.models import Book
from catalog.rows import BOOK_FIELDS
from tests.factories import change_book, make_book, make_books, make_category

BOOKS = "/api/v1/books"


def titles(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [book["title"] for book in answer.json()["results"]]


def test_a_book_has_every_field_in_the_documented_order(reader: Client) -> None:
    book = make_book(
        upc="a897fe39b1053632",
        title="Être à l'Œuvre",
        authors=["Zoë Ångström", "B"],
        description="Line one\nline two",
        category="Food and Drink",
        price="51.5",
        price_excl_tax=Decimal("50.00"),
        tax=Decimal("1.50"),
        rating=4,
        stock=22,
        first_seen_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        updated_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )

    answer = reader.get(f"{BOOKS}/{book.pk}")

    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == list(BOOK_FIELDS)
    assert answer.json() == {
        "id": book.pk,
        "shop": "test-shop",
        "upc": "a897fe39b1053632",
        "title": "Être à l'Œuvre",
        "authors": ["Zoë Ångström", "B"],
        "description": "Line one\nline two",
        "category": {"name": "Food and Drink", "slug": "food-and-drink"},
        "price": 51.5,
        "price_excl_tax": 50,
        "tax": 1.5,
        "currency": "GBP",
        "rating": 4,
        "stock": 22,
        "availability": "In stock",
        "in_stock": True,
        "review_count": 0,
        "product_type": "Books",
        "image_url": book.image_url,
        "source_url": book.source_url,
        "listed": True,
        "first_seen_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05Z",
    }
    assert b'"price":51.50,"price_excl_tax":50.00,"tax":1.50,' in answer.content


def test_a_list_shows_the_same_book_as_its_own_address(reader: Client) -> None:
    book = make_book(price="99999999.99")
    assert reader.get(BOOKS).json()["results"] == [reader.get(f"{BOOKS}/{book.pk}").json()]
    assert b'"price":99999999.99' in reader.get(BOOKS).content


def test_fields_asks_for_some_of_them_in_the_order_of_a_book(reader: Client) -> None:
    book = make_book(title="T", price="5")
    for path in (f"{BOOKS}/{book.pk}", BOOKS, f"{BOOKS}/search", f"{BOOKS}/top-rated", f"{BOOKS}/price-range?min=1"):
        answer = reader.get(path + ("&" if "?" in path else "?") + "fields=price,category,title")
        shown = answer.json()["results"][0] if "results" in answer.json() else answer.json()
        assert list(shown) == ["title", "category", "price"], path
        assert shown["category"] == {"name": "Travel", "slug": "travel"}


def test_a_hidden_book_is_nowhere(reader: Client) -> None:
    book = make_book(hidden=True)
    assert reader.get(f"{BOOKS}/{book.pk}").status_code == 404
    assert reader.get(f"{BOOKS}/{book.pk}/history").status_code == 404
    assert titles(reader.get(BOOKS, {"listed": "any"})) == []
    assert titles(reader.get(BOOKS, {"ids": book.pk})) == []


def test_a_delisted_book_is_read_by_id_and_listed_on_request(reader: Client) -> None:
    gone = make_book(title="gone", listed=False)
    make_book(title="here")
    assert reader.get(f"{BOOKS}/{gone.pk}").json()["listed"] is False
    assert titles(reader.get(BOOKS)) == ["here"]
    assert titles(reader.get(BOOKS, {"listed": "true"})) == ["here"]
    assert titles(reader.get(BOOKS, {"listed": "false"})) == ["gone"]
    assert titles(reader.get(BOOKS, {"listed": "any"})) == ["gone", "here"]


@pytest.mark.parametrize("hidden", [False, True], ids=["merged", "hidden and merged"])
def test_a_merged_book_leads_to_the_one_it_became(reader: Client, hidden: bool) -> None:
    survivor = make_book(title="survivor")
    merged = make_book(title="merged", merged_into=survivor, hidden=hidden)

    answer = reader.get(f"{BOOKS}/{merged.pk}?fields=title")
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"http://testserver{BOOKS}/{survivor.pk}?fields=title"
    history = reader.get(f"{BOOKS}/{merged.pk}/history")
    assert history.headers["Location"] == f"http://testserver{BOOKS}/{survivor.pk}/history"
    assert titles(reader.get(BOOKS, {"listed": "any"})) == ["survivor"]


@pytest.mark.parametrize("book_id", ["0", "999999999", "9223372036854775808", "9" * 30, "9" * 5000, "abc", "-1", "1.5"])
def test_an_id_that_is_no_book_is_404(reader: Client, book_id: str) -> None:
    assert reader.get(f"{BOOKS}/{book_id}").status_code == 404


def test_history_tells_price_stock_and_rating_over_time(reader: Client) -> None:
    book = make_book(price="10", stock=3, rating=2)
    change_book(book, price=Decimal("12.50"), stock=0)

    answer = reader.get(f"{BOOKS}/{book.pk}/history")

    assert answer.json()["book"] == book.pk
    first, second = answer.json()["results"]
    assert (first["price"], first["stock"], first["rating"]) == (10, 3, 2)
    assert (second["price"], second["stock"], second["rating"]) == (12.5, 0, 2)
    assert first["at"] < second["at"]
    assert second["at"].endswith("Z")
    assert b'"price":12.50' in answer.content


@pytest.fixture
def shelf(db: None) -> None:
    make_book(title="Café Crème", category="Poésie", price="10", rating=1, stock=0, shop="a", upc="u1")
    make_book(title="100% Wool_", category="Food and Drink", price="20.55", rating=3, stock=5, shop="b", upc="u2")
    make_book(title="A plain one", category="Travel", price="30", rating=5, stock=50, shop="a", upc="u3")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("category=poesie", ["Café Crème"]),
        ("category=POÉSIE", ["Café Crème"]),
        ("category=food-and-drink", ["100% Wool_"]),
        ("category=Food%20and%20Drink&category=travel", ["100% Wool_", "A plain one"]),
        ("category=nowhere", []),
        ("title=CAFE", ["Café Crème"]),
        ("title=cr%C3%A8me", ["Café Crème"]),
        ("title=%25", ["100% Wool_"]),
        ("title=_", ["100% Wool_"]),
        ("title=%5C", []),
        ("shop=a", ["Café Crème", "A plain one"]),
        ("upc=u2", ["100% Wool_"]),
        ("upc=U2", []),
        ("price=20.55", ["100% Wool_"]),
        ("price=30.0", ["A plain one"]),
        ("min_price=20.55", ["100% Wool_", "A plain one"]),
        ("max_price=20.55", ["Café Crème", "100% Wool_"]),
        ("min_price=11&max_price=29.99", ["100% Wool_"]),
        ("rating=5", ["A plain one"]),
        ("min_rating=3", ["100% Wool_", "A plain one"]),
        ("max_rating=3&min_rating=3", ["100% Wool_"]),
        ("in_stock=true", ["100% Wool_", "A plain one"]),
        ("in_stock=False", ["Café Crème"]),
        ("min_stock=6", ["A plain one"]),
        ("updated_since=2020-01-01", ["Café Crème", "100% Wool_", "A plain one"]),
        ("updated_since=2999-01-01T00:00:00%2B02:00", []),
        ("category=&title=&q=&min_price=&rating=&ids=&ordering=&fields=", ["Café Crème", "100% Wool_", "A plain one"]),
        ("shop=a&in_stock=true&min_price=1", ["A plain one"]),
        ("ids=9223372036854775807", []),
        ("q=plain", ["A plain one"]),
    ],
)
@pytest.mark.parametrize("path", ["", "/search"])
def test_filters_leave_what_they_say(shelf: None, reader: Client, query: str, found: list[str], path: str) -> None:
    answer = reader.get(f"{BOOKS}{path}?{query}")
    assert titles(answer) == found
    assert answer.json()["count"] == len(found)


def test_ids_are_any_of_the_listed(reader: Client) -> None:
    first, _, third = make_books(3)
    answer = reader.get(BOOKS, {"ids": f"{third.pk},{first.pk},{first.pk}"})
    assert [book["id"] for book in answer.json()["results"]] == [first.pk, third.pk]


def test_updated_since_includes_its_own_moment(reader: Client) -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
    make_book(title="then", updated_at=moment)
    make_book(title="before", updated_at=moment - timedelta(microseconds=1))
    assert titles(reader.get(BOOKS, {"updated_since": "2026-03-04T05:06:07.000008Z"})) == ["then"]
    assert titles(reader.get(BOOKS, {"updated_since": "2026-03-04T07:06:07.000008+02:00"})) == ["then"]


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("raiting=4", "raiting", "unknown"),
        ("rating=4.5", "rating", "invalid"),
        ("rating=4.0", "rating", "invalid"),
        ("rating=6", "rating", "max_value"),
        ("rating=0", "rating", "min_value"),
        ("rating=%D9%A4", "rating", "invalid"),
        ("rating=4&rating=5", "rating", "repeated"),
        ("min_price=cheap", "min_price", "invalid"),
        ("min_price=1e400", "min_price", "invalid"),
        ("min_price=NaN", "min_price", "invalid"),
        ("max_price=Infinity", "max_price", "invalid"),
        ("price=-1", "price", "invalid"),
        ("price=100000000", "price", "invalid"),
        ("price=1.005", "price", "invalid"),
        ("min_price=2&max_price=1", "min_price", "above_maximum"),
        ("min_rating=5&max_rating=4", "min_rating", "above_maximum"),
        ("min_stock=99999999999", "min_stock", "max_value"),
        ("in_stock=maybe", "in_stock", "invalid"),
        ("listed=perhaps", "listed", "invalid"),
        ("ids=123456789012345678901234567890", "ids", "invalid"),
        ("ids=9223372036854775808", "ids", "max_value"),
        ("ids=1,,2", "ids", "invalid"),
        ("ids=1;2", "ids", "invalid"),
        ("ids=" + ",".join(["1"] * 1001), "ids", "too_many"),
        ("updated_since=yesterday", "updated_since", "invalid"),
        ("updated_since=2026-02-30", "updated_since", "invalid"),
        ("updated_since=0001-01-01T00:00:00%2B14:00", "updated_since", "invalid"),
        ("updated_since=9999-12-31T23:59:59-14:00", "updated_since", "invalid"),
        ("updated_since=2026-01-01T00:00:00", "updated_since", "invalid"),
        ("title=a%00b", "title", "null_characters_not_allowed"),
        ("category=%00", "category", "null_characters_not_allowed"),
        ("q=%00", "q", "null_characters_not_allowed"),
        ("q=%CC%81", "q", "invalid"),
        ("title=%CC%81", "title", "invalid"),
        ("q=" + "+".join("abcdefghijklmnopqrstu"), "q", "invalid"),
        ("title=" + "x" * 501, "title", "max_length"),
        ("ordering=author", "ordering", "invalid"),
        ("fields=id,secret", "fields", "invalid"),
        ("page=0", "page", "min_value"),
        ("page=-1", "page", "min_value"),
        ("page=one", "page", "invalid"),
        ("page_size=0", "page_size", "invalid"),
        ("page_size=1001", "page_size", "invalid"),
        ("page_size=ALL", "page_size", "invalid"),
        ("page=2&page_size=all", "page_size", "contradiction"),
        ("format=xml", "format", "invalid"),
        ("format=arrow", "format", "invalid"),
    ],
)
def test_bad_parameters_are_refused_by_name(reader: Client, query: str, field: str, code: str) -> None:
    answer = reader.get(f"{BOOKS}?{query}")
    assert answer.status_code == 400, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [(error["field"], error["code"]) for error in answer.json()["errors"]] == [(field, code)]


@pytest.mark.parametrize(
    "query",
    ["title=%FF", "title=%ED%A0%80", "%FF=1", "title=\udcff".encode("utf-8", "surrogatepass").decode("latin-1")],
)
def test_broken_utf8_is_400(reader: Client, query: str) -> None:
    answer = reader.get(BOOKS, QUERY_STRING=query)
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["detail"]


def test_an_unknown_parameter_names_the_nearest_known_one(reader: Client) -> None:
    detail = reader.get(BOOKS, {"catgory": "Travel"}).json()["errors"][0]["detail"]
    assert detail == "Unknown parameter. Did you mean 'category'?"


def test_price_range_is_inclusive_and_cheapest_first(reader: Client) -> None:
    make_book(title="b", price="11.00")
    make_book(title="a", price="10")
    make_book(title="c", price="11.01")
    make_book(title="d", price="9.99")
    assert titles(reader.get(f"{BOOKS}/price-range", {"min": "10", "max": "11"})) == ["a", "b"]
    assert titles(reader.get(f"{BOOKS}/price-range", {"min": "11"})) == ["b", "c"]
    assert titles(reader.get(f"{BOOKS}/price-range", {"max": "9.99"})) == ["d"]
    assert titles(reader.get(f"{BOOKS}/price-range", {"min": 1, "ordering": "title"})) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("query", ["", "min=&max=", "min=11&max=10", "min=x", "min_price=10", "min=1e400", "min=-1"])
def test_price_range_refuses_what_is_no_range(reader: Client, query: str) -> None:
    assert reader.get(f"{BOOKS}/price-range?{query}").status_code == 400


def test_top_rated_is_best_first_then_cheapest(reader: Client) -> None:
    make_book(title="four", rating=4, price="1")
    make_book(title="five dear", rating=5, price="9")
    make_book(title="five cheap", rating=5, price="2")
    make_book(title="five cheap too", rating=5, price="2")
    make_books(10, rating=1)
    assert titles(reader.get(f"{BOOKS}/top-rated"))[:4] == ["five cheap", "five cheap too", "five dear", "four"]
    answer = reader.get(f"{BOOKS}/top-rated", {"limit": 3, "max_price": 5})
    assert titles(answer) == ["five cheap", "five cheap too", "four"]
    assert len(titles(reader.get(f"{BOOKS}/top-rated"))) == 10
    rest = reader.get(reader.get(f"{BOOKS}/top-rated", {"limit": 3}).json()["next"])
    assert titles(rest)[0] == "four"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "page=1", "page_size=5", "ordering=id"])
def test_top_rated_refuses_other_parameters(reader: Client, query: str) -> None:
    assert reader.get(f"{BOOKS}/top-rated?{query}").status_code == 400


def test_search_combines_title_category_and_words(reader: Client) -> None:
    make_book(title="The Sea", category="Poésie", description="about ships")
    make_book(title="The Sea", category="Travel", description="about fish")
    make_book(title="The Land", category="Poésie", description="about ships")
    answer = reader.get(f"{BOOKS}/search", {"title": "sea", "category": "poesie", "q": "SHIPS"})
    assert answer.json()["count"] == 1
    assert answer.json()["results"][0]["category"]["slug"] == make_category("Poésie").slug


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("path", ["", "/1", "/search", "/top-rated", "/price-range", "/1/history"])
def test_writing_is_refused(reader: Client, method: str, path: str) -> None:
    answer = getattr(reader, method)(BOOKS + path, {}, content_type="application/json")
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/1/", "/search/"])
def test_a_trailing_slash_is_another_address_and_nobody_lives_there(reader: Client, path: str) -> None:
    answer = reader.get(BOOKS + path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_head_answers_like_get_without_a_body(reader: Client) -> None:
    book = make_book()
    for path in (BOOKS, f"{BOOKS}/{book.pk}", f"{BOOKS}?page_size=all", f"{BOOKS}?format=csv"):
        got, head = reader.get(path), reader.head(path)
        assert b"".join(got)
        assert head.status_code == 200
        assert head.headers["ETag"] == got.headers["ETag"]
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        assert head.content == b""


def test_reading_needs_a_token_unless_it_is_public(db: None, settings: Any) -> None:
    book = make_book()
    for path in (BOOKS, f"{BOOKS}/{book.pk}", "/api/v1/categories", "/api/v1/changes"):
        settings.PUBLIC_READ = False
        answer = Client().get(path)
        assert answer.status_code == 401
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        settings.PUBLIC_READ = True
        assert Client().get(path).status_code == 200


@pytest.mark.parametrize("n", [2, 200])
def test_queries_do_not_grow_with_the_books(
    reader: Client, django_assert_num_queries: DjangoAssertNumQueries, n: int
) -> None:
    book = make_books(n)[0]
    with django_assert_num_queries(3):
        # 1. the revision  2. the count, for the first time in this revision  3. the page
        reader.get(BOOKS, {"page_size": 100})
    with django_assert_num_queries(2):
        # 1. the revision  2. the page
        page = reader.get(BOOKS, {"page_size": 1})
    with django_assert_num_queries(2):
        # 1. the revision  2. the page
        reader.get(page.json()["next"])
    with django_assert_num_queries(3):
        # 1. the revision  2. the count of these filters  3. the page
        reader.get(f"{BOOKS}/search", {"q": "book", "category": "travel", "page_size": 100})
    with django_assert_num_queries(2):
        # 1. the revision  2. the page
        reader.get(f"{BOOKS}/top-rated", {"limit": 100})
    with django_assert_num_queries(3):
        # 1. the revision  2. the count of this range  3. the page
        reader.get(f"{BOOKS}/price-range", {"min": "1", "page_size": 100})
    with django_assert_num_queries(2):
        # 1. the revision  2. the book with its category
        reader.get(f"{BOOKS}/{book.pk}")
    with django_assert_num_queries(3):
        # 1. the revision  2. the book  3. its observations
        reader.get(f"{BOOKS}/{book.pk}/history")
    with django_assert_num_queries(3):
        # 1. the revision  2. the count  3. all books with their categories
        b"".join(reader.get(BOOKS, {"page_size": "all"}))
    with django_assert_num_queries(2):
        # 1. the revision  2. all books with their categories
        b"".join(reader.get(BOOKS, {"format": "csv"}))


def test_the_count_follows_the_revision(reader: Client) -> None:
    make_books(3)
    first = reader.get(BOOKS, {"page_size": 2}).json()
    assert first["count"] == 3
    make_books(2)
    assert reader.get(first["next"]).json()["count"] == 5
    assert Book.objects.count() == 5
