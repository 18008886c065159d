"""What an engine learns from interactions, and who cannot sway it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from pytest_django import DjangoAssertNumQueries

from catalog.models import Book
from recommender.engine.coreads import co_reads
from recommender.engine.corpus import Corpus
from recommender.engine.recipes import DEFAULT, recipe
from recommender.models import Interaction
from recommender.readings import BOOKS_PER_READER, readings_from_interactions
from recommender.training import corpus_from_catalogue
from tests.bookapi.logins import make_user
from tests.factories import make_book, make_books

pytestmark = pytest.mark.django_db
BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
_keys = count()


def service(name: str = "shop") -> User:
    """An account that may report for many readers."""
    user = make_user(name)
    user.user_permissions.add(Permission.objects.get(codename="report_readers"))
    return user


def did(account: User, reader: str, book: Book, kind: str = "like", value: int | None = None, *, day: int = 0) -> None:
    Interaction.objects.create(
        account=account,
        reader=reader,
        book=book,
        kind=kind,
        value=value,
        at=BEGIN + timedelta(days=day),
        key=str(next(_keys)),
    )


def weights() -> list[list[float]]:
    """Rows of readers, columns of books, to two places."""
    matrix = readings_from_interactions(corpus_from_catalogue()).matrix.toarray()
    return [[round(float(weight), 2) for weight in row] for row in matrix]


@pytest.mark.parametrize(
    ("kind", "value", "weight"),
    [
        *(("like", None, 1.0), ("click", None, 0.2), ("view", None, 0.1)),
        *(("rate", 5, 1.0), ("rate", 4, 1.0), ("rate", 3, 0.5)),
    ],
)
def test_what_a_reader_did_says_so_much(kind: str, value: int | None, weight: float) -> None:
    did(service(), "r", make_book(), kind, value)
    assert weights() == [[weight]]


@pytest.mark.parametrize(("kind", "value"), [("dislike", None), ("rate", 2), ("rate", 1)])
def test_a_book_that_was_not_liked_is_taken_out_whatever_was_done_with_it_else(kind: str, value: int | None) -> None:
    shop, books = service(), make_books(2)
    did(shop, "r", books[0])
    did(shop, "r", books[1], "click")
    did(shop, "r", books[1], kind, value, day=1)
    did(shop, "r", books[1], "view", day=2)
    assert weights() == [[1.0, 0.0]]


def test_of_several_opinions_the_latest_counts_and_of_other_acts_the_weightiest_once() -> None:
    shop, books = service(), make_books(2)
    did(shop, "r", books[0], "like", day=2)
    did(shop, "r", books[0], "rate", 1, day=1)
    did(shop, "r", books[0], "rate", 3, day=3)
    for day in range(5):
        did(shop, "r", books[1], "click" if day == 2 else "view", day=day)
    assert weights() == [[0.5, 0.2]]


def test_readers_of_two_services_with_one_name_are_two() -> None:
    book = make_book()
    did(service("one"), "r", book)
    did(service("two"), "r", book)
    assert weights() == [[1.0], [1.0]]


def test_books_that_left_are_nothing_to_learn_from_and_a_merged_one_is_its_survivor() -> None:
    shop = service()
    survivor, delisted, hidden, merged = make_book(), make_book(), make_book(), make_book()
    for book in (delisted, hidden, merged):
        did(shop, "r", book)
    Book.objects.filter(pk=delisted.pk).update(listed=False)
    Book.objects.filter(pk=hidden.pk).update(hidden=True)
    Book.objects.filter(pk=merged.pk).update(merged_into=survivor)
    assert weights() == [[1.0]]


def test_without_interactions_or_books_there_are_no_readers() -> None:
    assert readings_from_interactions(corpus_from_catalogue()).n_readers == 0
    did(service(), "r", make_book(hidden=True))
    assert readings_from_interactions(corpus_from_catalogue()).n_readers == 0
    assert readings_from_interactions(Corpus.of_text("A title")).n_readers == 0


def test_one_plain_account_that_invents_five_hundred_readers_changes_nothing_that_three_real_ones_would() -> None:
    books = make_books(4)
    corpus = corpus_from_catalogue()

    def likeness() -> Any:
        return co_reads(readings_from_interactions(corpus), recipe(DEFAULT)).scores.toarray()

    before = likeness()
    liar = make_user("liar")
    keys = (f"{number}/{book.pk}" for number in range(500) for book in books[:2])
    Interaction.objects.bulk_create(
        Interaction(account=liar, reader=key.split("/")[0], book_id=int(key.split("/")[1]), kind="like", key=key)
        for key in keys
    )
    assert readings_from_interactions(corpus).n_readers == 1
    assert np.array_equal(likeness(), before)
    for number in range(3):
        honest = make_user(f"honest{number}")
        for book in books[2:]:
            did(honest, "me", book)
    after = likeness()
    assert after[2, 3] > 0
    assert after[0, 1] == 0


def test_a_disabled_account_counts_no_more() -> None:
    shop = service()
    did(shop, "r", make_book())
    User.objects.filter(pk=shop.pk).update(is_active=False)
    assert weights() == []


def test_of_a_reader_of_everything_the_latest_books_count() -> None:
    shop, books = service(), make_books(BOOKS_PER_READER + 10)
    Interaction.objects.bulk_create(
        Interaction(
            account=shop, reader="r", book=book, kind="view", at=BEGIN + timedelta(days=number), key=f"v{number}"
        )
        for number, book in enumerate(books)
    )
    did(shop, "s", books[0])
    (all_read, _) = readings_from_interactions(corpus_from_catalogue()).matrix.toarray()
    assert not all_read[:10].any()
    assert all_read[10:].all()


@pytest.mark.parametrize("number", [1, 40])
def test_three_queries_read_any_number_of_interactions(
    number: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    shop, books = service(), make_books(number)
    for book in books:
        did(shop, "r", book)
    corpus = corpus_from_catalogue()
    with django_assert_num_queries(3):  # trusted accounts, merged books, interactions
        readings_from_interactions(corpus)
