"""Retries that wait, requests that stay in the shop, and conditions that are only set where they may be."""

from __future__ import annotations

import pytest
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from scrapy.settings import Settings

from catalog.ingest import KnownPage
from crawler.failures import ForeignHost
from crawler.middlewares import LONGEST_DELAY_S, ConditionalRequests, RetryWithBackOff, StayInTheShop
from crawler.pages import PARSER_VERSION
from crawler.spiders.books import BooksSpider, is_loopback

SHOP_URL = "https://shop.example/catalogue"


def crawler_of(start_url: str = SHOP_URL, **settings: object) -> Crawler:
    """A crawler with its spider, before it starts."""
    crawler = Crawler(BooksSpider, Settings(settings))
    crawler.spider = BooksSpider.from_crawler(crawler, start_url=start_url)
    return crawler


@pytest.mark.parametrize(
    ("start_url", "polite"),
    [
        ("https://books.toscrape.com", True),
        ("http://192.168.1.9:8000/", True),
        ("http://localhost.example/", True),
        ("http://127.0.0.1:8765/", False),
        ("http://[::1]:8765/", False),
        ("http://localhost:8765/", False),
    ],
)
def test_shops_elsewhere_are_read_politely_and_those_of_this_machine_at_full_speed(
    start_url: str, polite: bool
) -> None:
    settings = crawler_of(start_url).settings
    assert settings.getbool("AUTOTHROTTLE_ENABLED") is polite
    assert settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN") == (8 if polite else 16)
    assert is_loopback(start_url) is not polite


def test_what_a_person_sets_on_the_command_line_wins_over_the_spider() -> None:
    settings = Settings()
    settings.set("AUTOTHROTTLE_ENABLED", False, priority="cmdline")
    crawler = Crawler(BooksSpider, settings)
    BooksSpider.from_crawler(crawler, start_url=SHOP_URL)
    assert not crawler.settings.getbool("AUTOTHROTTLE_ENABLED")


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": "0"},
        {"limit": "-3"},
        {"limit": "ten"},
        {"limit": "٣"},
        {"resume": "9" * 30},
        {"resume": "1", "run": "2"},
        {"limits": "5"},
        {"start_url": "file:///etc/passwd"},
        {"start_url": "shop.example"},
        {"start_url": "http://"},
        {"start_url": "http://shop.example:port/"},
        {"shop": "two words"},
        {"shop": "x" * 51},
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is .+ needed|Unknown argument: limits|either resume or run"):
        BooksSpider(**arguments)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/book",
        "http://shop.example/book",
        "https://shop.example:443/book",
        "https://SHOP.example/robots.txt",
    ],
)
def test_pages_of_the_shop_are_asked_for(url: str) -> None:
    StayInTheShop.from_crawler(crawler_of()).process_request(Request(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/book",
        "https://www.shop.example/book",
        "https://shop.example:8443/book",
        "http://127.0.0.1/book",
        "http://shop.example@127.0.0.1/book",
    ],
)
def test_other_hosts_are_refused(url: str) -> None:
    with pytest.raises(ForeignHost):
        StayInTheShop.from_crawler(crawler_of()).process_request(Request(url))


def condition_of(page: KnownPage | None, **settings: object) -> bytes | None:
    request = Request(SHOP_URL, meta={} if page is None else {"known_page": page})
    ConditionalRequests.from_crawler(crawler_of(**settings)).process_request(request)  # type: ignore[arg-type]
    return request.headers.get("If-None-Match")


def test_known_page_is_asked_for_only_if_it_changed() -> None:
    assert condition_of(KnownPage("u", '"abc"', PARSER_VERSION)) == b'"abc"'
    assert condition_of(KnownPage("u", '"\xe9"', PARSER_VERSION)) == b'"\xe9"'  # the shop's own bytes


def test_page_is_asked_for_whole_where_its_record_is_needed() -> None:
    assert condition_of(None) is None
    assert condition_of(KnownPage()) is None
    assert condition_of(KnownPage("u", "", PARSER_VERSION)) is None
    assert condition_of(KnownPage("u", '"abc"', PARSER_VERSION - 1)) is None
    assert condition_of(KnownPage("u", '"abc"', PARSER_VERSION), FEEDS={"books.csv": {"format": "csv"}}) is None


@pytest.mark.parametrize(("times", "shortest", "longest"), [(1, 0.18, 0.32), (2, 0.37, 0.63), (3, 0.75, 1.25)])
def test_each_retry_waits_twice_as_long(times: int, shortest: float, longest: float) -> None:
    retry = Request(SHOP_URL, meta={"retry_times": times})
    delays = [RetryWithBackOff._delay_s(retry) for _ in range(200)]
    assert shortest <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize(
    ("header", "expected"), [("2", 2.0), ("86400", LONGEST_DELAY_S), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_waits_as_long_as_the_shop_asks_within_reason(header: str, expected: float | None) -> None:
    response = Response(SHOP_URL, status=503, headers={"Retry-After": header})
    delay = RetryWithBackOff._delay_s(Request(SHOP_URL, meta={"retry_times": 1}), response)
    assert delay == expected if expected is not None else delay < 0.5
