"""Lists as `{count, next, previous, results}`: a page by cursor or by number, or everything in one stream.

`next` and `previous` are keyset cursors: where the page ended, not how many rows to skip, so that page 50,000 costs
what page 1 costs, and rows that come or go in between make no row appear twice or not at all.
"""

from __future__ import annotations

import binascii
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import orjson
from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError as FieldInvalid
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema_serializer, inline_serializer
from rest_framework import exceptions, serializers
from rest_framework.request import Request

from bookapi.api.conditional import base_url
from bookapi.api.formats import dumps, streamed
from bookapi.api.params import Parameter, WholeNumber, Words, invalid, query_of
from catalog.rows import Row, Rows, aware, batches, compiled, counted, run, snapshot

PAGE_SIZE = 20
PAGE_SIZE_MAX = 1000
EVERYTHING = "all"
#: Rows of one chunk of a stream: about a megabyte of JSON.
STREAM_ROWS = 500
MAC_BYTES = 9


# --- Orders -----------------------------------------------------------------------------------------------------------

KeyKind = Literal["integer", "text", "money", "time"]


@dataclass(frozen=True, eq=False, slots=True)
class Key:
    """One column of an order. It is never NULL, and text has a declared collation."""

    column: str
    kind: KeyKind = "integer"
    descending: bool = False

    def dump(self, value: Any) -> Any:
        """A driver's value for the cursor, the same from every database."""
        if self.kind == "money":
            return "%.2f" % value  # noqa: UP031 - floats and Decimals alike
        if self.kind == "time":
            return aware(value).isoformat()
        return value

    def load(self, value: Any) -> Any:
        """A cursor's value for the ORM."""
        if self.kind == "money":
            return Decimal(value)
        return datetime.fromisoformat(value) if self.kind == "time" else value

    def database_value(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """A cursor's value for SQL that is written already."""
        if self.kind == "time":
            return connection.ops.adapt_datetimefield_value(datetime.fromisoformat(value))
        return value

    @property
    def sample(self) -> Any:
        return {"integer": 1, "text": "a", "money": "1.00", "time": "2000-01-01T00:00:00Z"}[self.kind]


@dataclass(frozen=True, eq=False, slots=True)
class Ordering:
    """A total order: its last key is unique. The name is what `ordering=` says."""

    name: str
    keys: tuple[Key, ...]

    def columns(self, *, backwards: bool) -> list[str]:
        return [f"-{key.column}" if key.descending != backwards else key.column for key in self.keys]


def ordering_by(column: str, kind: KeyKind = "integer", *, name: str = "") -> list[Ordering]:
    """Both directions of one column. Ties are broken by id in the direction of the column."""
    name = name or column
    ties = () if column == "id" else ("id",)
    return [
        Ordering(sign + name, (Key(column, kind, down), *(Key(tie, "integer", down) for tie in ties)))
        for sign, down in (("", False), ("-", True))
    ]


def beyond(keys: Sequence[Key], values: Sequence[Any], *, backwards: bool) -> Q:
    """What comes after `values` in the order, or before them.

    `price >= v AND (price > v OR id > i)`: an index can start at v. Of the equivalent `price > v OR (price = v AND
    id > i)` PostgreSQL makes a scan of the whole index.
    """
    key, value = keys[0], values[0]
    operator = "gt" if key.descending == backwards else "lt"
    strictly = Q((f"{key.column}__{operator}", value))
    if len(keys) == 1:
        return strictly
    return Q((f"{key.column}__{operator}e", value)) & (strictly | beyond(keys[1:], values[1:], backwards=backwards))


# --- Where the rows come from -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of an order: `limit` of them beyond the cursor's values, or beyond the first `offset`."""

    limit: int
    values: tuple[Any, ...] | None = None  # of a cursor
    backwards: bool = False
    offset: int = 0


class Source(Protocol):
    """Rows of a list, in the driver's types."""

    @property
    def signature(self) -> str:
        """Names the filters, for counts and cursors."""

    def queryset(self) -> Rows: ...

    def fetch(self, ordering: Ordering, columns: tuple[str, ...], window: Window) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class Filtered:
    """A query with filters of its own, written anew for each request."""

    rows: Rows
    signature: str

    def queryset(self) -> Rows:
        return self.rows

    def fetch(self, ordering: Ordering, columns: tuple[str, ...], window: Window) -> list[Row]:
        rows = self.rows.order_by(*ordering.columns(backwards=window.backwards))
        if window.values is not None:
            values = [key.load(value) for key, value in zip(ordering.keys, window.values, strict=True)]
            rows = rows.filter(beyond(ordering.keys, values, backwards=window.backwards))
        return run(*compiled(rows.values_list(*columns)[window.offset : window.offset + window.limit]))


class Prepared:
    """A query without filters, whose SQL is written once: writing it costs more than running it."""

    def __init__(self, signature: str, make: Callable[[], Rows]) -> None:
        self.signature = signature
        self._make = make

    def queryset(self) -> Rows:
        return self._make()

    def fetch(self, ordering: Ordering, columns: tuple[str, ...], window: Window) -> list[Row]:
        if window.offset:
            return Filtered(self.queryset(), self.signature).fetch(ordering, columns, window)
        connection = connections[DEFAULT_DB_ALIAS]
        anchored = window.values is not None
        sql = _prepared_sql(
            self,
            ordering,
            columns,
            vendor=connection.vendor,
            backwards=window.backwards,
            anchored=anchored,
            limit=window.limit,
        )
        return run(sql, _anchor(ordering, window.values, connection) if window.values is not None else ())


@lru_cache(maxsize=512)
def _prepared_sql(
    prepared: Prepared,
    ordering: Ordering,
    columns: tuple[str, ...],
    *,
    vendor: str,  # a part of the key: tests and tools may use two databases
    backwards: bool,
    anchored: bool,
    limit: int,
) -> str:
    rows = prepared.queryset().order_by(*ordering.columns(backwards=backwards))
    if anchored:
        samples = [key.load(key.sample) for key in ordering.keys]
        rows = rows.filter(beyond(ordering.keys, samples, backwards=backwards))
    sql, params = compiled(rows.values_list(*columns)[:limit])
    if len(params) != (2 * len(ordering.keys) - 1 if anchored else 0):
        raise AssertionError("A prepared query has no parameters but the cursor's.")
    return sql


def _anchor(ordering: Ordering, values: Sequence[Any], connection: BaseDatabaseWrapper) -> list[Any]:
    """The cursor's values in the order in which `beyond` names them: each twice, the last once."""
    params = []
    for key, value in zip(ordering.keys, values, strict=True):
        ready = key.database_value(value, connection)
        params += [ready, ready]
    return params[:-1]


class Shape(Protocol):
    """Which columns to ask for, and what to make of the rows; a row may have more cells than the shape has columns."""

    columns: tuple[str, ...]

    def objects(self, rows: Iterable[Row]) -> list[Any]: ...


# --- Counts -----------------------------------------------------------------------------------------------------------

_counts: OrderedDict[Hashable, int] = OrderedDict()
_counts_lock = threading.Lock()
COUNTS_MAX = 1024


def count_of(source: Source, revision: int | None) -> int:
    """How many rows the source has; asked once a revision, or every time where the list does not follow it.

    A count may be of a later revision than the one it is kept under. Nobody asks for the earlier one again.
    """
    if revision is None:
        return counted(source.queryset())
    key = (revision, source.signature)
    with _counts_lock:
        if (known := _counts.get(key)) is not None:
            _counts.move_to_end(key)
            return known
    count = counted(source.queryset())
    with _counts_lock:
        _counts[key] = count
        while len(_counts) > COUNTS_MAX:
            _counts.popitem(last=False)
    return count


def forget_counts() -> None:
    """For tests, whose databases go back to a revision that they had before."""
    with _counts_lock:
        _counts.clear()


# --- Cursors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins. Signed together with filters and order, so that it cannot be used for other ones."""

    backwards: bool
    count: int
    revision: int | None  # of the count
    values: tuple[Any, ...]

    def encode(self, purpose: str) -> str:
        payload = orjson.dumps([int(self.backwards), self.count, self.revision, *self.values])
        return urlsafe_b64encode(_mac(payload, purpose) + payload).rstrip(b"=").decode()

    @classmethod
    def decode(cls, token: str, purpose: str) -> Cursor:
        """Raises ValidationError for what `encode` did not make for the same purpose."""
        try:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            data = b""
        mac, payload = data[:MAC_BYTES], data[MAC_BYTES:]
        # The second comparison: base64 has several spellings of some bytes.
        if not (compare_digest(mac, _mac(payload, purpose)) and urlsafe_b64encode(data).rstrip(b"=") == token.encode()):
            raise invalid("cursor", "Not a cursor of this list with these filters and this order.")
        backwards, count, revision, *values = orjson.loads(payload)
        return cls(bool(backwards), count, revision, tuple(values))


def _mac(payload: bytes, purpose: str) -> bytes:
    return blake2b(payload + purpose.encode(), digest_size=MAC_BYTES, key=_key()).digest()


@cache
def _key() -> bytes:
    return blake2b(settings.SECRET_KEY.encode(), digest_size=32, person=b"cursor").digest()


# --- What a request asks for ------------------------------------------------------------------------------------------


class PageSize(forms.Field):
    """1 to 1000, or all."""

    def __init__(self) -> None:
        super().__init__(required=False)
        self.number = WholeNumber(min_value=1, max_value=PAGE_SIZE_MAX)

    def to_python(self, value: Any) -> int | str | None:
        if value == EVERYTHING:
            return EVERYTHING
        try:
            return self.number.clean(value)  # type: ignore[no-any-return]
        except FieldInvalid as error:
            raise FieldInvalid(f"1 to {PAGE_SIZE_MAX} is needed, or {EVERYTHING}.", code="invalid") from error


PAGE_PARAMETERS = (
    Parameter(
        "page_size",
        PageSize(),
        f"Results on a page, or `{EVERYTHING}` for everything in one streamed answer of the same shape.",
        type={
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": PAGE_SIZE_MAX},
                {"type": "string", "enum": [EVERYTHING]},
            ],
            "default": PAGE_SIZE,
        },
    ),
    Parameter(
        "page",
        WholeNumber(min_value=1, max_value=10**9),
        "Page number, for people. Programs follow `next`.",
        type={"type": "integer", "minimum": 1, "maximum": 10**9},
    ),
    Parameter("cursor", Words(max_length=4000), "From `next` or `previous`; valid for the same filters and order."),
)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page. At most one of `page` and `cursor` is set, and neither with everything."""

    size: int | None  # None is everything
    page: int | None = None
    cursor: str | None = None

    @classmethod
    def of(cls, page_size: int | str | None = None, page: int | None = None, cursor: str | None = None) -> PageRequest:
        """Raises ValidationError where the three contradict each other."""
        if page_size == EVERYTHING:
            if page or cursor:
                raise invalid("page_size", f"{EVERYTHING} has no pages.", "contradiction")
            return cls(None)
        if page and cursor:
            raise invalid("page", "Send either page or cursor.", "contradiction")
        return cls(int(page_size or PAGE_SIZE), page, cursor)


# --- Answers ----------------------------------------------------------------------------------------------------------


def answer(
    request: Request, source: Source, shape: Shape, *, ordering: Ordering, wanted: PageRequest, revision: int | None
) -> HttpResponseBase:
    """The list that was asked for. One query, one more where the count of this revision is not known."""
    if wanted.size is None:
        return streamed(request, _everything(source, shape, ordering), "application/json")
    purpose = f"{ordering.name}|{source.signature}"
    cursor = Cursor.decode(wanted.cursor, purpose) if wanted.cursor else None
    if cursor is not None and revision is not None and cursor.revision == revision:
        count = cursor.count
    else:
        count = count_of(source, revision)
    page = wanted.page or 1
    if (page - 1) * wanted.size >= max(count, 1):
        raise exceptions.NotFound(f"There are {-(-count // wanted.size)} pages.")
    columns, positions = _with_keys(shape.columns, ordering)
    window = Window(
        limit=wanted.size + 1,  # one more shows whether there is more
        values=cursor.values if cursor else None,
        backwards=bool(cursor and cursor.backwards),
        offset=(page - 1) * wanted.size,
    )
    rows = source.fetch(ordering, columns, window)
    more = len(rows) > wanted.size
    rows = rows[: wanted.size]
    if window.backwards:
        rows.reverse()

    def link(row: Row, *, backwards: bool) -> str:
        values = tuple(key.dump(row[position]) for key, position in zip(ordering.keys, positions, strict=True))
        return _link(request, Cursor(backwards, count, revision, values).encode(purpose))

    # Going on, there is something behind us: the page that we come from.
    forward = more or (cursor is not None and cursor.backwards)
    backward = (more if window.backwards else cursor is not None) or page > 1
    body = {
        "count": count,
        "next": link(rows[-1], backwards=False) if rows and forward else None,
        "previous": link(rows[0], backwards=True) if rows and backward else None,
        "results": shape.objects(rows),
    }
    return HttpResponse(dumps(body), content_type="application/json")


@lru_cache(maxsize=512)
def _with_keys(columns: tuple[str, ...], ordering: Ordering) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The columns with those of the order behind them where they are missing, and where the order's are."""
    missing = tuple(key.column for key in ordering.keys if key.column not in columns)
    columns += missing
    return columns, tuple(columns.index(key.column) for key in ordering.keys)


