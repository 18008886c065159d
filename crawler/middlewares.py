"""How requests are made: to the shop alone, again after a failure, and conditionally where the page is known."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Self

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.http import Request, Response

from catalog.ingest import KnownPage
from crawler.failures import ForeignHost
from crawler.pages import PARSER_VERSION
from crawler.spiders.books import BooksSpider, place_of

#: Seconds before the first retry; each further one waits twice as long, up to the longest.
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 30.0


class StayInTheShop:
    """Refuses every request that leads to another host than the crawl's first: links and redirects may lead anywhere.

    Scrapy's own offsite filter would let subdomains and other ports pass, and drops without a word to the spider.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def process_request(self, request: Request, **_: Any) -> None:
        assert isinstance(self.crawler.spider, BooksSpider)  # noqa: S101 - the project has this one alone
        if place_of(request.url) != place_of(self.crawler.spider.start_url):
            raise ForeignHost(f"It leads to {request.url[:200]}, which is not an address of this shop.")


class RetryWithBackOff(RetryMiddleware):
    """Scrapy's retries, each after a pause that doubles, or as long as the shop's `Retry-After` asks for.

    Scrapy retries at once, which a shop in trouble does not need.
    """

    async def process_response(self, request: Request, response: Response) -> Request | Response:  # type: ignore[override]
        result = super().process_response(request, response)
        if isinstance(result, Request):
            await asyncio.sleep(self._delay_s(result, response))
        return result

    async def process_exception(self, request: Request, exception: Exception) -> Request | Response | None:  # type: ignore[override]
        result = super().process_exception(request, exception)
        if isinstance(result, Request):
            await asyncio.sleep(self._delay_s(result))
        return result

    @staticmethod
    def _delay_s(retry: Request, response: Response | None = None) -> float:
        asked = response.headers.get("Retry-After", b"") if response is not None else b""
        if asked and asked.isdigit():
            return min(float(asked), LONGEST_DELAY_S)
        delay: float = FIRST_DELAY_S * 2.0 ** (retry.meta["retry_times"] - 1)
        return min(delay, LONGEST_DELAY_S) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, hides nothing


class ConditionalRequests:
    """Asks for a known page only if it has changed: `If-None-Match` with the ETag that the catalogue keeps.

    Scrapy's HTTP cache is not this. With an old Last-Modified it sends no request at all and misses a change, and it
    serves a cached 200 in place of a 500.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        # A feed holds what was scraped; pages that answer "not modified" would be missing in it.
        return cls(enabled=not crawler.settings.getdict("FEEDS"))

    def process_request(self, request: Request, **_: Any) -> None:
        page: KnownPage | None = request.meta.get("known_page")
        if self.enabled and page is not None and page.etag and page.parser_version == PARSER_VERSION:
            request.headers.setdefault("If-None-Match", page.etag.encode("latin-1", "replace"))
