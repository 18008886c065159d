"""A proxy before a prediction service that misbehaves on demand, over real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

#: Seconds between two bytes of an answer that drips: every single wait is far shorter than any deadline.
DRIP_S = 0.005


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to `upstream` and answers back, unless its fault does something else with the answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.upstream = upstream
        self.fault: Fault = in_order
        self.requests = 0  # that came in
        self.over = threading.Event()  # ends what hangs
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up is what the tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def do_POST(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.fault(self, body)

    def do_GET(self) -> None:
        self.do_POST()

    def passed_on(self, body: bytes) -> bytes:
        """The whole answer of the service, head and body."""
        connection = HTTPConnection("127.0.0.1", self.server.upstream, timeout=10)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return answer_of(content, response.status, response.headers["Content-Type"])

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


def answer_of(content: bytes, status: int = 200, media_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} As It Is\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


# --- Faults -----------------------------------------------------------------------------------------------------------
Fault = Callable[[Handler, bytes], None]


def in_order(handler: Handler, body: bytes) -> None:
    handler.wfile.write(handler.passed_on(body))


def silent(handler: Handler, _body: bytes) -> None:
    """Takes the question, and never answers."""
    handler.server.over.wait()
    handler.hang_up()


def hang_up(handler: Handler, _body: bytes) -> None:
    handler.hang_up()


def cut_in_the_body(handler: Handler, body: bytes) -> None:
    handler.wfile.write(handler.passed_on(body)[:-20])
    handler.hang_up()


def cut_in_the_head(handler: Handler, body: bytes) -> None:
    handler.wfile.write(handler.passed_on(body)[:30])
    handler.hang_up()


def drip(handler: Handler, body: bytes) -> None:
    """The right answer, byte by byte: in all it takes longer than anybody waits."""
    for byte in handler.passed_on(body):
        if handler.server.over.wait(DRIP_S):
            break
        handler.wfile.write(bytes([byte]))


def drip_a_head_without_end(handler: Handler, _body: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while not handler.server.over.wait(DRIP_S):
        handler.wfile.write(b"x")


def says(content: bytes, status: int = 200, media_type: str = "application/json") -> Fault:
    """Answers everything with this."""

    def fault(handler: Handler, _body: bytes) -> None:
        handler.wfile.write(answer_of(content, status, media_type))

    return fault


def rewritten(change: Callable[[bytes], bytes]) -> Fault:
    """The service's answer with another body."""

    def fault(handler: Handler, body: bytes) -> None:
        content = handler.passed_on(body).partition(b"\r\n\r\n")[2]
        handler.wfile.write(answer_of(change(content)))

    return fault


def once(first: Fault) -> Fault:
    """A fault of the first request alone."""
    faults = [first]

    def fault(handler: Handler, body: bytes) -> None:
        (faults.pop() if faults else in_order)(handler, body)

    return fault
