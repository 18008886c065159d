"""Every error is problem details, and tells nothing that is not for the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookapi import errors, urls
from tests.factories import make_book

BODY_MAX = 1000


class Echo(APIView):
    """What a view of the API does with a body."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    def post(self, request: Request) -> Response:
        return Response(request.data)


class Fails(Echo):
    def get(self, request: Request) -> Response:
        raise RuntimeError("the password is hunter2")


class Refuses(Echo):
    def get(self, request: Request) -> Response:
        raise exceptions.ValidationError(
            {
                "predictions": [{}, {"book": [exceptions.ErrorDetail("No such book.", "unknown")]}],
                "non_field_errors": ["Too many."],
            }
        )


class Throttled(Echo):
    def get(self, request: Request) -> Response:
        raise exceptions.Throttled(wait=7.2)


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the password is hunter2")


def suspicious(request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation("somebody tried ../../etc/passwd")


handler400, handler403, handler404, handler500 = (
    urls.handler400,
    urls.handler403,
    urls.handler404,
    urls.handler500,
)
urlpatterns = [
    path("api/v1/echo", Echo.as_view()),
    path("api/v1/fails", Fails.as_view()),
    path("api/v1/fails-in-django", fails),
    path("api/v1/suspicious", suspicious),
    path("api/v1/refuses", Refuses.as_view()),
    path("api/v1/throttled", Throttled.as_view()),
    path("page/fails", fails),
]


@pytest.fixture
def client() -> Iterator[Client]:
    with override_settings(ROOT_URLCONF=__name__, DATA_UPLOAD_MAX_MEMORY_SIZE=BODY_MAX):
        yield Client(raise_request_exception=False, headers={"X-Request-ID": "abc-123"})


def test_a_problem_has_the_documented_shape(client: Client) -> None:
    answer = client.get("/api/v1/nowhere")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing at this address.",
        "request_id": "abc-123",
        "errors": [],
    }
    assert answer.headers["X-Request-ID"] == "abc-123"


def test_nested_errors_are_named_by_their_path(client: Client) -> None:
    answer = client.get("/api/v1/refuses")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"field": "predictions.1.book", "code": "unknown", "detail": "No such book."},
        {"field": "", "code": "invalid", "detail": "Too many."},
    ]
    assert answer.json()["detail"] == "predictions.1.book: No such book. Too many."


@pytest.mark.parametrize("address", ["/api/v1/fails", "/api/v1/fails-in-django"])
def test_an_unexpected_error_is_500_logged_with_its_traceback_and_silent(
    client: Client, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    answer = client.get(address)
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == "abc-123"
    assert b"hunter2" not in answer.content
    assert b"RuntimeError" not in answer.content
    records = [record for record in caplog.records if record.levelname == "ERROR"]
    assert any(record.exc_info and "hunter2" in str(record.exc_info[1]) for record in records)


def test_the_rest_of_the_site_answers_people(client: Client) -> None:
    for address, status in (("/page/nowhere", 404), ("/page/fails", 500)):
        answer = client.get(address)
        assert answer.status_code == status
        assert answer.headers["Content-Type"].startswith("text/html")


def test_what_is_suspicious_stays_in_the_log(client: Client) -> None:
    answer = client.get("/api/v1/suspicious")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert b"passwd" not in answer.content


def test_a_wait_is_told_in_seconds(client: Client) -> None:
    answer = client.get("/api/v1/throttled")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "8"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        rb'{"a": ["x\u0000y"]}',
        rb'{"a\u0000": 1}',
        b"NaN",
        b"[Infinity]",
        b"1e400",
        b"[" * 400 + b"]" * 400 + b",",
        b"[" * 499 + b"x",
    ],
)
def test_a_body_that_is_not_json_is_400(client: Client, body: bytes) -> None:
    answer = client.post("/api/v1/echo", body, content_type="application/json")
    assert answer.status_code == 400, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_backslash_before_the_word_of_nul_is_no_nul(client: Client) -> None:
    answer = client.post("/api/v1/echo", rb'"\\u0000"', content_type="application/json")
    assert answer.status_code == 200
    assert answer.json() == r"\u0000"


def test_a_body_that_is_too_large_is_413(client: Client) -> None:
    answer = client.post("/api/v1/echo", b"1" * (BODY_MAX + 1), content_type="application/json")
    assert answer.status_code == 413


def test_a_body_of_another_type_is_415(client: Client) -> None:
    answer = client.post("/api/v1/echo", b"<a/>", content_type="application/xml")
    assert answer.status_code == 415
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_foreign_host_is_400(reader: Client) -> None:
    make_book()
    answer = reader.get("/api/v1/books", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_path_of_broken_utf8_is_404(reader: Client) -> None:
    answer = reader.generic("GET", "/api/v1/books/%FF%FE")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_detail_can_carry_half_a_surrogate_pair() -> None:
    answer: Any = errors.problem_response(400, "\ud800", errors=[{"field": "\udfff", "code": "x", "detail": "y"}])
    assert b'"detail":"?"' in answer.content


def test_declared_problems_always_hold_what_can_happen_everywhere() -> None:
    declared = errors.problems(404)
    assert [status for status, _ in declared] == [401, 403, 404, 406, 429]
    assert {media_type for _, media_type in declared} == {"application/problem+json"}
    assert issubclass(errors.ProblemSerializer, serializers.Serializer)
