"""Metrics for Prometheus, and who gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import health, metrics
from catalog.models import CrawlRun, RejectedItem

TOKEN = "a-token-for-the-scraper"


@pytest.fixture
def _token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


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
    def unreachable(_: object) -> None:
        raise health.Unavailable

    monkeypatch.setattr(metrics, "ask", unreachable)
    found = scrape(client)
    assert found["bookapi_database_up", ()] == 0
    assert any(name == "python_info" for name, _ in found)


@pytest.mark.django_db
def test_a_scrape_takes_five_queries(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for shop in ("a", "b"):
        CrawlRun.objects.create(shop=shop, source="-", state="finished", finished_at=timezone.now())
    # revision, books by shop, open rejections, newest runs by shop, those runs
    with django_assert_num_queries(5):
        list(metrics.gauges())


@pytest.mark.system
def test_processes_that_share_a_folder_add_up(tmp_path: Path) -> None:
    """Every worker counts for itself; a scrape meets one of them and has to tell of all."""
    count = (
        "import django; django.setup()\n"
        "from django.http import HttpRequest\n"
        "from bookapi import metrics\n"
        "request = HttpRequest(); request.method = 'GET'; request.resolver_match = None\n"
        "metrics.observe(request, 200, 0.01)\n"
        "metrics.Catalogue.collect = lambda self: ()\n"
        "print(metrics.exposition().decode())\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "bookapi.settings",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    for expected in (1.0, 2.0):
        done = subprocess.run(
            [sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=True
        )
        line = 'bookapi_requests_total{method="GET",route="unmatched",status="200"} '
        assert f"{line}{expected}" in done.stdout
