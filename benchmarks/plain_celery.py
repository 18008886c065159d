"""The same way with Celery's default settings, as one writes it first: what `benchmarks.chaos --plain` shows.

    celery -A benchmarks.plain_celery worker

A classic queue, publishing without confirms, messages acknowledged before the work; and a pipeline which, as Scrapy's
do, logs what fails and goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from celery import Celery

from benchmarks.filling import records

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookapi.settings")
# Not as the current one, which the product's own tasks are sent through.
app = Celery("plain", broker=os.environ.get("BROKER_URL", ""), set_as_current=False)

BATCH = 50  # books a message


@app.task(name="plain.ingest")
def ingest_plainly(run: int, records: list[dict[str, Any]]) -> None:
    from catalog.ingest import ingest
    from catalog.records import ScrapedBook

    ingest([ScrapedBook.from_json(record) for record in records], run)


def crawl_plainly(cluster: Any, storm: Any, options: argparse.Namespace) -> list[Any]:
    """Publish all books of the shop while the storm goes on; the run, once nothing arrives any more."""
    from catalog.ingest import announce, finish_run, start_run
    from catalog.models import CrawlRun

    take_over(cluster, options.workers)
    run = start_run(cluster.site.shop.name, cluster.site.shop_url)
    announce(run.pk, options.books)
    refused = 0
    app.conf.broker_url = cluster.topology.overrides["ingest"]["BROKER_URL"]
    books = [record.to_json() for record in records(cluster.site.shop.name, options.books)]
    batches = [books[start : start + BATCH] for start in range(0, len(books), BATCH)]
    for number, batch in enumerate(batches):
        try:
            ingest_plainly.delay(run.pk, batch)
        except Exception as error:
            print(f"a batch was refused: {error}", file=sys.stderr)
            refused += len(batch)
        if number * options.faults // len(batches) > sum(storm.done.values()):
            storm.strike()
    print(f"{refused} books were refused when they were published", file=sys.stderr)
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 30:
        now = CrawlRun.objects.get(pk=run.pk).seen
        seen, since = now, (since if now == seen else time.monotonic())
        time.sleep(1)
    return [finish_run(run.pk)]


def take_over(cluster: Any, workers: int) -> None:
    """Workers with default settings instead of ours."""
    from dataclasses import replace

    from deploy.cluster.supervisor import Kept

    ours = cluster.supervisor.all("ingest")
    cluster.supervisor.end(ours)
    for kept in ours:
        cluster.supervisor.remove(kept.name)
    for number in range(1, workers + 1):
        name = f"ingest-{number}"
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "benchmarks.plain_celery",
            "worker",
            "-n",
            f"{name}@%h",
            "-c",
            "1",
        ]
        ours_once = cluster.topology.one("ingest", number)

        def make(kept: Kept = ours_once, command: list[str] = command) -> Any:
            return replace(kept.make(), command=command, is_ready=lambda: True)

        cluster.supervisor.add(Kept(name, "ingest", make))


def _start_django() -> None:
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()


if "worker" in sys.argv:
    _start_django()
