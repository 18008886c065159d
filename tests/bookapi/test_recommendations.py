"""Recommendations: which books, in which order, why, and what is answered when there is no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from bookapi import health
from catalog.curation import merge
from catalog.models import Book
from recommender import recommending
from recommender.client import forget
from recommender.engine.engine import Engine
from recommender.models import Pin
from tests.factories import change_book, make_book
from tests.recommender.library import make_library, train_champion

API = "/api/v1"
ANY = {"in_stock": "any"}


@pytest.fixture(autouse=True)
def _no_model_yet(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.RECOMMENDER_URL = ""
    settings.RECOMMENDER_DEADLINE_S = 30.0  # these tests are not about time
    settings.ARTIFACT_STORE = str(tmp_path / "models")
    yield
    forget()


@pytest.fixture
def library(db: None) -> list[Book]:
    return make_library()


def train(settings: Any) -> str:
    """A model of the catalogue as it is now, served from the next question on."""
    version = train_champion(settings.ARTIFACT_STORE)
    forget()
    return version


@pytest.fixture
def model(library: list[Book], settings: Any) -> str:
    return train(settings)


def of(client: Client, book: Book, **query: Any) -> dict[str, Any]:
    answer = client.get(f"{API}/books/{book.pk}/recommendations", query)
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def ask(client: Client, **body: Any) -> Any:
    return client.post(f"{API}/recommendations", body, content_type="application/json")


def ids(body: dict[str, Any]) -> list[int]:
    return [result["book"]["id"] for result in body["results"]]


def books_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [result["book"] for result in body["results"]]


# --- What an answer is ------------------------------------------------------------------------------------------------
def test_an_answer_holds_whole_books_with_score_and_reasons(reader: Client, library: list[Book], model: str) -> None:
    body = of(reader, library[0], limit=5)
    assert list(body) == ["book", "source", "model", "results"]
    assert (body["book"], body["source"], body["model"]) == (library[0].pk, "model", {"version": model})
    assert len(body["results"]) == 5
    for result in body["results"]:
        assert list(result) == ["book", "score", "reasons"]
        assert result["book"] == reader.get(f"{API}/books/{result['book']['id']}").json()
        assert 0 < result["score"] <= 1
        assert result["reasons"]
        assert all(set(reason) == {"kind", "detail"} for reason in result["reasons"])
    scores = [result["score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {book["category"]["name"] for book in books_of(body)} == {library[0].category.name}


@pytest.mark.parametrize("limit", [1, 7, 60, 99, 100])
def test_there_are_exactly_as_many_as_asked_for_each_once_and_never_the_book_itself(
    reader: Client, library: list[Book], model: str, limit: int
) -> None:
    found = ids(of(reader, library[3], limit=limit))
    in_stock = sum(book.in_stock for book in library) - 1
    assert len(found) == len(set(found)) == min(limit, in_stock)
    assert library[3].pk not in found


def test_ten_are_given_where_nothing_is_said(reader: Client, library: list[Book], model: str) -> None:
    assert len(ids(of(reader, library[0]))) == 10


def test_the_number_of_queries_is_that_of_a_small_answer(
    reader: Client, library: list[Book], model: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    of(reader, library[0])  # the model is loaded, statements are written
    for limit in (2, 60):
        with django_assert_num_queries(4):  # revision, pins, the book, the books that may be shown
            of(reader, library[0], limit=limit)
    with django_assert_num_queries(5):  # and which books the filter leaves
        of(reader, library[0], category="Crime", limit=20)


@pytest.fixture(params=[0, 1000])
def asked_in_either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is told at once which books may be, or is asked again because the first few may not."""
    monkeypatch.setattr(recommending, "NARROW", request.param)
    monkeypatch.setattr(recommending, "DEEP", 8)


