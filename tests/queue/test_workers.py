"""Workers under what happens to workers: the end of their children, of themselves, and of their database."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection

from bookapi import queues
from tests.catalog import storm
from tests.crawler.deployment import ROOT, Deployment, wait_until
from tests.queue.workers import Worker, worker

pytestmark = pytest.mark.system

BOOKS = 120


@pytest.fixture
def run(queued: Deployment) -> Deployment:
    """A deployment with a run that is under way."""
    counts = [
        "created",
        "updated",
        "unchanged",
        "stale",
        "rejected",
        "dead",
        "published",
        "seen",
        "failed_pages",
        "delisted",
    ]
    values = dict.fromkeys(counts, "0") | dict.fromkeys(("started_at", "heartbeat_at"), "now()")
    values |= dict.fromkeys(("source", "host", "requested_by"), "''")
    values |= {"shop": f"'{storm.SHOP}'", "kind": "'crawl'", "state": "'running'", "complete": "false"}
    values |= {"filters": "'{}'", "coverage": "'{}'", "warnings": "'[]'"}
    queued.execute(f"INSERT INTO catalog_crawlrun ({', '.join(values)}) VALUES ({', '.join(values.values())})")
    return queued


def process(deployment: Deployment, *command: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=deployment.environment(), text=True, **options)


def publish(deployment: Deployment, books: int, batch: int = 20, part: int = 0, parts: int = 1) -> None:
    """All versions of the books, on their way to the workers."""
    arguments = [str(n) for n in (part, parts, books, batch)]
    assert process(deployment, "-m", "tests.queue.publishing", *arguments).wait(60) == 0


def settled(deployment: Deployment) -> bool:
    rows = deployment.rows("SELECT state, count(*) FROM catalog_publishedbatch GROUP BY state")
    return [state for state, _ in rows] == ["settled"]


def sums(deployment: Deployment) -> dict[str, int]:
    names = ["published", "seen", "created", "updated", "unchanged", "stale", "rejected", "dead"]
    (row,) = deployment.rows(f"SELECT {', '.join(names)} FROM catalog_crawlrun WHERE kind = 'crawl'")
    return dict(zip(names, row, strict=True))


@contextmanager
def catalogue_locked(deployment: Deployment) -> Iterator[None]:
    """Nobody writes meanwhile: a worker that has taken a batch is in the middle of it."""
    with closing(deployment.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT * FROM catalog_cataloguerevision FOR UPDATE")
        yield
        connection.rollback()


def waiting_for_the_lock(deployment: Deployment) -> list[int]:
    """Processes of the database that wait for the catalogue's lock."""
    rows = deployment.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return [pid for (pid,) in rows]


def messages_in(deployment: Deployment, name: str) -> int:
    with Connection(deployment.settings["BROKER_URL"]) as link, link.channel() as channel:
        return int(channel.queue_declare(name, passive=True).message_count)


def at_work(run: Deployment) -> int:
    """The database's process that serves a worker in the middle of a batch, while the catalogue is locked."""
    wait_until(lambda: waiting_for_the_lock(run), "a worker has taken a batch")
    (pid,) = waiting_for_the_lock(run)
    return pid


def test_workers_an_editor_and_an_import_at_once_lose_nothing_and_deadlock_nowhere(
    run: Deployment, start_worker: Callable[[], Worker], tmp_path: Path
) -> None:
    """One worker is killed with its child in the middle, and replaced."""
    workers = [start_worker(), start_worker()]
    file = tmp_path / "import.jsonl"
    file.write_text("".join(json.dumps(storm.version(n, 0).to_json()) + "\n" for n in range(0, BOOKS, 2)))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    editor = process(run, "-m", "tests.catalog.storm", "edit", str(BOOKS), **pipes)
    imported = process(run, "manage.py", "ingest", str(file), "--shop", storm.SHOP)
    publish(run, BOOKS)
    wait_until(lambda: sums(run)["seen"], "they are in the middle of it")
    workers[0].kill()
    start_worker()
    wait_until(lambda: settled(run), "all batches are settled")
    assert imported.wait(60) == 0
    edited = json.loads(editor.communicate("end\n", 60)[0])

    found = run.books()
    newest = storm.VERSIONS - 1
    assert {(book["price"], book["stock"]) for book in found.values()} == {(f"{10 + newest}.00", newest + 1)}
    assert {upc: found[upc]["product_type"] for upc in edited} == edited
    of_run = sums(run)
    assert of_run["published"] == of_run["seen"] == BOOKS * storm.VERSIONS
    by_file = run.value("SELECT created FROM catalog_crawlrun WHERE kind = 'file'")
    assert of_run["created"] + by_file == len(found) == BOOKS
    sightings = "SELECT count(*) FROM catalog_sighting s JOIN catalog_crawlrun r ON r.id = s.run_id"
    assert run.value(f"{sightings} WHERE kind = 'crawl'") == BOOKS * storm.VERSIONS
    assert run.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert messages_in(run, queues.DEAD.name) == 0


def test_worker_whose_database_connection_is_cut_in_the_middle_takes_the_batch_all_the_same(
    run: Deployment, start_worker: Callable[[], Worker]
) -> None:
    publish(run, 4)
    with catalogue_locked(run):
        worker = start_worker()
        run.execute(f"SELECT pg_terminate_backend({at_work(run)})")
        wait_until(lambda: worker.says("catalogue out of reach"), "it notices")
    wait_until(lambda: settled(run), "it has tried again")
    assert sums(run)["seen"] == sums(run)["published"] == 4 * storm.VERSIONS
    noticed = len(worker.lines)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    run.execute(f"SELECT pg_terminate_backend(pid) {others}")
    publish(run, 8)
    wait_until(lambda: settled(run), "it has a new connection")
    assert "catalogue out of reach" not in {line["event"] for line in worker.lines[noticed:]}
    assert len(run.books()) == 8


def test_worker_that_is_asked_to_end_finishes_the_batch_that_it_is_at(
    run: Deployment, start_worker: Callable[[], Worker]
) -> None:
    publish(run, 4, batch=5)
    with catalogue_locked(run):
        worker = start_worker()
        at_work(run)
        worker.process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.log.read_text(), "it has heard")
        assert worker.process.code is None
    assert worker.process.process.wait(60) == 0
    assert run.value("SELECT count(*) FROM catalog_publishedbatch WHERE state = 'settled'") == 1
    assert messages_in(run, queues.INGEST.name) == 3


def test_message_that_kills_its_worker_each_time_ends_among_the_dead_and_the_others_pass(run: Deployment) -> None:
    with Connection(run.settings["BROKER_URL"]) as link:
        headers = {"task": "tests.die", "id": str(uuid4()), "lang": "py"}
        link.Producer(auto_declare=False).publish(
            [[], {}, {}], exchange=queues.TASKS.name, routing_key="ingest", serializer="json", headers=headers
        )
        publish(run, 4)
        with worker(run, "-I", "tests.queue.deadly") as mortal:
            wait_until(lambda: settled(run), "the batch is settled")
            wait_until(lambda: messages_in(run, queues.DEAD.name), "the message is given up")
        deaths = sum("signal 9" in line["event"] for line in mortal.lines)
        with link.channel() as channel:
            dead = queues.DEAD.bind(channel).get(no_ack=True)
        assert (dead.headers["task"], dead.headers["x-first-death-reason"]) == ("tests.die", "delivery_limit")
    assert deaths == queues.DELIVERIES_MAX + 1
