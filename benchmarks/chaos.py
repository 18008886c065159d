"""A crawl through the queue while its processes are killed: is anything lost, or there twice?

    python -m benchmarks.chaos [--books 20000] [--workers 4] [--faults 30] [--seed N] [--plain]

The whole cluster runs on this machine (`deploy.cluster`), and a practice shop is crawled by its schedule's own way.
Meanwhile, at random, `kill -9` meets workers, their children, the broker, the spider and the worker that started it,
and connections to database and broker are cut or swallow what they are given. Then every book of the shop is compared,
field by field, with what the shop itself says, and the sums of the run must hold. If the crawl ends before the storm
does, the shop is crawled once more.

`--plain` sends the same books through Celery's default settings, under the same storm on workers and broker: the check
can fail, and then it does. Exit code 0: nothing lost, nothing twice, the sums hold.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from deploy.cluster.cluster import Cluster
from deploy.cluster.site import Shop as ShopToRead
from deploy.cluster.topology import Size
from deploy.faults import FaultProxy, Mode

#: Seconds between two faults, chosen at random.
CALM_S = (0.8, 2.5)
#: Seconds that a cut line swallows everything. Longer than a heartbeat, so that both ends notice.
SILENCE_S = 4.0
#: Seconds in which the cluster has to come to rest once the storm is over.
REST_S = 600.0
console = Console(width=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--faults", type=int, default=30, help="at least so many")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the storm")
    parser.add_argument("--plain", action="store_true", help="Celery's default settings instead of ours")
    options = parser.parse_args()
    console.print(f"{options.books:,} books, {options.workers} workers, {options.faults} faults, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL, which does not run as root, has to enter
        size = Size(api=1, workers=options.workers, prometheus=False)
        shop = ShopToRead(books=options.books)
        cluster = Cluster(Path(folder), size=size, shop=shop, say=lambda line: console.print(line, style="dim"))
        with (
            FaultProxy("127.0.0.1", cluster.site.ports["postgres"]) as database,
            FaultProxy("127.0.0.1", cluster.site.ports["rabbitmq"]) as broker,
        ):
            divert(cluster, database, broker)
            with cluster:
                return storm_over(cluster, Storm(cluster, database, broker, options), options)


def divert(cluster: Cluster, database: FaultProxy, broker: FaultProxy) -> None:
    """Let workers and spider reach database and broker by lines that can be cut."""
    site = cluster.site
    lines = {
        "DATABASE_URL": site.database_url.replace(f":{site.ports['postgres']}/", f":{database.port}/"),
        "BROKER_URL": site.broker_url.replace(f":{site.ports['rabbitmq']}/", f":{broker.port}/"),
    }
    for kind in ("ingest", "crawl", "upkeep"):
        cluster.override(kind, **lines)


class Storm:
    """Faults of all kinds, one after the other."""

    def __init__(self, cluster: Cluster, database: FaultProxy, broker: FaultProxy, options: argparse.Namespace) -> None:
        self.cluster, self.database, self.broker = cluster, database, broker
        self.chance = random.Random(options.seed)
        self.workers = [f"ingest-{number}" for number in range(1, options.workers + 1)]
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], bool]] = {
            "a worker, with its child": lambda: self._kill(self.chance.choice(self.workers)),
            "a worker's child": self._kill_child,
            "the broker": lambda: self._kill("rabbitmq"),
            "all sessions of the database": self._end_sessions,
            "the line to the database": lambda: self._cut(self.database),
            "the line to the broker": lambda: self._cut(self.broker),
            "a line that goes silent": lambda: self._silence(self.chance.choice([self.database, self.broker])),
        }
        if not options.plain:
            self.kinds["the spider"] = self._kill_spider
            self.kinds["the worker that crawls"] = lambda: self._kill("crawl-1")
        self._bag: list[str] = []

    def strike(self) -> None:
        """One fault of a kind that has not had its turn, and a short calm."""
        if not self._bag:
            self._bag = self.chance.sample(sorted(self.kinds), len(self.kinds))
        kind = self._bag.pop()
        if self.kinds[kind]():
            self.done[kind] += 1
        time.sleep(self.chance.uniform(*CALM_S))

    def _kill(self, name: str) -> bool:
        there = self.cluster[name].pid is not None
        self.cluster[name].kill()
        return there

    def _kill_child(self) -> bool:
        return _kill_one(self.cluster[self.chance.choice(self.workers)].pid, "celery")

    def _kill_spider(self) -> bool:
        return _kill_one(self.cluster["crawl-1"].pid, "scrapy")

    def _end_sessions(self) -> bool:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return bool(cursor.fetchone()[0])

    def _cut(self, line: FaultProxy) -> bool:
        return line.cut() > 0

    def _silence(self, line: FaultProxy) -> bool:
        line.mode = Mode.BLACKHOLE
        time.sleep(SILENCE_S)
        line.mode = Mode.OK
        return line.cut() > 0


def _kill_one(parent: int | None, word: str) -> bool:
    """Kill a descendant whose command line has the word; False where there is none."""
    try:
        family = psutil.Process(parent).children(recursive=True) if parent else []
        found = [child for child in family if any(word in part for part in child.cmdline())]
        for child in found[:1]:
            child.kill()
    except psutil.NoSuchProcess:
        return False
    return bool(found)


def storm_over(cluster: Cluster, storm: Storm, options: argparse.Namespace) -> int:
    """Crawl, strike, wait for rest, compare. The exit code."""
    os.environ |= cluster.environment() | {"DJANGO_SETTINGS_MODULE": "bookapi.settings", "LOG_LEVEL": "WARNING"}
    import django

    django.setup()
    began = time.monotonic()
    if options.plain:
        from benchmarks.plain_celery import crawl_plainly as crawl
    else:
        crawl = crawl_ours
    runs = crawl(cluster, storm, options)
    return report(storm, runs, options, time.monotonic() - began)


def crawl_ours(cluster: Cluster, storm: Storm, options: argparse.Namespace) -> list[Any]:
    """The runs that were made, all of them at rest."""
    from bookapi.crawls import start_crawl
    from bookapi.tasks import SCHEDULE

    hurry()
    runs = []
    while not runs or sum(storm.done.values()) < options.faults:
        runs.append(start_crawl({}, requested_by=SCHEDULE))
        console.print(f"run {runs[-1].pk} began")
        while is_open(runs[-1]) and sum(storm.done.values()) < options.faults:
            storm.strike()
        deadline = time.monotonic() + REST_S
        while is_open(runs[-1]) and time.monotonic() < deadline:
            time.sleep(1)
    return runs


def is_open(run: Any) -> bool:
    """Whether the run has not come to its end. One that was interrupted is resumed, as an operator would do it."""
    from django.db import OperationalError

    from bookapi.crawls import CannotStart, resume_crawl

    with suppress(OperationalError, CannotStart):  # the storm meets us as well
        run.refresh_from_db()
        if run.state in {"interrupted", "failed"}:
            resume_crawl(run)
            time.sleep(3)  # a spider needs as long to take it
    return run.state != "finished"


def hurry() -> None:
    """The schedule's upkeep every few seconds: nobody wants to wait for minutes here."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

    often, _ = IntervalSchedule.objects.get_or_create(every=5, period=IntervalSchedule.SECONDS)
    upkeep = ("settle_runs", "collect_dead_letters", "resume_interrupted")
    for task in PeriodicTask.objects.all():
        if task.task.rpartition(".")[2] in upkeep:
            PeriodicTask.objects.filter(pk=task.pk).update(interval=often, crontab=None, enabled=True)
    PeriodicTasks.update_changed()


