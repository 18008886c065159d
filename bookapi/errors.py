"""Every error as RFC 9457 problem details, whether DRF, Django or a database refused the request.

`problem` is DRF's exception handler, `problem_response` makes one answer, `problems` declares them in the schema.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.views import defaults
from drf_spectacular.utils import OpenApiResponse
from rest_framework import exceptions, serializers
from rest_framework.request import Request

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: Paths below this prefix answer problems; the rest of the site answers people, in HTML.
API_PREFIX = "/api/"


class FieldProblemSerializer(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="Parameter or path in the body, `predictions.0.book`; may be empty.")
    code = serializers.CharField(help_text="For programs: `unknown`, `repeated`, `invalid`, `required` ...")
    detail = serializers.CharField(help_text="For people.")


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    request_id = serializers.CharField(allow_null=True)
    errors = FieldProblemSerializer(many=True)  # type: ignore[assignment]  # only its schema is used


def phrase(status: int) -> str:
    """The status phrase of RFC 9110, which Python has for all of them since 3.13."""
    renamed = {413: "Content Too Large", 422: "Unprocessable Content"}
    return renamed.get(status) or HTTPStatus(status).phrase


def problems(*statuses: int) -> dict[tuple[int, str], Any]:
    """The problem answers of an operation, for `extend_schema(responses={200: ..., **problems(400, 404)})`.

    401, 403, 406 and 429 can happen everywhere and are always added.
    """
    return {
        (status, MEDIA_TYPE): OpenApiResponse(ProblemSerializer, description=phrase(status))
        for status in sorted({401, 403, 406, 429, *statuses})
    }


def problem_response(
    status: int,
    detail: str = "",
    *,
    request: HttpRequest | Request | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """One problem as an answer."""
    title = phrase(status)
    body = {
        "type": "about:blank",  # RFC 9457: the title is the status phrase; `errors` says the rest
        "title": title,
        "status": status,
        "detail": _encodable(detail or title),
        "request_id": getattr(request, "request_id", None),
        "errors": [{key: _encodable(text) for key, text in error.items()} for error in errors],
    }
    return HttpResponse(orjson.dumps(body), status=status, content_type=MEDIA_TYPE, headers=headers)


def _encodable(text: str) -> str:
    """Text that JSON can carry: what a client sent may hold half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def problem(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """DRF's EXCEPTION_HANDLER. None for what nobody expected: Django logs it and asks `server_error`."""
    request = context.get("request")
    if isinstance(exc, Http404):
        return problem_response(404, _sentence(exc, "There is nothing at this address."), request=request)
    if isinstance(exc, PermissionDenied):
        return problem_response(403, _sentence(exc, "This account may not do that."), request=request)
    if isinstance(exc, (SuspiciousOperation, BadRequest, UnreadablePostError)):
        return bad_request(request, exc)
    if not isinstance(exc, exceptions.APIException):
        return None
    headers = {}
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(max(1, round(wait)))
    if not isinstance(exc, exceptions.ValidationError):
        text = "; ".join(error["detail"] for error in _flattened(exc.detail))
        return problem_response(exc.status_code, text, request=request, headers=headers)
    errors = list(_flattened(exc.detail))
    return problem_response(exc.status_code, _summary(errors), request=request, errors=errors, headers=headers)


def _sentence(exc: Exception, otherwise: str) -> str:
    text = exc.args[0] if exc.args else ""
    return text if isinstance(text, str) and text else otherwise


def _summary(errors: Sequence[Mapping[str, str]]) -> str:
    return " ".join(f"{error['field']}: {error['detail']}" if error["field"] else error["detail"] for error in errors)


def _flattened(detail: Any, path: str = "") -> Iterator[dict[str, str]]:
    """DRF's nested details as a flat list; a field inside a list is named `predictions.0.book`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            step = "" if name == "non_field_errors" else str(name)
            yield from _flattened(inner, ".".join(filter(None, (path, step))))
    elif isinstance(detail, (list, tuple)):
        for index, inner in enumerate(detail):
            deeper = isinstance(inner, (Mapping, list, tuple))
            if inner or not deeper:
                yield from _flattened(inner, ".".join(filter(None, (path, str(index)))) if deeper else path)
    else:
        yield {"field": path, "code": getattr(detail, "code", None) or "invalid", "detail": str(detail)}


# --- Django's own handlers, named in bookapi.urls ---------------------------------------------------------------------


def bad_request(request: Any, exception: Exception | None = None) -> HttpResponse:
    """400, or 413 for a body that is too large. The exception's own words may tell about us: they stay in the log."""
    if request is not None and not _of_api(request):
        return defaults.bad_request(request, exception or BadRequest())
    if isinstance(exception, RequestDataTooBig):
        return problem_response(413, "The body is too large.", request=request)
    if isinstance(exception, DisallowedHost):
        return problem_response(400, "This host name is not served here.", request=request)
    return problem_response(400, "The request cannot be understood.", request=request)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if not _of_api(request):
        return defaults.page_not_found(request, exception or Http404())
    return problem_response(404, "There is nothing at this address.", request=request)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if not _of_api(request):
        return defaults.permission_denied(request, exception or PermissionDenied())
    return problem_response(403, "This account may not do that.", request=request)


def server_error(request: HttpRequest) -> HttpResponse:
    """500 without internals; Django has logged the traceback, and the request id finds it."""
    if not _of_api(request):
        return defaults.server_error(request)
    return problem_response(500, "Something went wrong on our side. The request id helps to find it.", request=request)


def _of_api(request: HttpRequest | Request) -> bool:
    return request.path.startswith(API_PREFIX)
