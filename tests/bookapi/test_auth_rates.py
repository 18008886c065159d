"""Limits on how often one may ask, and whom a request is counted for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import path
from redis import Redis
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookapi.addresses import client_address
from bookapi.rates import AccountRate, AddressRate, Rate, Windows, parse_rate
from bookapi.serving import free_port
from bookapi.shared_rates import SharedWindows
from bookapi.urls import urlpatterns as product_urls
from deploy.services import NotInstalled, Server, redis
from tests.bookapi.logins import make_user, tokens_of


class Anything(APIView):
    def get(self, _request: Request) -> Response:
        return Response({})


urlpatterns = [*product_urls, path("api/v1/anything", Anything.as_view())]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _nobody_has_asked(settings: Any) -> None:
    settings.PUBLIC_READ = True
    AccountRate.windows.clear()
    AddressRate.windows.clear()


def ask(address: str = "192.0.2.1", access: str | None = None, **headers: str) -> Any:
    if access:
        headers["Authorization"] = f"Bearer {access}"
    return Client().get("/api/v1/anything", REMOTE_ADDR=address, headers=headers)


# --- Through the API --------------------------------------------------------------------------------------------------
def test_an_address_that_asks_too_often_is_told_when_to_come_back(settings: Any) -> None:
    settings.RATE_LIMIT_ADDRESS = "3/min"
    answers = [ask() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3]["Retry-After"]) <= 60
    assert answers[3]["Content-Type"] == "application/problem+json"
    assert ask("192.0.2.2").status_code == 200


@pytest.mark.django_db
def test_an_account_is_counted_wherever_it_asks_from_and_not_against_its_address(settings: Any) -> None:
    make_user("anna")
    make_user("berta")
    anna, berta = tokens_of("anna")["access"], tokens_of("berta")["access"]
    settings.RATE_LIMIT_ACCOUNT, settings.RATE_LIMIT_ADDRESS = "3/min", "1/min"
    assert [ask(f"192.0.2.{i}", anna).status_code for i in range(4)] == [200, 200, 200, 429]
    assert ask("192.0.2.1", berta).status_code == 200
    assert ask("192.0.2.1").status_code == 200


def test_off_is_off() -> None:
    assert {ask().status_code for _ in range(50)} == {200}
    assert len(AddressRate.windows) == 0


def test_a_made_up_forwarded_address_buys_nothing(settings: Any) -> None:
    settings.RATE_LIMIT_ADDRESS = "2/min"
    answers = [ask(**{"X-Forwarded-For": f"203.0.113.{i}"}).status_code for i in range(3)]
    assert answers == [200, 200, 429]


# --- Counting ---------------------------------------------------------------------------------------------------------
class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_window_opens_with_the_first_request_and_closes_after_its_time() -> None:
    clock = Clock()
    windows = Windows(clock=clock)
    rate = Rate(2, 60)
    assert [windows.take("a", rate) for _ in range(2)] == [0, 0]
    clock.now = 20
    assert windows.take("a", rate) == 40
    assert windows.take("b", rate) == 0
    clock.now = 60
    assert windows.take("a", rate) == 0


def test_windows_are_bounded_and_the_oldest_gives_way() -> None:
    windows = Windows(size=3, clock=Clock())
    for key in "abcd":
        assert windows.take(key, Rate(1, 60)) == 0
    assert len(windows) == 3
    assert windows.take("d", Rate(1, 60)) == 60
    assert windows.take("a", Rate(1, 60)) == 0


def test_threads_that_ask_at_once_get_exactly_what_the_rate_allows() -> None:
    windows = Windows()
    passed: list[int] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        passed.append(sum(windows.take("a", Rate(5000, 3600)) == 0 for _ in range(1000)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 5000


# --- Counting together ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        with redis(tmp_path_factory.mktemp("redis")) as server:
            yield server
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests may take longer than a request would wait."""
    monkeypatch.setattr(SharedWindows, "TIMEOUT_S", 5.0)