# --- What came of it --------------------------------------------------------------------------------------------------
def report(storm: Storm, runs: list[Any], options: argparse.Namespace, seconds: float) -> int:
    faults = Table(title=f"{sum(storm.done.values())} faults in {seconds:.0f} s", title_justify="left")
    faults.add_column("killed or cut")
    faults.add_column("times", justify="right")
    for kind, times in sorted(storm.done.items()):
        faults.add_row(kind, str(times))
    console.print(faults)
    unbalanced = [run for run in runs if not told(run)]
    lost, twice, wrong = compared(options.books)
    for name, books in (("lost", lost), ("there twice", twice), ("different from the shop", wrong)):
        console.print(f"{name}: {len(books)} {' '.join(map(str, books[:5]))}", style="red" if books else "green")
    return 1 if unbalanced or lost or twice or wrong else 0


def told(run: Any) -> bool:
    """Print the run's sums; whether they hold."""
    outcomes = {name: getattr(run, name) for name in ("created", "updated", "unchanged", "stale", "rejected", "dead")}
    seen = " + ".join(f"{number:,} {name}" for name, number in outcomes.items() if number)
    holds = run.complete and run.announced == run.seen + run.failed_pages and run.published in {0, run.seen}
    console.print(
        f"run {run.pk}: {run.state}, announced {run.announced:,}, published {run.published:,}, seen {run.seen:,} = "
        f"{seen}, failed pages {run.failed_pages}; {'complete' if run.complete else 'not complete'}"
        f" {run.warnings or ''}",
        style="green" if holds else "red",
    )
    return holds


def compared(books: int) -> tuple[list[str], list[str], list[str]]:
    """UPCs that the catalogue lacks, has twice, or tells differently than the shop; row by row."""
    from catalog.models import Book
    from crawler.practice_shop import Shop

    shop = Shop(books)
    rows: dict[str, list[Any]] = {}
    for book in Book.objects.select_related("category").iterator():
        rows.setdefault(book.upc, []).append(book)
    lost, wrong = [], []
    for number in range(1, books + 1):
        truth = shop.book(number)
        ours = rows.pop(truth.upc, [])
        if not ours:
            lost.append(truth.upc)
        elif not all(is_same(book, truth) for book in ours):
            wrong.append(truth.upc)
        rows |= {truth.upc: ours[1:]} if len(ours) > 1 else {}
    return lost, sorted(rows), wrong


FIELDS = ("title", "description", "price", "price_excl_tax", "tax", "rating", "stock", "review_count", "in_stock")


def is_same(book: Any, truth: Any) -> bool:
    same = all(getattr(book, name) == getattr(truth, name) for name in FIELDS)
    return same and book.listed and book.category.name == truth.category and book.source_url.endswith(truth.path)


if __name__ == "__main__":
    sys.exit(main())
