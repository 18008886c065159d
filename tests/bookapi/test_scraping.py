"""Crawls over HTTP: who may start one, what becomes of its process, and how runs are told."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import crawls
from catalog.models import CrawlRun, FailedPage, RejectedItem
from tests.bookapi.clients import operator, reader
from tests.bookapi.jobs import BREAKS, HANGS, alive, gone

TRIGGER, RUNS = "/api/v1/scraping/trigger", "/api/v1/scraping/runs"

#: Processes in place of the spider: what they do is all that the server sees of a crawl.
FINISHES = (
    "import django; django.setup()\n"
    "from catalog.ingest import adopt_run, finish_run\n"
    "import sys; run = int(sys.argv[1]); adopt_run(run); finish_run(run); print('read', run)\n"
)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[int]]]:
    """Makes crawls run this program instead of the spider; tells the process ids."""
    started: list[int] = []
    real = crawls.start_detached

    def start(arguments: list[str], log: Path) -> Any:
        process = real(arguments, log)
        started.append(process.pid)
        return process

    def use(program: str) -> list[int]:
        monkeypatch.setattr(crawls, "command", lambda run: [sys.executable, "-c", program, str(run.pk)])
        monkeypatch.setattr(crawls, "start_detached", start)
        return started

    yield use
    for pid in started:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def ended(run_id: int) -> CrawlRun:
    """The run, when it is no longer running and its process is gone."""
    for _ in range(300):
        run = CrawlRun.objects.get(pk=run_id)
        if run.state != "running":
            return run
        time.sleep(0.1)
    raise AssertionError("The run did not end.")


def start(client: Client, body: Any = None) -> Any:
    if body is None:
        return client.generic("POST", TRIGGER)
    return client.post(TRIGGER, body, content_type="application/json")


# --- Starting ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_only_operators_start_crawls() -> None:
    assert Client().post(TRIGGER).status_code == 401
    assert reader().post(TRIGGER).status_code == 403
    assert not CrawlRun.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_crawl_is_started_and_its_run_is_told(child: Callable[[str], list[int]], settings: Settings) -> None:
    pids = child(FINISHES)
    response = start(operator())
    assert response.status_code == 202, response.content
    body = response.json()
    assert body["state"] == "running"
    assert body["shop"] == settings.SHOP_NAME
    assert response["Location"] == f"http://testserver{RUNS}/{body['id']}"
    run = ended(body["id"])
    assert run.state == "finished"
    assert run.requested_by == "oskar"
    assert run.source == settings.SHOP_URL
    assert run.pid == pids[0]
    assert gone(pids[0])
    assert crawls.log_file(run).read_text().endswith(f"read {run.pk}\n")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_second_crawl_is_refused_while_one_is_under_way_and_the_first_is_named(
    child: Callable[[str], list[int]],
) -> None:
    (pids, client) = child(HANGS), operator()
    first = start(client).json()
    second = start(client)
    assert second.status_code == 409
    assert second["Content-Type"] == "application/problem+json"
    assert f"Run {first['id']}" in second.json()["detail"]
    assert second["Location"].endswith(f"/{first['id']}")
    assert CrawlRun.objects.count() == 1
    os.kill(pids[0], signal.SIGKILL)
    assert ended(first["id"]).state == "interrupted"
    assert gone(pids[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_process_that_breaks_leaves_a_failed_run_and_its_words_in_the_log(
    child: Callable[[str], list[int]],
) -> None:
    child(BREAKS)
    run = ended(start(operator()).json()["id"])
    assert run.state == "failed"
    assert run.warnings[0]["code"] == "process_ended"
    assert "code 3" in run.warnings[0]["detail"]
    assert "no such module" in crawls.log_file(run).read_text()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_process_that_cannot_start_fails_its_run_and_frees_the_shop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawls, "command", lambda _: ["/no/such/program"])
    client = operator()
    for _ in range(2):
        response = start(client)
        assert response.status_code == 503
        assert "/no/such/program" not in response.content.decode()
    assert [run.state for run in CrawlRun.objects.all()] == ["failed", "failed"]
    assert CrawlRun.objects.first().warnings[0]["code"] == "not_started"  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_limit_and_category_are_kept_with_the_run(child: Callable[[str], list[int]]) -> None:
    child(FINISHES)
    response = start(operator(), {"limit": 5, "category": "Poésie"})
    assert response.status_code == 202
    run = ended(response.json()["id"])
    assert run.filters == {"limit": 5, "category": "Poésie"}
    assert not run.complete


def test_the_command_is_the_spider_with_the_runs_filters_and_nothing_else() -> None:
    run = CrawlRun(pk=7, shop="a", source="-", filters={"limit": 5, "category": "a; rm -rf / -a start_url=x"})
    assert crawls.command(run) == [
        *(sys.executable, "-m", "scrapy", "crawl", "books", "-a", "run=7"),
        *("-a", "limit=5", "-a", "category=a; rm -rf / -a start_url=x"),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body",
    [
        *('{"start_url": "http://127.0.0.1/"}', '{"url": "x"}', '{"shop": "other"}', '{"limit": 0}', '{"limit": -1}'),
        *('{"limit": 100001}', '{"limit": "5"}', '{"limit": 1.5}', '{"limit": true}', '{"limit": 1e30}', "[]", "7"),
        *('{"category": ""}', '{"category": 5}', '{"category": "a\\nb"}', '{"category": "\\u0000"}', '{"lim', "null"),
        *('{"category": "\\ud800"}', '{"category": "' + "x" * 101 + '"}', '{"category": ["a"]}'),
    ],
)
def test_a_body_that_is_not_understood_starts_nothing(body: str) -> None:
    response = start(operator(), body)
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert not CrawlRun.objects.exists()


@pytest.mark.django_db
def test_a_body_of_more_than_ten_megabytes_is_413() -> None:
    assert start(operator(), b'{"category":"' + b"x" * (10 * 1024 * 1024) + b'"}').status_code == 413
    assert not CrawlRun.objects.exists()


@pytest.mark.django_db
def test_a_url_in_the_query_is_refused() -> None:
    response = operator().generic("POST", f"{TRIGGER}?start_url=http://127.0.0.1/")
    assert response.status_code == 400
    assert not CrawlRun.objects.exists()


# --- Runs -------------------------------------------------------------------------------------------------------------
SHAPE = {
    *("id", "shop", "state", "started_at", "finished_at", "announced", "seen", "created", "updated", "unchanged"),
    *("published", "stale", "rejected", "dead", "failed_pages", "complete", "coverage", "warnings"),
    *("kind", "filters", "delisted", "duration_s"),
}


def make_run(**fields: Any) -> CrawlRun:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = {
        "shop": "a-shop",
        "source": "/home/somebody/books.jsonl",
        "state": "finished",
        "started_at": at,
        "finished_at": at + timedelta(seconds=90),
        "announced": 12,
        "seen": 10,
        "created": 7,
        "unchanged": 2,
        "rejected": 1,
        "failed_pages": 2,
        "complete": True,
        "coverage": {"title": 1.0, "description": 0.9},
        "warnings": [{"code": "books_fell", "detail": "Fewer."}],
    }
    return CrawlRun.objects.create(**{**values, **fields})


@pytest.mark.django_db
def test_reading_runs_needs_an_account() -> None:
    assert Client().get(RUNS).status_code == 401
    assert Client().get(f"{RUNS}/1").status_code == 401


@pytest.mark.django_db
def test_a_run_is_told_with_its_counts_coverage_and_warnings() -> None:
    run = make_run()
    body = reader().get(RUNS).json()
    assert body["count"] == 1
    (found,) = body["results"]
    assert set(found) == SHAPE
    assert found["started_at"] == "2026-01-02T03:04:05Z"
    assert found["duration_s"] == 90.0
    assert found["coverage"] == {"title": 1.0, "description": 0.9}
    assert found["warnings"] == [{"code": "books_fell", "detail": "Fewer."}]
    assert (found["announced"], found["seen"], found["failed_pages"]) == (12, 10, 2)
    assert found["complete"] is True
    assert found["id"] == run.pk
    assert "somebody" not in str(body)


@pytest.mark.django_db
def test_a_run_under_way_is_told_live() -> None:
    begun = timezone.now() - timedelta(seconds=30)
    run = make_run(state="running", started_at=begun, finished_at=None, complete=False, failed_pages=0, coverage={})
    for number in range(3):
        FailedPage.objects.create(run=run, url=f"https://a/{number}", kind="book", reason="http_404")
    FailedPage.objects.create(run=run, url="https://a/list", kind="listing", reason="timeout")
    RejectedItem.objects.create(
        run=run,
        reference="https://a/9",
        page=1,
        raw={},
        scraped_at=begun,
        errors=[
            {"field": "price", "code": "missing", "detail": "-"},
            {"field": "rating", "code": "invalid", "detail": "-"},
        ],
    )
    response = reader().get(f"{RUNS}/{run.pk}")
    assert response["Cache-Control"] == "no-store"
    assert "ETag" not in response
    body = response.json()
    assert set(body) == SHAPE | {"failures", "rejections"}
    assert body["state"] == "running"
    assert body["finished_at"] is None
    assert 30 <= body["duration_s"] < 60
    assert body["failed_pages"] == 3
    assert body["failures"] == {"http_404": 3, "timeout": 1}
    assert body["rejections"] == {"price.missing": 1, "rating.invalid": 1}


@pytest.mark.django_db
@pytest.mark.parametrize("number", ["0", "4711", "9" * 30])
def test_an_unknown_run_is_404(number: str) -> None:
    assert reader().get(f"{RUNS}/{number}").status_code == 404


@pytest.mark.django_db
def test_runs_are_paged_newest_first_and_filtered() -> None:
    client = reader()
    made = [make_run(shop="b" if n % 2 else "a", state="failed" if n == 3 else "finished") for n in range(5)]
    first = client.get(RUNS, {"page_size": 2}).json()
    assert first["count"] == 5
    second = client.get(first["next"]).json()
    ids = [run["id"] for run in first["results"] + second["results"]]
    assert ids == [run.pk for run in made[:0:-1]]
    assert client.get(RUNS, {"shop": "a"}).json()["count"] == 3
    assert [run["id"] for run in client.get(RUNS, {"state": "failed"}).json()["results"]] == [made[3].pk]
    whole = client.get(RUNS, {"page_size": "all"})
    assert b"".join(whole).count(b'"started_at"') == 5  # type: ignore[arg-type]


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["stat=failed", "state=lost", "shop=%00", "page=x", "cursor=abc", "format=csv"])
def test_what_is_not_understood_is_refused(query: str) -> None:
    assert reader().get(f"{RUNS}?{query}").status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize("number", [2, 60])
def test_queries_are_the_same_for_any_number_of_runs(
    number: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client = reader()
    runs = [make_run() for _ in range(number)]
    for run in runs:
        FailedPage.objects.create(run=run, url="https://a/1", kind="book", reason="http_404")
    client.get(f"{RUNS}/0")  # the account is known now
    with django_assert_num_queries(2):  # count, runs
        client.get(RUNS, {"page_size": 100})
    with django_assert_num_queries(3):  # run, failed pages by reason, rejected items
        client.get(f"{RUNS}/{runs[0].pk}")
