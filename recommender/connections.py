"""HTTP connections whose every request ends in time.

A time-out of urllib3 is one of each wait for bytes: a peer that sends one byte now and then, in headers or body, holds
the caller for ever. Here the sockets know the moment at which the answer has to be complete.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ProtocolError
from urllib3.util.ssl_ import create_urllib3_context


class _Hurried:
    """A socket that waits for bytes until its deadline, whatever has come in between."""

    deadline = math.inf  # time.monotonic()

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The answer was not complete in time.")
        self.settimeout(left)  # type: ignore[attr-defined]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc,no-any-return]


class _Socket(_Hurried, socket.socket):
    pass


class _SecureSocket(_Hurried, ssl.SSLSocket):
    pass


class _Connection(HTTPConnection):
    sock: Any

    def connect(self) -> None:
        super().connect()
        self.sock = _Socket(fileno=self.sock.detach())
        self.sock.settimeout(self.timeout)  # sending ends in time as well

    def getresponse(self) -> Any:
        _hurry(self)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _hurry(self)
        return super().getresponse()


def _hurry(connection: Any) -> None:
    """By now the time-out of the connection is what is left of the whole request's."""
    connection.sock.deadline = time.monotonic() + connection.timeout


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Connections:
    """Kept connections to one server, for many threads."""

    def __init__(self, url: str, at_most: int = 16) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path.rstrip("/")
        host = parts.hostname or ""
        self._pool: HTTPConnectionPool = _Pool(host, parts.port, maxsize=at_most)
        if parts.scheme == "https":
            context = create_urllib3_context()
            context.load_default_certs()
            context.sslsocket_class = _SecureSocket
            self._pool = _SecurePool(host, parts.port, maxsize=at_most, ssl_context=context)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str],
        seconds: float,
        at_most: int,
    ) -> tuple[int, str, bytes]:
        """Status, media type and body of at most `at_most` bytes, complete within `seconds`.

        Looking up the server's name is the one step that cannot be hurried.

        Raises:
            HTTPError: of urllib3, for everything that can go wrong.
        """
        response = self._pool.urlopen(
            method,
            self._prefix + path,
            body=body,
            headers=headers,
            timeout=Timeout(total=seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        try:
            content = response.read(at_most + 1)
            if len(content) > at_most:
                raise ProtocolError(f"The answer has more than {at_most} bytes.")
        except BaseException:
            response.close()  # with its connection, which is in the middle of something
            raise
        response.release_conn()
        return response.status, response.headers.get("Content-Type", "").partition(";")[0], content

    def close(self) -> None:
        self._pool.close()
