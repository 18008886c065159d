"""Limits are exact to the request, and say what they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import requests

from tests.gateway.conftest import credentials
from tests.gateway.estate import Door, until

Another = Callable[..., AbstractContextManager[Door]]
#: Longer than a test, which waits where one is about to end.
WINDOW_S = 3600


@pytest.fixture
def limited(another: Another) -> Callable[..., AbstractContextManager[Door]]:
    """A gateway whose window does not end before the test."""

    def make(**settings: str) -> AbstractContextManager[Door]:
        while WINDOW_S - time.time() % WINDOW_S < 30:
            time.sleep(1)
        return another(GATEWAY_WINDOW_S=str(WINDOW_S), **settings)

    return make


def told(answer: requests.Response) -> tuple[int, str, str, str]:
    headers = answer.headers
    return (
        answer.status_code,
        headers["RateLimit-Limit"],
        headers["RateLimit-Remaining"],
        headers["RateLimit-Policy"],
    )


def test_an_account_may_ask_as_often_as_its_limit_says_and_another_one_too(
    limited: Another, tokens: dict[str, str]
) -> None:
    with limited(GATEWAY_LIMIT_ACCOUNT="5", GATEWAY_LIMIT_ADDRESS="1") as gateway:
        for name in ("anna", "bert"):
            answers = [gateway.ask("/api/v1/books", tokens[name]) for _ in range(7)]
            policy = f'"account";q=5;w={WINDOW_S}'
            assert [told(answer) for answer in answers] == [
                (200, "5", "4", policy),
                (200, "5", "3", policy),
                (200, "5", "2", policy),
                (200, "5", "1", policy),
                (200, "5", "0", policy),
                (429, "5", "0", policy),
                (429, "5", "0", policy),
            ]
        refused = answers[-1]
        assert 0 < int(refused.headers["Retry-After"]) <= WINDOW_S
        assert abs(int(refused.headers["RateLimit-Reset"]) - (WINDOW_S - time.time() % WINDOW_S)) < 5
        body = refused.json()
        assert (body["title"], body["status"], body["errors"]) == ("Too Many Requests", 429, [])
        assert body["request_id"] == refused.headers["X-Request-ID"]
        # Whoever is refused for the number of requests is told how to need fewer.
        assert "page_size=all" in body["detail"]
        assert "format=parquet" in body["detail"]
        assert "arrow" not in body["detail"]  # which lists of books are not offered in


def test_what_comes_without_an_account_shares_the_limit_of_its_address(limited: Another, token: str) -> None:
    with limited(GATEWAY_LIMIT_ACCOUNT="100", GATEWAY_LIMIT_ADDRESS="4") as gateway:
        # Tokens that are refused count as well, or trying them would cost nothing.
        answers = [
            gateway.ask(path, offered)
            for path, offered in (("/api/v1/health", ""), ("/api/v1/books", ""), ("/api/v1/books", "no.good.token"))
        ]
        assert [answer.status_code for answer in answers] == [200, 401, 401]
        spoofed = {"X-Forwarded-For": "198.51.100.7"}
        assert gateway.ask("/api/v1/docs", headers=spoofed).status_code == 200
        assert gateway.ask("/api/v1/docs", headers=spoofed).status_code == 429
        assert gateway.ask("/api/v1/books").status_code == 429
        assert gateway.ask("/static/nothing.css").status_code == 404  # a page asks for many files
        assert gateway.ask("/api/v1/books", token).status_code == 200


def test_a_limit_is_exact_under_threads(limited: Another, token: str) -> None:
    with limited(GATEWAY_LIMIT_ACCOUNT="100") as gateway, ThreadPoolExecutor(8) as clients:

        def ask(_: int) -> int:
            return (
                gateway.ask("/api/v1/health", token).status_code and gateway.ask("/api/v1/books/0", token).status_code
            )

        assert Counter(clients.map(ask, range(150))) == {404: 100, 429: 50}


def test_attempts_to_log_in_have_a_limit_of_their_own(limited: Another) -> None:
    with limited(GATEWAY_LIMIT_LOGIN="3") as gateway:
        paths = ("/api/v1/login", "/api/v1/auth/login", "/admin/login/", "/api/v1/login")
        answers = [gateway.ask(path, method="POST", json=credentials("anna")) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 403, 429]  # the admin asks for a cookie
        assert told(answers[-1]) == (429, "3", "0", f'"login";q=3;w={WINDOW_S}')
        assert answers[-1].json()["detail"] == "Too many attempts to log in."
        assert gateway.ask("/api/v1/login").status_code == 405  # no attempt
        assert gateway.ask("/api/v1/auth/refresh", method="POST", json={"refresh": ""}).status_code == 401


def test_a_flood_is_refused_before_anything_is_looked_at(limited: Another, token: str) -> None:
    with limited(GATEWAY_FLOOD="20") as gateway:
        answers = [gateway.ask("/api/v1/books", token) for _ in range(25)]
        assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 5}
        assert gateway.line_of(answers[-1].headers["X-Request-ID"])["refused"] == "flood"
        assert answers[-1].headers["Retry-After"] == "10"


def test_a_new_window_starts_at_none(another: Another, token: str) -> None:
    with another(GATEWAY_LIMIT_ACCOUNT="1", GATEWAY_WINDOW_S="1") as gateway:
        until(lambda: gateway.ask("/api/v1/books", token).status_code == 429)
        until(lambda: gateway.ask("/api/v1/books", token).status_code == 200)
