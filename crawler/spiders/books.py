"""Which pages of a book shop to visit. What is on them is the business of `crawler.pages`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import scrapy
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from catalog.ingest import CrawlRun, IngestError, KnownPage, adopt_run, announce, known_pages, start_run
from catalog.records import IngestCounts, RevisitedBook, ScrapedBook
from crawler.failures import FailedPages
from crawler.pages import PageError, parse_book, parse_listing

#: Pages of a list that are asked for ahead of the books: enough that the books never wait for the next list page,
#: few enough that a shop of a million books does not fill the memory with requests.
LOOK_AHEAD = 2


class BooksSpider(scrapy.Spider):
    """Reads a whole shop through its list pages.

    Arguments (`-a name=value`):
        start_url: the shop's first page; the configured shop by default.
        shop: the slug under which its books are kept; the configured one by default.
        category: name or slug of the one category to read.
        limit: how many books to read at most.
        resume: number of an interrupted run to go on with.
        run: number of a run that was opened for this process.
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
        self.start_url = start_url or django_settings.SHOP_URL
        self.shop = shop or django_settings.SHOP_NAME
        self.category = category
        self.limit = _positive("limit", limit)
        self.resume = _positive("resume", resume)
        self.opened_run = _positive("run", run)
        self.run_id = 0  # of the run, once it is open
        self.announced: int | None = None
        self.requested = 0
        self.counts = IngestCounts()  # what ingest made of the records so far
        self.failures = FailedPages()
        self.trouble: str | None = None  # why the run cannot end well
        self.ended: CrawlRun | None = None  # the run as it was closed
        if kwargs:
            raise ValueError(f"Unknown argument: {', '.join(kwargs)}")

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        # A shop on this machine is for tests and benchmarks, and is read at full speed; any other one politely.
        if is_loopback(spider.start_url):
            crawler.settings.set("CONCURRENT_REQUESTS_PER_DOMAIN", 16, priority="spider")
        else:
            crawler.settings.set("AUTOTHROTTLE_ENABLED", True, priority="spider")
        return spider

    async def start(self) -> AsyncIterator[Request]:
        try:
            await self._open_run()
        except IngestError as error:
            self.trouble = str(error)
            return
        if self.category:
            yield self._list_request(self.start_url, number=0, callback=self.find_category)
        else:
            yield self._list_request(self.start_url, number=0)

    async def _open_run(self) -> None:
        """Open, resume or take over the run."""
        run_id = self.opened_run
        if run_id is None:
            filters = {name: value for name in ("category", "limit") if (value := getattr(self, name))}
            opened = await sync_to_async(start_run)(self.shop, self.start_url, filters=filters, resume=self.resume)
            run_id = opened.pk
        run = await sync_to_async(adopt_run)(run_id)
        self.run_id = run_id
        self.logger.info("run started", extra={"run_id": run.pk, "shop": self.shop, "source": self.start_url})

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
        wanted = self.category.casefold()
        for link in parse_listing(response.body, response.url).categories:
            slug = link.url.rstrip("/").split("/")[-2].rpartition("_")[0]
            if wanted in {link.name.casefold(), slug}:
                yield self._list_request(link.url, number)
                return
        self.trouble = f"The shop has no category {self.category!r}."

    async def parse_list(self, response: Response, number: int) -> AsyncIterator[Request]:
        """Ask for the books of a list page that this run has not read, and for the next page."""
        try:
            listing = parse_listing(response.body, response.url)
        except PageError as error:
            self.failures.add(_request_of(response), error)
            return
        if self.announced is None and listing.announced is not None:
            self.announced = listing.announced
            await sync_to_async(announce)(self.run_id, listing.announced)
        known = await sync_to_async(known_pages)(self.run_id, self.shop, listing.book_urls)
        wanted = [url for url in listing.book_urls if not known.get(url, KnownPage()).read]
        if self.limit is not None:
            wanted = wanted[: self.limit - self.requested]
        self.requested += len(wanted)
        if listing.next_url and (self.limit is None or self.requested < self.limit):
            yield self._list_request(listing.next_url, number + 1)
        for url in wanted:
            yield self._book_request(url, known.get(url, KnownPage()), number)

    def _book_request(self, url: str, page: KnownPage, number: int) -> Request:
        return Request(
            url,
            callback=self.parse_product,
            errback=self.page_failed,
            meta={"known_page": page, "handle_httpstatus_list": [304]},
            priority=-number,
        )

    async def parse_product(self, response: Response) -> AsyncIterator[ScrapedBook | RevisitedBook]:
        url = _request_of(response).url
        now = datetime.now(UTC)
        if response.status == 304:
            yield RevisitedBook(self.shop, response.meta["known_page"].upc, url, now)
            return
        try:
            etag = (response.headers.get("ETag") or b"").decode("latin-1")
            yield parse_book(response.body, url, shop=self.shop, scraped_at=now, etag=etag)
        except PageError as error:
            self.failures.add(_request_of(response), error)

    async def page_failed(self, failure: Failure) -> None:
        self.failures.add(failure.request, failure.value)  # type: ignore[attr-defined, arg-type]  # Scrapy adds it


def _request_of(response: Response) -> Request:
    """What was asked for; a response that comes to a callback always knows it."""
    assert response.request is not None  # noqa: S101
    return response.request


def _positive(name: str, value: str) -> int | None:
    """The argument as a number from 1, or None where it was not given."""
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ValueError(f"{name} is {value!r}: a whole number from 1 is needed.")
    return int(value)


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
