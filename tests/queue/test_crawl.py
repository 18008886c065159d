"""A crawl through the queue: real broker, real workers, a real spider, and the shop to compare with."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from bookapi import queues
from crawler.practice_shop import Shop
from tests.crawler.deployment import ROOT, Deployment, wait_until
from tests.crawler.test_crawl import truth
from tests.queue.killed import POINTS
from tests.queue.proxy import Proxy
from tests.queue.workers import Worker, worker

pytestmark = pytest.mark.system


def assert_whole(deployment: Deployment, shop: Shop, address: str) -> None:
    """Every book is there as the shop shows it, and the run accounts for each of them once."""
    assert deployment.books() == truth(shop, address)
    n = shop.announced
    sums = deployment.rows("SELECT complete, published, seen, created, dead FROM catalog_crawlrun")
    assert sums == [(True, n, n, n, 0)]
    assert deployment.value("SELECT count(*) FROM catalog_sighting") == n
    assert deployment.rows("SELECT DISTINCT state FROM catalog_publishedbatch") == [("settled",)]
    assert not list((deployment.folder / "spool").glob("*/*.json"))


def killed_at(deployment: Deployment, point: str, n: int, *arguments: str) -> int:
    """The exit code of a spider that dies at this point."""
    command = [sys.executable, "-m", "tests.queue.killed", point, str(n), *arguments]
    with (deployment.folder / "killed.log").open("ab") as log:
        return subprocess.run(
            command, cwd=ROOT, env=deployment.environment(), stdout=log, stderr=log, check=False
        ).returncode


def test_spider_that_is_killed_at_every_point_loses_nothing_and_counts_nothing_twice(
    queued: Deployment, start_worker: Callable[[], Worker], served: tuple[Shop, str]
) -> None:
    arguments = ["-a", f"start_url={served[1]}"]
    for point in POINTS:
        assert killed_at(queued, point, 2, *arguments) == -signal.SIGKILL, point
        arguments = ["-a", "resume=1"]
    assert queued.value("SELECT count(*) FROM catalog_publishedbatch")
    assert queued.value("SELECT count(*) FROM catalog_book") == 0  # the queue has them
    start_worker()
    crawl = queued.wait(queued.start("-a", "resume=1"))
    assert crawl.code == 0, crawl.log
    assert_whole(queued, *served)


def test_broker_that_is_away_for_the_whole_crawl_gets_the_books_from_the_spool_later(
    queued: Deployment, served: tuple[Shop, str]
) -> None:
    with Proxy(urlsplit(queued.settings["BROKER_URL"]).port or 0) as proxy:
        proxy.cut()
        away = Deployment(
            queued.url, queued.folder, {**queued.settings, "BROKER_URL": f"amqp://127.0.0.1:{proxy.port}/"}
        )
        spider = away.start("-a", f"start_url={served[1]}")
        wait_until(lambda: queued.value("SELECT max(state) FROM catalog_crawlrun") == "settling", "the shop is read")
        log = queued.folder / "log"
        wait_until(lambda: "broker did not take a batch" in log.read_text(), "the broker is away")
        wait_until(lambda: "waiting for the queue" in log.read_text(), "it says what it waits for")
        spider.send_signal(signal.SIGTERM)  # it would wait for a minute
        crawl = away.wait(spider)
    assert crawl.code == 2
    assert "300 of its 300 books are still in the queue" in crawl.log
    assert len(list((queued.folder / "spool" / "1").glob("*.json"))) == 2

    # No crawl can begin that would empty the spool; upkeep asks the worker for crawls to do so.
    queued.execute("UPDATE catalog_crawlrun SET heartbeat_at = heartbeat_at - interval '3 minutes'")
    upkeep = "from bookapi import upkeep; upkeep.drain_spools()"
    subprocess.run([sys.executable, "manage.py", "shell", "-c", upkeep], cwd=ROOT, env=queued.environment(), check=True)
    with worker(queued, "-Q", f"{queues.INGEST.name},{queues.CRAWLS.name}", "-c", "2"):
        wait_until(lambda: queued.value("SELECT complete FROM catalog_crawlrun"), "the worker completes the run")
    assert_whole(queued, *served)


def test_broker_that_comes_back_during_a_crawl_costs_nothing_and_each_log_line_names_its_run(
    queued: Deployment, start_worker: Callable[[], Worker], served: tuple[Shop, str]
) -> None:
    worker = start_worker()
    with Proxy(urlsplit(queued.settings["BROKER_URL"]).port or 0) as proxy:
        proxy.cut()
        queued.settings |= {"BROKER_URL": f"amqp://127.0.0.1:{proxy.port}/", "REQUEST_ID": "asked-for-by-the-api"}
        spider = queued.start("-a", f"start_url={served[1]}")
        wait_until(lambda: queued.value("SELECT count(*) FROM catalog_publishedbatch"), "a batch is written down")
        wait_until(lambda: proxy.accepted, "the spider has tried")
        proxy.restore()
        crawl = queued.wait(spider)
    assert crawl.code == 0, crawl.log
    assert_whole(queued, *served)
    ingested = [line for line in worker.lines if line["event"] == "batch ingested"]
    batches = {str(key) for (key,) in queued.rows("SELECT key FROM catalog_publishedbatch")}
    assert {line["batch"] for line in ingested} == batches
    assert {(line["run_id"], line["request_id"]) for line in ingested} == {(1, "asked-for-by-the-api")}
