"""The pipeline on a real database: batches, patience, and the end of a crawl whose catalogue is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError
from scrapy.crawler import Crawler
from scrapy.http import Request
from scrapy.settings import Settings

from catalog.ingest import start_run
from catalog.models import Book, CrawlRun, FailedPage
from catalog.records import ScrapedBook
from crawler import pipelines
from crawler.catalogue import Catalogue
from crawler.pages import CutShort
from crawler.pipelines import CataloguePipeline
from crawler.spiders.books import BooksSpider

START = datetime(2026, 1, 1, tzinfo=UTC)


def scraped(n: int, **fields: Any) -> ScrapedBook:
    told: dict[str, Any] = {
        "shop": "practice",
        "source_url": f"http://127.0.0.1/book_{n}",
        "scraped_at": START + timedelta(seconds=n),
        "upc": f"upc-{n}",
        "title": f"Book {n}",
        "category": "Travel",
        "price": "£10.00",
        "price_excl_tax": "£10.00",
        "tax": "£0.00",
        "rating": "Three",
        "availability": "In stock (3 available)",
        "review_count": "0",
    }
    return ScrapedBook(**(told | fields))


@pytest.fixture
def pipeline(db: None, monkeypatch: pytest.MonkeyPatch) -> CataloguePipeline:
    """The pipeline of a crawl whose run is open, with batches of ten and no patience."""
    monkeypatch.setattr(pipelines, "BATCH_SIZE", 10)
    crawler = Crawler(BooksSpider, Settings({"CATALOGUE_RETRY_PAUSES_S": [0, 0]}))
    spider = BooksSpider.from_crawler(crawler, start_url="http://127.0.0.1:9", shop="practice")
    spider.run_id = start_run("practice", "http://127.0.0.1:9").pk
    crawler.spider = spider
    return CataloguePipeline.from_crawler(crawler)


def test_full_batch_is_written_and_the_rest_at_the_end(pipeline: CataloguePipeline) -> None:
    async def crawl() -> list[int]:
        await pipeline.open_spider()
        after_each = []
        for n in range(25):
            assert await pipeline.process_item(scraped(n)) == scraped(n)
            after_each.append(len(pipeline.batch))
        await pipeline.close_spider()
        return after_each

    assert async_to_sync(crawl)() == [*range(1, 10), 0, *range(1, 10), 0, *range(1, 6)]
    assert Book.objects.count() == CrawlRun.objects.get().seen == 25


def test_items_that_arrive_while_a_batch_is_written_are_neither_lost_nor_written_twice(
    pipeline: CataloguePipeline,
) -> None:
    async def crawl() -> None:
        await pipeline.open_spider()
        await asyncio.gather(*(pipeline.process_item(scraped(n)) for n in range(95)))
        await pipeline.close_spider()

    async_to_sync(crawl)()
    assert Book.objects.count() == CrawlRun.objects.get().seen == 95


def test_failed_pages_are_kept_even_if_no_book_was_read(pipeline: CataloguePipeline) -> None:
    pipeline.spider.failures.add(Request("http://127.0.0.1:9/list"), CutShort())
    async_to_sync(pipeline.close_spider)()
    assert FailedPage.objects.get().reason == "cut_short"


def test_batch_that_cannot_be_written_ends_the_crawl_and_says_why(
    pipeline: CataloguePipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(BooksSpider, "give_up", lambda _, trouble: ended.append(trouble))

    async def crawl() -> None:
        for n in range(10):
            await pipeline.process_item(scraped(n, shop="another"))

    async_to_sync(crawl)()
    assert ended == [
        "The catalogue could not be written: ValueError: A record of 'another' was handed to a run of 'practice'."
    ]
    assert "a batch could not be written" in caplog.text
    assert Book.objects.count() == CrawlRun.objects.get().seen == 0


# -- patience ---------------------------------------------------------------------------------------------------------


def failing(*errors: Exception) -> Callable[[], str]:
    """A function that raises the errors, one a call, and then answers."""
    left = list(errors)

    def function() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return function


@pytest.mark.django_db
def test_catalogue_is_tried_again_while_it_is_out_of_reach() -> None:
    catalogue = Catalogue([0, 0])
    answer = async_to_sync(catalogue.call)(failing(OperationalError("locked"), InterfaceError("closed")))
    assert (answer, catalogue.lost) == ("written", False)


@pytest.mark.django_db
def test_catalogue_that_stays_out_of_reach_is_lost_and_asked_once_more_only() -> None:
    catalogue = Catalogue([0])
    call = async_to_sync(catalogue.call)
    with pytest.raises(OperationalError, match="second"):
        call(failing(OperationalError("first"), OperationalError("second")))
    assert catalogue.lost
    with pytest.raises(OperationalError, match="third"):
        call(failing(OperationalError("third"), AssertionError("asked again")))
    assert call(failing()) == "written"


@pytest.mark.django_db
def test_mistakes_are_not_repeated() -> None:
    with pytest.raises(ValueError, match="no record"):
        async_to_sync(Catalogue([0, 0]).call)(failing(ValueError("no record"), AssertionError("asked again")))
