"""Query parameters that are understood or refused, never ignored.

A view says what it knows and gets back clean values of what was sent:

    PARAMETERS = Parameters(Parameter("limit", WholeNumber(min_value=1, max_value=1000), "How many.", default=10))

    @extend_schema(parameters=PARAMETERS.schema())
    def list(self, request):
        limit = PARAMETERS.read(request)["limit"]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from django import forms
from django.core.exceptions import ValidationError as FieldInvalid
from django.http import HttpRequest
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions
from rest_framework.request import Request

INT64_MAX = 2**63 - 1
#: More parameters than any request of ours has; a guard against ones that only want to be parsed.
PARAMETERS_MAX = 200

Query = Mapping[str, Sequence[str]]
_EMPTY: Query = {}


def query_of(request: HttpRequest | Request) -> Query:
    """The query string as {name: values}, read once a request.

    Not `request.GET`, which puts U+FFFD where the client sent broken UTF-8 and so answers a question nobody asked.

    Raises:
        ParseError: it is not UTF-8, or has too many parameters.
    """
    raw: str = request.META.get("QUERY_STRING", "")
    if not raw:
        return _EMPTY
    plain: Any = request._request if isinstance(request, Request) else request
    query: dict[str, list[str]] | None = getattr(plain, "_strict_query", None)
    if query is None:
        query = plain._strict_query = _parsed(raw)
    return query


def _parsed(raw: str) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    try:
        text = raw.encode("latin-1").decode("utf-8")  # WSGI carries bytes as latin-1
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeError as error:
        raise exceptions.ParseError("The query string is not valid UTF-8.") from error
    except ValueError as error:
        raise exceptions.ParseError(f"The query string has more than {PARAMETERS_MAX} parameters.") from error
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def invalid(name: str, detail: str, code: str = "invalid") -> exceptions.ValidationError:
    """The error that one parameter is wrong, to be raised."""
    return exceptions.ValidationError({name: [exceptions.ErrorDetail(detail, code)]})


def check_names(query: Query, known: Iterable[str], repeatable: Iterable[str] = ()) -> None:
    """Refuse what we do not know, naming the nearest that we do, and what was sent twice.

    Raises:
        ValidationError: with one error for each such parameter.
    """
    known = set(known)
    errors: dict[str, list[exceptions.ErrorDetail]] = {}
    for name, values in query.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known)) or 'none'}."
            errors[name] = [exceptions.ErrorDetail(f"Unknown parameter.{hint}", "unknown")]
        elif len(values) > 1 and name not in repeatable:
            errors[name] = [exceptions.ErrorDetail("Sent more than once.", "repeated")]
    if errors:
        raise exceptions.ValidationError(errors)


def clean(name: str, field: forms.Field, value: Any) -> Any:
    """The value as the field understands it.

    Raises:
        ValidationError: of DRF, naming the parameter.
    """
    try:
        return field.clean(value)
    except FieldInvalid as error:
        code = str(getattr(error, "code", None) or error.error_list[0].code or "invalid")
        raise invalid(name, " ".join(error.messages), code) from error


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter that is not a filter of a FilterSet."""

    name: str
    field: forms.Field  # required=False, unless the request makes no sense without it
    description: str
    type: Any = OpenApiTypes.STR  # of the schema
    enum: Sequence[Any] | None = None
    default: Any = None  # what `read` gives when it is not sent
    repeatable: bool = False

    def schema(self) -> OpenApiParameter:
        return OpenApiParameter(
            self.name,
            self.type,
            description=self.description,
            enum=self.enum,
            default=self.default if isinstance(self.default, str | int) else None,
            many=self.repeatable,
            required=self.field.required,
        )