# --- Which books ------------------------------------------------------------------------------------------------------
def test_books_out_of_stock_are_left_out_unless_they_are_asked_for(
    reader: Client, library: list[Book], model: str
) -> None:
    def stocks(**query: str) -> set[bool]:
        return {book["in_stock"] for book in books_of(of(reader, library[0], limit=50, **query))}

    assert stocks() == stocks(in_stock="true") == stocks(in_stock="") == {True}
    assert stocks(in_stock="any") == {True, False}
    assert stocks(in_stock="false") == {False}


def test_books_that_left_or_were_hidden_or_merged_are_never_recommended(
    reader: Client, library: list[Book], model: str
) -> None:
    first = ids(of(reader, library[0], limit=4))
    change_book(Book.objects.get(pk=first[0]), listed=False)
    change_book(Book.objects.get(pk=first[1]), hidden=True)
    merge(first[3], [first[2]])
    found = ids(of(reader, library[0], limit=100, in_stock="any"))
    assert len(found) == 100
    assert found[0] == first[3]
    assert not set(first[:3]) & set(found)


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ({"category": "Travel", "min_price": "20", "max_price": "22"}, lambda b: 20 <= b.price <= 22),
        ({"category": "travel"}, lambda _: True),
        ({"category": "Travel", "min_rating": "5"}, lambda b: b.rating == 5),
        ({"category": "Travel", "title": "harbour"}, lambda b: "harbour" in b.title.lower()),
        ({"category": "Travel", "price": "12.50"}, lambda b: b.price == 12.5),
    ],
)
@pytest.mark.usefixtures("model", "asked_in_either_way")
def test_a_filter_leaves_exactly_the_books_that_pass_however_the_model_is_asked(
    reader: Client, library: list[Book], query: dict[str, str], passes: Callable[[Book], bool]
) -> None:
    """Asked about a book of another shelf, whose nearest books do not pass."""
    subject = next(book for book in library if book.category.name == "Poetry")
    passing = {book.pk for book in library if book.category.name == "Travel" and book.in_stock and passes(book)}
    assert passing
    for limit in (3, 50):
        body = of(reader, subject, limit=limit, **query)
        found = ids(body)
        assert body["source"] == "model"
        assert len(found) == len(set(found)) == min(limit, len(passing))
        assert set(found) <= passing
        assert all(result["reasons"] for result in body["results"])


def test_excluded_books_are_replaced_by_the_next_ones(reader: Client, library: list[Book], model: str) -> None:
    first = ids(of(reader, library[0], limit=10))
    exclude = f"{first[0]},{first[2]},999999999"
    found = ids(of(reader, library[0], limit=8, exclude=exclude))
    assert found == [first[1], *first[3:10]]


def test_diversity_reaches_beyond_the_nearest_shelf(reader: Client, library: list[Book], model: str) -> None:
    def shelves(diversity: str) -> set[str]:
        return {book["category"]["name"] for book in books_of(of(reader, library[0], diversity=diversity))}

    assert len(shelves("0")) == 1
    assert len(shelves("1")) > 1


def test_a_book_that_came_after_the_training_is_found_others_by_its_text(
    reader: Client, library: list[Book], model: str
) -> None:
    late = make_book(title="The Last Verdict", description="murder, alibi, clue, motive, corpse", category="Crime")
    body = of(reader, late)
    assert body["source"] == "model"
    assert {book["category"]["name"] for book in books_of(body)} == {"Crime"}
    assert len(body["results"]) == 10


def test_books_that_the_model_does_not_know_fill_up_what_is_missing(
    reader: Client, library: list[Book], model: str
) -> None:
    late = [make_book(category="Gardening", rating=stars) for stars in (2, 5, 3)]
    body = of(reader, library[0], category="Gardening")
    assert body["source"] == "model"
    assert ids(body) == [late[1].pk, late[2].pk, late[0].pk]
    assert [result["score"] for result in body["results"]] == [0, 0, 0]


# --- Curators ---------------------------------------------------------------------------------------------------------
def pin(book: Book, other: Book, position: int = 1, kind: str = "pin") -> Pin:
    return Pin.objects.create(book=book, other=other, kind=kind, position=position)


