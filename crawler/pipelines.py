"""What was read goes to the catalogue in batches, while the spider reads on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, close_old_connections
from scrapy.crawler import Crawler

from catalog.ingest import PageFailure, ingest, record_failed_pages
from catalog.records import RevisitedBook, ScrapedBook
from crawler.spiders.books import BooksSpider

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Books a batch: at 200 to 500 the spider keeps 96 to 99 percent of its rate.
BATCH_SIZE = 250
#: A batch that does not fill is handed over after this long, so that a polite crawl can be watched live.
FLUSH_AFTER_S = 2.0
#: A catalogue that cannot be written is tried again after these pauses; then the crawl ends, and can be resumed.
RETRY_PAUSES_S = (1.0, 5.0, 20.0)


class CataloguePipeline:
    """Collects records and hands them to `catalog.ingest`, one batch at a time and in order.

    The ORM blocks, and Django refuses it on an event loop: it runs on the one thread of `sync_to_async`, which also
    means one database connection.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.batch: list[ScrapedBook | RevisitedBook] = []
        self.writer: asyncio.Task[None] | None = None
        self.timer: asyncio.Task[None] | None = None
        self.end: asyncio.Task[None] | None = None  # the closing of a crawl whose catalogue cannot be written

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
            await self._flush()
        return item

    async def close_spider(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        await self._flush()
        if self.writer is not None:
            await self.writer

    async def _flush_from_time_to_time(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_AFTER_S)
            if self.writer is None or self.writer.done():
                await self._flush()

    async def _flush(self) -> None:
        """Start writing what has been collected. Waits for the batch before, so that no more than two are in memory."""
        if self.writer is not None:
            await self.writer
        batch, self.batch = self.batch, []
        failures = self.spider.failures.take()
        if batch or failures:
            self.writer = asyncio.create_task(self._write(batch, failures))
            self.writer.add_done_callback(self._end_the_crawl_if_it_failed)

    def _end_the_crawl_if_it_failed(self, writer: asyncio.Task[None]) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None and self.spider.trouble is None:
            self.spider.trouble = f"The catalogue could not be written: {type(error).__name__}"
            assert self.crawler.engine is not None  # noqa: S101 - it runs this pipeline
            self.end = asyncio.create_task(self.crawler.engine.close_spider_async(reason="catalogue_unavailable"))

    async def _write(self, batch: list[ScrapedBook | RevisitedBook], failures: list[PageFailure]) -> None:
        run_id = self.spider.run_id
        await persistently(record_failed_pages, run_id, failures)
        if batch:
            self.spider.counts += await persistently(ingest, batch, run_id)


async def persistently(write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`write(...)`, tried again while the database cannot be reached or stays locked.

    Raises what the last try raised: then the crawl ends as failed, and what was not written is read again by resuming.
    """
    for pause in RETRY_PAUSES_S:
        try:
            return await sync_to_async(write)(*args, **kwargs)
        except DatabaseError:
            logger.exception("the catalogue could not be written", extra={"retry_in_s": pause})
            await sync_to_async(close_old_connections)()
            await asyncio.sleep(pause)
    return await sync_to_async(write)(*args, **kwargs)
