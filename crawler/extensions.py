"""The run around a crawl: kept alive, ended with its sums, and shown while it goes on."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import time
from typing import Any, Self

from django.conf import settings as django_settings
from django.db import DatabaseError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from catalog.ingest import CrawlRun, finish_run, heartbeat, pending_records, settle
from crawler.failures import RedirectedToKnownPage
from crawler.spiders.books import BooksSpider

logger = logging.getLogger(__name__)

HEARTBEAT_S = 20.0
WIDE = 72  # columns of a terminal that has room for speed and time beside the bar
#: Seconds that the last batches have to reach the broker, whatever way the crawl ended.
FLUSH_S = 20.0
#: A crawl that has read everything asks the queue so often, says so from time to time, and stops waiting when nothing
#: has moved for a minute: its books are safe, and whoever brings the last of them closes the run.
POLL_S, TELL_S, STILL_S = 0.25, 10.0, 60.0
#: Scrapy's words for how a crawl ended, as states of a run. Any other word is an error of ours.
STATES = {"finished": "finished", "shutdown": "interrupted"}


class RunKeeper:
    """Sends the run's heartbeat, keeps what failed in callbacks, and closes the run with its sums."""

    def __init__(self) -> None:
        self.pulse: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        # Scrapy logs a line for every page and item at DEBUG; made only to be thrown away, they cost time.
        logging.getLogger("scrapy").setLevel(django_settings.LOG_LEVEL)
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
                try:
                    await spider.catalogue.call(heartbeat, spider.run_id)
                except DatabaseError:  # whoever writes books will end the crawl; a pulse alone is no reason
                    logger.warning("heartbeat not sent", exc_info=True, extra={"run_id": spider.run_id})

    def callback_failed(self, failure: Failure, response: Response | None, spider: BooksSpider) -> None:
        """A page that made our own code fail is a failed page too, beside the traceback that Scrapy logs."""
        error = failure.value or Exception()
        if response is None:  # it happened before any page was asked for
            spider.trouble = spider.trouble or f"The crawl could not start: {type(error).__name__}: {error}"
        else:
            spider.lose_page(response.request or Request(response.url), error)

    def request_dropped(self, request: Request, spider: BooksSpider) -> None:
        """Scrapy drops a redirect to a page that was asked for before, without a word to the spider."""
        if "redirect_urls" in request.meta:
            spider.lose_page(request, RedirectedToKnownPage())

    async def closed(self, spider: BooksSpider, reason: str) -> None:
        if self.pulse is not None:
            self.pulse.cancel()
        if not spider.run_id:
            logger.error("no run was started", extra={"reason": spider.trouble})
            if spider.outbox is not None:
                await spider.outbox.flush(FLUSH_S)
                spider.outbox.close()
            await spider.catalogue.close()
            return
        state = STATES.get(reason, "failed")
        if state == "finished" and spider.announced is None and spider.trouble is None:
            spider.trouble = "The shop does not tell how many books it has."
        if state == "finished" and spider.trouble:
            state = "failed"
        warnings = [{"code": "trouble", "detail": spider.trouble}] if spider.trouble else []
        try:
            spider.ended = await spider.catalogue.call(finish_run, spider.run_id, state=state, warnings=warnings)
            if spider.outbox is not None:
                await spider.outbox.flush(FLUSH_S)
                spider.ended = await self._wait_for_the_queue(spider, spider.ended)
        except DatabaseError as error:  # the next crawl finds that this process is gone, and closes the run
            logger.exception("the run could not be closed", extra={"run_id": spider.run_id})
            spider.trouble = spider.trouble or f"The run could not be closed: {type(error).__name__}: {error}"
        finally:
            if spider.outbox is not None:
                spider.outbox.close()
            await spider.catalogue.close()

    async def _wait_for_the_queue(self, spider: BooksSpider, run: CrawlRun) -> CrawlRun:
        """The run, settled: or as it is after a time in which nothing moved, or at the next Ctrl-C."""
        assert spider.outbox is not None  # noqa: S101 - there is a queue to wait for
        last, moved_at, told_at = None, time.monotonic(), 0.0
        while run.state == CrawlRun.State.SETTLING and spider.crawler.crawling:
            facts = (run.seen, len(spider.outbox.waiting))
            if facts != last:
                last, moved_at = facts, time.monotonic()
            if time.monotonic() - moved_at > STILL_S:
                break
            if time.monotonic() - told_at > TELL_S:
                told_at = time.monotonic()
                await self._tell(spider, run)
            await asyncio.sleep(POLL_S)
            run = await spider.catalogue.call(settle, spider.run_id)
        return run

    async def _tell(self, spider: BooksSpider, run: CrawlRun) -> None:
        """Say what the crawl waits for: in the log, and on a terminal, which shows warnings alone."""
        assert spider.outbox is not None  # noqa: S101
        books = await spider.catalogue.call(pending_records, run.pk)
        facts = {"run_id": run.pk, "books": books, "spooled_batches": len(spider.outbox.waiting)}
        logger.info("waiting for the queue", extra=facts)
        if sys.stderr.isatty():
            print(f"Waiting for the queue: it holds {books} of {run.published} books.", file=sys.stderr)


