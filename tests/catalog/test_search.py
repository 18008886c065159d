"""Search: every word, best first, and the same on every database."""

from __future__ import annotations

import pytest

from catalog.models import Book
from catalog.search import search, words_of
from tests.factories import make_book

pytestmark = pytest.mark.django_db


def found(question: str) -> list[tuple[str, int]]:
    books = search(Book.objects.listed(), question).order_by("rank", "id")
    return [(book.title, book.rank) for book in books]  # type: ignore[attr-defined]


def test_ranks_go_from_the_title_itself_to_a_word_of_the_description() -> None:
    make_book(title="Nothing", description="the dark sea", authors=[])
    make_book(title="Undarkened Overseas")
    make_book(title="Sea (dark)")
    make_book(title="Dark Sea Rising")
    make_book(title="DÁRK sea")
    make_book(title="Dark alone")
    assert found("dark SEA") == [
        ("DÁRK sea", 0),
        ("Dark Sea Rising", 1),
        ("Sea (dark)", 2),
        ("Undarkened Overseas", 3),
        ("Nothing", 4),
    ]


def test_equals_follow_by_id() -> None:
    ids = [make_book(title="Same").pk for _ in range(3)]
    assert list(search(Book.objects.all(), "same").order_by("rank", "id").values_list("pk", flat=True)) == ids


def test_words_may_be_in_different_places() -> None:
    make_book(title="Ships", authors=["Anna Øre"], description="of glass")
    assert found("glass anna ships") == [("Ships", 4)]
    assert found("glass anna boats") == []


@pytest.mark.parametrize("question", ["%", "_", "\\", "100%", "a_b", "c:\\d"])
def test_wildcards_are_ordinary_characters(question: str) -> None:
    make_book(title="plain", description="nothing special", authors=[])
    make_book(title=f"with {question} inside", authors=[])
    assert found(question) == [(f"with {question} inside", 2)]


@pytest.mark.parametrize("title", ['"Sea"', "The (sea)", "Over-sea", "“Sea”", "l'sea"])
def test_a_word_starts_behind_punctuation(title: str) -> None:
    make_book(title=title)
    assert found("sea") == [(title, 2)]


def test_quotes_and_comments_are_no_sql() -> None:
    make_book(title="O'Reilly; -- drop")
    assert found("o'reilly; --") == [("O'Reilly; -- drop", 1)]


def test_a_question_is_folded_and_split() -> None:
    assert words_of("  CAFÉ\tau\u00a0lait ") == ["cafe", "au", "lait"]
    assert words_of("\u0301") == []
