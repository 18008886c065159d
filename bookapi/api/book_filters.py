"""What lists of books can be narrowed by, and the orders that they can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError as FieldInvalid
from django_filters import Filter
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from bookapi.api.paging import Filtered, Key, Ordering, Prepared, ordering_by
from bookapi.api.params import (
    Listing,
    Moment,
    Money,
    OneOf,
    Parameter,
    Truth,
    WholeNumber,
    Words,
    clean,
    invalid,
    query_of,
)
from catalog.models import Book
from catalog.querysets import BookQuerySet
from catalog.search import WORDS_MAX, search, words_of
from catalog.text import fold

# --- Filters ----------------------------------------------------------------------------------------------------------


class StrictFilter(Filter):  # type: ignore[misc]  # django-filter has no types
    """A filter with a form field of ours. Cleaning and filtering work without an instance of the FilterSet."""

    def __init__(self, field: forms.Field, description: str, schema: Any, **kwargs: Any) -> None:
        super().__init__(label=description, **kwargs)
        self._field = field
        self.schema = schema


class CategoryFilter(StrictFilter):
    def filter(self, books: BookQuerySet, value: list[str]) -> BookQuerySet:
        return books.in_categories(value)


class TitleFilter(StrictFilter):
    def filter(self, books: BookQuerySet, value: str) -> BookQuerySet:
        return books.titled(value)


class SearchFilter(StrictFilter):
    def filter(self, books: BookQuerySet, value: str) -> BookQuerySet:
        return search(books, value)


class ListedFilter(StrictFilter):
    """Does nothing where `any` is asked; where nothing is asked, the view takes the listed books."""

    def filter(self, books: BookQuerySet, value: str) -> BookQuerySet:
        return books if value == "any" else books.filter(listed=value == "true")


class PartOfTitle(Words):
    """Text of which something is left without accents: an empty rest would be in every title."""

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not fold(text):
            raise FieldInvalid("There is no letter to look for.", code="invalid")
        return text


class Question(Words):
    """Words to search for."""

    def clean(self, value: Any) -> Any:
        question = super().clean(value)
        if not 1 <= len(words_of(question)) <= WORDS_MAX:
            raise FieldInvalid(f"1 to {WORDS_MAX} words are needed.", code="invalid")
        return question


_RATING = {"type": "integer", "minimum": 1, "maximum": 5}
MONEY = {"type": "number", "minimum": 0, "maximum": 99999999.99, "multipleOf": 0.01}
_STRING = {"type": "string"}


class BookFilter(FilterSet):  # type: ignore[misc]
    """What lists of books can be narrowed by. Several filters are combined with AND."""

    q = SearchFilter(Question(), "Words that title, authors or description must all hold; best first.", _STRING)
    category = CategoryFilter(
        Words(), "Name (without regard to case and accents) or slug; sent several times, any of them.", _STRING
    )
    title = TitleFilter(PartOfTitle(), "A part of the title, without regard to case and accents.", _STRING)
    shop = StrictFilter(Words(), "Slug of the shop.", _STRING, field_name="shop")
    upc = StrictFilter(Words(), "The shop's code of the book.", _STRING, field_name="upc")
    ids = StrictFilter(Listing(WholeNumber()), "Up to 1,000 ids: `1,2,3`.", _STRING, field_name="id", lookup_expr="in")
    price = StrictFilter(Money(), "The exact price.", MONEY, field_name="price")
    min_price = StrictFilter(Money(), "The least price.", MONEY, field_name="price", lookup_expr="gte")
    max_price = StrictFilter(Money(), "The highest price.", MONEY, field_name="price", lookup_expr="lte")
    rating = StrictFilter(WholeNumber(min_value=1, max_value=5), "Stars, 1 to 5.", _RATING, field_name="rating")
    min_rating = StrictFilter(
        WholeNumber(min_value=1, max_value=5), "The fewest stars.", _RATING, field_name="rating", lookup_expr="gte"
    )
    max_rating = StrictFilter(
        WholeNumber(min_value=1, max_value=5), "The most stars.", _RATING, field_name="rating", lookup_expr="lte"
    )
    in_stock = StrictFilter(Truth(), "Whether there are copies.", {"type": "boolean"}, field_name="in_stock")
    min_stock = StrictFilter(
        WholeNumber(max_value=2**31 - 1),
        "The fewest copies.",
        {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        field_name="stock",
        lookup_expr="gte",
    )
    listed = ListedFilter(
        OneOf("true", "false", "any"),
        "In the shop, as far as the last complete crawl knows.",
        {"type": "string", "enum": ["true", "false", "any"], "default": "true"},
    )
    updated_since = StrictFilter(
        Moment(),
        "Changed at this time or later (RFC 3339). To follow changes, use /changes: it misses none.",
        {"type": "string", "format": "date-time"},
        field_name="updated_at",
        lookup_expr="gte",
    )


FILTERS: Mapping[str, StrictFilter] = BookFilter.base_filters
REPEATABLE = frozenset({"category"})


def filter_schema(*without: str) -> list[OpenApiParameter]:
    """The filters as parameters of an operation."""
    return [
        OpenApiParameter(
            name,
            declared.schema if name not in REPEATABLE else {"type": "array", "items": declared.schema},
            description=declared.label,
            explode=True if name in REPEATABLE else None,
        )
        for name, declared in FILTERS.items()
        if name not in without
    ]


# --- Orders -----------------------------------------------------------------------------------------------------------

BEST_MATCH = Ordering("best match", (Key("rank"), Key("id")))
TOP_RATED = Ordering("-rating,price", (Key("rating", "integer", descending=True), Key("price", "money"), Key("id")))
ORDERINGS = {
    ordering.name: ordering
    for ordering in (
        *ordering_by("id"),
        *ordering_by("title_key", "text", name="title"),
        *ordering_by("price", "money"),
        *ordering_by("rating"),
        *ordering_by("stock"),
        *ordering_by("updated_at", "time"),
        TOP_RATED,
    )
}
ORDERING = Parameter(
    "ordering",
    OneOf(*ORDERINGS),
    "`-` for descending; books that are equal in it follow by id. Default: id, or the best match where `q` is sent.",
    enum=list(ORDERINGS),
)


# --- The books that a request asks for -------------------------------------------------------------------------------

LISTED = Prepared("", Book.objects.listed)


def filtered(request: Request, books: BookQuerySet | None = None, signature: str = "") -> Filtered | Prepared:
    """The books that the request's filters leave, of `books` (whose `signature` names them) or of all visible ones.

    Only what was sent is cleaned and applied: a FilterSet with its form costs a millisecond a request.

    Raises:
        ValidationError: a value that its filter does not understand, or a least that is above the most.
    """
    sent = {
        name: values
        for name, all_values in query_of(request).items()
        if name in FILTERS and (values := [value for value in all_values if value])
    }
    if not sent and books is None:
        return LISTED
    rows, narrowing = narrowed(Book.objects.visible() if books is None else books, sent)
    if "listed" not in sent:
        rows = rows.filter(listed=True)
    return Filtered(rows, signature + narrowing)


def narrowed(books: BookQuerySet, sent: Mapping[str, Sequence[str]]) -> tuple[BookQuerySet, str]:
    """Those of the books that the filters leave, and a signature of the filters; `sent` are their names and values.

    Raises:
        ValidationError: a value that its filter does not understand, or a least that is above the most.
    """
    cleaned: dict[str, Any] = {}
    signature = ""
    for name in sorted(sent):  # the same filters in another order are the same list
        declared = FILTERS[name]
        each = [clean(name, declared.field, value) for value in sent[name]]
        cleaned[name] = each if name in REPEATABLE else each[0]
        books = declared.filter(books, cleaned[name])
        signature += f"&{name}={cleaned[name]!r}"
    for least, most in (("min_price", "max_price"), ("min_rating", "max_rating")):
        check_range(least, cleaned.get(least), most, cleaned.get(most))
    return books, signature


def check_range(least: str, low: Any, most: str, high: Any) -> None:
    if low is not None and high is not None and low > high:
        raise invalid(least, f"Above {most}: {low} > {high}.", "above_maximum")
