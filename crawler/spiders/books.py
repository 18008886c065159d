"""Which pages of a book shop to visit. What is on them is the business of `crawler.pages`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import scrapy
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.db import DatabaseError
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from catalog.ingest import (
    CrawlRun,
    IngestError,
    KnownPage,
    NotResumable,
    adopt_run,
    announce,
    known_pages,
    start_run,
    unsettled_pages,
)
from catalog.records import RevisitedBook, ScrapedBook
from crawler.catalogue import Catalogue
from crawler.failures import FailedPages, asked_for
from crawler.pages import Listing, PageError, parse_book, parse_listing

if TYPE_CHECKING:
    from crawler.spool import Outbox

#: Pages of a list that are asked for ahead of the books: enough that the books never wait for the next list page, even
#: while the catalogue is busy; few enough that a shop of a million books does not fill the memory with requests.
LOOK_AHEAD = 12
_SLUG = re.compile(r"[A-Za-z0-9_-]{1,50}", re.ASCII)


class BooksSpider(scrapy.Spider):
    """Reads a whole shop through its list pages.

    Arguments (`-a name=value`):
        start_url: the shop's first page; the configured shop by default.
        shop: the slug under which its books are kept; the configured one by default.
        category: name or slug of the one category to read.
        limit: how many books to read at most, counted from the beginning of the list.
        resume: number of an interrupted run to go on with.
        run: number of a run that was opened for this process.

    A run that goes on keeps the shop and the filters it was opened with.

    Raises:
        ValueError: an argument that is unknown, or makes no sense.
    """

    name = "books"

    def __init__(
        self,
        *,
        start_url: str = "",
        shop: str = "",
        category: str = "",
        limit: str = "",
        resume: str = "",
        run: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kwargs:
            raise ValueError(f"Unknown argument: {', '.join(kwargs)}")
        self.start_url = _web_address("start_url", start_url or django_settings.SHOP_URL)
        self.shop = shop or django_settings.SHOP_NAME
        if not _SLUG.fullmatch(self.shop):
            raise ValueError(f"shop is {shop!r}: up to 50 letters, digits, - and _ are needed.")
        self.category = category
        self.limit = _positive("limit", limit)
        self.resume = _positive("resume", resume)
        self.opened_run = _positive("run", run)
        if self.resume and self.opened_run:
            raise ValueError("Give either resume or run.")
        self.run_id = 0  # of the run, once it is open
        self.announced: int | None = None
        self.reached = 0  # books met in the lists, up to the limit
        self.skipped = 0  # those of them that a run which goes on has read before
        self.failures = FailedPages()
        self.trouble: str | None = None  # why the run cannot end well
        self.ended: CrawlRun | None = None  # the run as it was closed
        self.catalogue: Catalogue
        self.outbox: Outbox | None = None  # where there is a queue
        self.unsettled: set[int] = set()  # pages read by this run before, which the queue holds
        self._giving_up: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.catalogue = Catalogue([float(pause) for pause in crawler.settings.getlist("CATALOGUE_RETRY_PAUSES_S")])
        if django_settings.BROKER_URL:
            from crawler.spool import Outbox  # noqa: PLC0415 - Celery takes a while to import, and most have no queue

            spider.outbox = Outbox(django_settings.SPOOL_DIR, spider.catalogue)
        # A shop on this machine is for tests and benchmarks, and is read at full speed; any other one politely.
        if is_loopback(spider.start_url):
            crawler.settings.set("CONCURRENT_REQUESTS_PER_DOMAIN", 16, priority="spider")
        else:
            crawler.settings.set("AUTOTHROTTLE_ENABLED", True, priority="spider")
        return spider

    @property
    def filters(self) -> dict[str, Any]:
        """What limits this crawl to a part of the shop, as its run keeps it."""
        return {name: value for name in ("category", "limit") if (value := getattr(self, name))}

    # -- the run ----------------------------------------------------------------------------------------------------

    async def start(self) -> AsyncIterator[Request]:
        try:
            if self.outbox is not None:  # first: what it finds may be what the run before is waiting for
                await self.outbox.open()
            await sync_to_async(self._open_run)()
            if self.outbox is not None:
                self.unsettled = await self.catalogue.call(unsettled_pages, self.run_id)
        except IngestError as error:
            self.trouble = str(error)
        except DatabaseError as error:
            self.trouble = f"The catalogue cannot be used (is it migrated?): {error}"
        else:
            callback = self.find_category if self.category else self.parse_list
            yield self._list_request(self.start_url, number=0, callback=callback)

    def _open_run(self) -> None:
        """Open, resume or take over the run. Some queries."""
        if number := self.resume or self.opened_run:
            self._refuse_another_crawl(number)
        if self.opened_run is None:
            number = start_run(self.shop, self.start_url, filters=self.filters, resume=self.resume).pk
        assert number is not None  # noqa: S101 - one of the two gave it
        # With a queue nobody else writes for the run: what this process leaves behind may be written at any time.
        writer = self.catalogue.start_writer() if self.outbox is None else None
        self.run_id = adopt_run(number, writer).pk
        self.logger.info("run started", extra={"run_id": number, "shop": self.shop, "source": self.start_url})

    def _refuse_another_crawl(self, number: int) -> None:
        """A run goes on where it began: elsewhere its pages would be others, and it would count them beside the old."""
        run = CrawlRun.objects.filter(pk=number).first()
        ours = (self.shop, self.start_url.rstrip("/"), self.filters)
        if run is not None and (run.shop, run.source.rstrip("/"), run.filters) != ours:
            raise NotResumable(f"Run {number} is of {run.shop} at {run.source} with {run.filters or 'no filters'}.")

    def give_up(self, trouble: str) -> None:
        """End the crawl as failed, for the first reason that is given."""
        if self.trouble is None:
            self.trouble = trouble
            assert self.crawler.engine is not None  # noqa: S101 - it runs this spider
            self._giving_up = asyncio.create_task(self.crawler.engine.close_spider_async(reason="gave_up"))

    # -- lists ------------------------------------------------------------------------------------------------------

    def _list_request(self, url: str, number: int, callback: Any = None) -> Request:
        """A request of the list page of this number. Books of page n come after list page n + LOOK_AHEAD."""
        return Request(
            url,
            callback=callback or self.parse_list,
            errback=self.page_failed,
            cb_kwargs={"number": number},
            priority=LOOK_AHEAD - number,
        )

    async def find_category(self, response: Response, number: int) -> AsyncIterator[Request]:
        """Go from the shop's first page to the category that was asked for."""
        if listing := self._read_listing(response):
            wanted = self.category.casefold()
            for link in listing.categories:
                # ".../category/books/travel_2/index.html"
                slugs = [part.rpartition("_")[0] for part in urlsplit(link.url).path.split("/")]
                if wanted == link.name.casefold() or wanted in slugs:
                    yield self._list_request(link.url, number)
                    return
            self.trouble = f"The shop has no category {self.category!r}."

    async def parse_list(self, response: Response, number: int) -> AsyncIterator[Request]:
        """Ask for the books of a list page that this run has not read, and for the next page."""
        listing = self._read_listing(response)
        if listing is None:
            return
        urls = listing.book_urls if self.limit is None else listing.book_urls[: self.limit - self.reached]
        self.reached += len(urls)
        known = await self._known_pages(listing, urls)
        if known is None:
            return
        if listing.next_url and (self.limit is None or self.reached < self.limit):
            yield self._list_request(listing.next_url, number + 1)
        for url in urls:
            page = known.get(url, KnownPage())
            if page.read:
                self.skipped += 1
            elif request := self._book_request(url, page, number):
                yield request

    def _read_listing(self, response: Response) -> Listing | None:
        try:
            return parse_listing(response.body, response.url)
        except PageError as error:
            self.lose_page(_request_of(response), error)
            return None

    async def _known_pages(self, listing: Listing, urls: tuple[str, ...]) -> dict[str, KnownPage] | None:
        """What the catalogue knows of the books of a list page; None when it cannot tell, and the crawl ends."""
        try:
            if self.announced is None and listing.announced is not None:
                self.announced = listing.announced
                await self.catalogue.call(announce, self.run_id, listing.announced)
            return await self.catalogue.call(known_pages, self.run_id, self.shop, urls, self.unsettled)
        except DatabaseError as error:
            self.logger.exception("the catalogue could not be read")
            self.give_up(f"The catalogue could not be read: {type(error).__name__}: {error}")
            return None

    # -- books ------------------------------------------------------------------------------------------------------

    def _book_request(self, url: str, page: KnownPage, number: int) -> Request | None:
        try:
            return Request(
                url,
                callback=self.parse_product,
                errback=self.page_failed,
                meta={"known_page": page, "handle_httpstatus_list": [304]},
                priority=-number,
            )
        except ValueError as error:  # one broken address must not cost the other books of its list
            self.failures.add_page(url, "book", error)
            return None

    async def parse_product(self, response: Response) -> AsyncIterator[ScrapedBook | RevisitedBook]:
        request = _request_of(response)
        url = asked_for(request)
        now = datetime.now(UTC)
        if response.status == 304:
            yield RevisitedBook(self.shop, response.meta["known_page"].upc, url, now)
            return
        try:
            etag = (response.headers.get("ETag") or b"").decode("latin-1")
            book = parse_book(response.body, response.url, shop=self.shop, scraped_at=now, etag=etag)
        except PageError as error:
            self.lose_page(request, error)
            return
        # The page's own links are read against where it was found; it is known by the address that the list shows.
        yield book if url == response.url else replace(book, source_url=url)

    # -- failures ---------------------------------------------------------------------------------------------------

    async def page_failed(self, failure: Failure) -> None:
        self.lose_page(failure.request, failure.value)  # type: ignore[attr-defined, arg-type]  # Scrapy adds it

    def lose_page(self, request: Request, error: BaseException) -> None:
        """Note a page that gave nothing. Without its first page there is no shop."""
        failure = self.failures.add(request, error)
        if request.cb_kwargs.get("number") == 0 and self.trouble is None:
            self.trouble = f"The first page could not be read: {failure.detail} ({failure.url})"


def _request_of(response: Response) -> Request:
    """What was asked for; a response that comes to a callback always knows it."""
    assert response.request is not None  # noqa: S101
    return response.request


def _positive(name: str, value: str) -> int | None:
    """The argument as a number from 1, or None where it was not given."""
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18 and int(value) > 0):
        raise ValueError(f"{name} is {value!r}: a whole number from 1 is needed.")
    return int(value)


def _web_address(name: str, value: str) -> str:
    try:
        place = place_of(value)
    except ValueError:
        place = ("", None)
    if not place[0] or urlsplit(value).scheme not in {"http", "https"}:
        raise ValueError(f"{name} is {value!r}: an address that begins with http:// or https:// is needed.")
    return value


def place_of(url: str) -> tuple[str, int | None]:
    """Host and port that an address leads to; None for the usual ports, so that http may become https.

    Raises:
        ValueError: the address has no valid host or port.
    """
    parts = urlsplit(url)
    port = parts.port
    return parts.hostname or "", None if port in {80, 443} else port


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
