"""A publisher as a process: `python -m tests.queue.publishing PART PARTS BOOKS BATCH`, with a deployment's settings.

Publishes its part of all versions of the books of `tests.catalog.storm`, shuffled, in batches, as a spider does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "bookapi.settings"
django.setup()

from catalog.ingest import CrawlRun  # noqa: E402 - after setup
from crawler.catalogue import Catalogue  # noqa: E402
from crawler.spool import Outbox  # noqa: E402
from tests.catalog.storm import SHOP, VERSIONS, version  # noqa: E402


async def publish(part: int, parts: int, books: int, size: int) -> None:
    keys = [(book, number) for book in range(books) for number in range(VERSIONS)]
    random.Random(1).shuffle(keys)
    mine = [version(*key) for key in keys[part::parts]]
    outbox = Outbox(Path(os.environ["SPOOL_DIR"]), Catalogue([]))
    await outbox.open()
    run_id = await outbox.catalogue.call(lambda: CrawlRun.objects.get(shop=SHOP, kind="crawl").pk)
    for start in range(0, len(mine), size):
        await outbox.take(run_id, mine[start : start + size])
    await outbox.flush(60)
    outbox.close()


if __name__ == "__main__":
    asyncio.run(publish(*map(int, sys.argv[1:])))
