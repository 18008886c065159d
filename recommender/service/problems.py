"""Errors as RFC 9457 problem details, in the words of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
#: The code of a field problem that tells a caller to send the text of the book instead.
UNKNOWN_BOOK = "unknown_book"
ERRORS_MAX = 100


class Problem(Exception):
    """An answer that is not what was asked for, raised anywhere."""

    def __init__(self, status: int, detail: str, errors: Iterable[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)


def problem_body(status: int, detail: str, request_id: str | None, errors: Iterable[Mapping[str, str]] = ()) -> bytes:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),  # it may quote half of a surrogate pair
        "request_id": request_id,
        "errors": list(errors),
    }
    return orjson.dumps(body)


def install(app: FastAPI) -> None:
    """Every error that the application tells of as a problem; `Requests` sees to those that nobody expected."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _answer(
    request: Request,
    status: int,
    detail: str,
    errors: Iterable[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem_body(status, detail, request.scope.get("request_id"), errors)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - as it was registered
    return _answer(request, error.status, error.detail, error.errors)


def _invalid(request: Request, error: Exception) -> Response:
    """400, as in the API, with one entry for every field that is wrong. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [
        {
            "field": _path(found["loc"]),
            "code": found["type"],
            "detail": found["msg"].removeprefix("Value error, "),
        }
        for found in error.errors()[:ERRORS_MAX]
    ]
    detail = "; ".join(": ".join(filter(None, (found["field"], found["detail"]))) for found in errors)
    return _answer(request, 400, detail, errors)


def _path(location: Iterable[str | int]) -> str:
    """`queries.3.k`, without where FastAPI found it and by which branch of the union it was read."""
    body, *steps = location
    return ".".join(str(step) for step in (steps[1:] if body == "body" and steps else steps))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return _answer(request, error.status_code, error.detail, headers=error.headers)
