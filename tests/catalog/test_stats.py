"""The statistics against NumPy, pandas and SciPy, and against the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isclose, isnan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from catalog import stats
from catalog.memo import forget_all
from catalog.models import CrawlRun
from catalog.revision import current_revision
from catalog.stats import Columns, Statistics, compute, last_crawl, statistics, summarize
from tests.factories import change_book, make_book, make_books

NAMES = {1: ("Travel", "travel"), 2: ("Art", "art"), 3: ("Mystery", "mystery"), 9: ("Empty", "empty")}
HIGHEST = 9_999_999_999  # pennies: the most that the price column holds

books = st.tuples(
    st.one_of(st.integers(0, HIGHEST), st.integers(1000, 1020)),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3]),
    st.just("GBP"),
)


def summary(*rows: tuple[int, int, int, int, str]) -> Statistics:
    return summarize(Columns.of_rows(rows), NAMES)


def same(ours: float | None, theirs: float, *, tolerance: float = 1e-6) -> bool:
    if ours is None:
        return isnan(theirs)
    return isclose(ours, theirs, rel_tol=1e-9, abs_tol=tolerance)


@given(st.lists(books, min_size=1, max_size=60))
def test_prices_are_what_pandas_says(rows: list[Any]) -> None:
    prices = summary(*rows).prices
    series = pd.Series([row[0] for row in rows]) / 100
    half_a_penny = 0.0051
    assert prices.minimum == Decimal(min(row[0] for row in rows)) / 100
    assert prices.maximum == Decimal(max(row[0] for row in rows)) / 100
    assert prices.mean is not None
    assert prices.median is not None
    assert prices.q1 is not None
    assert prices.q3 is not None
    assert same(float(prices.mean), series.mean(), tolerance=half_a_penny)
    assert same(float(prices.median), series.median(), tolerance=half_a_penny)
    assert same(float(prices.q1), series.quantile(0.25), tolerance=half_a_penny)
    assert same(float(prices.q3), series.quantile(0.75), tolerance=half_a_penny)
    stddev = None if prices.stddev is None else float(prices.stddev)
    assert same(stddev, series.std(), tolerance=half_a_penny)


@given(st.lists(books, min_size=1, max_size=60))
def test_the_histogram_is_numpys_and_agrees_with_the_edges_it_shows(rows: list[Any]) -> None:
    pennies = [row[0] for row in rows]
    bins = summary(*rows).prices.histogram
    assert len(bins) == 10
    assert sum(b.count for b in bins) == len(rows)
    _, edges = np.histogram(np.array(pennies) / 100, bins=10)
    shown = [float(b.start) for b in bins] + [float(bins[-1].end)]
    assert all(isclose(ours, theirs, rel_tol=1e-9, abs_tol=0.0101) for ours, theirs in zip(shown, edges, strict=True))
    for number, b in enumerate(bins):
        last = number == 9
        inside = [p for p in pennies if b.start * 100 <= p and (p < b.end * 100 or (last and p == b.end * 100))]
        assert len(inside) == b.count


@given(st.lists(books, min_size=2, max_size=60))
def test_correlations_are_what_scipy_says(rows: list[Any]) -> None:
    found = summary(*rows).correlation
    pennies, ratings = [row[0] for row in rows], [row[1] for row in rows]
    assert found.n == len(rows)
    if len(set(pennies)) == 1 or len(set(ratings)) == 1:
        assert found.pearson is None
        assert found.spearman is None
        return
    assert same(found.pearson, scipy.stats.pearsonr(pennies, ratings).statistic)
    assert same(found.spearman, scipy.stats.spearmanr(pennies, ratings).statistic)


@given(st.lists(books, max_size=60))
def test_counts_and_categories_are_what_pandas_says(rows: list[Any]) -> None:
    found = summary(*rows)
    frame = pd.DataFrame(rows, columns=["price", "rating", "stock", "category", "currency"])
    assert found.total == len(rows)
    assert found.in_stock == (frame["stock"] > 0).sum()
    assert found.stock_units == frame["stock"].sum()
    assert found.ratings == tuple((frame["rating"] == stars).sum() for stars in range(1, 6))
    assert same(found.rating_mean, frame["rating"].mean() if len(rows) else float("nan"))
    groups = {NAMES[key][0]: group for key, group in frame.groupby("category")}
    assert [c.name for c in found.categories] == sorted(groups)
    for category in found.categories:
        group = groups[category.name]
        assert category.count == len(group)
        assert category.in_stock == (group["stock"] > 0).sum()
        assert category.stock_units == group["stock"].sum()
        assert same(category.rating_mean, group["rating"].mean())
        assert category.prices.median is not None
        assert same(float(category.prices.median), group["price"].median() / 100, tolerance=0.0051)


def test_the_order_in_which_a_database_hands_out_books_changes_nothing() -> None:
    generator = np.random.default_rng(7)
    rows = [
        (int(p), int(r), int(s), int(c), "GBP" if p % 3 else "EUR")
        for p, r, s, c in zip(
            generator.integers(0, HIGHEST, 500),
            generator.integers(1, 6, 500),
            generator.integers(0, 50, 500),
            generator.integers(1, 4, 500),
            strict=True,
        )
    ]
    assert summary(*rows) == summary(*reversed(rows))


def test_an_empty_catalogue_has_statistics() -> None:
    found = summary()
    assert found.total == found.in_stock == found.stock_units == 0
    assert found.prices.currency is None
    assert found.prices.mean is None
    assert found.prices.histogram == ()
    assert found.rating_mean is None
    assert found.ratings == (0, 0, 0, 0, 0)
    assert (found.correlation.pearson, found.correlation.n) == (None, 0)
    assert found.categories == ()


def test_one_book_has_a_median_but_no_deviation() -> None:
    prices = summary((1999, 4, 1, 1, "GBP")).prices
    assert prices.median == prices.q1 == prices.q3 == prices.mean == Decimal("19.99")
    assert prices.stddev is None
    assert [b.count for b in prices.histogram] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_books_of_one_price_do_not_correlate_and_do_not_deviate() -> None:
    found = summary((1999, 1, 1, 1, "GBP"), (1999, 5, 1, 1, "GBP"), (1999, 3, 1, 1, "GBP"))
    assert found.prices.stddev == Decimal("0.00")
    assert found.correlation.pearson is None
    assert found.correlation.spearman is None
    assert found.correlation.n == 3


def test_prices_of_other_currencies_are_not_mixed_in() -> None:
    found = summary((1000, 1, 1, 1, "GBP"), (2000, 2, 1, 1, "GBP"), (900_000, 5, 1, 2, "JPY"))
    assert found.prices.currency == "GBP"
    assert found.prices.maximum == Decimal("20.00")
    assert found.correlation.n == 2
    assert found.total == 3
    assert found.ratings == (1, 1, 0, 0, 1)
    art = next(category for category in found.categories if category.name == "Art")
    assert art.count == 1
    assert art.prices.mean is None


def test_of_equally_frequent_currencies_the_first_by_name_is_taken() -> None:
    assert summary((1000, 1, 1, 1, "GBP"), (2000, 2, 1, 1, "EUR")).prices.currency == "EUR"


@pytest.mark.parametrize("price", [0, HIGHEST])
def test_extreme_prices_are_exact(price: int) -> None:
    found = summary(*[(price, 1, 0, 1, "GBP")] * 1000).prices
    assert found.mean == found.minimum == found.maximum == Decimal(price) / 100
    assert found.stddev == Decimal("0.00")


# --- From the database ------------------------------------------------------------------------------------------------
@pytest.fixture
def _forgetful() -> Iterator[None]:
    forget_all()
    yield
    forget_all()


@pytest.mark.django_db
def test_only_listed_and_visible_books_count() -> None:
    make_book(price="10.00", stock=2)
    make_book(price="20.00", listed=False)
    make_book(price="30.00", hidden=True)
    make_book(price="40.00", merged_into=make_book(price="50.05", stock=3))
    found = compute()
    assert found.total == 2
    assert found.stock_units == 5
    assert found.prices.minimum == Decimal("10.00")
    assert found.prices.maximum == Decimal("50.05")


@pytest.mark.django_db
def test_a_shop_has_statistics_of_its_own() -> None:
    make_book(shop="here", category="Art")
    make_book(shop="there", category="Travel")
    assert compute().total == 2
    found = compute("here")
    assert found.total == 1
    assert [category.slug for category in found.categories] == ["art"]


@pytest.mark.django_db
def test_pennies_survive_the_database() -> None:
    prices = ["0.01", "0.29", "1.15", "19.99", "1111111.11", "99999999.99"]
    for price in prices:
        make_book(price=price)
    assert compute().prices.mean == (sum(map(Decimal, prices)) / 6).quantize(Decimal("0.01"))


@pytest.mark.django_db
@pytest.mark.usefixtures("_forgetful")
@pytest.mark.parametrize("books", [2, 200])
def test_statistics_take_four_queries_and_one_while_the_revision_stands(
    books: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_books(books)
    with django_assert_num_queries(4):  # revision, books, categories, revision again
        first = statistics()
    with django_assert_num_queries(1):  # revision
        assert statistics() is first
    with django_assert_num_queries(0):  # the caller knows the revision
        assert statistics(revision=first.revision) is first


@pytest.mark.django_db
@pytest.mark.usefixtures("_forgetful")
def test_statistics_are_computed_anew_when_the_revision_moved() -> None:
    book = make_book(price="10.00")
    assert statistics().prices.mean == Decimal("10.00")
    change_book(book, price=Decimal("12.00"))
    assert statistics().prices.mean == Decimal("12.00")


@pytest.mark.django_db
@pytest.mark.usefixtures("_forgetful")
def test_statistics_that_a_writer_overtook_are_not_kept_under_the_old_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book = make_book(price="10.00")
    overtaken = []

    def compute_and_be_overtaken(shop: str, revision: int) -> Statistics:
        found = compute(shop, revision)
        if not overtaken:
            overtaken.append(change_book(book, price=Decimal("12.00")))
        return found

    monkeypatch.setattr(stats, "compute", compute_and_be_overtaken)
    found = statistics()
    assert found.prices.mean == Decimal("12.00")
    assert found.revision == current_revision()


@pytest.mark.django_db
def test_the_last_crawl_is_the_run_that_ended_last_and_says_how() -> None:
    assert last_crawl() is None
    at = datetime(2026, 1, 2, tzinfo=UTC)
    CrawlRun.objects.create(shop="a", source="-", state="failed", finished_at=at + timedelta(days=1))
    CrawlRun.objects.create(shop="b", source="-", state="finished", complete=True, finished_at=at)
    CrawlRun.objects.create(shop="c", source="-", state="running")
    found = last_crawl()
    assert found is not None
    assert found.outcome == "failed"
    other = last_crawl("b")
    assert other is not None
    assert other.outcome == "complete"
    assert last_crawl("c") is None
