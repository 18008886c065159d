"""What was read goes to the catalogue, or to the queue, in batches, while the spider reads on."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from scrapy.crawler import Crawler

from catalog.ingest import ingest, record_failed_pages
from catalog.records import RevisitedBook, ScrapedBook
from crawler.spiders.books import BooksSpider

logger = logging.getLogger(__name__)

#: Books a batch: enough to spread the cost of a transaction, few enough that a killed crawl reads little again.
BATCH_SIZE = 250
#: A batch that does not fill is handed over after this long, so that a polite crawl can be watched live.
FLUSH_AFTER_S = 2.0


class CataloguePipeline:
    """Collects records and hands them to `catalog.ingest`, or to the queue where there is one, one batch at a time.

    While a batch is written the next one fills; when that is full too, its items wait, and Scrapy with them.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.batch: list[ScrapedBook | RevisitedBook] = []
        self.turn = asyncio.Lock()  # held while a batch is written
        self.timer: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    @property
    def spider(self) -> BooksSpider:
        assert isinstance(self.crawler.spider, BooksSpider)  # noqa: S101 - the pipeline is this spider's
        return self.crawler.spider

    async def open_spider(self) -> None:
        self.timer = asyncio.create_task(self._flush_from_time_to_time())

    async def process_item(self, item: ScrapedBook | RevisitedBook) -> ScrapedBook | RevisitedBook:
        self.batch.append(item)
        if len(self.batch) >= BATCH_SIZE:
            await self._flush(at_least=BATCH_SIZE)
        return item

    async def close_spider(self) -> None:
        if self.timer is not None:
            async with self.turn:  # so that it is not cancelled in the middle of a batch
                self.timer.cancel()
        await self._flush()

    async def _flush_from_time_to_time(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_AFTER_S)
            await self._flush()

    async def _flush(self, at_least: int = 0) -> None:
        """Write what has been collected, after the batch before it; nothing if that took what was there."""
        async with self.turn:
            if len(self.batch) < at_least:
                return
            batch, self.batch = self.batch, []
            if self.spider.catalogue.lost:
                return  # the crawl is ending as failed; resuming reads these pages again
            try:
                await self._write(batch)
            except Exception as error:
                logger.exception("a batch could not be written", extra={"records": len(batch)})
                self.spider.give_up(f"The catalogue could not be written: {type(error).__name__}: {error}")

    async def _write(self, batch: list[ScrapedBook | RevisitedBook]) -> None:
        spider = self.spider
        if failures := spider.failures.take():
            await spider.catalogue.call(record_failed_pages, spider.run_id, failures)
        if batch and spider.outbox is not None:
            await spider.outbox.take(spider.run_id, batch)
        elif batch:
            await spider.catalogue.write(ingest, batch, spider.run_id)
