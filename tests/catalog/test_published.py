"""Batches of the queue on a real database: settled once, given up, taken up again, and the runs that wait for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.db import DataError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.ingest import (
    CrawlRun,
    RunUnderWay,
    UnknownRun,
    announce,
    finish_run,
    ingest,
    ingest_published,
    known_pages,
    pending_records,
    register,
    settle,
    start_run,
    unsettled_pages,
)
from catalog.ingest import published as module
from catalog.ingest.published import mark_dead, mark_pending, note_error
from catalog.models import Book, PublishedBatch, Sighting
from catalog.records import IngestCounts, RevisitedBook, ScrapedBook, page_key, read_from_json
from tests.catalog.crawled import crawled, scraped

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> CrawlRun:
    run = start_run("shop", "https://shop.example")
    announce(run.pk, 3)
    return run


@pytest.fixture(autouse=True)
def _sums_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, published = seen + what is pending."""
    yield
    for run in CrawlRun.objects.filter(published__gt=0):
        assert run.published == run.seen + pending_records(run.pk)


def published(run: CrawlRun, *upcs: str) -> tuple[UUID, list[ScrapedBook]]:
    key, records = uuid4(), [scraped(upc) for upc in upcs]
    assert register(run.pk, key, records)
    return key, records


def codes(run: CrawlRun) -> set[str]:
    run.refresh_from_db()
    return {warning["code"] for warning in run.warnings}


# --- One batch --------------------------------------------------------------------------------------------------------
def test_batch_is_written_down_once(run: CrawlRun) -> None:
    key, records = published(run, "a", "b")
    assert not register(run.pk, key, records)
    run.refresh_from_db()
    assert (run.published, run.seen) == (2, 0)


def test_batch_of_no_run_is_refused() -> None:
    with pytest.raises(UnknownRun):
        register(1, uuid4(), [scraped("a")])
    assert not PublishedBatch.objects.exists()


def test_batch_that_is_delivered_twice_is_counted_once(run: CrawlRun) -> None:
    key, records = published(run, "a", "b")
    assert ingest_published(key, run.pk, records) == IngestCounts(created=2)
    assert ingest_published(key, run.pk, records) == IngestCounts()
    run.refresh_from_db()
    assert (run.seen, run.created, Sighting.objects.count()) == (2, 2, 2)
    batch = PublishedBatch.objects.get()
    assert (batch.state, batch.pages) == ("settled", [])


def test_batch_takes_the_lock_of_the_catalogue_once(run: CrawlRun) -> None:
    key, records = published(run, "a", "b")
    with CaptureQueriesContext(connection) as queries:
        ingest_published(key, run.pk, records)
    reads = [q["sql"] for q in queries if "catalog_cataloguerevision" in q["sql"] and q["sql"].startswith("SELECT")]
    assert len(reads) == 1


def test_batch_that_was_never_written_down_is_when_it_arrives(run: CrawlRun) -> None:
    ingest_published(uuid4(), run.pk, [scraped("a")])
    run.refresh_from_db()
    assert (run.published, run.seen) == (1, 1)


