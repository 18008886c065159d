"""What readers did: reported by accounts, once each, and erased on demand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError as FieldInvalid
from django.db import IntegrityError
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from bookapi.api.checks import Errors, Fields, an_object
from bookapi.api.formats import dumps
from bookapi.api.params import INT64_MAX, Moment, Parameter, Parameters, Words
from bookapi.api.views import ReadingViewSet
from bookapi.auth import IsAccount, account_of
from bookapi.errors import problems
from bookapi.tokens import InvalidToken
from recommender.interactions import Recorded, UnknownAccount, UnknownBooks, erase, record
from recommender.models import KEY_MAX, READER_MAX, Interaction

INTERACTIONS_MAX = 1_000
FIELDS = ("reader", "book", "kind", "value", "at", "key")
KINDS = tuple(str(kind) for kind in Interaction.Kind)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(days=1)
#: No spaces, and no @ between other characters: names and addresses of people have them, opaque ids do not.
OPAQUE = re.compile(r"(?!.+@.)\S+")
READER_NEEDED = (
    f"1 to {READER_MAX} printable characters without spaces are needed: an id of your own, never a name or an address."
)


# --- Schema -----------------------------------------------------------------------------------------------------------
_INTERACTION = {
    "type": "object",
    "required": ["reader", "book", "kind", "key"],
    "additionalProperties": False,
    "properties": {
        "reader": {
            "type": "string",
            "minLength": 1,
            "maxLength": READER_MAX,
            "description": "Your own opaque id of the reader. Spaces and e-mail addresses are refused.",
        },
        "book": {"type": "integer", "minimum": 1, "maximum": INT64_MAX, "description": "Id of the book."},
        "kind": {"type": "string", "enum": list(KINDS)},
        "value": {"type": "integer", "nullable": True, "minimum": 1, "maximum": 5, "description": "Of a `rate` alone."},
        "at": {"type": "string", "format": "date-time", "description": "When it was; now, if it is not said."},
        "key": {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_MAX,
            "description": "Idempotency key, unique within the account: sent again, it is the same interaction.",
        },
    },
}
#: By hand: one interaction or many, checked by hand as well.
BODY = {
    "oneOf": [
        _INTERACTION,
        {
            "type": "object",
            "required": ["interactions"],
            "additionalProperties": False,
            "properties": {
                "interactions": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": INTERACTIONS_MAX,
                    "items": _INTERACTION,
                }
            },
        },
    ],
    "example": {"reader": "r-81f2", "book": 1, "kind": "rate", "value": 5, "key": "2026-01-02/81f2/1"},
}


class RecordedSerializer(serializers.Serializer[Any]):
    accepted = serializers.IntegerField(help_text="New ones.")
    duplicates = serializers.IntegerField(help_text="Known by their keys, and left as they were.")


class ErasedSerializer(serializers.Serializer[Any]):
    deleted = serializers.IntegerField(help_text="Interactions.")


# --- Reading a body ---------------------------------------------------------------------------------------------------
def read_interactions(body: Any) -> dict[str, Interaction]:
    """The interactions of a request by their paths in the body, `interactions.3`; "" is a single one's.

    Raises:
        ValidationError: with a reason for each field that is wrong, `interactions.3.reader`.
    """
    errors = Errors()
    sent = an_object(body)
    entries: Mapping[str, Any] = {"": sent}
    if "interactions" in sent:
        fields = Fields(errors, sent)
        fields.only(("interactions",))
        batch = fields.entries("interactions", INTERACTIONS_MAX)
        entries = {f"interactions.{index}": entry for index, entry in enumerate(batch)}
    now = timezone.now()
    found = {path: _interaction(errors, path, entry, now) for path, entry in entries.items()}
    errors.check()
    return found


def _interaction(errors: Errors, path: str, entry: Any, now: datetime) -> Interaction:
    """What was sent, which is worth nothing if there were errors."""
    if not isinstance(entry, dict):
        errors.add(path, "An object with reader, book, kind and key is needed.")
        return Interaction()
    fields = Fields(errors, entry, path)
    fields.only(FIELDS)
    kind = _kind(fields)
    return Interaction(
        reader=_reader(fields),
        book_id=fields.whole_number("book", "The id of a book is needed.", 1, INT64_MAX),
        kind=kind,
        value=_value(fields, kind),
        at=_at(fields, now),
        key=fields.printable("key", KEY_MAX),
    )


def _reader(fields: Fields) -> str:
    value = fields.sent.get("reader")
    if isinstance(value, str) and len(value) <= READER_MAX and value.isprintable() and OPAQUE.fullmatch(value):
        return value
    fields.refuse("reader", READER_NEEDED)
    return ""


def _kind(fields: Fields) -> str:
    value = fields.sent.get("kind")
    if isinstance(value, str) and value in KINDS:
        return value
    fields.refuse("kind", f"Choose from {', '.join(KINDS)}.")
    return ""


def _value(fields: Fields, kind: str) -> int | None:
    if kind == Interaction.Kind.RATE:
        return fields.whole_number("value", "A rate has a value, 1 to 5.", 1, 5)
    if fields.sent.get("value") is not None:
        fields.refuse("value", "Only a rate has a value.")
    return None


def _at(fields: Fields, now: datetime) -> datetime:
    sent = fields.sent.get("at")
    if sent is None:
        return now
    try:
        at: datetime | None = Moment(required=True).clean(sent) if isinstance(sent, str) else None
    except FieldInvalid:
        at = None
    if at is None or not EARLIEST <= at <= now + CLOCKS_DIFFER:
        fields.refuse("at", "A time like 2026-01-02T03:04:05Z is needed, from 1970 until now.")
        return now
    return at


# --- Views ------------------------------------------------------------------------------------------------------------
ERASING = Parameters(Parameter("reader", Words(max_length=READER_MAX, required=True), "The reader to erase."))
NOTHING = Parameters()


class Interactions(ReadingViewSet):
    """What readers did. Every account reports for its own readers, and erases its own."""

    permission_classes = [IsAccount]

    @extend_schema(
        operation_id="interactions_record",
        tags=["recommendations"],
        summary="Report what readers did: one interaction, or up to a thousand",
        description=(
            "All or none. Recommendations learn from it at the next training: a like and a rate of 4 or 5 say most, a "
            "view says little, a dislike and a rate of 1 or 2 say no. An account counts as one reader there, however "
            "many it names, unless it may report for many (`report_readers`, which curators and operators have)."
        ),
        request={"application/json": BODY},
        responses={
            (201, "application/json"): OpenApiResponse(RecordedSerializer, "Recorded."),
            **problems(400, 413, 415),
        },
    )
    def create(self, request: Request) -> HttpResponse:
        NOTHING.read(request)
        interactions, account = read_interactions(request.data), account_of(request)
        try:
            recorded = _record(account, interactions)
        except IntegrityError:  # a book went away between our look and the insert
            recorded = _record(account, interactions)
        except UnknownAccount as error:
            raise AuthenticationFailed(str(InvalidToken()), code="invalid_token") from error
        return _json({"accepted": recorded.accepted, "duplicates": recorded.duplicates}, status=201)

    @extend_schema(
        operation_id="interactions_erase",
        tags=["recommendations"],
        summary="Erase one reader",
        description="All that this account has reported for the reader. The next training knows nothing of it.",
        parameters=ERASING.schema(),
        responses={(200, "application/json"): OpenApiResponse(ErasedSerializer, "Erased."), **problems(400)},
    )
    def destroy(self, request: Request) -> HttpResponse:
        reader = ERASING.read(request)["reader"]
        return _json({"deleted": erase(account_of(request), reader)})


def _record(account: int, interactions: Mapping[str, Interaction]) -> Recorded:
    """Raises ValidationError, naming the books that there are not."""
    try:
        return record(account, list(interactions.values()))
    except UnknownBooks as unknown:
        errors = Errors()
        for path, interaction in interactions.items():
            if interaction.book_id in unknown.ids:
                Fields(errors, {}, path).refuse("book", f"There is no book {interaction.book_id}.", "unknown")
        errors.check()
        raise


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    return HttpResponse(dumps(body), status=status, content_type="application/json")