def _link(request: Request, cursor: str) -> str:
    address = f"{base_url(request)}{request.path}?"
    kept = [
        (name, value)
        for name, values in query_of(request).items()
        if name not in {"page", "cursor"}
        for value in values
        if value
    ]
    return f"{address}{urlencode(kept)}&cursor={cursor}" if kept else f"{address}cursor={cursor}"


def _everything(source: Source, shape: Shape, ordering: Ordering) -> Iterator[bytes]:
    """The whole list as JSON text. The count is right because it is read in the snapshot that the rows come from."""
    with snapshot() as connection:
        rows = source.queryset()
        yield b'{"count":%d,"next":null,"previous":null,"results":[' % counted(rows, connection)
        rows = rows.order_by(*ordering.columns(backwards=False)).values_list(*shape.columns)
        comma = b""
        with closing(batches(rows, connection, STREAM_ROWS)) as read:
            for batch in read:
                yield comma + dumps(shape.objects(batch))[1:-1]
                comma = b","
        yield b"]}"


def page_of(serializer: Any, name: str) -> Any:
    """The envelope for the schema. `many=False`, or the schema makes an array of envelopes of every `list`."""
    envelope = inline_serializer(
        name,
        {
            "count": serializers.IntegerField(help_text="Of the whole list, not of the page."),
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
            "results": serializer(many=True),
        },
    )
    return extend_schema_serializer(many=False)(type(envelope))
