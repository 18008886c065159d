"""Crawls that are killed, stopped, cut off from the database or started twice: what the run and the books hold then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from crawler.practice_shop import Shop
from tests.crawler.conftest import Crawled
from tests.crawler.deployment import Deployment, wait_until
from tests.crawler.odd_shop import OddShop, odd_shop
from tests.crawler.test_crawl import truth

pytestmark = pytest.mark.system

SHOP = Shop(300)
REQUESTS = 1 + 15 + 300  # robots.txt, the lists, the books
KILL_POINTS = [4, 160, 300]
if os.environ.get("CRAWL_KILL_POINTS") == "all":
    KILL_POINTS = [1, 2, 4, 40, 120, 160, 250, 270, 300, REQUESTS]


def at_request(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    """A hook that acts once, when the shop has been asked this often."""
    return lambda count: act() and None if count == number else None


def ended(pid: int) -> bool:
    """Whether the process is gone; one that nobody has waited for yet is."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_whole(deployment: Deployment, shop: OddShop, run_id: int = 1) -> None:
    """The database is that of one uninterrupted crawl, whatever happened to the run."""
    assert deployment.books() == truth(SHOP, shop.address)
    run = deployment.run(run_id)
    assert (run["state"], run["complete"], run["announced"]) == ("finished", True, 300)
    assert (run["seen"], run["created"], run["failed_pages"], run["delisted"]) == (300, 300, 0, 0)
    assert deployment.rows(
        f"SELECT count(*), count(DISTINCT book_id) FROM catalog_sighting WHERE run_id = {run_id}"
    ) == [(300, 300)]
    assert deployment.rows("SELECT kind, count(*) FROM catalog_change GROUP BY kind") == [("created", 300)]
    assert deployment.value("SELECT count(*) FROM catalog_priceobservation") == 300


@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_crawl_resumes_to_the_database_of_an_uninterrupted_one(deployment: Deployment, point: int) -> None:
    with odd_shop(SHOP) as shop:
        process = deployment.start("-a", f"start_url={shop.address}")
        shop.before_answer = at_request(point, process.kill)
        assert deployment.wait(process).code == -signal.SIGKILL
        assert deployment.run()["state"] == "running"
        writer = deployment.value("SELECT pid FROM catalog_crawlrun")
        wait_until(lambda: ended(writer), "the writer ends after the batch that it is at")
        read_before = deployment.value("SELECT count(*) FROM catalog_sighting")
        shop.asked.clear()

        crawl = deployment.wait(deployment.start("-a", "resume=1"))  # shop, address and filters stand in the run
        assert crawl.code == 0
        assert_whole(deployment, shop)
        assert sum(n for path, n in shop.asked.items() if "_" in path) == 300 - read_before


def test_crawl_after_a_killed_one_closes_it_and_delists_nothing(deployment: Deployment) -> None:
    go_on = threading.Event()
    with odd_shop(SHOP) as shop:
        assert deployment.crawl(shop.address).code == 0
        shop.asked.clear()
        shop.before_answer = lambda count: count < 150 or go_on.wait()
        process = deployment.start("-a", f"start_url={shop.address}")
        wait_until(lambda: deployment.run()["id"] == 2 and deployment.run()["seen"], "the second run writes")
        process.kill()
        deployment.wait(process)
        go_on.set()
        assert deployment.crawl(shop.address).code == 0
        killed, after = deployment.run(2), deployment.run(3)
        assert (killed["state"], killed["complete"], killed["delisted"]) == ("interrupted", False, 0)
        assert 0 < killed["unchanged"] < 300
        assert (after["unchanged"], after["complete"], after["delisted"]) == (300, True, 0)
        assert deployment.books() == truth(SHOP, shop.address)


