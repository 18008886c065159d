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
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from celery import Celery

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
    batches = list(batches_of(options.books, cluster.site.shop.name, cluster.site.shop_url))
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


def batches_of(books: int, shop_name: str, shop_url: str, size: int = BATCH) -> Iterator[list[dict[str, Any]]]:
    """What a spider would have read, in JSON types."""
    from catalog.records import ScrapedBook
    from crawler.practice_shop import Shop

    shop = Shop(books)
    batch = []
    for number in range(1, books + 1):
        book = shop.book(number)
        record = ScrapedBook(
            shop=shop_name,
            source_url=f"{shop_url}/{book.path}",
            scraped_at=datetime.now(UTC),
            upc=book.upc,
            title=book.title,
            authors=book.authors,
            description=book.description_raw,
            category=book.category,
            price=f"£{book.price}",
            price_excl_tax=f"£{book.price_excl_tax}",
            tax=f"£{book.tax}",
            rating=str(book.rating),
            availability=book.availability,
            review_count=str(book.review_count),
        )
        batch.append(record.to_json())
        if len(batch) == size or number == books:
            yield batch
            batch = []


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