def test_batch_that_cannot_be_written_stays_pending_and_leaves_nothing(
    run: CrawlRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, records = published(run, "a")
    write = module.write

    def break_afterwards(*arguments: Any) -> IngestCounts:
        write(*arguments)
        assert Book.objects.exists()
        raise DataError("a disk is full")

    monkeypatch.setattr(module, "write", break_afterwards)
    with pytest.raises(DataError):
        ingest_published(key, run.pk, records)
    note_error(key, DataError("a disk\0is full"))
    assert not Book.objects.exists()
    batch = PublishedBatch.objects.get()
    assert (batch.state, batch.error) == ("pending", "DataError: a disk\\x00is full")


def test_record_that_was_counted_before_is_not_missed(run: CrawlRun) -> None:
    ingest([scraped("a")], run.pk)
    CrawlRun.objects.update(published=1)
    key, records = published(run, "a", "b")
    assert ingest_published(key, run.pk, records) == IngestCounts(created=1, duplicates=1)
    run.refresh_from_db()
    assert (run.published, run.seen) == (2, 2)


@pytest.mark.parametrize(
    "read",
    [
        scraped("a", authors=("Ann", "Bo"), title="half \ud800 a pair and \0", etag='"1"'),
        RevisitedBook("shop", "a", "https://shop.example/a", timezone.now()),
    ],
)
def test_records_come_out_of_json_as_they_went_in(read: ScrapedBook | RevisitedBook) -> None:
    assert read_from_json(json.loads(json.dumps(read.to_json()))) == read


# --- Given up ---------------------------------------------------------------------------------------------------------
def test_dead_batch_counts_as_dead_once_and_as_what_it_became_when_it_comes_after_all(run: CrawlRun) -> None:
    key, records = published(run, "a", "b")
    assert mark_dead(key)
    assert not mark_dead(key)
    run.refresh_from_db()
    assert (run.seen, run.dead) == (2, 2)
    assert ingest_published(key, run.pk, records) == IngestCounts(created=2)
    run.refresh_from_db()
    assert (run.seen, run.dead, run.created) == (2, 0, 2)
    assert not mark_dead(key)


def test_run_that_was_complete_with_a_dead_batch_is_closed_anew_when_that_comes_after_all(run: CrawlRun) -> None:
    good, bad = published(run, "a", "b"), published(run, "c")
    ingest_published(good[0], run.pk, good[1])
    mark_dead(bad[0])
    assert finish_run(run.pk).complete
    assert codes(run) == {"dead"}
    ingest_published(bad[0], run.pk, bad[1])
    assert codes(run) == set()
    assert (run.complete, run.seen, run.dead) == (True, 3, 0)


def test_dead_batch_can_be_pending_again(run: CrawlRun) -> None:
    key, records = published(run, "a")
    assert not mark_pending(key)
    mark_dead(key)
    assert mark_pending(key)
    run.refresh_from_db()
    assert (run.seen, run.dead) == (0, 0)
    assert ingest_published(key, run.pk, records).created == 1


# --- The run ----------------------------------------------------------------------------------------------------------
def test_run_that_has_read_everything_settles_with_the_last_batch(run: CrawlRun) -> None:
    first, second = published(run, "a", "b"), published(run, "c")
    assert finish_run(run.pk).state == "settling"
    ingest_published(first[0], run.pk, first[1])
    run.refresh_from_db()
    assert (run.state, run.complete, run.finished_at) == ("settling", False, None)
    ingest_published(second[0], run.pk, second[1])
    run.refresh_from_db()
    assert (run.state, run.complete, run.seen) == ("finished", True, 3)
    assert not run.warnings


def test_run_whose_batches_have_all_arrived_is_finished_at_once(run: CrawlRun) -> None:
    key, records = published(run, "a", "b", "c")
    ingest_published(key, run.pk, records)
    assert finish_run(run.pk).complete


def test_batch_that_dies_settles_the_run_too_and_spares_its_books(run: CrawlRun) -> None:
    finish_run(run.pk, state="failed")
    crawled("gone")
    crawled("c")
    run = start_run("shop", "https://shop.example")
    announce(run.pk, 5)
    good, bad = published(run, "a", "b", "d", "e"), published(run, "c")
    finish_run(run.pk)
    ingest_published(good[0], run.pk, good[1])
    mark_dead(bad[0])
    run.refresh_from_db()
    assert (run.state, run.complete, run.dead) == ("finished", True, 1)
    assert codes(run) == {"dead"}
    assert set(Book.objects.filter(listed=True).values_list("upc", flat=True)) == {*"abcde"}


def test_no_crawl_of_a_shop_starts_while_the_one_before_is_settling(run: CrawlRun) -> None:
    key, records = published(run, "a")
    finish_run(run.pk)
    with pytest.raises(RunUnderWay) as refused:
        start_run("shop", "https://shop.example")
    assert refused.value.run == run
    PublishedBatch.objects.filter(pk=key).update(state="settled")  # as a worker that died right after its commit
    CrawlRun.objects.filter(pk=run.pk).update(created=1, seen=1)
    assert start_run("shop", "https://shop.example").pk != run.pk
    run.refresh_from_db()
    assert run.state == "finished"
    assert len(records) == 1


def test_run_that_has_not_moved_for_too_long_ends_without_being_complete(run: CrawlRun) -> None:
    key, records = published(run, "a", "b", "c")
    finish_run(run.pk)
    with time_machine.travel(timezone.now() + timedelta(seconds=3500)):
        assert settle(run.pk).state == "settling"
    with time_machine.travel(timezone.now() + timedelta(seconds=3700)):
        assert settle(run.pk).state == "finished"
    assert codes(run) == {"not_settled", "sums_do_not_hold"}
    assert not run.complete

    ingest_published(key, run.pk, records)  # it comes late, and heals the run
    run.refresh_from_db()
    assert (run.complete, run.warnings) == (True, [])


def test_late_batch_whose_worker_died_before_it_closed_the_run_closes_it_when_it_is_delivered_again(
    run: CrawlRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, records = published(run, "a", "b", "c")
    finish_run(run.pk)
    with time_machine.travel(timezone.now() + timedelta(hours=2)):
        settle(run.pk)
    with monkeypatch.context() as patch:
        patch.setattr(module, "settle", lambda _run: None)
        ingest_published(key, run.pk, records)
    run.refresh_from_db()
    assert (run.seen, run.complete) == (3, False)
    assert ingest_published(key, run.pk, records) == IngestCounts()
    run.refresh_from_db()
    assert (run.seen, run.complete, run.warnings) == (3, True, [])


def test_late_run_delists_unless_a_newer_one_knows_better() -> None:
    crawled("gone")
    for newer in (True, False):
        run = start_run("shop", "https://shop.example")
        announce(run.pk, 1)
        key, records = published(run, f"book-{newer}")
        finish_run(run.pk)
        with time_machine.travel(timezone.now() + timedelta(hours=2)):
            settle(run.pk)
        after = start_run("shop", "https://shop.example") if newer else None
        ingest_published(key, run.pk, records)
        run.refresh_from_db()
        assert run.complete
        assert Book.objects.get(upc="gone").listed is newer
        if after is not None:
            finish_run(after.pk, state="failed")


def test_sums_that_do_not_hold_are_told(run: CrawlRun) -> None:
    key, records = published(run, "a", "b", "c")
    ingest_published(key, run.pk, records)
    CrawlRun.objects.update(published=5)
    assert not finish_run(run.pk).complete
    assert "queue_sums_do_not_hold" in codes(run)
    CrawlRun.objects.update(published=3)


def test_run_that_was_stopped_does_not_wait(run: CrawlRun) -> None:
    key, records = published(run, "a")
    assert finish_run(run.pk, state="interrupted").state == "interrupted"
    ingest_published(key, run.pk, records)
    run.refresh_from_db()
    assert (run.state, run.seen) == ("interrupted", 1)


def test_pages_in_the_queue_are_not_read_again_by_a_run_that_goes_on(run: CrawlRun) -> None:
    published(run, "pending")
    dead, _ = published(run, "dead")
    mark_dead(dead)
    settled, records = published(run, "settled")
    ingest_published(settled, run.pk, records)
    finish_run(run.pk, state="interrupted")
    assert start_run("shop", "https://shop.example", resume=run.pk) == run
    urls = [f"https://shop.example/{upc}" for upc in ("pending", "dead", "settled", "new")]
    assert unsettled_pages(run.pk) == {page_key("shop", url, "") for url in urls[:2]}
    known = known_pages(run.pk, "shop", urls, unsettled_pages(run.pk))
    assert [url for url in urls if url in known and known[url].read] == urls[:3]


def test_run_that_goes_on_with_a_queue_counts_what_it_read_without_one(run: CrawlRun, settings: Any) -> None:
    ingest([scraped("a")], run.pk)
    finish_run(run.pk, state="interrupted")
    settings.BROKER_URL = "amqp://127.0.0.1"
    start_run("shop", "https://shop.example", resume=run.pk)
    key, records = published(run, "b", "c")
    ingest_published(key, run.pk, records)
    assert finish_run(run.pk).complete


def test_run_that_goes_on_counts_what_is_in_the_queue_while_no_worker_can_move_it(run: CrawlRun, settings: Any) -> None:
    published(run, "a")
    finish_run(run.pk, state="interrupted")
    settings.BROKER_URL = "amqp://127.0.0.1"
    with CaptureQueriesContext(connection) as queries:
        start_run("shop", "https://shop.example", resume=run.pk)
    statements = [query["sql"] for query in queries]
    locked = next(n for n, sql in enumerate(statements) if "catalog_cataloguerevision" in sql)
    counted = next(n for n, sql in enumerate(statements) if "SUM(" in sql)
    assert locked < counted


def test_run_that_goes_on_without_a_queue_is_not_measured_by_it(run: CrawlRun) -> None:
    key, records = published(run, "a")
    ingest_published(key, run.pk, records)
    finish_run(run.pk, state="interrupted")
    start_run("shop", "https://shop.example", resume=run.pk)
    ingest([scraped("b"), scraped("c")], run.pk)
    assert finish_run(run.pk).complete


def test_settling_a_run_that_is_being_read_costs_one_query(run: CrawlRun, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        settle(run.pk)