def test_terminated_crawl_writes_what_it_read_and_resumes(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        process = deployment.start("-a", f"start_url={shop.address}")
        shop.before_answer = at_request(150, process.terminate)
        stopped = deployment.wait(process)
        assert stopped.code == 1
        assert "Go on with: scrapy crawl books -a resume=1" in stopped.log
        run = deployment.run()
        assert (run["state"], run["complete"], run["delisted"]) == ("interrupted", False, 0)
        books_asked = sum("_" in path for path in shop.asked)
        assert run["seen"] == deployment.value("SELECT count(*) FROM catalog_sighting") == books_asked

        elsewhere = deployment.crawl("http://127.0.0.1:9", "-a", "resume=1")
        assert elsewhere.code == 1
        assert f"Run 1 is of practice at {shop.address}" in elsewhere.log

        assert deployment.wait(deployment.start("-a", "resume=1")).code == 0
        assert_whole(deployment, shop)


def test_second_interrupt_ends_at_once_and_the_run_resumes(deployment: Deployment) -> None:
    answers = threading.Event()
    with odd_shop(SHOP) as shop:
        process = deployment.start("-a", f"start_url={shop.address}")

        def interrupt_and_wait(count: int) -> None:
            if count == 150:
                process.send_signal(signal.SIGINT)
            if count >= 150:
                answers.wait()

        shop.before_answer = interrupt_and_wait
        log = deployment.folder / "log"
        wait_until(lambda: "Closing spider (shutdown)" in log.read_text(), "the crawl waits for its last answers")
        process.send_signal(signal.SIGINT)
        stopped = deployment.wait(process)
        answers.set()
        assert stopped.code == 1
        assert "Traceback" not in stopped.log
        assert deployment.wait(deployment.start("-a", "resume=1")).code == 0
        assert_whole(deployment, shop)


def test_one_crawl_of_a_shop_at_a_time(deployment: Deployment) -> None:
    go_on = threading.Event()
    with odd_shop(SHOP) as shop:
        shop.before_answer = lambda count: count < 50 or go_on.wait()
        first = deployment.start("-a", f"start_url={shop.address}")
        wait_until(lambda: shop.asked.total() >= 50, "the first crawl is under way")
        for arguments in ([], ["-a", "run=1"], ["-a", "resume=1"]):
            with_folder = Deployment(deployment.url, _folder(deployment, len(arguments)), deployment.settings)
            second = with_folder.crawl(shop.address, *arguments)
            assert second.code == 1
            assert "Run 1 of practice is under way." in second.log
        go_on.set()
        assert deployment.wait(first).code == 0
        assert_whole(deployment, shop)
        assert deployment.value("SELECT count(*) FROM catalog_crawlrun") == 1


def _folder(deployment: Deployment, n: int) -> Path:
    folder = deployment.folder / f"second-{n}"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("resume=99", "There is no run 99 of practice."),
        ("resume=1", "Run 1 is finished: start a new one."),
        ("limits=5", "Unknown argument: limits"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(crawled: Crawled, argument: str, message: str) -> None:
    before = crawled.deployment.rows("SELECT * FROM catalog_crawlrun")
    crawl = crawled.deployment.wait(crawled.deployment.start("-a", argument))
    assert crawl.code in {1, 2}
    assert message in crawl.log
    assert "Traceback" not in crawl.log
    assert crawled.deployment.rows("SELECT * FROM catalog_crawlrun") == before


def test_opened_run_is_read_by_the_process_that_gets_its_number(crawled: Crawled) -> None:
    _open_run(crawled.deployment, filters='{"limit": 7}')
    crawl = crawled.deployment.wait(crawled.deployment.start("-a", "run=2"))
    assert crawl.code == 0
    run = crawled.deployment.run(2)
    assert (run["state"], run["seen"], run["unchanged"], run["complete"]) == ("finished", 7, 7, False)


def _open_run(deployment: Deployment, **values: Any) -> None:
    """A run as the server opens it: like run 1, but before anything happened."""
    counts = ["created", "updated", "unchanged", "stale", "rejected", "seen", "failed_pages", "delisted"]
    fresh: dict[str, Any] = dict.fromkeys(counts, 0) | {"state": "running", "complete": "f", "id": 2} | values
    fresh |= dict.fromkeys(["pid", "announced", "finished_at", "price_mean"])
    with closing(deployment.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT * FROM catalog_crawlrun WHERE id = 1")
        names = [column[0] for column in cursor.description]
        quoted = ", ".join(
            "NULL" if fresh[n] is None else f"'{fresh[n]}'" if isinstance(fresh[n], str) else str(fresh[n])
            for n in names
            if n in fresh
        )
        kept = ", ".join(n for n in names if n not in fresh)
        cursor.execute(
            f"INSERT INTO catalog_crawlrun ({', '.join(n for n in names if n in fresh)}, {kept}) "
            f"SELECT {quoted}, {kept} FROM catalog_crawlrun WHERE id = 1"
        )
        connection.commit()


# -- the database goes away ------------------------------------------------------------------------------------------


def test_crawl_waits_for_a_database_that_is_busy_or_restarted(deployment: Deployment) -> None:
    with odd_shop(SHOP) as shop:
        disturbance = _Terminated(deployment) if deployment.is_postgres else _Locked(deployment)
        shop.before_answer = disturbance.at
        crawl = deployment.crawl(shop.address)
        assert disturbance.happened
        assert crawl.code == 0
        assert_whole(deployment, shop)


class _Locked:
    """Holds SQLite's write lock for longer than a batch takes to fill."""

    HELD_S = 2.5

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.happened = False

    def at(self, count: int) -> None:
        if count == 100:
            connection = self.deployment.connect()
            connection.execute("BEGIN IMMEDIATE")
            threading.Timer(self.HELD_S, self._release, [connection]).start()

    def _release(self, connection: Any) -> None:
        # Far more than a batch has been asked for by now, but nothing could be written.
        self.happened = connection.execute("SELECT count(*) FROM catalog_book").fetchone() == (0,)
        connection.close()


class _Terminated:
    """Ends every session of the database, again and again."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.happened = False

    def at(self, count: int) -> None:
        if count in {100, 200, 300}:
            self.happened = bool(terminate_sessions(self.deployment)) or self.happened


def terminate_sessions(deployment: Deployment) -> int:
    """Sessions ended, of a database on PostgreSQL."""
    server, _, name = deployment.url.rpartition("/")
    with closing(psycopg2.connect(f"{server}/postgres")) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return int(cursor.rowcount)


def _cut_off(deployment: Deployment, *, restore: bool = False) -> None:
    """Make the database useless, or useful again."""
    server, _, name = deployment.url.rpartition("/")
    if not deployment.is_postgres:
        old, new = ("gone", "catalog_sighting") if restore else ("catalog_sighting", "gone")
        deployment.execute(f"ALTER TABLE {old} RENAME TO {new}")
        return
    with closing(psycopg2.connect(f"{server}/postgres")) as connection:
        connection.autocommit = True
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(restore).lower()}")
    if not restore:
        terminate_sessions(deployment)


def test_crawl_without_its_database_fails_claims_nothing_and_resumes(deployment: Deployment) -> None:
    patience = ["-s", "CATALOGUE_RETRY_PAUSES_S=0.05,0.1"]
    with odd_shop(SHOP) as shop:
        shop.before_answer = at_request(100, lambda: _cut_off(deployment))
        crawl = deployment.crawl(shop.address, *patience)
        assert crawl.code == 1
        assert "The crawl did not finish: The catalogue could not be" in crawl.log
        assert "Go on with: scrapy crawl books -a resume=1" in crawl.log
        assert shop.asked.total() < REQUESTS + 5
        _cut_off(deployment, restore=True)
        assert not deployment.run()["complete"]
        assert deployment.run()["seen"] == deployment.value("SELECT count(*) FROM catalog_sighting")

        assert deployment.wait(deployment.start("-a", "resume=1")).code == 0
        assert_whole(deployment, shop)


def test_database_that_was_never_migrated_is_told_apart(tmp_path: Path) -> None:
    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        pytest.skip("an empty file is enough")
    crawl = Deployment(f"sqlite:///{tmp_path / 'empty.sqlite3'}", tmp_path).crawl("http://127.0.0.1:9")
    assert crawl.code == 1
    assert "The catalogue cannot be used (is it migrated?)" in crawl.log


def test_logging_options_of_scrapy_are_refused_rather_than_ignored(tmp_path: Path) -> None:
    deployment = Deployment(f"sqlite:///{tmp_path / 'empty.sqlite3'}", tmp_path)
    crawl = deployment.wait(deployment.start("--loglevel", "DEBUG"))
    assert "set LOG_LEVEL and LOG_FORMAT in the environment" in crawl.log
    assert crawl.code == 2
