"""What an answer can look like: JSON, and for whole sets CSV, NDJSON and Parquet; and how a request chooses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import IO, Any

import orjson
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from rest_framework import exceptions, parsers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from bookapi.api.params import query_of
from catalog.export import JSON, Column, csv_chunks, ndjson_chunks, parquet_chunks


def dumps(data: Any) -> bytes:
    """JSON as all our answers carry it: UTC times end in Z, decimals keep their places (51.50)."""
    return orjson.dumps(data, default=_default, option=JSON)


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None  # RFC 8259: JSON is UTF-8, and there is no charset parameter

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else dumps(data)


class JSONParser(parsers.JSONParser):
    """Strict JSON: NaN, half surrogate pairs and NUL are 400 here, before any database sees them.

    A child of DRF's, because for that one alone DRF reads the body in the way that DATA_UPLOAD_MAX_MEMORY_SIZE limits.
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read()
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise exceptions.ParseError(f"The body is not JSON: {error}.") from error
        # PostgreSQL stores no NUL, in text or in JSON; the cheap look spares nearly every body the long one.
        if b"\\u0000" in body and _holds_nul(data):
            raise exceptions.ParseError("The body holds a NUL character.")
        return data


def _holds_nul(data: Any) -> bool:
    if isinstance(data, str):
        return "\0" in data
    if isinstance(data, dict):
        return any(_holds_nul(key) or _holds_nul(value) for key, value in data.items())
    return isinstance(data, list) and any(map(_holds_nul, data))


class ExportFormat(BaseRenderer):
    """A format that carries a whole set. The view streams it by itself; DRF only chooses it and documents it."""

    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        raise TypeError(f"{self.format} is streamed, not rendered")


class CSVFormat(ExportFormat):
    media_type = "text/csv"
    format = "csv"


class NDJSONFormat(ExportFormat):
    media_type = "application/x-ndjson"
    format = "ndjson"


class ParquetFormat(ExportFormat):
    media_type = "application/vnd.apache.parquet"
    format = "parquet"


class _Chunks:
    """An answer's bytes, of which the first were fetched already; closing it closes what they come from.

    A class, because closing a generator that has not begun runs none of its `finally`.
    """

    def __init__(self, first: bytes, rest: Iterator[bytes], sources: Sequence[Any]) -> None:
        self.first = first
        self.rest = rest
        self.sources = sources

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        yield from self.rest

    def close(self) -> None:
        for source in (self.rest, *self.sources):
            if close := getattr(source, "close", None):
                close()


def streamed(
    request: Request, chunks: Iterator[bytes], media_type: str, *sources: Any, filename: str | None = None
) -> HttpResponseBase:
    """The chunks as an answer. `sources` are closed with it, also when the client goes away.

    The first chunk is fetched here, so that a query that fails becomes an error and not half an answer.
    """
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'} if filename else {}
    body = _Chunks(next(chunks, b""), chunks, sources)
    if request.method == "HEAD":
        body.close()
        return HttpResponse(content_type=media_type, headers=headers)
    return StreamingHttpResponse(body, content_type=media_type, headers=headers)


def export_response(
    request: Request,
    name: str,
    columns: Sequence[Column],
    batches: Iterator[Sequence[Sequence[Any]]],
    objects: Iterator[Iterable[Any]] | None = None,
) -> HttpResponseBase:
    """A whole set in the format that was negotiated, as the download `name`.csv, `name`.ndjson ...

    `batches` are rows of the flat `columns`; `objects` are batches of what JSON shows, one a line of NDJSON, where
    that is not just the flat row. Only one of the two is consumed.
    """
    chosen = request.accepted_renderer.format
    media_type = request.accepted_renderer.media_type
    if chosen == "ndjson":
        chunks = ndjson_chunks(objects if objects is not None else flat_objects(columns, batches))
    elif chosen == "parquet":
        chunks = parquet_chunks(columns, batches)
    else:
        chunks = csv_chunks(columns, batches)
        media_type = "text/csv; charset=utf-8"
    return streamed(request, chunks, media_type, batches, objects, filename=f"{name}.{chosen}")


def flat_objects(
    columns: Sequence[Column], batches: Iterable[Sequence[Sequence[Any]]]
) -> Iterator[Iterable[dict[str, Any]]]:
    """Flat rows as JSON objects."""
    names = [column.name for column in columns]
    money = [column.name for column in columns if column.kind == "money"]
    for batch in batches:
        objects = [dict(zip(names, row, strict=True)) for row in batch]
        for record in objects:
            for name in money:
                if record[name] is not None:
                    record[name] = orjson.Fragment(format(record[name], ".2f"))
        yield objects


#: `renderer_classes` of a view whose whole set can be had as a file.
EXPORTABLE: list[type[BaseRenderer]] = [JSONRenderer, CSVFormat, NDJSONFormat, ParquetFormat]


class Negotiation(DefaultContentNegotiation):
    """`?format=` first, then `Accept` with its weights; the view's first format where neither says anything."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderers = list(renderers)
        wanted = query_of(request).get("format", ())
        if wanted and wanted[0]:
            return self._by_name(wanted[0], renderers)
        accept = request.META.get("HTTP_ACCEPT", "*/*")
        if accept in {"*/*", "application/json"} and renderers[0].format == "json":
            return renderers[0], "application/json"
        return self._by_accept(accept, renderers)

    @staticmethod
    def _by_name(name: str, renderers: Sequence[BaseRenderer]) -> tuple[BaseRenderer, str]:
        for renderer in renderers:
            if renderer.format == name:
                return renderer, str(renderer.media_type)
        known = ", ".join(str(renderer.format) for renderer in renderers)
        raise exceptions.ValidationError({"format": [f"Not offered here. Choose from: {known}."]}, code="invalid")

    @staticmethod
    def _by_accept(accept: str, renderers: Sequence[BaseRenderer]) -> tuple[BaseRenderer, str]:
        weights = _weights(accept)
        best, best_weight = None, 0.0
        for renderer in renderers:
            weight = _weight_of(str(renderer.media_type), weights)
            if weight > best_weight:  # the view's own order decides between equals
                best, best_weight = renderer, weight
        if best is None:
            offered = ", ".join(str(renderer.media_type) for renderer in renderers)
            raise exceptions.NotAcceptable(f"Offered here: {offered}.")
        return best, str(best.media_type)


def _weights(accept: str) -> dict[str, float]:
    """{media range: weight 0-1} of an Accept header; a part that cannot be read counts as not sent."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    weight = 0.0
        if media_range:
            weights[media_range] = weight
    return weights


def _weight_of(media_type: str, weights: Mapping[str, float]) -> float:
    kind = media_type.partition("/")[0]
    for media_range in (media_type, f"{kind}/*", "*/*"):  # the most precise range speaks
        if media_range in weights:
            return weights[media_range]
    return 0.0
