"""Crawls and trainings as jobs of a worker, without the worker: the process, its limits, and its row."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from bookapi import crawls, jobs, tasks, trainings, upkeep
from bookapi.jobs import Ended, has_another, run_job
from bookapi.serving import free_port
from catalog.ingest import start_run
from catalog.models import CrawlRun
from recommender.models import ModelVersion
from recommender.registry import start_training
from tests.bookapi.clients import operator
from tests.bookapi.jobs import BREAKS, FINISHES, HANGS, gone

#: Ends at once and well when it is asked to, as the spider does.
ENDS_WELL = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit(0)))\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)
#: Does not listen, and has a child that does not either.
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def _working() -> Iterator[None]:
    jobs._ending[0] = 0
    yield
    jobs._ending[0] = 0


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


# --- A process --------------------------------------------------------------------------------------------------------
def test_a_job_tells_its_exit_code_and_its_words_are_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "job.log"
    ended = run_job("job", python(BREAKS), log, 60)
    assert (ended.code, ended.why) == (3, "")
    assert "no such module" in log.read_text()


def test_a_job_that_takes_too_long_is_ended_gracefully(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    ended = run_job("job", python(ENDS_WELL), log, 1.5)
    assert (ended.code, ended.why) == (0, "It took longer than 2 seconds.")
    assert "asked to end" in log.read_text()


def test_a_job_that_does_not_listen_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GRACE_S", 0.2)
    log = tmp_path / "job.log"
    ended = run_job("job", python(STUBBORN), log, 1.5)
    assert ended.code == -signal.SIGKILL
    assert gone(int(log.read_text()))


def test_a_worker_that_ends_ends_its_jobs(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    timer = threading.Timer(1.0, jobs.end_jobs)
    timer.start()
    ended = run_job("job", python(ENDS_WELL), log, 60)
    timer.join()
    assert (ended.code, ended.why) == (0, "The worker was told to end.")


def test_a_row_is_anothers_while_a_process_outside_of_the_group_has_it() -> None:
    ours = os.getpgid(0)
    host = jobs.socket.gethostname()
    assert has_another(os.getpid(), host, group=1)
    assert not has_another(os.getpid(), host, group=ours)
    assert not has_another(None, "", group=1)
    assert not has_another(2**22 - 1, host, group=1)
    assert has_another(2**22 - 1, "elsewhere", group=1)


# --- Crawls -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def waiting_run(settings: Settings) -> CrawlRun:
    run = start_run(django_settings.SHOP_NAME, "https://example.org")
    CrawlRun.objects.update(warnings=[{"code": crawls.WAITING, "detail": "-"}])
    return run


def use(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawls, "command", lambda run: python(program, str(run.pk)))
    monkeypatch.setattr(trainings, "command", lambda training: python(program, str(training.pk)))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("jobs_here")
def test_a_crawl_is_performed_and_waits_no_more(waiting_run: CrawlRun, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FINISHES, monkeypatch)
    tasks.crawl(waiting_run.pk)
    waiting_run.refresh_from_db()
    assert waiting_run.state == "finished"
    assert crawls.WAITING not in [warning["code"] for warning in waiting_run.warnings]
    tasks.crawl(waiting_run.pk)  # its message came twice
    assert crawls.log_file(waiting_run).read_text().count("read") == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("program", "limit_s", "state", "codes"),
    [
        (BREAKS, 60, "failed", ["process_ended"]),
        (HANGS, 1, "interrupted", ["process_ended", "stopped"]),
    ],
)
def test_a_crawl_that_leaves_its_run_open_is_closed_with_the_reason(  # noqa: PLR0917 - cases and fixtures
    program: str,
    limit_s: int,
    state: str,
    codes: list[str],
    waiting_run: CrawlRun,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.VAR_DIR, settings.CRAWL_TIMEOUT_S = tmp_path, limit_s
    use(program, monkeypatch)
    tasks.crawl(waiting_run.pk)
    waiting_run.refresh_from_db()
    assert waiting_run.state == state
    assert [warning["code"] for warning in waiting_run.warnings] == codes


@pytest.mark.django_db
def test_a_run_that_somebody_else_resumed_is_not_closed_by_the_job_that_was_refused(waiting_run: CrawlRun) -> None:
    CrawlRun.objects.update(pid=os.getpid(), host=jobs.socket.gethostname())
    crawls.close(waiting_run.pk, Ended(group=1, code=1))
    waiting_run.refresh_from_db()
    assert waiting_run.state == "running"


@pytest.mark.django_db
def test_a_run_that_its_process_closed_itself_keeps_why_it_was_ended(waiting_run: CrawlRun) -> None:
    CrawlRun.objects.update(state="interrupted", warnings=[])
    crawls.close(waiting_run.pk, Ended(group=1, code=1, why="The worker was told to end."))
    waiting_run.refresh_from_db()
    assert waiting_run.warnings == [{"code": "stopped", "detail": "The worker was told to end."}]


@pytest.mark.django_db
def test_a_program_that_cannot_start_fails_the_run(
    waiting_run: CrawlRun, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VAR_DIR = tmp_path
    monkeypatch.setattr(crawls, "command", lambda _run: ["/no/such/program"])
    with pytest.raises(OSError, match="/no/such/program"):
        tasks.crawl(waiting_run.pk)
    waiting_run.refresh_from_db()
    assert (waiting_run.state, waiting_run.warnings[0]["code"]) == ("failed", "not_started")


# --- Trainings --------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_training_that_takes_too_long_has_failed_with_the_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VAR_DIR, settings.TRAINING_TIMEOUT_S = tmp_path, 1
    use(HANGS, monkeypatch)
    training = start_training()
    tasks.train(training.pk)
    training.refresh_from_db()
    assert training.state == "failed"
    assert "It took longer than 1 seconds." in training.reason
    tasks.train(training.pk)  # its message came twice: nothing is done
    assert ModelVersion.objects.count() == 1


# --- A broker that is away --------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_what_the_broker_does_not_take_has_failed_and_says_so(settings: Settings) -> None:
    settings.BROKER_URL = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    client = operator()
    for path in ("/api/v1/scraping/trigger", "/api/v1/ml/retrain"):
        assert client.generic("POST", path).status_code == 503
    run, training = CrawlRun.objects.get(), ModelVersion.objects.get()
    assert (run.state, run.warnings[0]["code"]) == ("failed", "not_started")
    assert "The broker did not take it" in run.warnings[0]["detail"]
    assert training.state == "failed"
    assert "The broker did not take it" in training.reason


# --- Waiting for a worker ---------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize(("messages", "state"), [(1, "running"), (None, "running"), (0, "interrupted")])
def test_a_run_that_nobody_took_waits_as_long_as_its_message(
    messages: int | None, state: str, waiting_run: CrawlRun, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BROKER_URL = "amqp://nowhere"
    monkeypatch.setattr(upkeep, "waiting_in", lambda _queue: messages)
    training = start_training()
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    CrawlRun.objects.update(heartbeat_at=long_ago)
    ModelVersion.objects.update(heartbeat_at=long_ago)
    upkeep.close_dead()
    waiting_run.refresh_from_db()
    training.refresh_from_db()
    assert waiting_run.state == state
    assert (training.state == "training") == (state == "running")
    code = crawls.WAITING if state == "running" else "not_started"
    assert waiting_run.warnings[0]["code"] == code
    if state == "interrupted":  # its message comes after all: it is not wanted any more
        monkeypatch.setattr(crawls, "run_job", _never)
        tasks.crawl(waiting_run.pk)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "minutes", "messages", "asked"),
    [
        ("settling", 3, 0, True),
        ("settling", 1, 0, False),  # somebody brings its books
        ("settling", 3, 1, False),  # a message is on its way
        ("settling", 3, None, False),  # the broker is away
        ("running", 3, 0, False),  # its spider empties the spool
        ("interrupted", 3, 0, False),  # nobody waits, and the next crawl empties it
    ],
)
def test_a_spool_is_emptied_while_a_run_waits_in_vain(  # noqa: PLR0917 - cases and fixtures
    state: str,
    minutes: int,
    messages: int | None,
    asked: bool,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published: list[str] = []
    settings.BROKER_URL = "amqp://nowhere"
    monkeypatch.setattr(upkeep, "waiting_in", lambda _queue: messages)
    monkeypatch.setattr(upkeep, "publish", published.append)
    start_run("shop", "https://shop.example")
    CrawlRun.objects.update(state=state, heartbeat_at=datetime.now(UTC) - timedelta(minutes=minutes))
    upkeep.drain_spools()
    assert published == ["bookapi.tasks.drain"] * asked


def _never(*_: Any) -> Ended:
    raise AssertionError("It was run.")
