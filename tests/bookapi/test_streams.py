"""Whole sets that their readers do not take leave the server its threads."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from bookapi.bodies import READ_AT_ONCE
from bookapi.serving import BLOCKING_THREADS
from bookapi.streams import STREAMS_AT_ONCE, Streams

Ask = Callable[[HttpResponseBase], tuple[str, Iterable[bytes]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Status and body of an answer, as a server gets them from an application with room for one stream."""
    monkeypatch.setattr("bookapi.streams.PATIENCE_S", 0.01)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        answer = environ["answer"]
        answer["X-Request-ID"] = "an-id"
        start_response(f"{answer.status_code} {answer.reason_phrase}", list(answer.items()))
        return answer

    streams = Streams(application, at_once=1)

    def asked(answer: HttpResponseBase) -> tuple[str, Iterable[bytes]]:
        told: list[str] = []
        body = streams({"answer": answer}, lambda status, _headers: told.append(status))
        (status,) = told
        return status, body

    return asked


@pytest.mark.django_db  # closing an answer closes old connections
def test_streams_that_nobody_takes_leave_room_for_other_answers(ask: Ask) -> None:
    status, slow = ask(StreamingHttpResponse(iter([b"a", b"b"])))
    assert (status, next(iter(slow))) == ("200 OK", b"a")

    source = io.BytesIO(b"c")
    status, refused = ask(StreamingHttpResponse(source))
    problem = orjson.loads(b"".join(refused))
    assert (status, problem["status"], problem["request_id"]) == ("503 Service Unavailable", 503, "an-id")
    assert source.closed
    assert b"".join(ask(HttpResponse(b"a page"))[1]) == b"a page"

    for _ in range(2):  # closing it again gives no second place
        slow.close()  # type: ignore[attr-defined]
    status, body = ask(StreamingHttpResponse(iter([b"d"])))
    assert (status, b"".join(body)) == ("200 OK", b"d")
    assert ask(StreamingHttpResponse(iter([b"e"])))[0] == "503 Service Unavailable"


@pytest.mark.django_db
def test_what_is_there_whole_is_sent_in_one_piece(ask: Ask) -> None:
    """A server gives a list its length, and anything else the form of chunks."""
    closed: list[bool] = []
    page = HttpResponse([b"a ", b"page"])
    page._resource_closers.append(lambda: closed.append(True))  # type: ignore[attr-defined]
    assert ask(page) == ("200 OK", [b"a page"])
    assert closed == [True]


@pytest.mark.django_db
def test_a_file_needs_no_thread_while_it_is_sent(ask: Ask) -> None:
    for _ in range(2):
        file = io.BytesIO(b"body {}")
        status, body = ask(FileResponse(file))
        assert (status, body, file.closed) == ("200 OK", [b"body {}"], True)


def test_bodies_and_streams_together_leave_a_thread() -> None:
    assert STREAMS_AT_ONCE >= 4
    assert READ_AT_ONCE + STREAMS_AT_ONCE < BLOCKING_THREADS
