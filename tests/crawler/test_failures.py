"""Why a page gave nothing, in words that stay."""

from __future__ import annotations

import pytest
from scrapy.exceptions import DownloadTimeoutError, IgnoreRequest, ResponseDataLossError
from scrapy.http import Request, Response
from scrapy.spidermiddlewares.httperror import HttpError

from crawler.failures import FailedPages, ForeignHost, asked_for, explain
from crawler.pages import CutShort

URL = "http://shop.example/a"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HttpError(Response(URL, status=404)), "http_404"),
        (IgnoreRequest("Forbidden by robots.txt"), "robots_txt"),
        (IgnoreRequest("max redirections reached"), "redirect_loop"),
        (IgnoreRequest("Ignored response because its body exceeded DOWNLOAD_MAXSIZE (1 B)"), "too_large"),
        (IgnoreRequest("for some new reason"), "ignore_request"),
        (ResponseDataLossError(), "cut_short"),
        (DownloadTimeoutError(), "timeout"),
        (ForeignHost("It leads away."), "foreign_host"),
        (CutShort(), "cut_short"),
        (ZeroDivisionError("division by zero"), "zero_division_error"),
    ],
)
def test_every_failure_has_a_stable_reason_and_a_sentence(error: BaseException, reason: str) -> None:
    told, detail = explain(error)
    assert told == reason
    assert detail


def test_failure_of_a_book_is_told_apart_from_that_of_a_list() -> None:
    failures = FailedPages()
    failures.add(Request(URL, meta={"known_page": object()}), CutShort())
    failures.add(Request(f"{URL}/list"), CutShort())
    assert (failures.books, failures.listings) == (1, 1)
    assert [(f.url, f.kind) for f in failures.take()] == [(URL, "book"), (f"{URL}/list", "listing")]
    assert failures.take() == []


def test_page_is_known_by_the_address_before_any_redirect() -> None:
    assert asked_for(Request(f"{URL}/moved", meta={"redirect_urls": [URL, f"{URL}/between"]})) == URL
    assert asked_for(Request(URL)) == URL


def test_words_of_an_error_can_be_stored_in_any_database() -> None:
    failure = FailedPages().add(Request(URL), ValueError("a\0b\ud800"))
    assert failure.detail == "ab?"