def of_another_shelf(library: list[Book], n: int) -> list[Book]:
    return [book for book in library if book.category != library[0].category and book.in_stock][:n]


def test_pins_come_first_in_their_order_and_blocked_books_never(
    reader: Client, library: list[Book], model: str
) -> None:
    before = ids(of(reader, library[0], limit=12))
    one, two = of_another_shelf(library, 2)
    pin(library[0], two, 2)
    pin(library[0], one, 1)
    pin(library[0], Book.objects.get(pk=before[4]), 3)
    pin(library[0], Book.objects.get(pk=before[0]), kind="block")
    body = of(reader, library[0], limit=12)
    assert ids(body) == [one.pk, two.pk, before[4], *before[1:4], *before[5:11]]
    assert [result["reasons"] for result in body["results"][:3]] == [[{"kind": "pin", "detail": ""}]] * 3
    assert body["results"][0]["score"] == 1
    assert ids(of(reader, library[0], limit=1)) == [one.pk]
    assert one.pk not in ids(of(reader, library[4], limit=5))  # a pin is of its book alone


def test_a_pin_is_no_way_around_filters_or_the_state_of_a_book(reader: Client, library: list[Book], model: str) -> None:
    delisted, hidden, sold_out, dear, unwanted = of_another_shelf(library, 5)
    for position, book in enumerate((delisted, hidden, sold_out, dear, unwanted), 1):
        pin(library[0], book, position)
    change_book(delisted, listed=False)
    change_book(hidden, hidden=True)
    change_book(sold_out, stock=0)
    change_book(dear, price="90.00")
    found = ids(of(reader, library[0], max_price="50", exclude=str(unwanted.pk)))
    assert len(found) == 10
    assert not {delisted.pk, hidden.pk, sold_out.pk, dear.pk, unwanted.pk} & set(found)
    assert ids(of(reader, library[0], in_stock="any"))[:3] == [sold_out.pk, dear.pk, unwanted.pk]


def test_a_pinned_book_that_was_merged_stands_for_its_survivor(reader: Client, library: list[Book], model: str) -> None:
    gone, survivor = of_another_shelf(library, 2)
    pin(library[0], gone)
    merge(survivor.pk, [gone.pk])
    assert ids(of(reader, library[0]))[0] == survivor.pk


# --- Addresses --------------------------------------------------------------------------------------------------------
def test_a_merged_book_leads_to_its_survivor_and_others_that_are_not_shown_are_404(
    reader: Client, library: list[Book]
) -> None:
    change_book(library[0], hidden=True)  # of merged books the survivor alone says whether they are shown
    merge(library[1].pk, [library[0].pk])
    moved = reader.get(f"{API}/books/{library[0].pk}/recommendations?limit=3")
    assert moved.status_code == 301
    assert moved["Location"] == f"http://testserver{API}/books/{library[1].pk}/recommendations?limit=3"
    change_book(library[2], hidden=True)
    for book in (library[2].pk, 999_999_999, 10**30):
        assert reader.get(f"{API}/books/{book}/recommendations").status_code == 404


def test_a_delisted_book_still_has_recommendations(reader: Client, library: list[Book], model: str) -> None:
    change_book(library[0], listed=False)
    assert len(ids(of(reader, library[0]))) == 10


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=5.0", "limit"),
        ("limti=5", "limti"),
        ("limit=5&limit=6", "limit"),
        ("in_stock=maybe", "in_stock"),
        ("diversity=1.1", "diversity"),
        ("diversity=-0.1", "diversity"),
        ("diversity=nan", "diversity"),
        ("diversity=1_0", "diversity"),
        ("exclude=1,a", "exclude"),
        ("exclude=1,,2", "exclude"),
        ("exclude=0", "exclude"),
        ("min_price=abc", "min_price"),
        ("min_price=9&max_price=8", "min_price"),
        ("listed=any", "listed"),
        ("page_size=5", "page_size"),
    ],
)
def test_what_is_not_understood_is_refused(reader: Client, library: list[Book], query: str, field: str) -> None:
    answer = reader.get(f"{API}/books/{library[0].pk}/recommendations?{query}")
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_reading_needs_a_token_unless_everybody_may_read(client: Client, library: list[Book], settings: Any) -> None:
    assert client.get(f"{API}/books/{library[0].pk}/recommendations").status_code == 401
    assert ask(client, books=[library[0].pk]).status_code == 401
    settings.PUBLIC_READ = True
    assert client.get(f"{API}/books/{library[0].pk}/recommendations").status_code == 200
    assert ask(client, books=[library[0].pk]).status_code == 200


