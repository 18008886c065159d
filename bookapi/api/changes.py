"""What changed in the catalogue, in order, from any point on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import orjson
from django import forms
from django.core.exceptions import ValidationError as FieldInvalid
from django.db.models import Q
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api.conditional import UNCHANGED, conditional, revision_of
from bookapi.api.formats import EXPORTABLE, dumps, export_response
from bookapi.api.params import INT64_MAX, Moment, Parameter, Parameters, WholeNumber, invalid
from bookapi.api.views import ReadingViewSet
from bookapi.errors import problems
from catalog.export import Column
from catalog.models import Change
from catalog.rows import MONEY_FIELDS, Row, Rows, batches, compiled, python_rows, run, snapshot

LIMIT = 100
LIMIT_MAX = 1000
EXPORT_ROWS = 2000
#: A time is looked up this much earlier than it was asked: writers' clocks differ, and a change that is read twice does
#: no harm where one that is missed does.
OVERLAP = timedelta(minutes=5)

#: The last change that a reader has seen: (revision, id).
Position = tuple[int, int]

COLUMNS = (
    Column("revision", "integer"),
    Column("id", "integer"),
    Column("book_id", "integer"),
    Column("shop", "word"),
    Column("upc", "text"),
    Column("kind", "word"),
    Column("fields", "json"),
    Column("at", "time"),
)


class Since(forms.Field):
    """A position from `next`, a revision, or a time."""

    def __init__(self) -> None:
        super().__init__(required=False)

    def to_python(self, value: Any) -> Position | datetime | None:
        if value in self.empty_values:
            return None
        if match := re.fullmatch(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?", value):
            revision, change = int(match[1]), match[2]
            # A bare revision was read to its end: what follows begins with the next one.
            position = (revision, int(change)) if change is not None else (revision + 1, 0)
            if max(position) <= INT64_MAX:
                return position
        try:
            moment: datetime = Moment().clean(value)
        except FieldInvalid:
            raise FieldInvalid(
                "A position from `next`, a revision like 17, or a time like 2026-01-02T03:04:05Z is needed "
                "(in a URL, + is written %2B).",
                code="invalid",
            ) from None
        return moment


PARAMETERS = Parameters(
    Parameter(
        "since",
        Since(),
        "`next` of the page before; or a revision: what came after it; or an RFC 3339 time: what came after it and "
        "some minutes before. Left out: from the beginning.",
    ),
    Parameter(
        "limit",
        WholeNumber(min_value=1, max_value=LIMIT_MAX),
        "How many changes at most.",
        type={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT},
    ),
    others=("format",),
)


class BookReferenceSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    shop = serializers.CharField()
    upc = serializers.CharField()


class ChangeSerializer(serializers.Serializer[Any]):
    revision = serializers.IntegerField()
    id = serializers.IntegerField()
    book = BookReferenceSerializer()
    kind = serializers.ChoiceField(choices=Change.Kind.values)
    fields = serializers.DictField(  # type: ignore[assignment]  # only its schema is used
        child=serializers.DictField(), help_text='`{"price": {"old": 51.50, "new": 49.99}}`'
    )
    at = serializers.DateTimeField()


@extend_schema_serializer(many=False)
class ChangePageSerializer(serializers.Serializer[Any]):
    results = ChangeSerializer(many=True)
    next = serializers.CharField(help_text="Where to go on: the next `since`. Also when there is nothing new yet.")
    revision = serializers.IntegerField(help_text="The catalogue's revision now.")


FILE = OpenApiResponse(OpenApiTypes.BINARY, description="Every change after `since`, streamed.")


class ChangeViewSet(ReadingViewSet):
    @extend_schema(
        operation_id="changes_list",
        summary="What was created, changed, delisted or merged",
        description=(
            "In the order of (revision, id). Follow `next`, and nothing is missed and nothing comes twice, however "
            "many writers there are. Hidden and merged books keep their changes."
        ),
        parameters=PARAMETERS.schema(),
        responses={
            (200, "application/json"): ChangePageSerializer,
            **{(200, str(chosen.media_type)): FILE for chosen in EXPORTABLE[1:]},
            **UNCHANGED,
            **problems(400),
        },
        tags=["changes"],
    )
    @conditional
    def list(self, request: Request) -> HttpResponseBase:
        values = PARAMETERS.read(request)
        position = _position(values["since"])
        rows = _after(position)
        if request.accepted_renderer.format != "json":
            if values["limit"] is not None:
                raise invalid("limit", "A file is the whole set.", "contradiction")
            return export_response(request, "changes", COLUMNS, _flat(rows), _objects(rows))
        # One query: a page is as the catalogue was at one moment.
        page = run(*compiled(rows[: values["limit"] or LIMIT]))
        last: Position = (page[-1][0], page[-1][1]) if page else position
        body = {
            "results": [_change(row) for row in page],
            "next": f"{last[0]}.{last[1]}",
            "revision": max(revision_of(request), page[-1][0] if page else 0),
        }
        return HttpResponse(dumps(body), content_type="application/json")


def _position(since: Position | datetime | None) -> Position:
    """The position to go on from. One query for a time, none otherwise.

    A time becomes the last revision that was certainly published before it; comparing it with the rows themselves
    would lose those of a writer who took the time early and committed late.
    """
    if since is None:
        return (0, 0)
    if not isinstance(since, datetime):
        return since
    try:
        before = since - OVERLAP
    except OverflowError:
        return (0, 0)
    earlier = Change.objects.filter(at__lt=before).order_by("-at").values_list("revision", flat=True).first()
    return (0, 0) if earlier is None else (earlier + 1, 0)


def _after(position: Position) -> Rows:
    revision, change = position
    later = Q(revision__gte=revision) & (Q(revision__gt=revision) | Q(id__gt=change))
    return (
        Change.objects.filter(later)
        .order_by("revision", "id")
        .values_list("revision", "id", "book_id", "book__shop", "book__upc", "kind", "fields", "at")
    )


def _change(row: Row) -> dict[str, Any]:
    revision, change, book, shop, upc, kind, fields, at = row
    return {
        "revision": revision,
        "id": change,
        "book": {"id": book, "shop": shop, "upc": upc},
        "kind": kind,
        "fields": {} if fields == "{}" else _fields(orjson.loads(fields)),
        "at": at,
    }


def _fields(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The differences in one order on every database, with money as the numbers that books show; it is kept as text."""
    return {
        name: {
            side: orjson.Fragment(value) if name in MONEY_FIELDS and isinstance(value, str) else value
            for side, value in (("old", fields[name].get("old")), ("new", fields[name].get("new")))
        }
        for name in sorted(fields)
    }


def _flat(rows: Rows) -> Iterator[list[list[Any]]]:
    with snapshot() as connection, closing(batches(rows, connection, EXPORT_ROWS)) as read:
        for batch in read:
            yield python_rows(COLUMNS, batch)


def _objects(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    with snapshot() as connection, closing(batches(rows, connection, EXPORT_ROWS)) as read:
        for batch in read:
            yield [_change(row) for row in batch]
