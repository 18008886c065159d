"""Which books to show beside a book, a text or a basket: the model's choice, the curators' word, the filters' limits.

The model knows neither price nor stock, nor who has left the shop since it was trained. So it is asked for more than
is needed, and the catalogue says which of these may be shown. Where too few remain, the model is told which books may
be, and asked again; the second answer alone is used, so that none mixes two versions of the model.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import Q
from prometheus_client import Counter

from catalog.models import Book
from catalog.querysets import BookQuerySet
from catalog.rows import BOOK_FIELDS, Row, book_shape, compiled, run
from recommender.client import Answer, RecommenderUnavailable, recommender
from recommender.engine.engine import Reason
from recommender.engine.errors import UnknownBook
from recommender.models import Pin
from recommender.service.questions import Question, Text

#: Where no filter is narrow, the model is asked for so many times the books that are wanted: most of them will do, and
#: each costs it 20 microseconds for its reasons alone.
SHALLOW = 2
#: Then for so many: as many as it keeps for every book.
DEEP = 100
#: Books that are named to the model at once, if the filters leave no more than these.
NARROW = 1000

RECOMMENDATIONS = Counter("recommender_recommendations", "Lists of books by who made them.", ["source"])

SHAPE = book_shape()
_ID, _CATEGORY = BOOK_FIELDS.index("id"), BOOK_FIELDS.index("category")


@dataclass(frozen=True, slots=True)
class Curated:
    """What curators want beside a book."""

    pinned: tuple[int, ...] = ()  # first, in this order
    blocked: frozenset[int] = frozenset()  # never


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What similar books are wanted for."""

    text: Text  # what is said about it, for a model that does not know it
    books: Sequence[int] = ()  # the book, or the basket; these are no results
    categories: Collection[str] = ()  # slugs or names, for when there is no model
    curated: Curated = field(default=Curated())

    def question(self) -> Question:
        if not self.books:
            return Question(text=self.text)
        return Question(book=self.books[0]) if len(self.books) == 1 else Question(books=self.books)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many results, and which ones may be."""

    books: BookQuerySet  # that may be shown
    is_narrowed: bool = False  # whether these are fewer than the `shelf`, perhaps by far
    limit: int = 10
    exclude: frozenset[int] = frozenset()
    diversity: float = 0.0


@dataclass(frozen=True, slots=True)
class Recommended:
    row: Row  # of `SHAPE`
    score: float  # likeness, 0 to 1; 1 for a pin, 0 for a book that was not compared
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Recommendations:
    version: str | None  # of the model; None without one
    results: list[Recommended]


def recommend(subject: Subject, wanted: Wanted) -> Recommendations:
    """Exactly `limit` results, wherever so many books may be shown. Never raises for want of a model.

    One query while the model's first choice is enough; one more where filters may be narrow or the model is asked for
    more, two more where it is told what may be shown, and up to two for the best rated books where there are too few.
    """
    never = {*subject.books, *subject.curated.blocked, *wanted.exclude}
    pinned = [book for book in subject.curated.pinned if book not in never]
    answer: Answer | None
    try:
        answer, rows = _by_model(subject, wanted, pinned, never)
    except RecommenderUnavailable:
        answer, rows = None, _rows(wanted, pinned) if pinned else {}
    RECOMMENDATIONS.labels("fallback" if answer is None else "model").inc()
    results = [Recommended(rows[book], 1.0, (Reason("pin", ""),)) for book in pinned if book in rows]
    if answer is not None:
        results += [Recommended(rows[n.id], n.score, n.reasons) for n in answer.neighbors if n.id in rows]
    results = results[: wanted.limit]
    if missing := wanted.limit - len(results):
        never.update(result.row[_ID] for result in results)
        results += best_rated(wanted.books, subject.categories, never, missing)
    return Recommendations(answer.version if answer else None, results)


def curated_for(books: Sequence[int]) -> Curated:
    """What curators said of these books. A pinned book that was merged stands for its survivor. One query."""
    rows = run(_curated_sql(connection.vendor), (orjson.dumps(list(books)).decode(),))
    others = [(merged or other, kind) for other, merged, kind in rows]
    return Curated(
        tuple(dict.fromkeys(other for other, kind in others if kind == Pin.Kind.PIN)),
        frozenset(other for other, kind in others if kind == Pin.Kind.BLOCK),
    )


@cache
def _curated_sql(vendor: str) -> str:
    """Written once; every answer asks it."""
    pins = Pin.objects.filter(book__id__among=[1]).order_by("position", "id")
    sql, params = compiled(pins.values_list("other", "other__merged_into", "kind"))
    assert len(params) == 1, vendor  # noqa: S101
    return sql


# --- With a model -----------------------------------------------------------------------------------------------------
class _Conversation:
    """Questions about one subject, all of them answered within one deadline."""

    def __init__(self, subject: Subject) -> None:
        self._recommender = recommender()
        self._by = time.monotonic() + settings.RECOMMENDER_DEADLINE_S
        self._text = subject.text
        self._question = subject.question()

    def ask(self, k: int, exclude: Collection[int], diversity: float, allow: Collection[int] | None = None) -> Answer:
        """Raises RecommenderUnavailable."""
        self._question = replace(self._question, k=k, exclude=exclude, diversity=diversity, allow=allow)
        try:
            return self._recommender.ask(self._question, self._by)
        except UnknownBook:  # it came after the training
            self._question = replace(self._question, book=None, books=(), text=self._text)
        try:
            return self._recommender.ask(self._question, self._by)
        except UnknownBook as error:
            raise RecommenderUnavailable("The model knows neither the book nor its text.") from error


def _by_model(
    subject: Subject, wanted: Wanted, pinned: Sequence[int], never: Collection[int]
) -> tuple[Answer, dict[int, Row]]:
    """The model's answer, and the rows of the pinned and the answered books that may be shown.

    Raises:
        RecommenderUnavailable: there is no answer.
    """
    conversation = _Conversation(subject)
    exclude = [*never, *pinned]
    if wanted.is_narrowed and len(allow := _ids(wanted.books, NARROW + 1)) <= NARROW:
        answer = conversation.ask(wanted.limit, exclude, wanted.diversity, allow)
        return answer, _rows(wanted, _named(answer, pinned))
    twice = SHALLOW * wanted.limit
    for k in sorted({max(wanted.limit, min(twice, DEEP)), max(twice, DEEP)}):
        answer = conversation.ask(k, exclude, wanted.diversity)
        rows = _rows(wanted, _named(answer, pinned))
        if len(rows) >= wanted.limit or len(answer.neighbors) < k:  # enough; or all that the model knows
            return answer, rows
    answer = conversation.ask(wanted.limit, exclude, wanted.diversity, _ids(wanted.books))
    return answer, _rows(wanted, _named(answer, pinned))


def _named(answer: Answer, pinned: Iterable[int]) -> list[int]:
    return [*pinned, *(neighbor.id for neighbor in answer.neighbors)]


def _ids(books: BookQuerySet, at_most: int | None = None) -> list[int]:
    return [row[0] for row in run(*compiled(books.order_by().values_list("pk")[:at_most]))]


def _rows(wanted: Wanted, ids: Sequence[int]) -> dict[int, Row]:
    """Rows of those of the books that may be shown. One query."""
    write = _rows_sql if wanted.is_narrowed else _shelf_sql
    sql, params = write(wanted.books, connection.vendor)
    named = orjson.dumps(list(ids)).decode()
    return {row[_ID]: row for row in run(sql, (*params, named))}


def _rows_sql(books: BookQuerySet, _vendor: str) -> tuple[str, tuple[Any, ...]]:
    """A query for rows, and its parameters but for the last, which is the ids in JSON."""
    sql, params = compiled(books.filter(pk__among=[]).order_by().values_list(*SHAPE.columns))
    return sql, params[:-1]


#: Written once for each shelf: writing it costs more than running it.
_shelf_sql = cache(_rows_sql)


@cache
def shelf(in_stock: bool | None) -> BookQuerySet:
    """The books that are recommended where nothing else is said: listed, and in stock, out of it, or either."""
    books = Book.objects.listed()
    return books if in_stock is None else books.filter(in_stock=in_stock)


# --- Without a model --------------------------------------------------------------------------------------------------
def best_rated(
    books: BookQuerySet, categories: Collection[str], without: Collection[int], limit: int
) -> list[Recommended]:
    """The best rated of the same categories, then the best rated of all; the cheaper first among equals.

    One query, and a second one where the categories have too few.
    """
    rest = books.filter(~Q(pk__among=without)).order_by("-rating", "price", "id")
    results: list[Recommended] = []
    if categories:
        own = run(*compiled(rest.in_categories(categories).values_list(*SHAPE.columns)[:limit]))
        results = [Recommended(row, 0.0, (Reason("category", row[_CATEGORY]),)) for row in own]
    if missing := limit - len(results):
        without = [*without, *(result.row[_ID] for result in results)]
        others = rest.filter(~Q(pk__among=without))
        results += [Recommended(row, 0.0, ()) for row in run(*compiled(others.values_list(*SHAPE.columns)[:missing]))]
    return results