class Parameters:
    """All that one operation knows. `others` are names read elsewhere: filters, and `format`, which negotiation takes.

    `repeatable` names those of the others that may be sent several times.
    """

    def __init__(self, *parameters: Parameter, others: Iterable[str] = (), repeatable: Iterable[str] = ()) -> None:
        self.parameters = parameters
        self.known = frozenset(parameter.name for parameter in parameters) | frozenset(others)
        self.repeatable = {*repeatable, *(parameter.name for parameter in parameters if parameter.repeatable)}
        self.defaults = {parameter.name: parameter.default for parameter in parameters}
        self.required = any(parameter.field.required for parameter in parameters)

    def schema(self) -> list[OpenApiParameter]:
        return [parameter.schema() for parameter in self.parameters]

    def read(self, request: HttpRequest | Request) -> dict[str, Any]:
        """{name: clean value or default} of every parameter; lists for repeatable ones. An empty value is not sent.

        Raises:
            ValidationError: unknown, repeated or invalid parameters, or a required one that is missing.
        """
        query = query_of(request)
        if not query and not self.required:
            return dict(self.defaults)
        check_names(query, self.known, self.repeatable)
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            sent = [value for value in query.get(parameter.name, ()) if value]
            if not sent:
                if parameter.field.required:
                    raise invalid(parameter.name, "This parameter is required.", "required")
                values[parameter.name] = parameter.default
            elif parameter.repeatable:
                values[parameter.name] = [clean(parameter.name, parameter.field, value) for value in sent]
            else:
                values[parameter.name] = clean(parameter.name, parameter.field, sent[0])
        return values


# --- Fields -----------------------------------------------------------------------------------------------------------
# Django's own fields strip, round and guess ("4.0" is 4, "٤" is 4, "1e3" is 1000). These do not.


class WholeNumber(forms.IntegerField):
    """Digits alone; at most what every database can hold."""

    def __init__(self, *, min_value: int = 0, max_value: int = INT64_MAX, required: bool = False) -> None:
        super().__init__(min_value=min_value, max_value=max_value, required=required)

    def to_python(self, value: Any) -> int | None:
        if value in self.empty_values:
            return None
        if not re.fullmatch(r"-?[0-9]{1,19}", value):
            raise FieldInvalid("A whole number is needed.", code="invalid")
        return int(value)


class Money(forms.Field):
    """An amount with up to two places, 0 to 99999999.99."""

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(required=required)

    def to_python(self, value: Any) -> Decimal | None:
        if value in self.empty_values:
            return None
        if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,2})?", value):
            raise FieldInvalid("An amount like 51.50 is needed, from 0 to 99999999.99.", code="invalid")
        return Decimal(value)


class Truth(forms.Field):
    """true or false, in any case, or 1 or 0."""

    VALUES = {"true": True, "1": True, "false": False, "0": False}

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(required=required)

    def to_python(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        try:
            return self.VALUES[value.lower()]
        except KeyError:
            raise FieldInvalid("Say true or false.", code="invalid") from None


class Moment(forms.Field):
    """An RFC 3339 time; a date alone is its midnight, UTC."""

    SHAPE = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2}))?", re.ASCII)

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(required=required)

    def to_python(self, value: Any) -> datetime | None:
        if value in self.empty_values:
            return None
        try:
            if not self.SHAPE.fullmatch(value):
                raise ValueError
            moment = datetime.fromisoformat(value.upper())
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise FieldInvalid(
                "A time like 2026-01-02T03:04:05Z is needed (in a URL, + is written %2B).", code="invalid"
            ) from None


class Words(forms.CharField):
    """Text as it was sent; NUL is refused."""

    def __init__(self, *, max_length: int = 500, required: bool = False) -> None:
        super().__init__(max_length=max_length, required=required, strip=True)


class OneOf(forms.Field):
    """One of a few words."""

    def __init__(self, *allowed: str, required: bool = False) -> None:
        super().__init__(required=required)
        self.allowed = allowed

    def to_python(self, value: Any) -> str | None:
        if value in self.empty_values:
            return None
        if value not in self.allowed:
            raise FieldInvalid(f"Choose from: {', '.join(self.allowed)}.", code="invalid")
        return str(value)


class Listing(forms.Field):
    """Several values of one kind, separated by commas; `each` cleans one."""

    def __init__(self, each: forms.Field, *, at_most: int = 1000, required: bool = False) -> None:
        super().__init__(required=required)
        self.each = each
        self.at_most = at_most

    def to_python(self, value: Any) -> list[Any] | None:
        if value in self.empty_values:
            return None
        parts = value.split(",")
        if len(parts) > self.at_most:
            raise FieldInvalid(f"At most {self.at_most} values at once.", code="too_many")
        if not all(parts):
            raise FieldInvalid("There is an empty value between the commas.", code="invalid")
        return [self.each.clean(part) for part in parts]