# --- Without a model --------------------------------------------------------------------------------------------------
def test_without_a_model_the_best_rated_of_the_category_then_of_all_are_recommended(
    reader: Client, library: list[Book]
) -> None:
    body = of(reader, library[0], limit=40)
    assert (body["source"], body["model"]) == ("fallback", None)
    own = [book for book in library if book.category == library[0].category and book.in_stock and book != library[0]]
    rest = [book for book in library if book.category != library[0].category and book.in_stock]
    by_rating = [sorted(shelf, key=lambda b: (-b.rating, b.price, b.pk)) for shelf in (own, rest)]
    assert ids(body) == [book.pk for shelf in by_rating for book in shelf][:40]
    n = len(own)
    reason = [{"kind": "category", "detail": library[0].category.name}]
    assert [result["reasons"] for result in body["results"]] == [reason] * n + [[]] * (40 - n)
    assert {result["score"] for result in body["results"]} == {0}


def test_without_a_model_filters_pins_and_exclusions_hold_as_well(reader: Client, library: list[Book]) -> None:
    pinned, blocked = of_another_shelf(library, 2)
    pin(library[0], pinned)
    pin(library[0], blocked, kind="block")
    first = ids(of(reader, library[0], limit=3))
    assert first[0] == pinned.pk
    body = of(reader, library[0], limit=100, in_stock="any", max_price="30", exclude=str(first[1]))
    passing = {book.pk for book in library if book.price <= 30}
    assert set(ids(body)) == passing - {library[0].pk, blocked.pk, first[1]}


