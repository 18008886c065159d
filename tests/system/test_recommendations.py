"""Recommendations while the prediction service is slow, broken or gone: real processes and sockets on both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from bookapi.serving import free_port
from catalog.models import Book
from recommender.client import forget
from tests.bookapi.clients import reader
from tests.recommender import faults
from tests.recommender.faults import FaultyProxy
from tests.recommender.library import make_library, train_champion
from tests.recommender.trained import prediction_service

pytestmark = [pytest.mark.system, pytest.mark.django_db]

DEADLINE_S = 0.3
PATIENCE_S = 2.0  # the answer that drips takes seven seconds in all, and others never end
RECOVERY_S = 30.0  # of a machine that does much else


@pytest.fixture
def library(settings: Any, tmp_path: Path) -> Iterator[list[Book]]:
    """Books, a model of them, and a client of the API that asks a service and soon tries again after failures."""
    settings.ARTIFACT_STORE = str(tmp_path / "store")
    settings.RATE_LIMIT_ACCOUNT = "off"
    settings.RECOMMENDER_DEADLINE_S = DEADLINE_S
    settings.RECOMMENDER_FAILURES = 3
    settings.RECOMMENDER_PAUSE_S = 0.05
    books = make_library()
    train_champion(settings.ARTIFACT_STORE)
    yield books
    forget()


def asker(books: list[Book]) -> Callable[[], dict[str, Any]]:
    client: Client = reader()

    def ask() -> dict[str, Any]:
        answer = client.get(f"/api/v1/books/{books[0].pk}/recommendations")
        assert answer.status_code == 200, answer.content
        body: dict[str, Any] = answer.json()
        assert len(body["results"]) == 10
        return body

    return ask


def until_by_model(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    deadline = time.monotonic() + RECOVERY_S
    while (body := ask())["source"] == "fallback":
        assert time.monotonic() < deadline, "it did not recover"
        time.sleep(0.02)
    return body


FAULTS = {
    "silent": faults.silent,
    "hangs up": faults.hang_up,
    "cut half-way": faults.cut_in_the_body,
    "drips": faults.drip,
    "drips a head without end": faults.drip_a_head_without_end,
    "garbage": faults.says(b"<html>It works!</html>"),
    "another version of the protocol": faults.rewritten(lambda content: content.replace(b'"model"', b'"engine"')),
    "error 500": faults.says(b"{}", 500),
}


@pytest.fixture
def proxy(library: list[Book], settings: Any, tmp_path: Path) -> Iterator[FaultyProxy]:
    """The way to a prediction service, in order at first."""
    port = free_port()
    with prediction_service(settings.ARTIFACT_STORE, tmp_path / "log", port=port), FaultyProxy(port) as proxy:
        settings.RECOMMENDER_URL = proxy.url
        yield proxy


def test_whatever_the_service_does_the_api_answers_in_time_and_recovers(
    proxy: FaultyProxy, library: list[Book]
) -> None:
    ask = asker(library)
    by_model = until_by_model(ask)
    for name, fault in FAULTS.items():
        proxy.fault = fault
        took = []
        for _ in range(6):  # enough for the circuit to open
            begun = time.monotonic()
            body = ask()
            took.append(time.monotonic() - begun)
            assert (body["source"], body["model"]) == ("fallback", None), name
        # The quickest of those before the circuit opened: what a busy machine adds is not the API's.
        assert min(took[:3]) < PATIENCE_S, (name, took)
        proxy.fault = faults.in_order
        assert until_by_model(ask) == by_model, name


def test_a_service_that_is_dead_is_missed_by_nobody_and_found_again_when_it_is_back(
    library: list[Book], settings: Any, tmp_path: Path
) -> None:
    port = free_port()
    settings.RECOMMENDER_URL = f"http://127.0.0.1:{port}"
    ask = asker(library)
    assert ask()["source"] == "fallback"
    for round_ in range(2):
        with prediction_service(settings.ARTIFACT_STORE, tmp_path / f"log{round_}", port=port):
            assert until_by_model(ask)["source"] == "model"
        assert ask()["source"] == "fallback"
