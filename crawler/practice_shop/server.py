"""HTTP/1.1 over loopback, written by hand because nothing in the standard library keeps up with the spider.

GET and HEAD, keep-alive, pipelining; answers leave in the order of the requests, also when one of them is slow.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from time import time

from crawler.practice_shop.shop import Shop
from crawler.practice_shop.site import Answer, Site, plain

HOST = "127.0.0.1"
_MAX_HEAD = 16_384  # bytes of a request line with its headers
_END_OF_HEAD = b"\r\n\r\n"
_REQUEST_LINE = re.compile(r"([A-Z]+) (?:http://[^/ ]+)?(/[!-~]*) HTTP/1\.([01])")
_START_TIMEOUT_S = 60


class Connection(asyncio.Protocol):
    """One client: bytes in, requests in order, answers out."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._is_full = False  # the client does not read what we sent
        self._delayed: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server makes
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._delayed:
            self._delayed.cancel()

    def pause_writing(self) -> None:
        self._is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._transport.resume_reading()
        self._work()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._delayed and len(self._buffer) > _MAX_HEAD:
            self._transport.pause_reading()  # it goes on when the slow answer has left
        self._work()

    def _work(self) -> None:
        """Answer the requests that have arrived whole."""
        while not (self._is_full or self._delayed or self._transport.is_closing()):
            end = self._buffer.find(_END_OF_HEAD)
            if end > _MAX_HEAD or (end < 0 and len(self._buffer) > _MAX_HEAD):
                self._send(plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), keep_alive=False)
            if end < 0 or self._transport.is_closing():
                return
            head = self._buffer[:end].decode("latin-1")
            del self._buffer[: end + len(_END_OF_HEAD)]
            self._answer(head)

    def _answer(self, head: str) -> None:
        line, *lines = head.split("\r\n")
        request = _REQUEST_LINE.fullmatch(line)
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in lines)}
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if request is None or any(":" not in field for field in lines) or has_body:
            self._send(plain(HTTPStatus.BAD_REQUEST), keep_alive=False)
            return
        method, target, minor = request.groups()
        connection = headers.get("connection", "").lower()
        keep_alive = "close" not in connection and (minor == "1" or "keep-alive" in connection)
        if method not in {"GET", "HEAD"}:
            self._send(plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD")), keep_alive=keep_alive)
            return
        answer = self._site.answer(target, headers.get("if-none-match", ""))
        if answer.delay_s:
            self._delayed = asyncio.get_running_loop().call_later(
                answer.delay_s, self._send_delayed, answer, keep_alive, method == "HEAD"
            )
        else:
            self._send(answer, keep_alive=keep_alive, head_only=method == "HEAD")

    def _send_delayed(self, answer: Answer, keep_alive: bool, head_only: bool) -> None:
        self._delayed = None
        self._send(answer, keep_alive=keep_alive, head_only=head_only)
        self._transport.resume_reading()
        self._work()

    def _send(self, answer: Answer, *, keep_alive: bool, head_only: bool = False) -> None:
        keep_alive = keep_alive and not answer.cut_short
        fields = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", f"Date: {_date(int(time()))}"]
        if answer.status is not HTTPStatus.NOT_MODIFIED:
            fields += [f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body)}"]
        fields += [f"{name}: {value}" for name, value in answer.headers]
        if not keep_alive:
            fields.append("Connection: close")
        body = b"" if head_only else answer.body[: len(answer.body) // 2] if answer.cut_short else answer.body
        self._transport.write("\r\n".join(fields).encode("latin-1") + _END_OF_HEAD + body)
        if not keep_alive:
            self._transport.close()


_last_date = (0, "")


def _date(second: int) -> str:
    """The Date header, made once a second."""
    global _last_date  # noqa: PLW0603 - a cache of one
    if _last_date[0] != second:
        _last_date = (second, formatdate(second, usegmt=True))
    return _last_date[1]


async def serve(shop: Shop, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets the address once it answers. Port 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    loop = asyncio.get_running_loop()
    site = Site(shop)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    server = await loop.create_server(lambda: Connection(site), HOST, port, backlog=512)
    announce(f"http://{HOST}:{server.sockets[0].getsockname()[1]}")
    await stop.wait()
    server.close()


@contextmanager
def serving(shop: Shop, port: int = 0) -> Iterator[str]:
    """The address of the shop, "http://127.0.0.1:40123", served by a process of its own until the block ends.

    Name a port to serve a changed shop at the address of the one before.

    Raises:
        RuntimeError: the server did not start; what it said stands on stderr.
    """
    options = {"--books": shop.books, "--seed": shop.seed, "--changes": shop.changes, "--port": port}
    command = [sys.executable, "-m", "crawler.practice_shop", *(f"{name}={value}" for name, value in options.items())]
    if shop.faults:
        command.append("--faults")
    root = Path(__file__).parents[2]  # where the package is found, wherever the caller stands
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the practice shop ended with {process.wait(_START_TIMEOUT_S)} before it served")
            yield address
        finally:
            process.terminate()
