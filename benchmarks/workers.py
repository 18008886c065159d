"""Ingest through the queue with 1, 2 and 4 workers: records a second, and what the workers share.

    python -m benchmarks.workers [--books 10000] [--workers 1 2 4]

The batches of a crawl wait in a real RabbitMQ before the workers start; the clock runs from the first batch that is
settled to the last, by the database's own times. Every size gets a shop of its own, so that all books are new. Beside
it, in one process: microseconds a record that are cleaned before the lock, and microseconds under the catalogue's
lock. The first is what workers share; the second is a ceiling for all of them together. On a machine of few cores the
workers, the broker and PostgreSQL may reach the end of the cores first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from benchmarks.filling import records
from deploy.cluster.cluster import Cluster
from deploy.cluster.topology import Size

BATCH = 250  # records, as a spider publishes them
PROFILED = 20  # batches that are taken in one process, stage by stage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=10_000, help="a size")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL, which does not run as root, has to enter
        with Cluster(Path(folder), size=Size(api=1, workers=0, prometheus=False)) as cluster:
            os.environ |= cluster.environment() | {"DJANGO_SETTINGS_MODULE": "bookapi.settings", "LOG_LEVEL": "WARNING"}
            import django

            django.setup()
            clean_us, locked_us = stages(f"profile-{os.getpid()}")
            rows = [drained(cluster, number, options.books) for number in options.workers]
    report(rows, clean_us, locked_us)
    return 0


def batches(shop: str, books: int) -> Iterator[list[Any]]:
    """Records as a spider publishes them."""
    read = records(shop, books)
    while batch := list(islice(read, BATCH)):
        yield batch


def stages(shop: str) -> tuple[float, float]:
    """Microseconds a record: read and cleaned before the lock; judged and written while it is held."""
    from catalog.ingest import start_run
    from catalog.ingest.batches import prepare, write
    from catalog.revision import writing

    run = start_run(shop, "http://127.0.0.1:1").pk
    before = held = 0.0
    for batch in batches(shop, PROFILED * BATCH):
        began = time.perf_counter()
        name, visits = prepare(batch, run)
        before += time.perf_counter() - began
        with writing() as turn:
            began = time.perf_counter()
            write(visits, run, name, turn)
        held += time.perf_counter() - began  # until the commit has ended: the lock goes with it
    records = PROFILED * BATCH
    return before / records * 1e6, held / records * 1e6


def drained(cluster: Cluster, workers: int, books: int) -> dict[str, Any]:
    """Publish everything, start the workers, wait until all is settled."""
    from catalog.ingest import register, start_run
    from catalog.models import PublishedBatch
    from catalog.tasks import ingest_batch

    shop = f"workers-{workers}-{uuid4().hex[:8]}"
    run = start_run(shop, "http://127.0.0.1:1").pk
    for batch in batches(shop, books):
        key = uuid4()
        register(run, key, batch)
        told = [record.to_json() for record in batch]
        ingest_batch.apply_async(kwargs={"run": run, "key": str(key), "records": told}, confirm_timeout=10)
    batches_of_run = PublishedBatch.objects.filter(run=run)
    cluster.scale(workers)
    wait_until(lambda: batches_of_run.exclude(state="pending").exists())
    wait_until(lambda: not batches_of_run.filter(state="pending").exists())
    times = sorted(batches_of_run.values_list("settled_at", flat=True))
    cluster.scale(0)
    seconds = (times[-1] - times[0]).total_seconds()
    return {"workers": workers, "rate": (books - BATCH) / seconds, "seconds": seconds}


def wait_until(is_so: Any) -> None:
    while not is_so():
        time.sleep(0.05)


def report(rows: list[dict[str, Any]], clean_us: float, locked_us: float) -> None:
    console = Console(width=110)
    table = Table(title="New books through the queue", title_justify="left")
    for column in ("workers", "records/s", "ratio", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        ratio = row["rate"] / rows[0]["rate"]
        table.add_row(str(row["workers"]), f"{row['rate']:,.0f}", f"{ratio:.2f}", f"{row['seconds']:.1f}")
    console.print(table)
    console.print(
        f"A record is {clean_us:.0f} us before the lock, which workers share, and {locked_us:.0f} us under it: at most "
        f"{1e6 / locked_us:,.0f} records/s in all, however many workers. {os.cpu_count()} cores."
    )


if __name__ == "__main__":
    sys.exit(main())
