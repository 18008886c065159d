"""Books: lists with filters, one book, its history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any

from django import forms
from django.core.exceptions import ValidationError as FieldInvalid
from django.db import connection
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api import paging
from bookapi.api.book_filters import (
    BEST_MATCH,
    FILTERS,
    MONEY,
    ORDERING,
    ORDERINGS,
    REPEATABLE,
    TOP_RATED,
    check_range,
    filter_schema,
    filtered,
)
from bookapi.api.conditional import UNCHANGED, base_url, conditional, revision_of
from bookapi.api.formats import EXPORTABLE, dumps, export_response
from bookapi.api.paging import PAGE_PARAMETERS, Filtered, Ordering, PageRequest, Prepared, page_of
from bookapi.api.params import (
    Money,
    Parameter,
    Parameters,
    WholeNumber,
    invalid,
    query_of,
)
from bookapi.api.views import ReadingViewSet
from bookapi.errors import problems
from catalog.models import Book, PriceObservation
from catalog.rows import (
    BOOK_FIELDS,
    Row,
    Rows,
    batches,
    book_shape,
    compiled,
    money_json,
    run,
    snapshot,
)

# --- Schema -----------------------------------------------------------------------------------------------------------


class CategoryNameSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    slug = serializers.CharField()


class BookSerializer(serializers.Serializer[Any]):
    """A book as the API shows it."""

    id = serializers.IntegerField()
    shop = serializers.CharField(help_text="Slug of the shop; identity is (shop, upc).")
    upc = serializers.CharField()
    title = serializers.CharField()
    authors = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField(allow_blank=True)
    category = CategoryNameSerializer()
    price = serializers.FloatField(help_text="A JSON number with two places: 51.50.")
    price_excl_tax = serializers.FloatField()
    tax = serializers.FloatField()
    currency = serializers.CharField(help_text="ISO 4217.")
    rating = serializers.IntegerField(min_value=1, max_value=5, help_text="Stars.")
    stock = serializers.IntegerField(min_value=0, help_text="Copies.")
    availability = serializers.CharField(allow_blank=True)
    in_stock = serializers.BooleanField()
    review_count = serializers.IntegerField(min_value=0)
    product_type = serializers.CharField(allow_blank=True)
    image_url = serializers.CharField(allow_blank=True)
    source_url = serializers.CharField(allow_blank=True)
    listed = serializers.BooleanField(help_text="In the shop, as far as the last complete crawl knows.")
    first_seen_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ListedBookSerializer(BookSerializer):
    """A book in a list: every field, or with `fields=` those that were asked for."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        for field in fields.values():
            field.required = False
        return fields


class ObservationSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    price = serializers.FloatField()
    stock = serializers.IntegerField()
    rating = serializers.IntegerField()


class HistorySerializer(serializers.Serializer[Any]):
    book = serializers.IntegerField(help_text="Id of the book.")
    results = ObservationSerializer(many=True)


BOOK_PAGE = page_of(ListedBookSerializer, "BookPage")
FILE = OpenApiResponse(OpenApiTypes.BINARY, description="The whole filtered set, streamed.")
EXPORTS = {(200, str(chosen.media_type)): FILE for chosen in EXPORTABLE[1:]}
MOVED = OpenApiResponse(description="The book was merged into another one, whose address is in Location.")


# --- Parameters -------------------------------------------------------------------------------------------------------


class FieldNames(forms.Field):
    """Names of book fields, in the order of a book."""

    def __init__(self) -> None:
        super().__init__(required=False)

    def to_python(self, value: Any) -> tuple[str, ...] | None:
        if value in self.empty_values:
            return None
        names = [name.strip() for name in value.split(",")]
        if unknown := [name for name in names if name not in BOOK_FIELDS]:
            raise FieldInvalid(f"Not a field of a book: {unknown[0]!r}. Choose from: {', '.join(BOOK_FIELDS)}.")
        return tuple(name for name in BOOK_FIELDS if name in names)


SHOWN = Parameter("fields", FieldNames(), "Only these fields of a book: `id,title,price`.", default=BOOK_FIELDS)
LIMIT = Parameter(
    "limit",
    WholeNumber(min_value=1, max_value=paging.PAGE_SIZE_MAX),
    "How many; `next` leads on.",
    type={"type": "integer", "minimum": 1, "maximum": paging.PAGE_SIZE_MAX, "default": 10},
    default=10,
)
PAGE_SIZE, PAGE, CURSOR = PAGE_PARAMETERS

