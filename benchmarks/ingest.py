"""Ingest against `get()` and `save()` a record: the same records, the same database, side by side in one run.

    python -m benchmarks.ingest [--records 100000] [--naive 5000] [--rounds 3] [DATABASE_URL ...]

Without addresses: a temporary SQLite file, and a temporary PostgreSQL database where a server answers on 127.0.0.1.
Both ways do everything: cleaning, validation, categories, writing, committing. The naive way keeps neither sightings
nor sources nor changes, so it does less. It is measured on fewer records, and figures are per record; it does not get
dearer with their number, since each of its queries is a lookup by key.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

DEFAULT_SERVER = "postgres://postgres@127.0.0.1:5432/postgres"
START = datetime(2024, 1, 1, tzinfo=UTC)
VOCABULARY = (
    "a about again always an and another ashore because before begins between bread café child city cold comes "
    "country daughter door dream each evening ever every falls father finds fire first for forest from garden ghost "
    "girl grows hand heart her his history home house in is island it keeps king knows last leaves letter life light "
    "long lost love man map memory mother mountain music must name never night no nobody of old once one only or "
    "other over own place queen quiet reader remembers return river road sea secret she ship silence sister small "
    "snow somebody song stone story stranger summer than that the their them there they time to town tree true under "
    "until voice war water when where which who wind winter with without woman word world writes year young"
)
WORDS = VOCABULARY.split()
SHELVES = [f"{a} {b}" for a in ("Old", "New", "Short", "Long", "True") for b in WORDS[20:30]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="records ingested a round")
    parser.add_argument("--naive", type=int, default=5_000, help="records written the naive way a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("databases", nargs="*", metavar="DATABASE_URL", help="empty databases, to be filled")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.records, options.naive, options.rounds)))
        return
    with ExitStack() as stack:
        databases = options.databases or [stack.enter_context(sqlite_file())]
        if not options.databases:
            try:
                databases.append(stack.enter_context(postgres_database()))
            except OSError as error:
                print(f"PostgreSQL is not measured: no server at {DEFAULT_SERVER} ({error}).")
        for url in databases:
            print_table(url.partition(":")[0], measured_in_own_process(url, options))


# -- what is measured -----------------------------------------------------------------------------------------------


def measure(records: int, naive: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds a record of each way, one figure a round. Runs in a process with a database of its own."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    figures: dict[str, list[float]] = {}
    for n in range(rounds):
        shop = f"round-{n}"
        naively = list(generated(f"{shop}-naive", naive, START))
        ours = list(generated(shop, records, START))
        for name, batch, way in (
            ("naive, new", naively, save_each),
            ("ingest, new", ours, ingest_all),
            ("naive, unchanged", naively, save_each),
            ("ingest, unchanged", later(ours, 1), ingest_all),
            ("naive, changed", repriced(naively), save_each),
            ("ingest, changed", repriced(later(ours, 2)), ingest_all),
        ):
            figures.setdefault(name, []).append(timed(way, batch))
    return figures


def timed(way: Callable[[list], None], batch: list) -> float:
    gc.collect()
    gc.freeze()  # the benchmark's own records are not the subject
    begun = time.perf_counter()
    way(batch)
    return (time.perf_counter() - begun) / len(batch) * 1e6


def ingest_all(batch: list) -> None:
    from catalog.ingest import finish_run, ingest, start_run

    run = start_run(batch[0].shop, "benchmark", kind="file", filters={"benchmark": True})
    counts = ingest(batch, run.pk)
    finish_run(run.pk)
    assert counts.seen == len(batch), counts


def save_each(batch: list) -> None:
    """The way one writes it first: a transaction a statement."""
    from django.utils import timezone

    from catalog.cleaning import clean
    from catalog.models import Book, Category

    for scraped in batch:
        record = clean(scraped)
        category, _ = Category.objects.get_or_create(shop_name=record.category, defaults={"name": record.category})
        try:
            book = Book.objects.get(shop=scraped.shop, upc=record.upc)
        except Book.DoesNotExist:
            book = Book(shop=scraped.shop, upc=record.upc, first_seen_at=timezone.now())
        for name in Book.SCRAPED_FIELDS:
            setattr(book, name, category if name == "category" else getattr(record, name))
        book.authors = list(record.authors)
        book.updated_at = timezone.now()
        book.save()


# -- records --------------------------------------------------------------------------------------------------------


def generated(shop: str, n: int, at: datetime) -> Iterator:
    """Books with titles of 1-6 words and descriptions of some 900 characters, each its own."""
    from catalog.records import ScrapedBook

    chance = random.Random(shop)
    for i in range(n):
        price = chance.randrange(1000, 6000)
        yield ScrapedBook(
            shop=shop,
            source_url=f"https://{shop}.example/catalogue/book-{i}/index.html",
            scraped_at=at + timedelta(milliseconds=i),
            upc=f"{i:016x}",
            title=" ".join(chance.choices(WORDS, k=chance.randint(1, 6))).capitalize(),
            description=" ".join(chance.choices(WORDS, k=160)).capitalize() + ". ...more",
            category=chance.choice(SHELVES),
            price=f"£{price / 100:.2f}",
            price_excl_tax=f"£{price / 100:.2f}",
            tax="£0.00",
            rating=chance.choice(["One", "Two", "Three", "Four", "Five"]),
            availability=f"In stock ({chance.randint(1, 22)} available)",
            review_count="0",
            product_type="Books",
            image_url=f"https://{shop}.example/media/{i:016x}.jpg",
            etag=f'"{i:x}"',
            parser_version=1,
        )


def later(batch: list, days: int) -> list:
    return [replace(record, scraped_at=record.scraped_at + timedelta(days=days)) for record in batch]


def repriced(batch: list) -> list:
    return [replace(record, price="£60.00", price_excl_tax="£60.00") for record in batch]


# -- databases ------------------------------------------------------------------------------------------------------


@contextmanager
def sqlite_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'bench.sqlite3'}"


@contextmanager
def postgres_database() -> Iterator[str]:
    """A new database, dropped afterwards.

    Raises:
        OSError: no server answers, or it lets nobody in.
    """
    import psycopg2

    name = f"bench_ingest_{os.getpid()}"
    try:
        server = psycopg2.connect(DEFAULT_SERVER)
    except psycopg2.OperationalError as error:
        raise OSError(str(error).splitlines()[0]) from error
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield DEFAULT_SERVER.rpartition("/")[0] + f"/{name}"
    finally:
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        server.close()


def measured_in_own_process(url: str, options: argparse.Namespace) -> dict[str, list[float]]:
    arguments = [f"--{name}={getattr(options, name)}" for name in ("records", "naive", "rounds")]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "DATABASE_URL": url,
            "VAR_DIR": folder,
            "LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "bookapi.settings",
        }
        command = [sys.executable, "-m", "benchmarks.ingest", "--measure", *arguments]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def print_table(database: str, figures: dict[str, list[float]]) -> None:
    print(f"\n{database:34}{'min us':>10}{'median us':>12}{'records/s':>12}{'ratio':>9}  (of medians)")
    for name, values in figures.items():
        middle = statistics.median(values)
        ratio = statistics.median(figures[name.replace("ingest", "naive")]) / middle
        told = f"{ratio:8.1f}x" if name.startswith("ingest") else ""
        print(f"  {name:32}{min(values):10.1f}{middle:12.1f}{1e6 / middle:12.0f}{told:>9}")


if __name__ == "__main__":
    main()
