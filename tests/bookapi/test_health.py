"""Health, as balancers and orchestrators ask for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import health
from catalog.memo import forget_all
from catalog.models import CatalogueRevision, CrawlRun


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    forget_all()
    yield
    forget_all()


def ended_run(state: str = "finished", *, complete: bool = True) -> CrawlRun:
    return CrawlRun.objects.create(
        shop="a-shop", source="-", state=state, complete=complete, finished_at=datetime(2026, 1, 2, tzinfo=UTC)
    )


def test_live_answers_without_a_database_and_without_a_token(client: Client) -> None:
    response = client.get("/api/v1/health/live")  # a query would fail here: this test may not use the database
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
    assert response["Cache-Control"] == "no-store"


@pytest.mark.django_db(transaction=True)
def test_health_tells_what_there_is(client: Client) -> None:
    CatalogueRevision.objects.update_or_create(pk=1, defaults={"number": 7})
    run = ended_run()
    response = client.get("/api/v1/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "database": "ok",
        "books": 0,
        "last_crawl": {
            "run": run.pk,
            "shop": "a-shop",
            "finished_at": "2026-01-02T00:00:00Z",
            "outcome": "complete",
        },
        "model_version": None,
        "revision": 7,
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "complete", "outcome"),
    [
        ("finished", True, "complete"),
        ("finished", False, "incomplete"),
        ("interrupted", False, "interrupted"),
        ("failed", False, "failed"),
    ],
)
def test_a_run_that_ended_badly_is_not_told_as_a_success(state: str, complete: bool, outcome: str) -> None:
    ended_run(state, complete=complete)
    assert health.facts()["last_crawl"]["outcome"] == outcome


@pytest.mark.django_db
def test_facts_take_three_queries_and_two_while_the_revision_stands(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(3):  # revision, last run, books
        health.facts()
    with django_assert_num_queries(2):  # revision, last run
        health.facts()


@pytest.mark.django_db(transaction=True)
def test_ready_says_so_when_the_database_is_migrated(client: Client) -> None:
    assert client.get("/api/v1/health/ready").json() == {"status": "ok"}


@pytest.mark.django_db(transaction=True)
def test_not_ready_while_a_migration_is_missing(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
    try:
        response = client.get("/api/v1/health/ready")
    finally:
        call_command("migrate", "sessions", fake=True, verbosity=0)
    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert "migrated" in response.json()["detail"]


@pytest.mark.django_db
def test_readiness_takes_two_queries(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_max_num_queries(2):  # is there a table of migrations; which ones were applied
        health.check_ready()


def unreachable() -> None:
    raise OperationalError("connection to 10.1.2.3 as user secret-name failed")


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/health/ready"])
def test_without_a_database_the_answer_is_503_and_leaks_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(health, "facts", unreachable)
    monkeypatch.setattr(health, "check_ready", unreachable)
    response = client.get(path)
    assert response.status_code == 503
    assert b"secret-name" not in response.content
    assert b"10.1.2.3" not in response.content


def test_health_without_a_database_keeps_its_shape(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "facts", unreachable)
    assert client.get("/api/v1/health").json() == {
        "status": "unavailable",
        "database": "unavailable",
        "books": None,
        "last_crawl": None,
        "model_version": None,
        "revision": None,
    }


def test_a_database_that_does_not_answer_makes_nobody_wait_longer_than_the_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(health.Unavailable):
        health.ask(lambda: time.sleep(1), seconds=0.05)
    assert time.monotonic() - begun < 0.9


def test_questions_to_a_database_that_hangs_do_not_pile_up() -> None:
    for _ in range(4):
        with pytest.raises(health.Unavailable):
            health.ask(lambda: time.sleep(0.5), seconds=0.01)
    begun = time.monotonic()
    with pytest.raises(health.Unavailable):  # not even asked
        health.ask(lambda: None, seconds=10)
    assert time.monotonic() - begun < 0.4
    time.sleep(0.6)
    assert health.ask(lambda: "answered again", seconds=5) == "answered again"


@pytest.mark.django_db(transaction=True)
def test_health_needs_no_token_and_ignores_a_bad_one(client: Client, settings: Settings) -> None:
    settings.PUBLIC_READ = False
    settings.RATE_LIMIT_ADDRESS = "1/min"
    for _ in range(3):
        assert client.get("/api/v1/health", headers={"Authorization": "Bearer nonsense"}).status_code == 200