LIST = Parameters(*PAGE_PARAMETERS, ORDERING, SHOWN, others=("format", *FILTERS), repeatable=REPEATABLE)
SEARCH = Parameters(*PAGE_PARAMETERS, ORDERING, SHOWN, others=FILTERS, repeatable=REPEATABLE)
TOP = Parameters(LIMIT, CURSOR, SHOWN, others=FILTERS, repeatable=REPEATABLE)
RANGE = Parameters(
    Parameter("min", Money(), "The least price, inclusive.", type=MONEY),
    Parameter("max", Money(), "The highest price, inclusive.", type=MONEY),
    *PAGE_PARAMETERS,
    ORDERING,
    SHOWN,
    others=set(FILTERS) - {"price", "min_price", "max_price"},
    repeatable=REPEATABLE,
)
DETAIL = Parameters(SHOWN)
NOTHING = Parameters()


# --- Questions --------------------------------------------------------------------------------------------------------

#: Rows of one batch of a file: a row group of Parquet.
EXPORT_ROWS = 2000


@cache
def _detail_sql(fields: tuple[str, ...], vendor: str) -> str:
    """A book by its id, and whether it may be shown: the one query of the busiest address, written once."""
    columns = (*book_shape(fields).columns, "hidden", "merged_into")
    sql, params = compiled(Book.objects.filter(pk=1).order_by().values_list(*columns))
    assert params == (1,), vendor  # noqa: S101
    return sql


def find(book_id: int, fields: tuple[str, ...]) -> Row | int:
    """The row of a book, or the id of the one that it was merged into, which alone says what is shown. One query.

    Raises:
        Http404: there is no such book, or a person has hidden it.
    """
    rows = run(_detail_sql(fields, connection.vendor), (book_id,)) if book_id <= MAX_ID else []
    if not rows:
        raise no_such_book()
    *row, hidden, survivor = rows[0]
    if survivor is None and hidden:
        raise no_such_book()
    return row if survivor is None else int(survivor)


def no_such_book() -> Http404:
    return Http404("There is no book with this id.")


MAX_ID = 2**63 - 1


def moved(request: Request, survivor: int, suffix: str = "") -> HttpResponse:
    query = request.META.get("QUERY_STRING", "")
    path = request.path[: request.path.index("/books/") + len("/books/")]
    address = f"{base_url(request)}{path}{survivor}{suffix}"
    return HttpResponse(status=301, headers={"Location": f"{address}?{query}" if query else address})


# --- Views ------------------------------------------------------------------------------------------------------------


def _json(body: bytes) -> HttpResponse:
    return HttpResponse(body, content_type="application/json")


def _list(
    request: Request, source: Filtered | Prepared, values: Mapping[str, Any], default: Ordering
) -> HttpResponseBase:
    ordering = ORDERINGS[values["ordering"]] if values.get("ordering") else default
    return paging.answer(
        request,
        source,
        book_shape(values["fields"]),
        ordering=ordering,
        wanted=PageRequest.of(values["page_size"], values["page"], values["cursor"]),
        revision=revision_of(request),
    )


def _default_order(request: Request, otherwise: Ordering) -> Ordering:
    return BEST_MATCH if any(query_of(request).get("q", ())) else otherwise


def _export(request: Request, source: Filtered | Prepared, values: Mapping[str, Any]) -> HttpResponseBase:
    for name in ("page", "page_size", "cursor"):
        if values[name] is not None:
            raise invalid(name, "A file is the whole filtered set and has no pages.", "contradiction")
    ordering = ORDERINGS[values["ordering"]] if values["ordering"] else _default_order(request, ORDERINGS["id"])
    shape = book_shape(values["fields"])
    rows = source.queryset().order_by(*ordering.columns(backwards=False)).values_list(*shape.columns)
    # CSV takes the rows as they come from the driver, whose columns are the flat ones.
    flat = list if request.accepted_renderer.format == "csv" else shape.flat
    return export_response(
        request,
        "books",
        shape.flat_columns,
        _batches(rows, flat, EXPORT_ROWS),
        _batches(rows, shape.objects, paging.STREAM_ROWS),
    )


def _batches(rows: Rows, convert: Callable[[Sequence[Row]], list[Any]], size: int) -> Iterator[list[Any]]:
    with snapshot() as own, closing(batches(rows, own, size)) as read:
        for batch in read:
            yield convert(batch)


