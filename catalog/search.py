"""Books that hold every word of a question, best first, the same on every database."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Case, IntegerField, Q, Value, When

from catalog.querysets import BookQuerySet
from catalog.text import fold

WORDS_MAX = 20
#: What a word may stand behind to be at the start of a word. LIKE knows no word boundary, and the regular expressions
#: of the two databases do not agree on one.
BEFORE_WORDS = (" ", "(", "-", "/", '"', "'", "“", "‘", "«")


def words_of(question: str) -> list[str]:
    """The folded words of a question, in its order. A question worth asking has 1 to `WORDS_MAX`."""
    return fold(question).split()


def search(books: BookQuerySet, question: str) -> BookQuerySet:
    """The books with every word of `question` in title, authors or description, annotated with `rank`.

    Ranks, best first: 0 the question is the title; 1 the title starts with it; 2 every word starts a word of the
    title; 3 every word is in the title; 4 some are only in authors or description.
    """
    words = words_of(question)
    for word in dict.fromkeys(words):
        books = books.filter(search_key__contains=word)
    return books.annotate(rank=_rank(words))


def _rank(words: Sequence[str]) -> Case:
    phrase = " ".join(words)
    starts, within = Q(), Q()
    for word in dict.fromkeys(words):
        starts_a_word = Q(title_key__startswith=word)
        for mark in BEFORE_WORDS:
            starts_a_word |= Q(title_key__contains=mark + word)
        starts &= starts_a_word
        within &= Q(title_key__contains=word)
    return Case(
        When(title_key=phrase, then=Value(0)),
        When(title_key__startswith=phrase, then=Value(1)),
        When(starts, then=Value(2)),
        When(within, then=Value(3)),
        default=Value(4),
        output_field=IntegerField(),
    )
