"""The run around a crawl: kept alive, ended with its sums, and shown while it goes on."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from catalog.ingest import finish_run, heartbeat
from crawler.failures import RedirectedToKnownPage
from crawler.pipelines import persistently
from crawler.spiders.books import BooksSpider

logger = logging.getLogger(__name__)

HEARTBEAT_S = 20.0
#: Scrapy's words for how a crawl ended, as states of a run. Any other word is an error of ours.
STATES = {"finished": "finished", "shutdown": "interrupted"}


class RunKeeper:
    """Sends the run's heartbeat, keeps what failed in callbacks, and closes the run with its sums."""

    def __init__(self) -> None:
        self.pulse: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        keeper = cls()
        crawler.signals.connect(keeper.opened, signals.spider_opened)
        crawler.signals.connect(keeper.callback_failed, signals.spider_error)
        crawler.signals.connect(keeper.request_dropped, signals.request_dropped)
        crawler.signals.connect(keeper.closed, signals.spider_closed)
        return keeper

    async def opened(self, spider: BooksSpider) -> None:
        self.pulse = asyncio.create_task(self._beat(spider))

    async def _beat(self, spider: BooksSpider) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if spider.run_id:
                await persistently(heartbeat, spider.run_id)

    def callback_failed(self, failure: Failure, response: Response, spider: BooksSpider) -> None:
        """A page that made our own code fail is a failed page too, beside the traceback that Scrapy logs."""
        spider.failures.add(response.request or Request(response.url), failure.value or Exception())

    def request_dropped(self, request: Request, spider: BooksSpider) -> None:
        """Scrapy drops a redirect to a page that was asked for before, without a word to the spider."""
        if "redirect_urls" in request.meta:
            spider.failures.add(request, RedirectedToKnownPage())

    async def closed(self, spider: BooksSpider, reason: str) -> None:
        if self.pulse is not None:
            self.pulse.cancel()
        if not spider.run_id:
            logger.error("no run was started", extra={"reason": spider.trouble})
            return
        state = STATES.get(reason, "failed")
        if spider.announced is None or spider.trouble:
            state = "failed" if state == "finished" else state
        warnings = [{"code": "trouble", "detail": spider.trouble}] if spider.trouble else []
        spider.ended = await persistently(finish_run, spider.run_id, state=state, warnings=warnings)


class Progress:
    """A bar on the terminal: books done of those that the shop announced. Elsewhere the log lines tell."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task: TaskID | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        if not sys.stderr.isatty():
            raise NotConfigured
        progress = cls(Console(stderr=True))
        crawler.signals.connect(progress.opened, signals.spider_opened)
        crawler.signals.connect(progress.advanced, signals.item_scraped)
        crawler.signals.connect(progress.closed, signals.spider_closed)
        # Information lines would tear the bar; warnings may.
        for handler in logging.getLogger().handlers:
            handler.setLevel(max(logging.WARNING, handler.level))
        return progress

    def opened(self, spider: BooksSpider) -> None:
        self.task = self.bar.add_task(f"Reading {spider.shop}", total=None, speed="")
        self.bar.start()

    def advanced(self, spider: BooksSpider, **_: Any) -> None:
        assert self.task is not None  # noqa: S101 - a spider opens before it scrapes
        total = spider.limit or spider.announced
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, total=total, advance=1, speed=f"{speed:.0f}/s" if speed else "")

    async def closed(self, spider: BooksSpider) -> None:
        self.bar.stop()
