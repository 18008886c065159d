"""The spool on a real disk: what is put there comes out as it was, and what cannot be used is kept aside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync

from catalog.ingest import CrawlRun, start_run
from catalog.models import PublishedBatch
from catalog.records import RevisitedBook, ScrapedBook, read_from_json
from crawler import spool as spool_module
from crawler.catalogue import Catalogue
from crawler.spool import Outbox, Spool, in_parts
from tests.catalog.crawled import START, scraped


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def run(db: None) -> CrawlRun:
    return start_run("shop", "https://shop.example")


def take_over(folder: Path) -> list[UUID]:
    """The keys of the batches that a spider which starts now would publish."""

    async def look() -> list[UUID]:
        outbox = Outbox(folder, Catalogue([]))
        await outbox.open()
        keys = [batch.key for batch in outbox.waiting]
        outbox.close()
        await asyncio.gather(outbox.publisher, return_exceptions=True) if outbox.publisher else None
        return keys

    return async_to_sync(look)()


def test_batch_comes_off_the_disk_as_it_was_put_there(spool: Spool) -> None:
    records: list[ScrapedBook | RevisitedBook] = [
        scraped("a", title="half \ud800 a pair, \0, and ž", authors=("Ann", "Bo")),
        RevisitedBook("shop", "b", "https://shop.example/b", START),
    ]
    put = spool.put(7, records)
    (found,) = spool
    assert (found, found.run_id, found.key) == (put, 7, put.key)
    assert [read_from_json(record) for record in found.records()] == records


def test_long_records_are_spread_over_batches_that_a_broker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "BATCH_BYTES", 10_000)
    sizes = [100, 4000, 4000, 4000, 50_000, 100, 100]
    records = [scraped(str(number), description="x" * size) for number, size in enumerate(sizes)]
    parts = in_parts(records)
    assert [[int(record.upc) for record in part] for part in parts] == [[0, 1, 2], [3], [4], [5, 6]]
    assert in_parts([]) == []


def test_file_that_a_killed_spider_had_not_finished_is_no_batch(spool: Spool) -> None:
    put = spool.put(7, [scraped("a")])
    put.path.rename(put.path.with_suffix(".part"))
    assert not list(spool)


def test_batches_that_were_left_are_written_down_once_and_published(spool: Spool, run: CrawlRun) -> None:
    keys = {spool.put(run.pk, [scraped("a"), scraped("b")]).key, spool.put(run.pk, [scraped("c")]).key}
    assert set(take_over(spool.folder)) == keys
    assert set(take_over(spool.folder)) == keys
    run.refresh_from_db()
    assert run.published == 3
    assert set(PublishedBatch.objects.values_list("key", flat=True)) == keys


@pytest.mark.parametrize("content", ["[", "{}", "[1]", '[{"upc": "a"}]', '[{"revisited": {}}]', "null"])
def test_broken_file_is_kept_aside_and_the_others_pass(spool: Spool, run: CrawlRun, content: str) -> None:
    broken, sound = spool.put(run.pk, [scraped("a")]), spool.put(run.pk, [scraped("b")])
    broken.path.write_text(content)
    assert take_over(spool.folder) == [sound.key]
    assert broken.path.with_suffix(".unusable").read_text() == content


def test_batch_of_a_run_that_is_gone_is_kept_aside(spool: Spool, run: CrawlRun) -> None:
    batch = spool.put(run.pk, [scraped("a")])
    run.delete()
    assert not take_over(spool.folder)
    assert batch.path.with_suffix(".unusable").exists()
    batch.set_aside()  # another process had found it too
