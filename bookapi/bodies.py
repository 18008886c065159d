"""Request bodies, read before Django sees the request: whole, and only so many at once."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterable
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Any

import orjson

from bookapi.serving import BLOCKING_THREADS

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Half of the threads. A body that its sender never finishes holds the thread that waits for it, without a deadline:
#: eight of them, from anybody, stopped every answer of the server. This way reading goes on.
READ_AT_ONCE = BLOCKING_THREADS // 2
#: A body that is on its way is read in microseconds. Who waits this long for a place waits for senders that are slow.
PATIENCE_S = 0.1
#: Nobody looks at their bodies, so nobody waits for them.
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Bodies:
    """The application, given bodies that are there in full.

    It also makes chunked bodies readable, which have no Content-Length: Django takes them for empty.
    """

    def __init__(self, application: Application, limit: int, at_once: int = READ_AT_ONCE) -> None:
        self.application = application
        self.limit = limit  # bytes; the application refuses more
        self._places = BoundedSemaphore(at_once)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"].upper() in BODILESS:
            return self.application(environ | {"CONTENT_LENGTH": "", "wsgi.input": io.BytesIO()}, start_response)
        length = environ.get("CONTENT_LENGTH")
        chunked = "HTTP_TRANSFER_ENCODING" in environ and not length
        if chunked or (length and length != "0"):
            if not self._places.acquire(timeout=PATIENCE_S):
                return _busy(start_response)
            try:
                body = self._read(environ["wsgi.input"])
            finally:
                self._places.release()
            environ["wsgi.input"] = io.BytesIO(body)
            if chunked:
                environ["CONTENT_LENGTH"] = str(len(body))
        return self.application(environ, start_response)

    def _read(self, stream: Any) -> bytes:
        """All of it; or more than allowed, which is enough to be refused."""
        body = stream.read(self.limit + 1)
        while len(body) <= self.limit and (piece := stream.read(self.limit + 1 - len(body))):
            body += piece
        return bytes(body)


def _busy(start_response: Callable[..., Any]) -> Iterable[bytes]:
    request_id = uuid.uuid4().hex
    body = {
        "type": "about:blank",
        "title": HTTPStatus.SERVICE_UNAVAILABLE.phrase,
        "status": 503,
        "detail": "Too many requests are still being sent. Try again.",
        "request_id": request_id,
        "errors": [],
    }
    headers = [("Content-Type", "application/problem+json"), ("Retry-After", "1"), ("X-Request-ID", request_id)]
    start_response("503 Service Unavailable", headers)
    return [orjson.dumps(body)]
