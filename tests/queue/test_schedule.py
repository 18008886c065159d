"""The schedule through the queue: a real beat, a real broker, real workers for upkeep and jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from kombu import Connection, Queue

from bookapi import queues
from bookapi.processes import Child
from crawler.practice_shop import Shop, serving
from tests.crawler.deployment import ROOT, Deployment, wait_until
from tests.crawler.test_crawl import truth
from tests.queue.workers import worker

pytestmark = pytest.mark.system

JOBS = ("-Q", f"{queues.CRAWLS.name},{queues.TRAININGS.name}", "-c", "2")
UPKEEP = ("-Q", queues.UPKEEP.name, "-c", "1")


@contextmanager
def beat(deployment: Deployment) -> Iterator[Child]:
    command = [sys.executable, "-m", "celery", "-A", "bookapi", "beat"]
    with (
        (deployment.folder / "beat.log").open("ab") as log,
        Child("beat", command, environment=deployment.environment(), stdout=log, stderr=log, cwd=ROOT) as process,
    ):
        yield process


def schedule(deployment: Deployment, task: str, every: int, period: str = "seconds") -> None:
    """Let this one task run so often, the first time at once, and nothing else."""
    now = "now() - interval '2 days'"
    deployment.execute(
        f"INSERT INTO django_celery_beat_intervalschedule (every, period) VALUES ({every}, '{period}');"
        "UPDATE django_celery_beat_periodictask SET enabled = false;"
        f"UPDATE django_celery_beat_periodictask SET enabled = true, crontab_id = NULL, last_run_at = {now},"
        f" interval_id = (SELECT max(id) FROM django_celery_beat_intervalschedule) WHERE task = '{task}'"
    )


def sightings(deployment: Deployment) -> int:
    return int(deployment.value("SELECT count(*) FROM catalog_sighting"))


def state_of_crawl(deployment: Deployment) -> str | None:
    rows = deployment.rows("SELECT state FROM catalog_crawlrun ORDER BY id DESC LIMIT 1")
    return rows[0][0] if rows else None


def messages(deployment: Deployment, queue: Queue) -> int:
    with Connection(deployment.settings["BROKER_URL"]) as link, link.channel() as channel:
        return int(queue(channel).queue_declare(passive=True).message_count)


@pytest.fixture
def ready(queued: Deployment, served: tuple[Shop, str]) -> Deployment:
    """Its schedule crawls the practice shop."""
    queued.settings |= {"SHOP_URL": served[1], "SCHEDULE_LEASE_S": "2"}
    return queued


def test_a_scheduled_crawl_goes_through_beat_and_workers_and_is_not_started_twice(
    ready: Deployment, served: tuple[Shop, str]
) -> None:
    schedule(ready, "bookapi.tasks.start_crawl", 1)
    with ExitStack() as running:
        upkeep = running.enter_context(worker(ready, *UPKEEP))
        running.enter_context(beat(ready))
        # Nobody takes crawls yet: it waits, for all to see, and a second one is not begun.
        wait_until(lambda: messages(ready, queues.CRAWLS) == 1, "no crawl was published")
        outcomes = "SELECT outcome, count(*) FROM bookapi_scheduledrun WHERE finished_at IS NOT NULL GROUP BY outcome"
        wait_until(lambda: dict(ready.rows(outcomes)).get("under_way", 0) >= 2, "no second run")
        assert dict(ready.rows(outcomes))["ok"] == 1
        assert ready.run()["state"] == "running"
        assert ready.run()["warnings"] == ["waiting"]
        schedule(ready, "catalog.tasks.settle_runs", 1)
        running.enter_context(worker(ready, *JOBS))
        running.enter_context(worker(ready))
        wait_until(lambda: state_of_crawl(ready) == "finished", "the crawl does not end")
        assert ready.books() == truth(*served)
        run = ready.run()
        assert (run["complete"], run["warnings"], run["id"]) == (True, [], 1)
        assert ready.value("SELECT crawl_id FROM bookapi_scheduledrun WHERE outcome = 'ok' ORDER BY id LIMIT 1") == 1
        assert messages(ready, queues.DEAD) == 0, upkeep.log.read_text()


def test_two_beats_start_a_task_once_and_the_second_takes_over_when_the_first_is_killed(
    ready: Deployment,
) -> None:
    schedule(ready, "bookapi.tasks.resume_interrupted", 1)

    def leader() -> int:
        rows = ready.rows("SELECT holder FROM bookapi_lease")
        return int(rows[0][0].split(":")[1]) if rows else 0

    def started() -> int:
        return int(ready.value("SELECT count(*) FROM bookapi_scheduledrun WHERE outcome = 'ok'"))

    with worker(ready, *UPKEEP), beat(ready) as one, beat(ready) as other:
        wait_until(lambda: started() >= 2, "nothing was started")
        first, second = (one, other) if leader() == one.process.pid else (other, one)
        first.kill()
        wait_until(lambda: leader() == second.process.pid, "nobody took over")
        before = started()
        wait_until(lambda: started() > before, "the second one does nothing")
        second.ask_to_stop()
        assert second.process.wait(20) == 0
        assert leader() == 0
    apart = "started_at - lag(started_at) OVER (ORDER BY id)"
    gaps = f"SELECT {apart} AS apart FROM bookapi_scheduledrun"
    assert ready.value(f"SELECT min(extract(epoch FROM apart)) FROM ({gaps}) AS gaps") >= 1


def test_a_crawl_whose_worker_is_killed_is_resumed_once_and_loses_nothing(queued: Deployment) -> None:
    shop = Shop(1500)
    with ExitStack() as running:
        address = running.enter_context(serving(shop))
        queued.settings |= {"SHOP_URL": address, "SCHEDULE_LEASE_S": "2"}
        running.enter_context(worker(queued))
        running.enter_context(worker(queued, *UPKEEP))
        schedule(queued, "bookapi.tasks.start_crawl", 1, "days")
        with worker(queued, *JOBS) as first:
            running.enter_context(beat(queued))
            wait_until(lambda: sightings(queued) > 0, "nothing is read")
            first.process.kill()
        wait_until(lambda: state_of_crawl(queued) == "interrupted", "the spider goes on without its worker")
        assert sightings(queued) < shop.announced
        with worker(queued, *JOBS) as second:
            schedule(queued, "bookapi.tasks.resume_interrupted", 1)
            wait_until(lambda: state_of_crawl(queued) == "running", "it is not resumed")
            second.process.ask_to_stop()
            assert second.process.process.wait(60) == 0
        wait_until(lambda: state_of_crawl(queued) == "interrupted", "its run is open without a process")
        assert queued.run()["warnings"] == ["stopped"]
        looks = "SELECT count(*) FROM bookapi_scheduledrun WHERE outcome = 'ok'"
        before = queued.value(looks)
        wait_until(lambda: queued.value(looks) >= before + 2, "nobody looks for interrupted crawls")
        assert messages(queued, queues.CRAWLS) == 0  # once is enough: now a person decides
        assert queued.crawl(address, "-a", "resume=1").code == 0
        assert queued.run()["complete"]
        assert queued.books() == truth(shop, address)
        assert messages(queued, queues.DEAD) == 0
