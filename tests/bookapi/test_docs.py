"""The schema and its two pages: open, complete, and from this server alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver
from drf_spectacular.validation import validate_schema
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

SCHEMA, PAGES = "/api/v1/schema", ["/api/v1/docs", "/api/v1/redoc"]
#: Paths of DESIGN's table that this server answers.
PROMISED = {
    *("/auth/login", "/auth/refresh", "/auth/logout", "/auth/verify", "/login", "/changes"),
    *("/books", "/books/{book_id}", "/books/search", "/books/top-rated", "/books/price-range"),
    *("/books/{book_id}/history", "/categories", "/categories/{slug}", "/stats/overview", "/stats/categories"),
    *("/ml/features", "/ml/training-data", "/ml/predictions", "/scraping/trigger", "/scraping/runs"),
    *("/books/{book_id}/recommendations", "/recommendations", "/interactions", "/ml/models", "/ml/retrain"),
    *("/scraping/runs/{run_id}", "/health", "/health/live", "/health/ready"),
}


@pytest.fixture(autouse=True)
def _private(settings: Settings) -> None:
    settings.PUBLIC_READ = False


def test_the_schema_is_valid_json_and_open_to_everyone(client: Client) -> None:
    response = client.get(SCHEMA)  # a query would fail here: this test may not use the database
    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.oai.openapi+json"
    validate_schema(response.json())


def test_the_schema_describes_every_promised_path_and_nothing_that_is_not_served(client: Client) -> None:
    described = {path.removeprefix("/api/v1") for path in client.get(SCHEMA).json()["paths"]}
    assert described >= PROMISED
    served = {re.sub(r"<\w+:(\w+)>", r"{\1}", f"/{pattern.pattern}") for pattern in _api_patterns()}
    assert described <= served
    assert served - described == {"/schema", "/docs", "/redoc"}


def _api_patterns() -> list[object]:
    (api,) = [entry for entry in get_resolver().url_patterns if str(entry.pattern) == "api/v1/"]
    return api.url_patterns  # type: ignore[no-any-return]


def test_the_schema_comes_as_yaml_too(client: Client) -> None:
    by_name = client.get(SCHEMA, {"format": "yaml"})
    by_accept = client.get(SCHEMA, headers={"Accept": "application/vnd.oai.openapi"})
    assert yaml.safe_load(by_name.content) == yaml.safe_load(by_accept.content) == client.get(SCHEMA).json()


def test_an_unknown_parameter_of_the_schema_is_refused(client: Client) -> None:
    assert client.get(SCHEMA, {"fromat": "yaml"}).status_code == 400
    assert client.get(SCHEMA, {"format": "toml"}).status_code == 400


def test_generating_the_schema_warns_of_nothing() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", file="/dev/null")


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_load_nothing_from_elsewhere_and_run_no_script_of_their_own(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    page = response.content.decode()
    assert "://" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


@pytest.mark.parametrize("path", PAGES)
def test_every_file_that_a_page_names_is_among_the_static_files(client: Client, path: str) -> None:
    page = client.get(path).content.decode()
    names = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(names) >= 2
    for name in names:
        assert finders.find(name), name


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_only_read(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405


@pytest.mark.parametrize("method", ["POST", "DELETE", "TRACE", "FOO"])
def test_other_methods_on_a_page_are_problems_and_not_pages_of_a_csrf_check(method: str) -> None:
    answer = Client(enforce_csrf_checks=True).generic(method, "/api/v1/docs")

    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert answer["Content-Type"] == "application/problem+json"


def test_who_comes_without_an_address_is_led_to_the_documentation(client: Client) -> None:
    answer = client.get("/")

    assert (answer.status_code, answer["Location"]) == (302, "/api/v1/docs")


@pytest.mark.system
@pytest.mark.parametrize("path", PAGES)
def test_a_browser_shows_the_pages_under_their_policy(live_server: LiveServer, tmp_path: Path, path: str) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no browser here")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000", "--dump-dom"),
            f"{live_server.url}{path}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "/stats/overview" in done.stdout  # the page is empty until its scripts have run
