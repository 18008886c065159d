"""Rows written without instances arrive as Django would have written them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from catalog.bulk import write_rows
from catalog.models import Category, Change, CrawlRun, PriceObservation, Sighting
from tests.factories import unsaved_book

pytestmark = pytest.mark.django_db

NASTY = (
    "",
    "None",
    "NULL",
    "\\N",
    "\\.",
    "before\n\\.\nafter",
    "\ttab\tand\t",
    "line\nline\r\nline\r",
    "\\",
    "ends with \\",
    "\\t \\n \\x41 \\101 \\\\",
    "'single' \"double\" %s %% $1 {braces}",
    "Œuvre 漢字 🙂 e\u0301 \u2028 \x7f \x01",
)
SHELF = ("shop_name", "name", "slug", "name_key")
RUN = tuple(field.attname for field in CrawlRun._meta.concrete_fields if not field.primary_key)


def test_every_text_arrives_as_it_is() -> None:
    write_rows(Category, SHELF, [(text, text, f"shelf-{n}", text) for n, text in enumerate(NASTY)])
    rows = Category.objects.order_by("id").values_list("shop_name", "name", "name_key")
    assert list(rows) == [(text, text, text) for text in NASTY]


def test_every_text_arrives_within_json() -> None:
    document = {"texts": list(NASTY), **{text: text for text in NASTY}}
    assert _written(CrawlRun(shop="shop", filters=document)).filters == document


def test_every_kind_of_value_arrives_as_it_is() -> None:
    west = timezone(timedelta(hours=-5))
    run = CrawlRun(
        shop="shop",
        complete=True,
        seen=3,
        unchanged=3,
        announced=None,
        price_mean=Decimal("12.3400"),
        started_at=datetime(2024, 1, 2, 3, 4, 5, 678901, west),
        finished_at=None,
        heartbeat_at=datetime(2024, 1, 2, tzinfo=UTC),
        warnings=[{"code": "sums_do_not_hold", "detail": None}],
    )
    written = _written(run)
    assert {name: getattr(written, name) for name in RUN} == {name: getattr(run, name) for name in RUN}


def _written(run: CrawlRun) -> CrawlRun:
    write_rows(CrawlRun, RUN, [[getattr(run, name) for name in RUN]])
    return CrawlRun.objects.get()


def test_a_row_with_a_known_key_overwrites_and_the_others_are_inserted() -> None:
    write_rows(Category, SHELF, [("a", "A", "a", "a"), ("b", "B", "b", "b")])
    write_rows(Category, SHELF, [("b", "\\N", "b", "\\."), ("c", "C", "c", "c")], key="shop_name")
    assert list(Category.objects.order_by("id").values_list("name", flat=True)) == ["A", "\\N", "C"]


def test_one_row_that_is_refused_leaves_none_behind() -> None:
    rows = [("a", "A", "a", "a"), ("a", "A", "b", "a")]
    with pytest.raises(IntegrityError), transaction.atomic():
        write_rows(Category, SHELF, rows)
    assert not Category.objects.exists()


def test_a_book_that_is_deleted_takes_its_logs_along() -> None:
    book, at = unsaved_book(), datetime(2024, 1, 1, tzinfo=UTC)
    book.save()
    run = CrawlRun.objects.create(shop="shop", source="")
    Sighting.objects.create(run=run, book=book, page=1, scraped_at=at, fingerprint=1)
    PriceObservation.objects.create(book=book, at=at, price=1, stock=1, rating=1)
    Change.objects.create(book=book, revision=1, kind=Change.Kind.CREATED, at=at)
    book.delete()
    assert [log.objects.count() for log in (Sighting, PriceObservation, Change)] == [0, 0, 0]