class Progress:
    """A bar on the terminal: books done of those that the shop announced. Elsewhere the log lines tell."""

    REFRESH_S = 0.2

    def __init__(self, console: Console) -> None:
        columns = [TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn()]
        if console.width >= WIDE:
            columns += [TextColumn("{task.fields[speed]}"), TimeRemainingColumn()]
        self.bar = Bar(
            *columns,
            console=console,
            auto_refresh=False,  # by a task of ours: a thread would compete with the spider
        )
        self.task: TaskID | None = None
        self.done = 0
        self.refresher: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        if not sys.stderr.isatty():
            raise NotConfigured
        progress = cls(Console(stderr=True))
        crawler.signals.connect(progress.opened, signals.spider_opened)
        crawler.signals.connect(progress.item_done, signals.item_scraped)
        crawler.signals.connect(progress.closed, signals.spider_closed)
        return progress

    async def opened(self, spider: BooksSpider) -> None:
        self.task = self.bar.add_task(f"Reading {spider.shop}", total=None, speed="")
        self.bar.start()
        atexit.register(self.bar.stop)  # a second Ctrl-C ends without "closed", and would leave no cursor
        for handler in _terminal_handlers():
            handler.setStream(sys.stderr)  # now the bar's own, which writes lines above it
        self.refresher = asyncio.create_task(self._refresh_from_time_to_time(spider))

    def item_done(self) -> None:
        self.done += 1

    async def _refresh_from_time_to_time(self, spider: BooksSpider) -> None:
        while True:
            self._show(spider)
            await asyncio.sleep(self.REFRESH_S)

    def _show(self, spider: BooksSpider) -> None:
        assert self.task is not None  # noqa: S101 - a spider opens before it reads
        done = self.done + spider.failures.books + spider.skipped
        total = min((n for n in (spider.limit, spider.announced) if n is not None), default=None)
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, total=total, completed=done, speed=f"{speed:.0f}/s" if speed else "", refresh=True)

    async def closed(self, spider: BooksSpider) -> None:
        if self.refresher is not None:
            self.refresher.cancel()
        self._show(spider)
        self.bar.stop()
        for handler in _terminal_handlers():
            handler.setStream(sys.stderr)


def quiet_terminal() -> None:
    """On a terminal the bar tells what the lines about a sound crawl would; warnings are still written."""
    if sys.stderr.isatty():
        for handler in _terminal_handlers():
            handler.setLevel(max(logging.WARNING, handler.level))


def _terminal_handlers() -> list[logging.StreamHandler[Any]]:
    return [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
