"""Bodies are read whole before Django sees the request, and slow ones leave the server its threads."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.core.wsgi import get_wsgi_application

from bookapi.bodies import Bodies

LIMIT = 100


class Network(io.RawIOBase):
    """A body as it comes from a socket: in pieces, each smaller than what was asked for."""

    def __init__(self, *pieces: bytes, wait: threading.Event | None = None) -> None:
        super().__init__()
        self.pieces = list(pieces)
        self.wait = wait
        self.asked = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.asked.set()
        if self.wait is not None:
            self.wait.wait(10)
        return self.pieces.pop(0) if self.pieces else b""


def post(application: Any, body: io.RawIOBase, path: str = "/", **environ: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    answer: list[Any] = []
    chunks = application(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.input": body,
            "wsgi.url_scheme": "http",
            **environ,
        },
        lambda status, headers: answer.extend((status, dict(headers))),
    )
    content = b"".join(chunks)
    if close := getattr(chunks, "close", None):
        close()
    return answer[0], answer[1], content


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Length", environ.get("CONTENT_LENGTH", ""))])
    return [environ["wsgi.input"].read()]


def test_a_body_in_pieces_arrives_whole() -> None:
    status, headers, body = post(Bodies(echo, LIMIT), Network(b"ab", b"cd", b"e"), CONTENT_LENGTH="5")

    assert (status, headers["Length"], body) == ("200 OK", "5", b"abcde")


def test_a_chunked_body_gets_a_length() -> None:
    status, headers, body = post(Bodies(echo, LIMIT), Network(b"ab", b"cd"), HTTP_TRANSFER_ENCODING="chunked")

    assert (status, headers["Length"], body) == ("200 OK", "4", b"abcd")


def test_a_chunked_body_is_read_no_further_than_one_byte_too_many() -> None:
    endless = Network(*[b"x" * 60] * 5)

    _status, headers, _body = post(Bodies(echo, LIMIT), endless, HTTP_TRANSFER_ENCODING="chunked")

    assert int(headers["Length"]) > LIMIT
    assert len(endless.pieces) == 3


def test_a_request_without_a_body_reads_none() -> None:
    silent = Network(b"never asked for")

    post(Bodies(lambda _environ, start: start("200 OK", []) or [], LIMIT), silent)

    assert not silent.asked.is_set()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "get"])
def test_nobody_waits_for_the_body_of_a_read(method: str) -> None:
    """Anybody could have held the places with reads that need no token, and nobody could have written anything."""
    slow = Network(b"never asked for")

    for length in ({"CONTENT_LENGTH": "5"}, {"HTTP_TRANSFER_ENCODING": "chunked"}):
        _status, headers, body = post(Bodies(echo, LIMIT), slow, REQUEST_METHOD=method, **length)
        assert (headers["Length"], body) == ("", b"")

    assert not slow.asked.is_set()


@pytest.mark.django_db  # the application looks after its connections at the start of a request
def test_the_api_understands_a_chunked_body() -> None:
    body = Network(b'{"token"', b': "no token"', b"}")
    application = Bodies(get_wsgi_application(), settings.DATA_UPLOAD_MAX_MEMORY_SIZE)

    status, _headers, _content = post(
        application,
        body,
        "/api/v1/auth/verify",
        HTTP_TRANSFER_ENCODING="chunked",
        HTTP_HOST="127.0.0.1",
        CONTENT_TYPE="application/json",
    )

    assert status == "401 Unauthorized"  # and not 400: the token was found, and is no good


def test_bodies_that_never_end_leave_room_for_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookapi.bodies.PATIENCE_S", 0.01)
    application = Bodies(echo, LIMIT, at_once=1)
    finish = threading.Event()
    slow = Network(b"late", wait=finish)
    answers: list[Any] = []
    sender = threading.Thread(target=lambda: answers.append(post(application, slow, CONTENT_LENGTH="4")))
    sender.start()
    slow.asked.wait(10)
    try:
        refused, headers, problem = post(application, Network(b"ab"), CONTENT_LENGTH="2")
        reading = post(application, Network(), CONTENT_LENGTH="")
    finally:
        finish.set()
        sender.join()

    assert refused == "503 Service Unavailable"
    assert headers["Retry-After"] == "1"
    assert headers["Content-Type"] == "application/problem+json"
    assert orjson.loads(problem)["request_id"] == headers["X-Request-ID"]
    assert reading[0] == "200 OK"
    assert answers[0][2] == b"late"
    assert post(application, Network(b"ab"), CONTENT_LENGTH="2")[2] == b"ab"  # the place is free again
