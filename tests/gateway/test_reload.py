"""Nobody notices a reload, nor a server that dies."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from http.client import HTTPConnection

import pytest
import requests

from deploy.gateway import Refused
from tests.gateway.estate import BOOKS, Door, Estate, address_of, until

Another = Callable[..., AbstractContextManager[Door]]
CLIENTS = 4
#: The client that reads the whole catalogue, as a stream.
WHOLE_SETS = 0
#: Answers that every client has between two events, so that each falls into load.
ANSWERS = 25


class Load:
    """Clients that ask over connections that stay open, without a pause, and what went wrong."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.wrong: list[tuple[int, str]] = []
        self.answers: Counter[int] = Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, client: int) -> None:
        path = "/api/v1/books?page_size=all" if client == WHOLE_SETS else "/api/v1/books?page_size=5"
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self.token}"
            while not self._over.is_set():
                try:
                    answer = session.get(f"{self.url}{path}", timeout=20)
                    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
                    assert answer.json()["count"] == BOOKS
                except (requests.RequestException, AssertionError, ValueError) as error:
                    self.wrong.append((client, repr(error)))
                self.answers[client] += 1

    def go_on(self) -> None:
        """Return when every client has had some more answers."""
        goal = {client: self.answers[client] + ANSWERS for client in range(CLIENTS)}
        until(lambda: all(self.answers[client] >= number for client, number in goal.items()), seconds=60)


def test_three_reloads_and_a_killed_replica_fail_no_read(another: Another, behind: Estate, token: str) -> None:
    victim = behind.api[1]
    with another() as gateway:
        try:
            with Load(gateway.url, token) as load:
                load.go_on()
                for _ in range(3):
                    gateway.gateway.reload(gateway.process)
                    load.go_on()
                assert load.wrong == []
                behind.processes[victim.name].kill()
                load.go_on()
            # A stream that has begun cannot begin anew at another server: it is cut, and its reader sees that.
            assert [error for error in load.wrong if error[0] != WHOLE_SETS] == []
            assert all("prematurely" in error for _, error in load.wrong)
            assert len(load.wrong) <= 1
        finally:
            behind.processes[victim.name].stop()
            behind.processes[victim.name] = victim.start()
            victim.wait(behind.processes[victim.name])
        # Who is back is asked again.
        until(lambda: asked(gateway, token) == address_of(victim))


def test_all_but_whole_sets_say_how_long_they_are(another: Another, token: str) -> None:
    """So they are sent in one piece: a server that is killed in between would have sent a head without a body."""
    with another() as gateway:
        for path in ("/api/v1/books?page_size=5", "/api/v1/books/1", "/api/v1/nowhere", "/api/v1/docs"):
            answer = gateway.ask(path, token)
            assert int(answer.headers["Content-Length"]) == len(answer.content), path
        assert "Content-Length" not in gateway.ask("/api/v1/books?page_size=all", token).headers


def asked(gateway: Door, token: str) -> str:
    answer = gateway.ask("/api/v1/books", token)
    server: str = gateway.line_of(answer.headers["X-Request-ID"])["server"]
    return server


def test_a_reload_brings_other_servers(another: Another, behind: Estate, token: str) -> None:
    first, second = (address_of(program) for program in behind.api)
    with another(behind.backends(api=[first])) as gateway:
        assert {asked(gateway, token) for _ in range(4)} == {first}
        gateway.gateway.write(behind.backends(api=[second]))
        gateway.gateway.reload(gateway.process)
        assert {asked(gateway, token) for _ in range(4)} == {second}


def test_a_configuration_that_is_wrong_changes_nothing(another: Another, behind: Estate, token: str) -> None:
    with another() as gateway:
        known = gateway.gateway.backends.read_text()
        with pytest.raises(Refused, match="unknown keyword"):
            gateway.gateway.write(known + "    serve me\n")
        assert gateway.gateway.backends.read_text() == known
        gateway.gateway.backends.write_text(known + "    serve me\n")
        with pytest.raises(Refused, match="unknown keyword"):
            gateway.gateway.reload(gateway.process)
        assert gateway.ask("/api/v1/books", token).status_code == 200


def test_a_download_ends_as_it_would_have_after_a_reload(another: Another, token: str) -> None:
    header = {"Authorization": f"Bearer {token}"}
    with another() as gateway:
        url = f"{gateway.url}/api/v1/books?page_size=all"
        with requests.get(url, headers=header, stream=True, timeout=20) as answer:
            began = answer.raw.read(10)
            gateway.gateway.reload(gateway.process)
            assert (began + answer.raw.read()).endswith(b"}")


def test_a_connection_that_is_open_asks_once_more_after_a_reload(another: Another, token: str) -> None:
    """A client that is just sending must not find it closed."""
    with another() as gateway, closing(HTTPConnection("127.0.0.1", gateway.gateway.port, timeout=20)) as connection:
        for is_last in (False, True):
            connection.request("GET", "/api/v1/books", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers.get("Connection") == "close") == (200, is_last)
            if not is_last:
                gateway.gateway.reload(gateway.process)
                until(lambda: b"Proxy clients stopped" in gateway.gateway.log.read_bytes())
