"""Books as the API shows them, from rows as the database driver gives them.

The ORM writes the SQL; its converters are left out. They make a Decimal of every float that SQLite stores and a
datetime of every text, only for JSON to turn both back into text: most of what a page of books costs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import orjson
from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from catalog.export import Column, Kind

Row = Sequence[Any]
Rows = QuerySet[Any, Any]

#: What a book is, in the order in which it is shown.
BOOK_FIELDS = (
    "id",
    "shop",
    "upc",
    "title",
    "authors",
    "description",
    "category",
    "price",
    "price_excl_tax",
    "tax",
    "currency",
    "rating",
    "stock",
    "availability",
    "in_stock",
    "review_count",
    "product_type",
    "image_url",
    "source_url",
    "listed",
    "first_seen_at",
    "updated_at",
)
MONEY_FIELDS = frozenset({"price", "price_excl_tax", "tax"})
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("id", "rating", "stock", "review_count"), "integer"),
    **dict.fromkeys(MONEY_FIELDS, "money"),
    **dict.fromkeys(("shop", "category", "currency", "availability", "product_type"), "word"),
    **dict.fromkeys(("upc", "title", "description", "image_url", "source_url"), "text"),
    **dict.fromkeys(("in_stock", "listed"), "boolean"),
    **dict.fromkeys(("first_seen_at", "updated_at"), "time"),
    "authors": "texts",
}


# --- Values -----------------------------------------------------------------------------------------------------------
# SQLite gives money as float and times without their zone, which is UTC; PostgreSQL gives Decimals and aware times.
# Both give truth as bool and JSON as text.


def money_json(value: Any) -> orjson.Fragment:
    """An amount as a JSON number with its two places: 51.50."""
    return orjson.Fragment("%.2f" % value)  # noqa: UP031 - twice as fast as format(), and takes floats and Decimals


def aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def authors_json(value: str) -> Any:
    return [] if value == "[]" else orjson.loads(value)


_JSON: dict[Kind, Callable[[Any], Any]] = {
    "money": money_json,
    "texts": authors_json,
    "json": orjson.loads,
}
_PYTHON: dict[Kind, Callable[[Any], Any]] = {
    "money": lambda value: Decimal("%.2f" % value),  # noqa: UP031
    "time": aware,
    "texts": authors_json,
    "json": orjson.loads,
}


class BookShape:
    """Some or all fields of a book: the columns to ask for, and what to make of the rows."""

    def __init__(self, fields: tuple[str, ...] = BOOK_FIELDS) -> None:
        self.fields = fields
        names = {"category": "category__name"}
        slug = ("category__slug",) if "category" in fields else ()
        #: For `values_list`. The slug comes last, so that the others stand where the fields do.
        self.columns: tuple[str, ...] = (*(names.get(name, name) for name in fields), *slug)
        self._slug = len(fields) if slug else None
        self._json = [(name, _JSON[KINDS[name]]) for name in fields if KINDS[name] in _JSON]
        #: Of a flat table: the slug is a column of its own.
        self.flat_columns = (
            *(Column(name, KINDS[name]) for name in fields),
            *((Column("category_slug", "word"),) if slug else ()),
        )

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Books for orjson, which has to take a time without zone for UTC (`OPT_NAIVE_UTC`)."""
        fields, conversions, slug = self.fields, self._json, self._slug
        books = []
        for row in rows:
            book = dict(zip(fields, row, strict=False))  # rows may be longer: the slug, and keys of the order
            for name, convert in conversions:
                book[name] = convert(book[name])
            if slug is not None:
                book["category"] = {"name": book["category"], "slug": row[slug]}
            books.append(book)
        return books

    def flat(self, rows: Iterable[Row]) -> list[list[Any]]:
        """Rows of `flat_columns` with Python's types."""
        return python_rows(self.flat_columns, rows)


@cache
def book_shape(fields: tuple[str, ...] = BOOK_FIELDS) -> BookShape:
    """The shape of these fields. There are few combinations in use, and the caller has checked the names."""
    return BookShape(fields)


def python_rows(columns: Sequence[Column], rows: Iterable[Row]) -> list[list[Any]]:
    """Rows with Python's types: Decimal, aware datetime, bool, list. Cells beyond the columns are dropped."""
    width = len(columns)
    conversions = [(index, _PYTHON[column.kind]) for index, column in enumerate(columns) if column.kind in _PYTHON]
    result = []
    for row in rows:
        cells = list(row[:width])
        for index, convert in conversions:
            if cells[index] is not None:
                cells[index] = convert(cells[index])
        result.append(cells)
    return result


# --- Queries ----------------------------------------------------------------------------------------------------------


def compiled(queryset: Rows, connection: BaseDatabaseWrapper | None = None) -> tuple[str, tuple[Any, ...]]:
    """SQL and parameters of a query; a query that can find nothing is one that does so."""
    connection = connection or connections[DEFAULT_DB_ALIAS]
    try:
        sql, params = queryset.query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return "", ()
    return sql, tuple(params)


def run(sql: str, params: Sequence[Any] = (), connection: BaseDatabaseWrapper | None = None) -> list[Row]:
    """All rows of one query, in the driver's types."""
    if not sql:
        return []
    with (connection or connections[DEFAULT_DB_ALIAS]).cursor() as cursor:
        cursor.execute(sql, params)
        rows: list[Row] = cursor.fetchall()
    return rows


def counted(queryset: Rows, connection: BaseDatabaseWrapper | None = None) -> int:
    """How many rows the query finds. One query."""
    sql, params = compiled(queryset.order_by().values_list("pk"), connection)
    rows = run(f"SELECT COUNT(*) FROM ({sql}) AS counted", params, connection) if sql else [(0,)]  # noqa: S608
    return int(rows[0][0])


def batches(queryset: Rows, connection: BaseDatabaseWrapper, size: int = 1000) -> Generator[Sequence[Row], None, None]:
    """Rows in batches, in memory that does not grow with their number. Inside of `snapshot`."""
    sql, params = compiled(queryset, connection)
    if not sql:
        return
    # On PostgreSQL a cursor on the server; an ordinary one would first fetch everything into the client.
    cursor = connection.chunked_cursor()
    try:
        cursor.execute(sql, params)
        while rows := cursor.fetchmany(size):
            yield rows
    finally:
        cursor.close()


@contextmanager
def snapshot() -> Iterator[BaseDatabaseWrapper]:
    """A connection that sees the catalogue as it is now, whatever others commit, until the block ends.

    It is one of its own: a streamed answer is read after the view is done, perhaps by another thread, perhaps only in
    part, and closing the connection ends the transaction in every case. Where the caller is in a transaction already,
    that is the snapshot.
    """
    shared = connections[DEFAULT_DB_ALIAS]
    if shared.in_atomic_block:
        yield shared
        return
    own = shared.copy()
    own.inc_thread_sharing()
    try:
        if own.vendor == "postgresql":
            own.set_autocommit(False)
            with own.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            with own.cursor() as cursor:
                cursor.execute("PRAGMA cache_size=-4096")  # 4 MB: a page that is read once need not be kept
                cursor.execute("BEGIN DEFERRED")  # atomic() would take the write lock
        yield own
    finally:
        own.close()