def test_processes_that_share_a_cache_let_exactly_what_the_rate_allows_pass(cache: Server) -> None:
    code = (
        "import django; django.setup()\n"
        "from bookapi.shared_rates import Rate, SharedWindows, Windows\n"
        "SharedWindows.TIMEOUT_S = 5\n"
        f"shared = SharedWindows({cache.url!r})\n"
        "print(sum(shared.take('together', Rate(200, 3600), Windows()) == 0 for _ in range(150)))"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "bookapi.settings"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    passed = [int(child.communicate(timeout=120)[0]) for child in children]
    assert sum(passed) == 200


@pytest.mark.usefixtures("patient")
def test_a_shared_window_closes_after_its_time_and_leaves_nothing(cache: Server) -> None:
    shared, own = SharedWindows(cache.url), Windows()
    rate = Rate(2, 1)
    assert [shared.take("a", rate, own) for _ in range(2)] == [0, 0]
    wait_s = shared.take("a", rate, own)
    assert 0 < wait_s <= 1
    assert shared.take("b", rate, own) == 0
    assert len(own) == 0
    client = Redis.from_url(cache.url)
    deadline = time.monotonic() + 20
    while list(client.scan_iter("bookapi:rate:1:*")):
        assert time.monotonic() < deadline
    assert shared.take("a", rate, own) == 0


@pytest.mark.usefixtures("patient")
def test_the_api_counts_in_the_cache_where_there_is_one(settings: Any, cache: Server) -> None:
    settings.CACHE_URL, settings.RATE_LIMIT_ADDRESS = cache.url, "3/min"
    answers = []
    for _ in range(4):
        AddressRate.windows.clear()  # as another process would come to it
        answers.append(ask("192.0.2.77"))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3]["Retry-After"]) <= 60


def test_a_cache_that_is_away_is_told_once_a_minute_and_each_process_counts(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    shared, own = SharedWindows(f"redis://127.0.0.1:{free_port()}/0", clock), Windows(clock=clock)
    for second in range(0, 120, 2):
        clock.now = 1000 + second
        shared.take("a", Rate(1000, 3600), own)
    assert own.take("a", Rate(60, 3600)) > 0, "60 were counted here"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_a_cache_that_does_not_answer_costs_one_request_a_moment() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        shared = SharedWindows(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", clock := Clock())
        clock.now = 1000
        started = time.perf_counter()
        for _ in range(50):
            assert shared.take("a", Rate(1000, 3600), Windows()) == 0
        assert time.perf_counter() - started < 50 * SharedWindows.TIMEOUT_S / 2


@pytest.mark.usefixtures("patient")
def test_a_cache_that_comes_back_counts_again(tmp_path: Path) -> None:
    try:
        with redis(tmp_path) as server:
            shared, own = SharedWindows(server.url, clock := Clock()), Windows()
            clock.now = 1000
            shared.take("a", Rate(2, 3600), own)
            assert len(own) == 0
        shared.take("a", Rate(2, 3600), own)
        assert len(own) == 1
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        with redis(tmp_path, port):
            clock.now += SharedWindows.PAUSE_S
            assert [shared.take("a", Rate(2, 3600), own) > 0 for _ in range(3)] == [False, False, True]
    except NotInstalled as error:
        pytest.skip(str(error))


# --- Configuration ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("6000/min", Rate(6000, 60)),
        ("5/s", Rate(5, 1)),
        ("5/sec", Rate(5, 1)),
        ("5/m", Rate(5, 60)),
        ("5/hour", Rate(5, 3600)),
        ("5/day", Rate(5, 86400)),
        ("off", None),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "600", "600/", "/min", "0/min", "-5/min", "600/week", "6e3/min", "600 / min"])
def test_a_rate_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="600/min"):
        parse_rate(text)


def test_a_bad_rate_stops_the_start(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env={**os.environ, "RATE_LIMIT_ADDRESS": "lots", "VAR_DIR": str(tmp_path)},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "A rate limit is 'lots'" in done.stderr


# --- Addresses --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("proxies", "forwarded", "remote", "address"),
    [
        (0, "203.0.113.9", "192.0.2.1", "192.0.2.1"),
        (1, None, "192.0.2.1", "192.0.2.1"),
        (1, "203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "10.9.9.9, 203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (2, "10.9.9.9, 203.0.113.9, 192.0.2.7", "192.0.2.1", "203.0.113.9"),
        (3, "203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (1, "nonsense", "192.0.2.1", "192.0.2.1"),
        (1, "", "192.0.2.1", "192.0.2.1"),
        (1, "203.0.113.9:4711", "192.0.2.1", "203.0.113.9"),
        (1, "[2001:db8::1]:4711", "192.0.2.1", "2001:db8::/64"),
        (0, None, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (0, None, "fe80::1%eth0", "fe80::/64"),
        (0, None, "::ffff:192.0.2.1", "192.0.2.1"),
        (0, None, "", "unknown"),
        (0, None, None, "unknown"),
    ],
)
def test_the_address_is_what_the_nearest_trusted_proxy_saw(
    proxies: int, forwarded: str | None, remote: str | None, address: str, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = proxies
    meta = {"HTTP_X_FORWARDED_FOR": forwarded, "REMOTE_ADDR": remote}
    assert client_address({key: value for key, value in meta.items() if value is not None}) == address
