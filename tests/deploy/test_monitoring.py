"""What watches the product: alerts that fire, and a dashboard whose every question has an answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from bookapi import key_rotation
from bookapi.key_rotation import Folders
from bookapi.processes import Child
from bookapi.serving import free_port, server_command
from deploy.gateway import Gateway, render_backends, running
from deploy.programs import NotInstalled, find_program
from deploy.programs import running as started
from deploy.services import prometheus_program
from recommender.engine.artifact import Store
from tests.recommender.trained import corpus_of, prediction_service, publish, until_answered

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
TOKEN = "a-token-for-the-scraper"
SERIES = re.compile(r"\b(?:bookapi|catalogue|prediction|recommender|haproxy|rabbitmq)_\w+")
#: Told only where there is a broker, or by it.
OF_A_BROKER = re.compile(r"rabbitmq_|bookapi_(?:queue|broker|schedule)_")

FILLING = """
import django; django.setup()
from datetime import timedelta
from django.core.management import call_command
from django.utils import timezone
call_command("migrate", verbosity=0)
from benchmarks.filling import fill
from catalog.models import CrawlRun
fill(60)
ended = timezone.now() - timedelta(hours=1)
CrawlRun.objects.create(shop="a", source="-", state="finished", complete=True, seen=60, created=60, finished_at=ended)
"""


def promtool(*arguments: str) -> str:
    try:
        program = find_program("promtool", "prometheus")
    except NotInstalled as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [program, *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def questions() -> dict[str, str]:
    """Everything that rules and dashboard ask, by where it stands. Grafana fills in its variables itself."""
    asked = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "books.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            asked[f"panel {panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "1m")
    return asked


# --- Alerts -----------------------------------------------------------------------------------------------------------
def test_the_configuration_is_one_that_prometheus_accepts(tmp_path: Path) -> None:
    configuration = (MONITORING / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text(TOKEN)
    file = tmp_path / "prometheus.yml"
    file.write_text(configuration.replace("/run/secrets/metrics_token", str(token)))
    (tmp_path / "rules.yml").write_text((MONITORING / "rules.yml").read_text())
    assert f"{len(rules())} rules found" in promtool("check", "config", str(file))


def test_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "tests.yml")


def test_each_alert_is_tried_both_ways_or_fires_in_a_test_at_least() -> None:
    tried = [
        case
        for test in yaml.safe_load((MONITORING / "tests.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == {rule["alert"] for rule in rules()}


def test_each_alert_is_explained_to_the_operator() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in told] == []


# --- Questions --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Watched:
    """A gateway, an API of two processes and a prediction service, and the Prometheus that looks at them."""

    gateway: str
    prometheus: str
    logs: tuple[Path, ...]  # of the three


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    keys = Folders(public=folder / "keys" / "public", private=folder / "keys" / "private")
    key_rotation.make(keys)
    store = Store(str(folder / "models"))
    publish(store, corpus_of(60))
    port, watcher = free_port(), free_port()
    gateway = Gateway(folder / "gateway", keys.public, settings={"GATEWAY_PUBLIC_READ": "true"})
    with ExitStack() as stack:
        try:
            find_program("prometheus", "prometheus")
            prediction = stack.enter_context(prediction_service(store.url, folder / "prediction.log"))
            environment = {
                "METRICS_TOKEN": TOKEN,
                "VAR_DIR": str(folder),
                "DATABASE_URL": "",
                "BROKER_URL": "",
                "CACHE_URL": "",
                "PUBLIC_READ": "true",
                "RECOMMENDER_URL": prediction,
                "PROMETHEUS_MULTIPROC_DIR": str(folder / "counters"),
            }
            (folder / "counters").mkdir()
            subprocess.run(
                [sys.executable, "-c", FILLING],
                cwd=ROOT,
                env={**os.environ, **environment, "PROMETHEUS_MULTIPROC_DIR": ""},
                check=True,
            )
            log = folder / "api.log"
            output = stack.enter_context(log.open("wb"))
            api = stack.enter_context(
                Child(
                    "api",
                    server_command("127.0.0.1", port, workers=2),
                    environment=environment,
                    stderr=output,
                    cwd=ROOT,
                )
            )
            until_answered(f"http://127.0.0.1:{port}/api/v1/health/ready", api, log)
            address = f"127.0.0.1:{port}"
            stack.enter_context(running(gateway, render_backends(auth=[address], api=[address], admin=[address])))
            configuration = watching(
                folder,
                {"api": port, "prediction": int(prediction.rpartition(":")[2]), "gateway": gateway.internal_port},
            )
            stack.enter_context(started(prometheus_program(folder / "prometheus", watcher, configuration)))
        except NotInstalled as error:
            pytest.skip(str(error))
        for _ in range(3):
            for path in ("books", "books/1/recommendations?in_stock=any", "no/such/thing"):
                requests.get(f"{gateway.url}/api/v1/{path}", timeout=20)
        yield Watched(gateway.url, f"http://127.0.0.1:{watcher}/api/v1", (gateway.log, log, folder / "prediction.log"))


@pytest.fixture
def prometheus(watched: Watched) -> str:
    return watched.prometheus


def watching(folder: Path, ports: dict[str, int]) -> Path:
    """The committed configuration, with local addresses, and in a hurry."""
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(MONITORING / "rules.yml")]
    jobs = [job for job in configuration["scrape_configs"] if job["job_name"] in ports]
    for job in jobs:
        job.pop("dns_sd_configs", None)
        job.pop("relabel_configs", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        if "authorization" in job:
            job["authorization"] = {"credentials": TOKEN}
    configuration["scrape_configs"] = jobs
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    return file


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{prometheus}/query", params={"query": expression}, timeout=20).json()
    assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_every_panel_shows_something_and_every_alert_asks_about_something_that_exists(prometheus: str) -> None:
    series = {name: where for where, expression in questions().items() for name in SERIES.findall(expression)}
    panels = {where: expression for where, expression in questions().items() if where.startswith("panel")}
    here = {where: expression for where, expression in panels.items() if not OF_A_BROKER.search(expression)}
    assert len(here) > 25
    deadline = time.monotonic() + 30
    while True:
        # An alert is silent while all is well, so its series are asked for; a rate needs two scrapes.
        empty = [where for where, expression in here.items() if not ask(prometheus, expression)]
        empty += [
            f"{name} of {where}"
            for name, where in series.items()
            if not OF_A_BROKER.search(name) and not ask(prometheus, name)
        ]
        if not empty or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert empty == []
    for expression in questions().values():
        ask(prometheus, expression)  # understood, whatever the answer is
    firing = ask(prometheus, 'ALERTS{alertstate="firing"}')
    assert [alert["metric"]["alertname"] for alert in firing] == []


def test_the_numbers_are_those_of_the_product(prometheus: str) -> None:
    def number(expression: str) -> float:
        return sum(float(found["value"][1]) for found in ask(prometheus, expression))

    deadline = time.monotonic() + 30
    while number('bookapi_requests_total{route="api/v1/books"}') < 3 or not number("prediction_model_loaded"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert number('bookapi_requests_total{route="api/v1/books"}') == 3
    assert number("catalogue_books") == 60
    assert number('catalogue_records_total{shop="a",outcome="created"}') == 60
    assert number('recommender_recommendations_total{source="model"}') >= 3
    assert number('prediction_questions_total{outcome="answered"}') >= 3
    (model,) = ask(prometheus, "bookapi_model_info")
    (answering,) = ask(prometheus, "prediction_model_info")
    assert model["metric"]["version"] == answering["metric"]["version"]


# --- One request ------------------------------------------------------------------------------------------------------
def test_one_id_finds_a_request_at_the_gateway_in_the_api_and_in_the_prediction_service(watched: Watched) -> None:
    asked = f"{watched.gateway}/api/v1/books/2/recommendations?in_stock=any"
    answer = requests.get(asked, headers={"X-Request-ID": "trace.of-a_book"}, timeout=20)
    assert answer.json()["source"] == "model"
    assert answer.headers["X-Request-ID"] == "trace.of-a_book"
    deadline = time.monotonic() + 20
    while (paths := [paths_of(log, "trace.of-a_book") for log in watched.logs]) and not all(paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.1)
    path = "/api/v1/books/2/recommendations"
    assert paths == [{path}, {path}, {"/predict"}]


def paths_of(log: Path, request_id: str) -> set[str]:
    lines = (json.loads(line) for line in log.read_text().splitlines() if f'"request_id":"{request_id}"' in line)
    return {line["path"] for line in lines}
