"""The proxy that makes faults makes each of them, and none when it should not."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from deploy.faults import FaultProxy, Mode


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while said := self.request.recv(65_536):
                self.request.sendall(said)
        except ConnectionError:
            pass  # the proxy cut it


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Before a server that answers with what it was told."""
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with FaultProxy("127.0.0.1", server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask_anew(proxy: FaultProxy) -> bytes:
    """Fails as early as the kernel knows: perhaps while it connects."""
    with connect(proxy) as connection:
        return connection.recv(10)


def answer(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    heard = b""
    while len(heard) < len(text) and (more := connection.recv(65_536)):
        heard += more
    return heard


def test_without_a_fault_everything_arrives(proxy: FaultProxy) -> None:
    text = bytes(range(256)) * 2_000
    with connect(proxy) as connection:
        assert answer(connection, text) == text
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""
    assert (proxy.connections, proxy.cuts) == (1, 0)


def test_down_refuses_new_connections_and_leaves_the_others(proxy: FaultProxy) -> None:
    with connect(proxy) as before:
        assert answer(before, b"here") == b"here"
        proxy.mode = Mode.DOWN
        with pytest.raises(ConnectionResetError):
            ask_anew(proxy)
        assert answer(before, b"still here") == b"still here"


def test_blackhole_takes_bytes_and_says_nothing(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert answer(connection, b"heard") == b"heard"
        proxy.mode = Mode.BLACKHOLE
        connection.sendall(b"not heard")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(10)


def test_cut_ends_what_is_open(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert answer(connection, b"heard") == b"heard"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    with connect(proxy) as another:
        assert answer(another, b"as before") == b"as before"


def test_reset_comes_after_so_many_bytes(proxy: FaultProxy) -> None:
    proxy.mode, proxy.reset_after = Mode.RESET, 1_000
    with connect(proxy) as connection:
        assert answer(connection, b"x" * 400) == b"x" * 400
        with pytest.raises(ConnectionError):
            answer(connection, b"x" * 400)
    assert proxy.cuts == 1


def test_slow_is_slow(proxy: FaultProxy) -> None:
    proxy.mode, proxy.delay_s = Mode.SLOW, 0.1
    with connect(proxy) as connection:
        begun = time.monotonic()
        assert answer(connection, b"late") == b"late"
        assert time.monotonic() - begun >= 0.2  # there and back


def test_server_that_is_away_is_a_refusal() -> None:
    with FaultProxy("127.0.0.1", 9) as proxy, pytest.raises(ConnectionResetError):
        ask_anew(proxy)
