"""Metrics for Prometheus, and who gets them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import requests
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import health, metrics
from bookapi.processes import Child
from bookapi.serving import free_port
from catalog.models import CrawlRun, DeadLetter, PublishedBatch, RejectedItem
from recommender.client import forget
from tests.factories import make_book
from tests.recommender.trained import until_answered

TOKEN = "a-token-for-the-scraper"


@pytest.fixture
def _token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


@pytest.fixture(autouse=True)
def _no_model(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.ARTIFACT_STORE = str(tmp_path / "models")
    settings.RECOMMENDER_URL = settings.BROKER_URL = ""
    yield
    forget()


def scrape(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_without_a_token_configured_there_are_no_metrics(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@pytest.mark.usefixtures("_token")
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"])
def test_a_wrong_token_is_refused(client: Client, header: str) -> None:
    response = client.get("/metrics", headers={"Authorization": header})
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert b"bookapi" not in response.content


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_requests_are_counted_by_route_and_never_by_raw_path(client: Client) -> None:
    labels = (("method", "GET"), ("route", "api/v1/health/live"), ("status", "200"))
    before = scrape(client).get(("bookapi_requests_total", labels), 0)
    client.get("/api/v1/health/live")
    client.get("/api/v1/health/live?page=17")
    client.get("/no/such/place/4711")
    client.generic("BREW", "/no/such/place/4711")
    after = scrape(client)
    assert after["bookapi_requests_total", labels] == before + 2
    routes = {dict(labels).get("route") for _, labels in after}
    assert "unmatched" in routes
    assert not any(route and "4711" in route for route in routes)
    assert ("bookapi_requests_total", (("method", "other"), ("route", "unmatched"), ("status", "404"))) in after
    durations = after["bookapi_request_duration_seconds_count", labels[:2]]
    assert durations == after["bookapi_requests_total", labels]


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_the_last_run_of_each_shop_is_told_with_its_counts(client: Client) -> None:
    now = timezone.now()
    CrawlRun.objects.create(
        shop="a-shop",
        source="-",
        state="finished",
        complete=True,
        seen=10,
        created=10,
        finished_at=now - timedelta(hours=2),
    )
    last = CrawlRun.objects.create(
        shop="a-shop",
        source="-",
        state="failed",
        seen=5,
        unchanged=4,
        rejected=1,
        failed_pages=3,
        finished_at=now,
    )
    RejectedItem.objects.create(run=last, reference="x", page=1, raw={}, errors=[], scraped_at=now)
    found = scrape(client)
    shop = ("shop", "a-shop")
    assert found["bookapi_database_up", ()] == 1
    assert found["catalogue_last_run_books", (("outcome", "unchanged"), shop)] == 4
    assert found["catalogue_last_run_books", (("outcome", "created"), shop)] == 0
    assert found["catalogue_last_run_failed_pages", (shop,)] == 3
    assert found["catalogue_last_run_complete", (shop,)] == 0
    assert found["catalogue_last_complete_run_age_seconds", (shop,)] == pytest.approx(7200, abs=60)
    assert found["catalogue_rejected_items_open", ()] == 1
    assert ("catalogue_revision", ()) in found


@pytest.mark.usefixtures("_token")
def test_without_a_database_the_requests_are_told_all_the_same(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise health.Unavailable

    monkeypatch.setattr(metrics, "ask", unreachable)
    found = scrape(client)
    assert found["bookapi_database_up", ()] == 0
    assert any(name == "python_info" for name, _ in found)


@pytest.mark.django_db
def test_a_scrape_takes_nine_queries(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for shop in ("a", "b"):
        CrawlRun.objects.create(shop=shop, source="-", state="finished", finished_at=timezone.now())
    # revision, books by shop, open rejections, newest runs by shop, those runs; sums of all runs; pending batches; dead
    # letters by reason; the schedule
    with django_assert_num_queries(9):
        list(metrics.families())


# --- What workers and crawls do ---------------------------------------------------------------------------------------
@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_the_records_of_all_runs_are_summed_by_shop_and_outcome(client: Client) -> None:
    embedded = {"seen": 12, "created": 6, "updated": 3, "unchanged": 2, "rejected": 1}
    CrawlRun.objects.create(shop="a-shop", source="-", state="finished", **embedded)
    queued = {"seen": 9, "created": 4, "stale": 3, "dead": 2, "published": 14}
    CrawlRun.objects.create(shop="a-shop", source="-", state="settling", **queued)
    CrawlRun.objects.create(shop="a-shop", source="-", state="finished", kind="file", seen=50, created=50)
    CrawlRun.objects.create(shop="b-shop", source="-", state="running", seen=1, unchanged=1)
    found = scrape(client)

    def records(name: str, outcome: str, shop: str = "a-shop") -> float:
        return found[name, (("outcome", outcome), ("shop", shop))]

    written = {"created": 60, "updated": 3, "unchanged": 2, "stale": 3}
    assert {name: records("catalogue_records_total", name) for name in written} == written
    assert records("catalogue_records_total", "unchanged", "b-shop") == 1
    assert records("catalogue_records_refused", "rejected") == 1
    assert records("catalogue_records_refused", "dead") == 2
    # What spiders read: 11 that were written without a queue, 14 that were published; and no file.
    assert found["catalogue_crawled_records_total", (("shop", "a-shop"),)] == 25


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_the_queue_is_told_by_its_depth_its_age_and_its_dead(client: Client) -> None:
    assert scrape(client)["catalogue_oldest_pending_batch_age_seconds", ()] == 0
    run = CrawlRun.objects.create(shop="a-shop", source="-")
    now = timezone.now()
    for minutes, state in ((5, "pending"), (2, "pending"), (9, "settled"), (9, "dead")):
        published_at = now - timedelta(minutes=minutes)
        PublishedBatch.objects.create(key=uuid.uuid4(), run=run, records=50, state=state, published_at=published_at)
    for number, (reason, state) in enumerate([("failed", "open"), ("failed", "dropped"), ("unroutable", "open")]):
        DeadLetter.objects.create(message=str(number), queue="q", reason=reason, state=state, body=b"")
    found = scrape(client)
    assert found["catalogue_pending_batches", ()] == 2
    assert found["catalogue_pending_records", ()] == 100
    assert found["catalogue_oldest_pending_batch_age_seconds", ()] == pytest.approx(300, abs=30)
    open_letters = {reason: found["catalogue_dead_letters_open", (("reason", reason),)] for reason in DeadLetter.Reason}
    assert open_letters == {reason: int(reason in {"failed", "unroutable"}) for reason in DeadLetter.Reason}


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_a_schedule_that_fell_silent_is_told_by_its_age(client: Client) -> None:
    # The tables come with a schedule of our own, which has not started anything here.
    assert ("bookapi_schedule_age_seconds", ()) not in scrape(client)
    every = IntervalSchedule.objects.create(every=1, period="minutes")
    now = timezone.now()
    for name, minutes, enabled in (("a", 30, True), ("b", 10, True), ("c", 1, False)):
        last = now - timedelta(minutes=minutes)
        PeriodicTask.objects.create(name=name, task="t", interval=every, enabled=enabled, last_run_at=last)
    assert scrape(client)["bookapi_schedule_age_seconds", ()] == pytest.approx(600, abs=30)


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_a_broker_that_says_nothing_does_not_hang_a_scrape(client: Client, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.BROKER_URL = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}//"
        began = time.monotonic()
        found = scrape(client)
    assert time.monotonic() - began < 5
    assert found["bookapi_broker_up", ()] == 0
    assert found["bookapi_database_up", ()] == 1


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_without_a_broker_none_is_missed(client: Client) -> None:
    assert ("bookapi_broker_up", ()) not in scrape(client)


# --- Recommending -----------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_recommendations_are_counted_by_who_made_them_and_the_model_is_told(client: Client, settings: Settings) -> None:
    settings.PUBLIC_READ = True
    book = make_book()
    labels = (("source", "fallback"),)
    before = scrape(client).get(("recommender_recommendations_total", labels), 0)
    assert client.get(f"/api/v1/books/{book.pk}/recommendations").json()["source"] == "fallback"
    found = scrape(client)
    assert found["recommender_recommendations_total", labels] == before + 1
    assert found["bookapi_model_loaded", ()] == 0
    assert not any(name == "bookapi_model_info" for name, _ in found)


@pytest.mark.usefixtures("_token")
@pytest.mark.django_db(transaction=True)
def test_an_open_circuit_is_told(client: Client, settings: Settings) -> None:
    settings.RECOMMENDER_URL = f"http://127.0.0.1:{free_port()}"
    settings.RECOMMENDER_FAILURES = 1
    assert scrape(client)["bookapi_model_loaded", ()] == 0  # asked in vain, which opens it
    assert scrape(client)["recommender_circuits_open", ()] == 1


# --- Several processes ------------------------------------------------------------------------------------------------
@pytest.mark.system
def test_workers_add_up_and_one_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    """`serve --workers 2`, one of which is killed: what it counted stays, and a new server begins at 0."""
    environment = {**os.environ, "METRICS_TOKEN": TOKEN, "VAR_DIR": str(tmp_path), "DATABASE_URL": ""}
    port = free_port()
    command = [sys.executable, "manage.py", "serve", f"--port={port}", "--workers=2"]
    live, line = f"http://127.0.0.1:{port}/api/v1/health/live", 'route="api/v1/health/live",status="200"} '

    def told() -> float:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        text = requests.get(f"http://127.0.0.1:{port}/metrics", headers=headers, timeout=20).text
        return float(text.partition(line)[2].split("\n")[0])

    for _ in range(2):
        with (tmp_path / "log").open("ab") as log, Child("api", command, environment=environment, stderr=log) as server:
            until_answered(live, server, tmp_path / "log")
            for _ in range(20):
                requests.get(live, timeout=20)
            assert {told() for _ in range(6)} == {21}
            workers = psutil.Process(server.process.pid).children(recursive=True)
            victims = [worker for worker in workers if "granian" in " ".join(worker.cmdline())]
            victims[-1].kill()
            victims[-1].wait(20)
            until_answered(live, server, tmp_path / "log")
            assert told() == 22


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who lives")
def test_what_a_dead_process_said_of_itself_is_forgotten(tmp_path: Path) -> None:
    say = (
        "from prometheus_client import Counter, Gauge, generate_latest\n"
        "from recommender.service.counting import counted\n"
        "Gauge('open', 'o', multiprocess_mode='livesum').set(1); Counter('asked', 'a').inc()\n"
        "print(generate_latest(counted()).decode())\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for asked in (1.0, 2.0):
        done = subprocess.run([sys.executable, "-c", say], env=environment, capture_output=True, text=True, check=True)
        assert "open 1.0" in done.stdout.splitlines()
        assert f"asked_total {asked}" in done.stdout.splitlines()
