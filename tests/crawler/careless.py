"""A spider whose callback has a mistake, started with `-s SPIDER_MODULES=tests.crawler.careless`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from scrapy.http import Response

from catalog.records import RevisitedBook, ScrapedBook
from crawler.spiders.books import BooksSpider


class CarelessSpider(BooksSpider):
    """Divides by zero on the pages of every tenth book."""

    name = "books"

    async def parse_product(self, response: Response) -> AsyncIterator[ScrapedBook | RevisitedBook]:
        number = int(response.url.split("/")[-2].rpartition("_")[2])
        _ = 1 / (number % 10)
        async for book in super().parse_product(response):
            yield book