def test_a_model_that_fails_is_no_failure_of_the_answer(
    reader: Client, library: list[Book], model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(Engine, "similar", broken)
    body = of(reader, library[0])
    assert body["source"] == "fallback"
    assert len(body["results"]) == 10
    assert "recommender failed" in caplog.text


def test_a_store_that_is_no_store_is_no_failure_of_the_answer(
    reader: Client, library: list[Book], settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for store in (str(tmp_path / "file"), "nosuchprotocol://bucket/models"):
        settings.ARTIFACT_STORE = store
        assert of(reader, library[0])["source"] == "fallback"


@pytest.mark.usefixtures("library")
def test_health_tells_which_model_is_served(settings: Any) -> None:
    assert health.facts()["model_version"] is None
    version = train(settings)
    assert health.facts()["model_version"] == version


# --- Conditional reads ------------------------------------------------------------------------------------------------
def test_the_tag_moves_with_the_catalogue_the_model_and_the_pins_and_with_nothing_else(
    reader: Client, library: list[Book], settings: Any
) -> None:
    address = f"{API}/books/{library[0].pk}/recommendations"

    def tag(query: str = "") -> str:
        answer = reader.get(address + query)
        again = reader.get(address + query, headers={"If-None-Match": answer["ETag"]})
        assert (answer.status_code, again.status_code, again.content) == (200, 304, b"")
        assert again["ETag"] == answer["ETag"]
        assert not answer["ETag"].startswith("W/")
        assert answer["Cache-Control"] == "private, no-cache"
        return answer["ETag"]

    tags = [tag()]
    train(settings)
    tags.append(tag())
    change_book(library[50], price="11.11")
    tags.append(tag())
    word = pin(library[0], library[50])
    tags.append(tag())
    word.kind = "block"
    word.save()
    tags.append(tag())
    tags.append(tag("?limit=3"))
    train(settings)
    tags.append(tag())
    assert len(set(tags)) == len(tags)

    pin(library[1], library[50])
    assert tag() == tags[-1]
    word.delete()
    pin(library[0], library[50], kind="block")
    assert tag() == tags[-1]
    assert reader.get(address, headers={"If-None-Match": f'"other", W/{tags[-1]}'}).status_code == 304
    assert reader.get(address, headers={"If-None-Match": "*"}).status_code == 304
    assert reader.get(address, headers={"If-None-Match": tags[0]}).status_code == 200


def test_an_unchanged_answer_costs_two_queries_and_no_question(
    reader: Client,
    library: list[Book],
    model: str,
    django_assert_num_queries: DjangoAssertNumQueries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"{API}/books/{library[0].pk}/recommendations"
    tag = reader.get(address)["ETag"]
    monkeypatch.delattr(Engine, "similar")
    with django_assert_num_queries(2):  # revision, pins
        assert reader.get(address, headers={"If-None-Match": tag}).status_code == 304


# --- Texts and baskets ------------------------------------------------------------------------------------------------
def test_a_text_that_is_not_in_the_catalogue_finds_books_like_it(
    reader: Client, library: list[Book], model: str
) -> None:
    answer = ask(reader, text={"title": "The Alibi", "description": "corpse\nand\nclue", "price": 9.99}, limit=5)
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["book"], body["source"], body["model"]) == (None, "model", {"version": model})
    assert {book["category"]["name"] for book in books_of(body)} == {"Crime"}
    assert len(body["results"]) == 5
    assert "ETag" not in answer
    assert answer["Cache-Control"] == "no-store"


def test_a_basket_of_one_finds_what_the_book_finds_and_options_mean_the_same(
    reader: Client, library: list[Book], model: str
) -> None:
    pin(library[0], of_another_shelf(library, 1)[0])
    exclude = ids(of(reader, library[0]))[2]
    query = {"limit": "30", "in_stock": "any", "max_price": "30.5", "category": ["Poetry", "Crime"], "diversity": "0.3"}
    asked = of(reader, library[0], exclude=str(exclude), ids=",".join(str(b.pk) for b in library[:90]), **query)
    answer = ask(
        reader,
        books=[library[0].pk],
        limit=30,
        in_stock="any",
        max_price=30.5,
        category=["Poetry", "Crime"],
        diversity=0.3,
        exclude=[exclude],
        ids=[book.pk for book in library[:90]],
    )
    assert answer.status_code == 200, answer.content
    assert answer.json()["results"] == asked["results"]
    assert len(asked["results"]) > 5


def test_a_basket_finds_others_than_itself_and_knows_merged_books(
    reader: Client, library: list[Book], model: str
) -> None:
    change_book(library[8], hidden=True)  # of merged books the survivor alone says whether they are shown
    merge(library[4].pk, [library[8].pk])
    body = ask(reader, books=[library[0].pk, library[8].pk], limit=50, in_stock="any").json()
    assert len(body["results"]) == 50
    assert not {library[0].pk, library[8].pk, library[4].pk} & set(ids(body))


def test_a_basket_knows_no_hidden_book_nor_one_that_was_merged_into_it(reader: Client, library: list[Book]) -> None:
    merge(library[4].pk, [library[8].pk])
    change_book(library[4], hidden=True)
    answer = ask(reader, books=[library[0].pk, library[4].pk, library[8].pk])
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["books.1", "books.2"]


def test_a_basket_of_books_that_the_model_does_not_know_is_asked_by_its_texts(
    reader: Client, library: list[Book], model: str
) -> None:
    late = [make_book(category="Crime", title="The Verdict", description="murder clue corpse") for _ in range(2)]
    body = ask(reader, books=[book.pk for book in late]).json()
    assert body["source"] == "model"
    assert {book["category"]["name"] for book in books_of(body)} == {"Crime"}


def test_without_a_model_texts_and_baskets_get_the_best_rated_of_their_categories(
    reader: Client, library: list[Book]
) -> None:
    for body in ({"text": {"category": "crime"}}, {"books": [library[1].pk]}):
        answer = ask(reader, **body).json()
        assert answer["source"] == "fallback"
        assert {book["category"]["name"] for book in books_of(answer)} == {"Crime"}
        assert answer["results"][0]["book"]["rating"] == 5
    of_all = ask(reader, text={"title": "Anything"}).json()
    assert {book["rating"] for book in books_of(of_all)} == {5}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": {"title": "T"}, "books": [1]}, "text"),
        ({"text": "T"}, "text"),
        ({"text": None}, "text"),
        ({"text": {}}, "text"),
        ({"text": {"title": "  "}}, "text"),
        ({"text": {"title": 5}}, "text.title"),
        ({"text": {"title": "x" * 501}}, "text.title"),
        ({"text": {"title": "T", "titel": "T"}}, "text.titel"),
        ({"text": {"title": "T", "authors": "One"}}, "text.authors"),
        ({"text": {"title": "T", "authors": ["One", 2]}}, "text.authors"),
        ({"text": {"title": "T", "price": "9"}}, "text.price"),
        ({"text": {"title": "T", "price": -1}}, "text.price"),
        ({"books": []}, "books"),
        ({"books": 5}, "books"),
        ({"books": [1] * 101}, "books"),
        ({"books": ["1"]}, "books.0"),
        ({"books": [10**25]}, "books.0"),
        ({"books": [True]}, "books.0"),
        ({"books": [999_999_999]}, "books.0"),
        ({"books": [1], "limit": "5"}, "limit"),
        ({"books": [1], "limit": 5.5}, "limit"),
        ({"books": [1], "limit": True}, "limit"),
        ({"books": [1], "limit": 101}, "limit"),
        ({"books": [1], "in_stock": 1}, "in_stock"),
        ({"books": [1], "in_stock": "maybe"}, "in_stock"),
        ({"books": [1], "exclude": "1,2"}, "exclude"),
        ({"books": [1], "exclude": [1, "2"]}, "exclude"),
        ({"books": [1], "exclude": [[1]]}, "exclude"),
        ({"books": [1], "diversity": "0.5"}, "diversity"),
        ({"books": [1], "diversity": 2}, "diversity"),
        ({"books": [1], "min_price": 10.005}, "min_price"),
        ({"books": [1], "min_price": 9, "max_price": 8}, "min_price"),
        ({"books": [1], "category": 5}, "category"),
        ({"books": [1], "category": [None]}, "category"),
        ({"books": [1], "listed": "any"}, "listed"),
        ({"books": [1], "k": 5}, "k"),
    ],
)
def test_a_body_that_is_not_understood_is_refused_by_name(reader: Client, body: dict[str, Any], field: str) -> None:
    answer = ask(reader, **body)
    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_true_false_and_nothing_are_options_of_a_body(reader: Client, library: list[Book], model: str) -> None:
    def stocks(value: Any) -> set[bool]:
        body = ask(reader, books=[library[0].pk], in_stock=value, limit=50, category=None, exclude=[]).json()
        return {book["in_stock"] for book in books_of(body)}

    assert (stocks(True), stocks(False), stocks("any"), stocks(None)) == ({True}, {False}, {True, False}, {True})


def test_the_queries_of_a_basket_do_not_grow_with_it(
    reader: Client, library: list[Book], model: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    of(reader, library[0])
    for n in (2, 60):
        # The account and its login, as for every POST; the basket, its pins, the books that may be shown.
        with django_assert_num_queries(5):
            assert ask(reader, books=[book.pk for book in library[:n]], limit=20).status_code == 200


def test_a_query_string_of_a_question_is_refused(reader: Client, library: list[Book]) -> None:
    answer = reader.post(f"{API}/recommendations?limit=5", {"books": [1]}, content_type="application/json")
    assert answer.status_code == 400
