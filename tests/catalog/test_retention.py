"""What is forgotten, and what never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.test import Client

from catalog import curation, retention
from catalog.ingest import finish_run, ingest, start_run
from catalog.ingest.published import ingest_published, mark_dead, register
from catalog.models import Book, Change, CrawlRun, DeadLetter, PriceObservation, PublishedBatch, RejectedItem, Sighting
from catalog.records import ScrapedBook
from catalog.retention import prune
from catalog.revision import current_revision
from recommender.models import Interaction
from tests.bookapi.logins import make_user
from tests.catalog.crawled import crawl, crawled, scraped

pytestmark = pytest.mark.django_db

LATER = datetime(2030, 1, 1, tzinfo=UTC)  # by then all is older than 90 days


@pytest.fixture(autouse=True)
def _kept_for_a_while(settings: Any) -> None:
    settings.KEEP_SIGHTINGS_DAYS = settings.KEEP_HISTORY_DAYS = settings.KEEP_REJECTED_DAYS = 90
    settings.KEEP_DEAD_LETTERS_DAYS = settings.KEEP_INTERACTIONS_DAYS = 90


def priced(upc: str, day: int, price: str) -> ScrapedBook:
    return scraped(upc, day, price=price, price_excl_tax=price)


def letter(state: str, **facts: Any) -> DeadLetter:
    settled = None if state == "open" else datetime(2026, 1, 1, tzinfo=UTC)
    return DeadLetter.objects.create(
        message=uuid4().hex, queue="q", reason="failed", body=b"x", state=state, settled_at=settled, **facts
    )


def published(run: CrawlRun, *upcs: str) -> PublishedBatch:
    key = uuid4()
    register(run.pk, key, [scraped(upc) for upc in upcs])
    return PublishedBatch.objects.get(pk=key)


def test_the_newest_sighting_of_each_book_stays() -> None:
    for day in range(4):
        crawl(scraped("a", day), *([scraped("b", day)] if day < 2 else []))
    assert prune(now=LATER)["sightings"] == 4
    assert {(s.book.upc, s.scraped_at.day) for s in Sighting.objects.all()} == {("a", 4), ("b", 2)}
    assert prune(now=LATER)["sightings"] == 0


def test_what_is_stale_is_the_same_after_pruning() -> None:
    crawl(priced("a", 5, "£5.00"))
    crawl(priced("a", 9, "£5.00"))  # unchanged: known by its sighting alone
    prune(now=LATER)
    run = crawl(priced("a", 7, "£7.00"))
    assert (run.stale, run.updated) == (1, 0)
    assert str(Book.objects.get().price) == "5.00"


def test_young_sightings_stay_and_zero_keeps_all(settings: Any) -> None:
    for day in range(3):
        crawl(scraped("a", day))
    assert prune()["sightings"] == 0, "their runs have only just finished"
    settings.KEEP_SIGHTINGS_DAYS = 0
    assert prune(now=LATER)["sightings"] == 0
    assert Sighting.objects.count() == 3


def test_a_run_that_can_be_resumed_keeps_what_it_has_seen() -> None:
    interrupted = start_run("shop", "https://shop.example")
    ingest([scraped("a"), scraped("b", price="cheap")], interrupted.pk)
    curation.dismiss_rejected(RejectedItem.objects.values_list("pk", flat=True))
    finish_run(interrupted.pk, state=CrawlRun.State.INTERRUPTED)
    crawl(scraped("a", 1))
    gone = prune(now=LATER)
    assert (gone["sightings"], gone["rejected items"]) == (0, 0)
    again = start_run("shop", "https://shop.example", resume=interrupted.pk)
    assert ingest([scraped("a"), scraped("b", price="cheap")], again.pk).duplicates == 2


def test_a_run_whose_letters_may_be_replayed_keeps_everything() -> None:
    run = start_run("shop", "https://shop.example")
    arrived, dead = published(run, "a"), published(run, "b")
    ingest_published(arrived.pk, run.pk, [scraped("a")])
    mark_dead(dead.pk)
    letter("open", batch=dead)
    finish_run(run.pk)
    crawl(scraped("a", 1))
    gone = prune(now=LATER)
    assert (gone["sightings"], gone["published batches"]) == (0, 0)
    ingest_published(dead.pk, run.pk, [scraped("b")])
    DeadLetter.objects.update(state="replayed")
    gone = prune(now=LATER)
    assert (gone["sightings"], gone["published batches"]) == (1, 2)


def test_a_run_whose_letters_were_dropped_keeps_its_dead_batch_alone() -> None:
    run = start_run("shop", "https://shop.example")
    arrived, dead = published(run, "a"), published(run, "b")
    ingest_published(arrived.pk, run.pk, [scraped("a")])
    mark_dead(dead.pk)
    letter("dropped", batch=dead)
    finish_run(run.pk)
    crawl(scraped("a", 1))
    gone = prune(now=LATER)
    assert (gone["sightings"], gone["published batches"]) == (1, 1)
    assert PublishedBatch.objects.get() == dead


def test_a_batch_that_is_delivered_again_after_all_is_no_change() -> None:
    run = start_run("shop", "https://shop.example")
    batch = published(run, "a")
    ingest_published(batch.pk, run.pk, [scraped("a")])
    finish_run(run.pk)
    crawl(priced("a", 1, "£9.00"))
    assert prune(now=LATER)["published batches"] == 1
    revision = current_revision()
    ingest_published(batch.pk, run.pk, [scraped("a")])
    assert str(Book.objects.get().price) == "9.00"
    assert current_revision() == revision


def test_a_price_that_was_in_force_then_is_still_known() -> None:
    crawled("a", 0, price="£1.00", price_excl_tax="£1.00")
    for day in (10, 20, 30):
        crawl(priced("a", day, f"£{day}.00"))
    crawled("b", 0)
    now = datetime(2026, 1, 26, tzinfo=UTC) + timedelta(days=90)  # 90 days before it is the 26th, five days before £30
    assert prune(now=now)["price observations"] == 2
    prices = PriceObservation.objects.filter(book__upc="a").order_by("at").values_list("price", flat=True)
    assert [int(p) for p in prices] == [20, 30]
    assert prune(now=LATER)["price observations"] == 1
    assert PriceObservation.objects.count() == 2, "the newest of each book"


def test_readers_of_a_pruned_history_are_told(settings: Any) -> None:
    settings.PUBLIC_READ = True
    crawled("a", 0, price="£1.00", price_excl_tax="£1.00")
    book = crawled("a", 1, price="£2.00", price_excl_tax="£2.00")
    client, address = Client(), f"/api/v1/books/{book.pk}/history"
    tag = client.get(address)["ETag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    prune(now=LATER)
    answer = client.get(address, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert [row["price"] for row in answer.json()["results"]] == [2]


def test_pruning_what_no_reader_sees_moves_no_revision_and_no_change_goes(settings: Any) -> None:
    settings.KEEP_HISTORY_DAYS = 0
    for day in range(3):
        crawl(priced("a", day, f"£{day + 1}.00"), scraped("b", day, price="cheap"))
    curation.dismiss_rejected(RejectedItem.objects.values_list("pk", flat=True))
    letter("dropped")
    before = current_revision(), list(Change.objects.values_list("revision", "id"))
    gone = prune(now=LATER)
    assert (gone["sightings"], gone["rejected items"], gone["dead letters"]) == (2, 3, 1)
    assert (current_revision(), list(Change.objects.values_list("revision", "id"))) == before


def test_what_nobody_has_decided_about_stays() -> None:
    crawl(scraped("a", price="cheap"), scraped("b", price="cheap"))
    curation.dismiss_rejected([RejectedItem.objects.get(upc="b").pk])
    for state in ("open", "replayed", "dropped"):
        letter(state)
    gone = prune(now=LATER)
    assert (gone["rejected items"], gone["dead letters"]) == (1, 2)
    assert RejectedItem.objects.get().upc == "a"
    assert DeadLetter.objects.get().state == "open"


def test_a_batch_with_an_open_letter_stays() -> None:
    run = start_run("shop", "https://shop.example")
    batch, other = published(run, "a"), published(run, "b")
    for each, upc in ((batch, "a"), (other, "b")):
        ingest_published(each.pk, run.pk, [scraped(upc)])
    finish_run(run.pk)
    open_one, replayed = letter("open", batch=batch), letter("replayed", batch=other)
    assert prune(now=LATER)["published batches"] == 1
    open_one.refresh_from_db()
    assert open_one.batch_id == batch.pk
    assert not DeadLetter.objects.filter(pk=replayed.pk).exists()


def test_many_rows_go_in_small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(3):
        crawl(*(scraped(f"u{n}", day) for n in range(12)))
    monkeypatch.setattr(retention, "CHUNK", 5)
    monkeypatch.setattr(retention, "ROUND", 7)
    assert prune(now=LATER)["sightings"] == 24
    assert Sighting.objects.count() == 12


def test_the_command_counts_before_it_deletes(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reader = make_user("reader")
    book = crawled("a")
    for age in (1, 100):
        at = datetime.now(UTC) - timedelta(days=age)
        Interaction.objects.create(account=reader, reader="r", book=book, kind="view", at=at, key=str(age))
    call_command("prune", "--dry-run")
    assert "would be deleted" in capsys.readouterr().out
    assert Interaction.objects.count() == 2
    call_command("prune")
    told = capsys.readouterr().out
    assert "interactions" in told
    assert [i.key for i in Interaction.objects.all()] == ["1"]
    settings.KEEP_INTERACTIONS_DAYS = 0
    call_command("prune")
    assert Interaction.objects.count() == 1
