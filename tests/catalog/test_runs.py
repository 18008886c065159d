"""The life of a run: one at a time, resumed, dead, complete; and what it delists."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from catalog.ingest import (
    NotResumable,
    PageFailure,
    RunUnderWay,
    UnknownRun,
    adopt_run,
    announce,
    finish_run,
    heartbeat,
    ingest,
    known_pages,
    record_failed_pages,
    start_run,
)
from catalog.ingest.runs import SILENCE_S
from catalog.models import Book, Change, CrawlRun, FailedPage, RejectedItem
from catalog.records import ScrapedBook
from catalog.revision import current_revision
from tests.catalog.crawled import scraped

pytestmark = pytest.mark.django_db

ALL = [f"u{i}" for i in range(10)]


def crawl(
    upcs: Iterable[str],
    *,
    announced: int | None = None,
    failed: Iterable[str] = (),
    bad: Iterable[str] = (),
    filters: dict[str, Any] | None = None,
    shop: str = "shop",
    **facts: Any,
) -> CrawlRun:
    """A finished run that saw these books now, could not read the failed pages, and read nonsense on the bad ones."""
    run = start_run(shop, "https://shop.example", filters=filters)
    day = (timezone.now() - scraped("x").scraped_at) / timedelta(days=1)
    good = [scraped(upc, day=day, shop=shop, **facts) for upc in upcs]
    nonsense = [scraped(upc, day=day, shop=shop, price="free") for upc in bad]
    ingest([*good, *nonsense], run.pk)
    failures = [PageFailure(f"https://{shop}.example/{upc}", "book", "http_500", "") for upc in failed]
    record_failed_pages(run.pk, failures)
    announce(run.pk, len(good) + len(nonsense) + len(failures) if announced is None else announced)
    return finish_run(run.pk)


def listed() -> set[str]:
    return set(Book.objects.filter(listed=True).values_list("upc", flat=True))


def codes(run: CrawlRun) -> set[str]:
    return {warning["code"] for warning in run.warnings}


# -- complete, and delisting ------------------------------------------------------------------------------------------


def test_a_complete_run_delists_what_it_did_not_see() -> None:
    crawl(ALL)
    run = crawl(ALL[:9])
    assert (run.complete, run.delisted) == (True, 1)
    assert listed() == set(ALL[:9])
    assert Book.objects.count() == 10
    gone = Book.objects.get(upc="u9")
    assert list(Change.objects.filter(kind="delisted").values_list("book", "revision")) == [
        (gone.pk, current_revision())
    ]
    assert gone.updated_at == run.finished_at


def test_a_second_look_delists_nothing_more_and_leaves_the_revision() -> None:
    crawl(ALL)
    crawl(ALL[:9])
    revision = current_revision()
    assert crawl(ALL[:9]).delisted == 0
    assert current_revision() == revision


def test_a_delisted_book_that_comes_back_is_relisted() -> None:
    crawl(ALL)
    crawl(ALL[:9])
    assert crawl(ALL).updated == 1
    assert listed() == set(ALL)


@pytest.mark.parametrize("how", [{"announced": 10}, {"filters": {"limit": 9}}])
def test_a_run_that_is_not_complete_delists_nothing(how: dict[str, Any]) -> None:
    crawl(ALL)
    run = crawl(ALL[:9], **how)
    assert (run.complete, run.delisted, listed()) == (False, 0, set(ALL))
    assert ("sums_do_not_hold" in codes(run)) == ("announced" in how)


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_a_run_that_did_not_finish_delists_nothing(state: str) -> None:
    crawl(ALL)
    run = start_run("shop", "x")
    announce(run.pk, 0)
    ended = finish_run(run.pk, state=state)
    assert (ended.state, ended.complete, listed()) == (state, False, set(ALL))


def test_failed_and_rejected_pages_are_spared() -> None:
    crawl(ALL)
    run = crawl(ALL[:8], failed=["u8"], bad=["u9"])
    assert (run.complete, run.failed_pages, run.rejected, run.seen) == (True, 1, 1, 9)
    assert listed() == set(ALL)


def test_a_book_whose_new_page_was_rejected_is_spared_by_its_upc() -> None:
    crawl(ALL)
    run = start_run("shop", "x")
    ingest([scraped(upc, day=9999) for upc in ALL[:9]], run.pk)
    ingest([scraped("u9", day=9999, price="free", source_url="https://shop.example/moved")], run.pk)
    announce(run.pk, 10)
    assert finish_run(run.pk).complete
    assert listed() == set(ALL)


def test_a_suspect_run_delists_nothing_and_the_next_confirms() -> None:
    crawl(ALL)
    suspect = crawl(ALL[:5])
    assert (suspect.complete, suspect.delisted, listed()) == (True, 0, set(ALL))
    assert {"delisting_withheld", "books_fell"} <= codes(suspect)
    confirming = crawl(ALL[:5])
    assert (confirming.delisted, listed()) == (5, set(ALL[:5]))
    assert "delisting_withheld" not in codes(confirming)


def test_a_first_complete_run_is_measured_by_the_catalogue() -> None:
    crawl(ALL, filters={"limit": 10})
    first = crawl(ALL[:5])
    assert (first.complete, first.delisted) == (True, 0)
    assert "delisting_withheld" in codes(first)


def test_another_shop_is_none_of_its_business() -> None:
    crawl(ALL)
    crawl(["u1"], shop="other")
    assert Book.objects.filter(shop="shop", listed=True).count() == 10


def test_a_book_seen_by_a_later_run_is_not_delisted_by_an_earlier_one() -> None:
    crawl(ALL)
    slow = start_run("shop", "x")
    crawled = [scraped(upc, day=9999) for upc in ALL[:9]]
    ingest(crawled, slow.pk)
    announce(slow.pk, 9)
    file_run = start_run("shop", "f", kind="file")
    ingest([scraped("u9", day=9999)], file_run.pk)
    finish_run(slow.pk)
    assert "u9" in listed()


def test_a_survivor_stays_while_a_upc_merged_into_it_is_seen() -> None:
    crawl(ALL)
    survivor, middle, low = Book.objects.filter(upc__in=["u7", "u8", "u9"]).order_by("upc")
    Book.objects.filter(pk=middle.pk).update(merged_into=survivor)
    Book.objects.filter(pk=low.pk).update(merged_into=middle)
    assert crawl([*ALL[:7], "u9"]).complete
    assert "u7" in listed()


def test_a_survivor_leaves_with_the_last_of_its_upcs() -> None:
    crawl(ALL)
    Book.objects.filter(upc="u9").update(merged_into=Book.objects.get(upc="u8"))
    assert crawl(ALL[:8]).complete
    assert listed() == set(ALL[:8])
    assert list(Change.objects.filter(kind="delisted").values_list("book__upc", flat=True)) == ["u8"]


def test_a_hidden_book_leaves_in_silence() -> None:
    crawl(ALL)
    Book.objects.filter(upc="u9").update(hidden=True)
    revision = current_revision()
    assert crawl(ALL[:9]).delisted == 1
    assert (current_revision(), Book.objects.get(upc="u9").hidden) == (revision, True)


def test_a_book_without_a_source_can_leave() -> None:
    crawl(ALL)
    Book.objects.get(upc="u9").source.delete()
    crawl(ALL[:9])
    assert listed() == set(ALL[:9])


def test_a_run_is_finished_once() -> None:
    crawl(ALL)
    run = crawl(ALL[:9])
    again = finish_run(run.pk, state="failed")
    assert (again.state, again.delisted, again.finished_at) == ("finished", 1, run.finished_at)


# -- what a run tells -------------------------------------------------------------------------------------------------


def test_coverage_is_the_share_of_what_was_read() -> None:
    run = start_run("shop", "x")
    ingest([scraped("u1", authors=("A",)), scraped("u2", description=""), scraped("u3", rating="Six")], run.pk)
    ingest([scraped("u4", title="", price="free")], run.pk)
    coverage = finish_run(run.pk).coverage
    assert coverage == {
        "title": 0.75,
        "authors": 0.25,
        "description": 0.75,
        "category": 1.0,
        "price": 0.75,
        "rating": 0.75,
        "stock": 0.5,  # rejected records name their copies in the availability
        "image_url": 1.0,
    }


def test_what_got_worse_since_the_run_before_is_warned_of() -> None:
    crawl(ALL)
    run = crawl(ALL[:8], description="", price="£99.99", price_excl_tax="£99.99")
    assert codes(run) == {"coverage_fell", "books_fell", "prices_jumped"}
    assert run.price_mean == Decimal("99.9900")


def test_warnings_of_the_caller_are_kept() -> None:
    run = start_run("shop", "x")
    warning = {"code": "shop_slow", "detail": "It took an hour."}
    assert warning in finish_run(run.pk, warnings=[warning]).warnings


def test_failed_list_pages_are_a_warning_not_a_failed_book() -> None:
    run = start_run("shop", "x")
    record_failed_pages(run.pk, [PageFailure("https://shop.example/list", "listing", "timeout", "")])
    ended = finish_run(run.pk)
    assert (ended.failed_pages, "list_pages_failed" in codes(ended)) == (0, True)


def test_a_page_fails_once_a_run_whatever_its_address_holds() -> None:
    run = start_run("shop", "x")
    failure = PageFailure("https://shop.example/\0\ud83d" + "x" * 3000, "book", "odd", "\0" * 600)
    record_failed_pages(run.pk, [failure])
    record_failed_pages(run.pk, [failure, failure])
    assert FailedPage.objects.count() == 1


# -- one at a time, dead and resumed ----------------------------------------------------------------------------------


def test_a_second_crawl_of_a_shop_is_refused_and_another_shop_is_not() -> None:
    run = start_run("shop", "x")
    with pytest.raises(RunUnderWay, match=f"Run {run.pk} of shop is under way") as refused:
        start_run("shop", "x")
    assert refused.value.run == run
    assert start_run("other", "x").state == "running"
    assert start_run("shop", "f", kind="file").state == "running"


def test_the_database_itself_refuses_two_running_crawls() -> None:
    start_run("shop", "x")
    with pytest.raises(IntegrityError), transaction.atomic():
        CrawlRun.objects.create(shop="shop", source="x")


def test_a_run_whose_process_is_gone_is_closed_and_can_be_resumed() -> None:
    run = start_run("shop", "x")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    CrawlRun.objects.filter(pk=run.pk).update(pid=dead.pid, host=socket.gethostname())
    second = start_run("shop", "x")
    run.refresh_from_db()
    assert (run.state, run.finished_at) == ("interrupted", run.heartbeat_at)
    finish_run(second.pk, state="interrupted")
    assert start_run("shop", "x", resume=run.pk).pk == run.pk


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc tells who is dead, on Linux alone")
def test_a_run_whose_process_is_dead_but_was_never_waited_for_is_closed() -> None:
    run = start_run("shop", "x")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    CrawlRun.objects.filter(pk=run.pk).update(pid=dead.pid, host=socket.gethostname())
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and keeps its number
    assert start_run("shop", "x").pk != run.pk
    dead.wait()


def test_a_silent_run_is_dead_and_a_heard_one_is_not() -> None:
    run = start_run("shop", "x")
    silent = timezone.now() - timedelta(seconds=SILENCE_S + 1)
    CrawlRun.objects.filter(pk=run.pk).update(heartbeat_at=silent, host="elsewhere", pid=1)
    heartbeat(run.pk)
    with pytest.raises(RunUnderWay):
        start_run("shop", "x")
    CrawlRun.objects.filter(pk=run.pk).update(heartbeat_at=silent)
    assert start_run("shop", "x").pk != run.pk


def test_a_resumed_run_goes_on_where_it_was() -> None:
    run = start_run("shop", "x")
    ingest([scraped("u1"), scraped("u2", price="free")], run.pk)
    record_failed_pages(run.pk, [PageFailure("https://shop.example/u3", "book", "timeout", "")])
    finish_run(run.pk, state="interrupted")
    resumed = start_run("shop", "x", resume=run.pk)
    assert (resumed.pk, resumed.state, resumed.seen, resumed.finished_at) == (run.pk, "running", 2, None)
    pages = known_pages(run.pk, "shop", [f"https://shop.example/u{i}" for i in range(1, 5)])
    assert {url[-2:]: page.read for url, page in pages.items()} == {"u1": True, "u2": True}
    assert not FailedPage.objects.exists(), "what failed is tried again"
    ingest([scraped("u3")], run.pk)
    announce(run.pk, 3)
    assert finish_run(run.pk).complete


def test_what_cannot_be_resumed() -> None:
    run = start_run("shop", "x")
    with pytest.raises(RunUnderWay):
        start_run("shop", "x", resume=run.pk)
    finish_run(run.pk)
    with pytest.raises(NotResumable, match="finished"):
        start_run("shop", "x", resume=run.pk)
    with pytest.raises(UnknownRun):
        start_run("shop", "x", resume=run.pk + 1)
    with pytest.raises(UnknownRun):
        start_run("other", "x", resume=run.pk)


def test_an_interrupted_run_waits_for_the_one_under_way() -> None:
    run = start_run("shop", "x")
    finish_run(run.pk, state="interrupted")
    other = start_run("shop", "x")
    with pytest.raises(RunUnderWay) as refused:
        start_run("shop", "x", resume=run.pk)
    assert refused.value.run == other


def test_an_adopted_run_belongs_to_this_process() -> None:
    run = adopt_run(start_run("shop", "x").pk)
    assert (run.pid, run.host) == (os.getpid(), socket.gethostname())
    finish_run(run.pk)
    with pytest.raises(NotResumable):
        adopt_run(run.pk)
    with pytest.raises(UnknownRun):
        adopt_run(run.pk + 1)


def test_a_rejected_item_counts_as_read_when_resumed() -> None:
    run = start_run("shop", "x")
    bad: ScrapedBook = scraped("u1", price="free")
    ingest([bad], run.pk)
    finish_run(run.pk, state="interrupted")
    start_run("shop", "x", resume=run.pk)
    ingest([bad], run.pk)
    run.refresh_from_db()
    assert (run.rejected, RejectedItem.objects.count()) == (1, 1)
