"""Four writers, a curator and a reader at once, each a process of its own.

4,000 records in the suite; INGEST_STORM_BOOKS=10000 makes it 50,000.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from catalog.ingest import start_run
from catalog.models import Book, Category, Change, CrawlRun, Sighting
from catalog.records import IngestCounts, fingerprint
from catalog.revision import current_revision
from tests.catalog.storm import SHOP, VERSIONS, version

WRITERS = 4
BOOKS = int(os.environ.get("INGEST_STORM_BOOKS", "800"))
ROOT = Path(__file__).parents[2]


def database_url() -> str:
    """The address of the database that this test runs on."""
    of = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{of['NAME']}"
    password = f":{of['PASSWORD']}" if of["PASSWORD"] else ""
    return f"postgres://{of['USER']}{password}@{of['HOST']}:{of['PORT'] or 5432}/{of['NAME']}"


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.catalog.storm", *map(str, arguments)]
    env = os.environ | {"DATABASE_URL": database_url()}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Any:
    """What the process printed, once its input has ended."""
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.system
@pytest.mark.django_db(transaction=True)
def test_writers_at_once_lose_nothing_count_exactly_and_a_reader_misses_nothing() -> None:
    run = start_run(SHOP, "https://storm.example")
    reader, curator = started("follow"), started("edit", BOOKS)
    writers = [started("write", part, WRITERS, BOOKS) for part in range(WRITERS)]
    total = IngestCounts()
    for writer in writers:
        total += IngestCounts(**ended(writer))
    edited = ended(curator)
    read = ended(reader)

    # The sums: of the writers, of the run, of the sightings.
    run = CrawlRun.objects.get(pk=run.pk)
    assert (total.created, total.rejected, total.duplicates) == (BOOKS, 0, 0)
    assert total.seen == run.seen == Sighting.objects.count() == BOOKS * VERSIONS
    assert (run.created, run.updated, run.unchanged, run.stale) == (
        total.created,
        total.updated,
        total.unchanged,
        total.stale,
    )
    assert min(total.updated, total.unchanged, total.stale) > 0

    # Every book is what its latest version says, and what the curator made of it.
    books = list(Book.objects.select_related("source"))
    assert len(books) == BOOKS
    for book in books:
        latest = version(int(book.upc[1:]), VERSIONS - 1)
        assert book.source.fingerprint == fingerprint(latest)
        assert f"£{book.price}" == latest.price
        assert book.stock == VERSIONS
        assert book.product_type == edited.get(book.upc, "Books")
    assert Category.objects.count() == 7
    assert len(edited) > 0

    # The reader has seen every change, in the order of the cursor.
    assert read == list(Change.objects.order_by("revision", "id").values_list("pk", flat=True))
    assert len(read) >= total.created
    assert current_revision() == Change.objects.latest("revision").revision
