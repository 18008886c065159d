"""The registry over HTTP, and trainings that are started there."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from bookapi import trainings
from recommender.models import ModelVersion
from tests.bookapi.clients import operator, reader
from tests.bookapi.jobs import BREAKS, HANGS, alive, gone

MODELS, RETRAIN = "/api/v1/ml/models", "/api/v1/ml/retrain"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

#: A process in place of the training, which fails in order.
FAILS = (
    "import django; django.setup()\n"
    "from recommender.registry import adopt_training, fail_training\n"
    "import sys; pk = int(sys.argv[1]); adopt_training(pk); fail_training(pk, 'No books.')\n"
)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[int]]]:
    """Makes trainings run this program instead; tells the process ids."""
    started: list[int] = []
    real = trainings.start_detached

    def start(arguments: list[str], log: Path) -> Any:
        process = real(arguments, log)
        started.append(process.pid)
        return process

    def use(program: str) -> list[int]:
        monkeypatch.setattr(trainings, "command", lambda row: [sys.executable, "-c", program, str(row.pk)])
        monkeypatch.setattr(trainings, "start_detached", start)
        return started

    yield use
    for pid in started:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def ended(pk: int) -> ModelVersion:
    """The training, when its process has been buried."""
    for _ in range(300):
        row = ModelVersion.objects.get(pk=pk)
        if row.state != "training":
            return row
        time.sleep(0.1)
    raise AssertionError("The training did not end.")


def start(client: Client, body: Any = None) -> Any:
    if body is None:
        return client.generic("POST", RETRAIN)
    return client.post(RETRAIN, body, content_type="application/json")


def make_version(version: str, **fields: Any) -> ModelVersion:
    values = {
        "recipe": "content",
        "state": "retired",
        "kind": "refresh",
        "started_at": AT,
        "finished_at": AT,
        "revision": 7,
        "data_fingerprint": "ab" * 16,
        "n_books": 1000,
        "metrics": {"metrics": {"ndcg@10": {"value": 0.4, "low": 0.3, "high": 0.5}}},
        "durations": {"train": 1.5},
        "decision": "promoted",
        "reason": "Promoted: better.",
        "decided_at": AT,
        "decided_by": "oskar",
    }
    return ModelVersion.objects.create(version=version, **{**values, **fields})


# --- The registry -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_reading_the_registry_needs_an_account() -> None:
    assert Client().get(MODELS).status_code == 401


@pytest.mark.django_db
def test_a_version_is_told_with_its_figures_and_the_decision() -> None:
    row = make_version("v1", state="champion")
    response = reader().get(MODELS)
    assert response["Cache-Control"] == "no-store"
    assert "ETag" not in response
    body = response.json()
    assert (body["count"], body["next"], body["previous"]) == (1, None, None)
    assert body["results"] == [
        {
            "id": row.pk,
            "version": "v1",
            "champion": True,
            "state": "champion",
            "kind": "refresh",
            "recipe": "content",
            "recipe_version": 1,
            "started_at": "2026-01-02T03:04:05Z",
            "finished_at": "2026-01-02T03:04:05Z",
            "durations": {"train": 1.5},
            "revision": 7,
            "data_fingerprint": "ab" * 16,
            "n_books": 1000,
            "n_readers": 0,
            "metrics": {"metrics": {"ndcg@10": {"value": 0.4, "low": 0.3, "high": 0.5}}},
            "decision": {"decision": "promoted", "reason": "Promoted: better.", "at": "2026-01-02T03:04:05Z"},
        }
    ]


@pytest.mark.django_db
def test_why_a_training_failed_is_not_told_to_every_reader() -> None:
    ModelVersion.objects.create(recipe="s", state="failed", reason="publish: OSError: /srv/models is full")
    response = reader().get(MODELS)
    assert "/srv" not in response.content.decode()
    (found,) = response.json()["results"]
    assert (found["version"], found["kind"], found["decision"], found["champion"]) == (None, None, None, False)


@pytest.mark.django_db
def test_versions_are_paged_newest_first_and_filtered_by_state() -> None:
    client = reader()
    rows = [make_version(f"v{n}", state="champion" if n == 3 else "retired") for n in range(5)]
    first = client.get(MODELS, {"page_size": 2}).json()
    second = client.get(first["next"]).json()
    assert [row["id"] for row in first["results"] + second["results"]] == [row.pk for row in rows[:0:-1]]
    assert [row["version"] for row in client.get(MODELS, {"state": "champion"}).json()["results"]] == ["v3"]


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["state=lost", "stat=failed", "page=x", "cursor=abc", "format=csv"])
def test_what_is_not_understood_is_refused(query: str) -> None:
    assert reader().get(f"{MODELS}?{query}").status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize("number", [2, 30])
def test_queries_are_the_same_for_any_number_of_versions(
    number: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client = reader()
    for n in range(number):
        make_version(f"v{n}")
    client.get(f"{MODELS}?state=failed")  # the account is known now
    with django_assert_num_queries(2):  # count, versions
        assert client.get(MODELS, {"page_size": 100}).json()["count"] == number


# --- Starting a training ----------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_only_operators_start_trainings() -> None:
    assert Client().post(RETRAIN).status_code == 401
    assert reader().post(RETRAIN).status_code == 403
    assert not ModelVersion.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_training_is_started_and_told(child: Callable[[str], list[int]]) -> None:
    pids = child(FAILS)
    response = start(operator(), {"recipe": "s"})
    assert response.status_code == 202, response.content
    body = response.json()
    assert (body["state"], body["recipe"], body["version"], body["decision"]) == ("training", "s", None, None)
    row = ended(body["id"])
    assert (row.state, row.reason, row.requested_by, row.pid) == ("failed", "No books.", "oskar", pids[0])
    assert gone(pids[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_second_training_is_refused_while_one_is_under_way(child: Callable[[str], list[int]]) -> None:
    pids, client = child(HANGS), operator()
    first = start(client).json()
    second = start(client)
    assert second.status_code == 409
    assert second["Content-Type"] == "application/problem+json"
    assert f"Training {first['id']}" in second.json()["detail"]
    assert ModelVersion.objects.count() == 1
    os.kill(pids[0], signal.SIGKILL)
    assert ended(first["id"]).state == "failed"
    assert gone(pids[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_process_that_breaks_leaves_a_failed_training_and_its_words_in_the_log(
    child: Callable[[str], list[int]],
) -> None:
    child(BREAKS)
    row = ended(start(operator()).json()["id"])
    assert row.state == "failed"
    assert "code 3" in row.reason
    assert "no such module" in trainings.log_file(row).read_text()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_process_that_cannot_start_fails_its_training_and_frees_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "command", lambda _: ["/no/such/program"])
    client = operator()
    for _ in range(2):
        response = start(client)
        assert response.status_code == 503
        assert "/no/such/program" not in response.content.decode()
    assert [row.state for row in ModelVersion.objects.all()] == ["failed", "failed"]


def test_the_command_is_the_retraining_of_that_row_and_nothing_else(settings: Settings) -> None:
    arguments = trainings.command(ModelVersion(pk=7, recipe="s; rm -rf /", requested_by="--strict"))
    assert arguments == [sys.executable, str(settings.BASE_DIR / "manage.py"), "retrain", "--training", "7"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body", ['{"recipe": "magic"}', '{"recipe": 7}', '{"recipe": ["s"]}', '{"recip": "s"}', "[]", "7", '{"rec', "null"]
)
def test_a_body_that_is_not_understood_starts_nothing(body: str) -> None:
    response = start(operator(), body)
    assert response.status_code == 400, response.content
    assert not ModelVersion.objects.exists()


@pytest.mark.django_db
def test_a_parameter_in_the_query_is_refused() -> None:
    assert operator().generic("POST", f"{RETRAIN}?recipe=s").status_code == 400
    assert not ModelVersion.objects.exists()