class BookViewSet(ReadingViewSet):
    """Books on the shelves of the shops. Hidden ones are nowhere; delisted ones are read by id or `listed=`."""

    @extend_schema(
        operation_id="books_list",
        summary="Books, page by page or whole",
        parameters=[*LIST.schema(), *filter_schema()],
        responses={(200, "application/json"): BOOK_PAGE, **EXPORTS, **UNCHANGED, **problems(400, 404)},
        tags=["books"],
    )
    @conditional
    def list(self, request: Request) -> HttpResponseBase:
        values = LIST.read(request)
        source = filtered(request)
        if request.accepted_renderer.format != "json":
            return _export(request, source, values)
        return _list(request, source, values, _default_order(request, ORDERINGS["id"]))

    @extend_schema(
        operation_id="books_search",
        summary="Books by words, title and category",
        parameters=[*SEARCH.schema(), *filter_schema()],
        responses={200: BOOK_PAGE, **UNCHANGED, **problems(400, 404)},
        tags=["books"],
    )
    @conditional
    def search(self, request: Request) -> HttpResponseBase:
        values = SEARCH.read(request)
        return _list(request, filtered(request), values, _default_order(request, ORDERINGS["id"]))

    @extend_schema(
        operation_id="books_top_rated",
        summary="The best rated books, the cheapest of them first",
        parameters=[*TOP.schema(), *filter_schema()],
        responses={200: BOOK_PAGE, **UNCHANGED, **problems(400)},
        tags=["books"],
    )
    @conditional
    def top_rated(self, request: Request) -> HttpResponseBase:
        values = TOP.read(request)
        values |= {"page_size": values["limit"], "page": None}
        return _list(request, filtered(request), values, TOP_RATED)

    @extend_schema(
        operation_id="books_price_range",
        summary="Books within a range of prices",
        description="At least one of `min` and `max` is needed. The cheapest first, unless `ordering` says otherwise.",
        parameters=[*RANGE.schema(), *filter_schema("price", "min_price", "max_price")],
        responses={200: BOOK_PAGE, **UNCHANGED, **problems(400, 404)},
        tags=["books"],
    )
    @conditional
    def price_range(self, request: Request) -> HttpResponseBase:
        values = RANGE.read(request)
        low, high = values["min"], values["max"]
        if low is None and high is None:
            raise invalid("min", "Send min, max, or both.", "required")
        check_range("min", low, "max", high)
        books = Book.objects.visible()
        if low is not None:
            books = books.filter(price__gte=low)
        if high is not None:
            books = books.filter(price__lte=high)
        source = filtered(request, books, f"price={low}-{high}")
        return _list(request, source, values, _default_order(request, ORDERINGS["price"]))

    @extend_schema(
        operation_id="books_retrieve",
        summary="One book",
        description="A book that has left its shop is still read here; one that was merged answers 301.",
        parameters=DETAIL.schema(),
        responses={200: BookSerializer, 301: MOVED, **UNCHANGED, **problems(400, 404)},
        tags=["books"],
    )
    @conditional
    def retrieve(self, request: Request, book_id: int) -> HttpResponseBase:
        fields = DETAIL.read(request)["fields"]
        row = find(book_id, fields)
        if isinstance(row, int):
            return moved(request, row)
        return _json(dumps(book_shape(fields).objects([row])[0]))

    @extend_schema(
        operation_id="books_history",
        summary="Price, stock and rating of a book over time",
        parameters=NOTHING.schema(),
        responses={200: HistorySerializer, 301: MOVED, **UNCHANGED, **problems(400, 404)},
        tags=["books"],
    )
    @conditional
    def history(self, request: Request, book_id: int) -> HttpResponseBase:
        NOTHING.read(request)
        row = find(book_id, ("id",))
        if isinstance(row, int):
            return moved(request, row, "/history")
        observed = PriceObservation.objects.filter(book=book_id).order_by("at", "id")
        rows = run(*compiled(observed.values_list("at", "price", "stock", "rating")))
        return _json(dumps({"book": book_id, "results": [observation(row) for row in rows]}))


def observation(row: Sequence[Any]) -> dict[str, Any]:
    at, price, stock, rating = row
    return {"at": at, "price": money_json(price), "stock": stock, "rating": rating}
