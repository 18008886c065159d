"""Answers that are made while they are sent: only so many at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Any

import orjson
from django.http import FileResponse, HttpResponse, StreamingHttpResponse

from bookapi.bodies import READ_AT_ONCE
from bookapi.serving import BLOCKING_THREADS

logger = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: A client that reads slowly holds the thread that makes its answer, without a deadline: sixteen of them, from one
#: account, stopped every answer of two servers. This way one thread is left, whatever bodies and streams do.
STREAMS_AT_ONCE = BLOCKING_THREADS - READ_AT_ONCE - 1
#: A whole set of a thousand books is sent in milliseconds. Longer waiting would hold the threads that are left.
PATIENCE_S = 0.1


class Streams:
    """The application, whose whole sets and exports leave the server threads. All else is answered from memory."""

    def __init__(self, application: Application, at_once: int = STREAMS_AT_ONCE) -> None:
        self.application = application
        self._places = BoundedSemaphore(at_once)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start: list[tuple[Any, ...]] = []
        answer = self.application(environ, lambda *head: start.append(head))
        if isinstance(answer, HttpResponse | FileResponse):
            # A list is sent in one piece and with its length. What Django returns would be sent as chunks: a server
            # that is killed could have sent the head alone, which no gateway can ask for again. Files are ours, 2 MB
            # at most: no thread is needed to send them.
            body = b"".join(answer)
            answer.close()
            start_response(*start[0])
            return [body]
        assert isinstance(answer, StreamingHttpResponse)  # noqa: S101 - Django has no third kind
        if not self._places.acquire(timeout=PATIENCE_S):
            answer.close()
            return _busy(answer.headers.get("X-Request-ID"), start_response)
        start_response(*start[0])
        return _Stream(answer, self._places.release)


class _Stream:
    """An answer that gives its place back when it is over, or its client is gone."""

    def __init__(self, answer: StreamingHttpResponse, release: Callable[[], None]) -> None:
        self.answer = answer
        self.release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.answer)  # type: ignore[arg-type, unused-ignore]

    def close(self) -> None:
        release, self.release = self.release, None
        try:
            self.answer.close()
        finally:
            if release is not None:
                release()


def _busy(request_id: str | None, start_response: Callable[..., Any]) -> Iterable[bytes]:
    logger.warning("too many streams at once", extra={"request_id": request_id})
    body = {
        "type": "about:blank",
        "title": HTTPStatus.SERVICE_UNAVAILABLE.phrase,
        "status": 503,
        "detail": "Too many whole sets are being sent. Try again.",
        "request_id": request_id,
        "errors": [],
    }
    headers = [("Content-Type", "application/problem+json"), ("Retry-After", "1"), ("X-Request-ID", request_id or "")]
    start_response("503 Service Unavailable", headers)
    return [orjson.dumps(body)]
