"""Records in any order, in any batches: the same books."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.cleaning import clean
from catalog.ingest import ingest, start_run
from catalog.models import Book, CrawlRun
from catalog.records import IngestCounts, RejectedRecord, RevisitedBook, ScrapedBook, fingerprint
from tests.catalog.crawled import scraped

pytestmark = pytest.mark.django_db

_shops = count(1)

#: Few books and few values, so that records meet, agree and come back to what they were. One in four is no book.
records = st.lists(
    st.builds(
        scraped,
        upc=st.sampled_from(["a1", "a2", "A1"]),
        day=st.integers(0, 8),
        title=st.sampled_from(["One", "Two"]),
        price=st.sampled_from(["£1.00", "£2.00", "£3.00", "free"]),
        price_excl_tax=st.just(""),
        tax=st.just(""),
        category=st.sampled_from(["Poetry", "Fiction"]),
        availability=st.sampled_from(["In stock (1 available)", "Out of stock"]),
    ),
    max_size=12,
    unique_by=lambda r: (r.upc, r.scraped_at),
)


def taken(batches: Iterable[list[ScrapedBook | RevisitedBook]], locked: list[str]) -> tuple[str, IngestCounts]:
    """A new shop whose catalogue has taken the batches, over three books of which some fields are locked."""
    shop = f"order-{next(_shops)}"
    run = start_run(shop, "https://shop.example")
    ingest([replace(scraped(upc, day=-1, title="Zero"), shop=shop) for upc in ("a1", "a2", "A1")], run.pk)
    Book.objects.filter(shop=shop).update(locked_fields=locked)
    total = IngestCounts()
    for batch in batches:
        total += ingest([replace(r, shop=shop) for r in batch], run.pk)
    run.refresh_from_db()
    assert run.seen == total.seen + 3
    return shop, total


def books(shop: str) -> list[dict[str, Any]]:
    names = ("upc", *Book.SCRAPED_FIELDS, "listed", "shop_values", "title_key", "search_key", "source__fingerprint")
    return list(Book.objects.filter(shop=shop).order_by("upc").values(*names))


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_order_and_partition_ends_at_the_latest_valid_record(db: None, data: st.DataObject) -> None:
    in_order = data.draw(records)
    locked = data.draw(st.sampled_from([[], ["price"], ["title", "category"]]))
    shuffled = data.draw(st.permutations(in_order))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(shuffled) - 1)), max_size=4)))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    one, counts = taken([in_order], locked)
    other, other_counts = taken(parts, locked)
    assert books(one) == books(other)
    assert counts.rejected == other_counts.rejected == sum(not is_valid(r) for r in in_order)
    assert counts.seen == other_counts.seen == len(in_order)
    for book in Book.objects.filter(shop=other).select_related("source"):
        valid = [r for r in in_order if r.upc == book.upc and is_valid(r)]
        if valid:
            latest = max(valid, key=lambda r: (r.scraped_at, fingerprint(r)))
            assert book.source.fingerprint == fingerprint(latest)
            assert book.title == ("Zero" if "title" in locked else latest.title)


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_delivered_again_in_any_order_change_nothing(db: None, data: st.DataObject) -> None:
    in_order = data.draw(records)
    shop, _ = taken([in_order], [])
    before = books(shop)
    run = CrawlRun.objects.get(shop=shop)
    again = [replace(r, shop=shop) for r in data.draw(st.permutations(in_order))]
    assert ingest(again, run.pk) == IngestCounts(duplicates=len(again))
    assert books(shop) == before
    later_run = start_run(shop, "x", kind="file")
    counts = ingest(again, later_run.pk)
    assert (counts.created, counts.updated, counts.seen) == (0, 0, len(again))
    assert books(shop) == before


def is_valid(record: ScrapedBook) -> bool:
    try:
        clean(record)
    except RejectedRecord:
        return False
    return True
