"""Statistics of the listed books: counts, prices, ratings, and how the two go together.

Computed in Python from whole pennies, so that SQLite and PostgreSQL give the same answer to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from itertools import islice
from math import sqrt
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import BigIntegerField, F
from django.db.models.functions import Cast, Round

from catalog.memo import Memo
from catalog.models import Book, Category, CrawlRun
from catalog.revision import current_revision
from catalog.rows import aware, compiled, run

BINS = 10
STARS = (1, 2, 3, 4, 5)
PLACES = 6  # of means and correlations: more digits than anybody reads, fewer than floating point makes up
CHUNK = 5000
ATTEMPTS = 3

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Bin:
    """Prices from `start` up to, and without, `end`; the last bin has its `end` as well."""

    start: Decimal
    end: Decimal
    count: int


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of the books of one currency; None where there are too few books to say."""

    currency: str | None  # ISO 4217; the one most books have, the first by name of several
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    mean: Decimal | None = None
    median: Decimal | None = None
    stddev: Decimal | None = None  # of the sample: divided by n - 1
    q1: Decimal | None = None  # quartiles interpolate linearly
    q3: Decimal | None = None
    histogram: tuple[Bin, ...] = ()


@dataclass(frozen=True, slots=True)
class Correlation:
    """How price and rating go together, -1 to 1; None where one of them never changes."""

    pearson: float | None
    spearman: float | None  # ties have their average rank
    n: int  # books compared: those of the currency of the prices


@dataclass(frozen=True, slots=True)
class CategoryStats:
    """One category. Its prices are of the currency of the whole, so that categories can be compared."""

    name: str
    slug: str
    count: int
    in_stock: int  # books
    stock_units: int  # copies
    prices: Prices  # without stddev, quartiles and histogram
    rating_mean: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """What can be said of the listed books at one revision."""

    revision: int
    total: int
    in_stock: int  # books
    stock_units: int  # copies
    prices: Prices
    rating_mean: float | None
    ratings: tuple[int, ...]  # books with 1, 2, 3, 4, 5 stars
    correlation: Correlation
    categories: tuple[CategoryStats, ...]  # those that have a listed book, by name


@dataclass(frozen=True, slots=True)
class LastCrawl:
    """The run that ended last."""

    run: int
    shop: str
    finished_at: datetime
    outcome: str  # "complete", "incomplete", "interrupted" or "failed"


@dataclass(frozen=True, slots=True)
class Columns:
    """Books, a column each; all of one length."""

    pennies: Ints
    rating: Ints
    stock: Ints
    category: Ints  # primary keys
    currency: Ints  # index into `currencies`
    currencies: tuple[str, ...]

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[int, int, int, int, str]]) -> Columns:
        """The columns of rows (pennies, rating, stock, category, currency), in an order that follows from the rows."""
        codes: dict[str, int] = {}
        coded = ((*row[:4], codes.setdefault(row[4], len(codes))) for row in rows)
        parts = list(_chunks(coded, CHUNK))
        table = np.concatenate(parts) if parts else np.empty((0, 5), dtype=np.int64)
        order = np.lexsort(table.T[::-1])  # sums of floating point depend on the order, and databases have their own
        pennies, rating, stock, category, currency = (np.ascontiguousarray(table[order, i]) for i in range(5))
        return cls(pennies, rating, stock, category, currency, tuple(codes))

    def __len__(self) -> int:
        return len(self.pennies)

    def __getitem__(self, rows: Any) -> Columns:
        """The books at these places, or of this mask."""
        return Columns(
            self.pennies[rows],
            self.rating[rows],
            self.stock[rows],
            self.category[rows],
            self.currency[rows],
            self.currencies,
        )


def _chunks(rows: Iterable[Sequence[int]], size: int) -> Iterator[Ints]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield np.array(chunk, dtype=np.int64)


# --- Computing --------------------------------------------------------------------------------------------------------
def _money(pennies: Fraction | int) -> Decimal:
    """Pennies as money with two places, rounded half to even."""
    return Decimal(round(pennies)).scaleb(-2)


def _quantile(ordered: Ints, share: Fraction) -> Decimal:
    """The quantile of sorted pennies by linear interpolation, NumPy's default, without its rounding errors."""
    position = (len(ordered) - 1) * share
    below = int(position)
    low, high = int(ordered[below]), int(ordered[min(below + 1, len(ordered) - 1)])
    return _money(low + (high - low) * (position - below))


def _stddev(ordered: Ints, total: int) -> Decimal | None:
    """The sample's standard deviation. Squares of pennies overflow 64 bits, so Python's integers add them up."""
    n = len(ordered)
    if n < 2:
        return None
    values, counts = np.unique(ordered, return_counts=True)
    squares = sum(value * value * count for value, count in zip(values.tolist(), counts.tolist(), strict=True))
    with localcontext(prec=50):
        variance = Decimal(n * squares - total * total) / (n * (n - 1))
        return variance.sqrt().scaleb(-2).quantize(Decimal("0.01"))


def _histogram(ordered: Ints) -> tuple[Bin, ...]:
    """Ten bins of equal width from the lowest price to the highest; one price alone sits in the middle, as in NumPy.

    An edge is shown as the first whole penny at or above it: prices are whole pennies, so the bins hold the same books
    as with the exact edges, and who counts by what is shown counts the same.
    """
    low, high = Fraction(int(ordered[0])), Fraction(int(ordered[-1]))
    if low == high:
        low, high = low - 50, high + 50
    edges = [-(-(low + (high - low) * i / BINS) // 1) for i in range(BINS + 1)]
    places = [int(place) for place in np.searchsorted(ordered, [int(edge) for edge in edges[:-1]], side="left")]
    counts = np.diff([*places, len(ordered)])
    return tuple(
        Bin(_money(start), _money(end), int(count))
        for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )


def _prices(pennies: Ints, currency: str | None, *, spread: bool) -> Prices:
    if not len(pennies):
        return Prices(currency)
    ordered = np.sort(pennies)
    total = int(ordered.sum())
    return Prices(
        currency,
        minimum=_money(int(ordered[0])),
        maximum=_money(int(ordered[-1])),
        mean=_money(Fraction(total, len(ordered))),
        median=_quantile(ordered, Fraction(1, 2)),
        stddev=_stddev(ordered, total) if spread else None,
        q1=_quantile(ordered, Fraction(1, 4)) if spread else None,
        q3=_quantile(ordered, Fraction(3, 4)) if spread else None,
        histogram=_histogram(ordered) if spread else (),
    )


def _mean(values: Ints) -> float | None:
    return round(int(values.sum()) / len(values), PLACES) if len(values) else None


def _ranks(values: Ints) -> Floats:
    """Rank of each value, 1 for the lowest; equal values share the average of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _pearson(x: Floats, y: Floats) -> float | None:
    if len(x) < 2:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    spread = sqrt(float(dx @ dx)) * sqrt(float(dy @ dy))
    if spread == 0:
        return None
    return round(max(-1.0, min(1.0, float(dx @ dy) / spread)), PLACES)


def _correlation(pennies: Ints, rating: Ints) -> Correlation:
    n = len(pennies)
    # Exactly, not by a spread of nearly zero: the mean of equal numbers need not equal them in floating point.
    if n < 2 or pennies.min() == pennies.max() or rating.min() == rating.max():
        return Correlation(None, None, n)
    return Correlation(
        pearson=_pearson(pennies.astype(np.float64), rating.astype(np.float64)),
        spearman=_pearson(_ranks(pennies), _ranks(rating)),
        n=n,
    )


def _main_currency(books: Columns) -> int | None:
    """Index of the currency that most books have; of several, the first by name."""
    if not books.currencies:
        return None
    counts = np.bincount(books.currency, minlength=len(books.currencies))
    return min(range(len(counts)), key=lambda code: (-counts[code], books.currencies[code]))


def _category_stats(books: Columns, name: str, slug: str, main: int | None) -> CategoryStats:
    currency = None if main is None else books.currencies[main]
    return CategoryStats(
        name=name,
        slug=slug,
        count=len(books),
        in_stock=int((books.stock > 0).sum()),
        stock_units=int(books.stock.sum()),
        prices=_prices(books.pennies[books.currency == main], currency, spread=False),
        rating_mean=_mean(books.rating) or 0.0,
    )


def _by_category(books: Columns, names: Mapping[int, tuple[str, str]], main: int | None) -> tuple[CategoryStats, ...]:
    order = np.argsort(books.category, kind="stable")
    ids, starts = np.unique(books.category[order], return_index=True)
    found = [
        _category_stats(books[rows], *names[pk], main)
        for pk, rows in zip(ids.tolist(), np.split(order, starts[1:]), strict=bool(ids.size))
        if pk in names  # not a category that was made after the names were read
    ]
    # By Python's order, since the databases do not agree on one.
    return tuple(sorted(found, key=lambda category: (category.name, category.slug)))


def summarize(books: Columns, names: Mapping[int, tuple[str, str]], revision: int = 0) -> Statistics:
    """The statistics of `books`, whose categories have these (name, slug). Nothing here asks the database."""
    main = _main_currency(books)
    priced = books[books.currency == main]
    return Statistics(
        revision=revision,
        total=len(books),
        in_stock=int((books.stock > 0).sum()),
        stock_units=int(books.stock.sum()),
        prices=_prices(priced.pennies, None if main is None else books.currencies[main], spread=True),
        rating_mean=_mean(books.rating),
        ratings=tuple(int((books.rating == stars).sum()) for stars in STARS),
        correlation=_correlation(priced.pennies, priced.rating),
        categories=_by_category(books, names, main),
    )


# --- Reading ----------------------------------------------------------------------------------------------------------
def compute(shop: str = "", revision: int = 0) -> Statistics:
    """The statistics of the listed books of `shop`, or of all. Two queries; 200,000 books take one to three seconds."""
    books = Book.objects.listed()
    if shop:
        books = books.filter(shop=shop)
    # Whole pennies are exact on both databases, and read several times as fast as decimals on SQLite.
    pennies = Cast(Round(F("price") * 100), BigIntegerField())
    rows = books.order_by().values_list(pennies, "rating", "stock", "category_id", "currency")
    columns = Columns.of_rows(rows.iterator(chunk_size=CHUNK))
    names = {pk: (name, slug) for pk, name, slug in Category.objects.order_by().values_list("id", "name", "slug")}
    return summarize(columns, names, revision)


# --- Remembering ------------------------------------------------------------------------------------------------------
#: A few kilobytes each. By (shop, revision), so that polling costs no more than asking for the revision.
memo: Memo[Statistics] = Memo(size=32)


def statistics(shop: str = "", revision: int | None = None) -> Statistics:
    """The statistics at the current revision; `revision` is what the caller read just now, and saves a query.

    No further query while the revision stands, three after it moved. Books and revision are read by statements of
    their own: numbers that a writer overtook are computed again, and are not kept if that happens three times.
    """
    if revision is None:
        revision = current_revision()
    for _ in range(ATTEMPTS):
        if kept := memo.get((shop, revision)):
            return kept
        result = compute(shop, revision)
        before, revision = revision, current_revision()
        if revision == before:
            memo.keep((shop, revision), result)
            break
    return result


def last_crawl(shop: str = "") -> LastCrawl | None:
    """The run that ended last, of `shop` or of any. One query."""
    rows = run(_last_run_sql(of_a_shop=bool(shop), vendor=connection.vendor), (shop,) if shop else ())
    if not rows:
        return None
    pk, slug, finished_at, state, complete = rows[0]
    return LastCrawl(pk, slug, aware(finished_at), outcome(state, complete=complete))


@cache
def _last_run_sql(*, of_a_shop: bool, vendor: str) -> str:
    """Written once: every question for the statistics asks it, and writing it took half of the time of the answer."""
    runs = CrawlRun.objects.filter(finished_at__isnull=False)
    if of_a_shop:
        runs = runs.filter(shop="a")
    columns = ("id", "shop", "finished_at", "state", "complete")
    sql, params = compiled(runs.order_by("-finished_at", "-id").values_list(*columns)[:1])
    if len(params) != of_a_shop:
        raise AssertionError(f"The shop is the one parameter, on {vendor} too.")
    return sql


def outcome(state: str, *, complete: bool) -> str:
    """How a run ended, in one word: a finished run is "complete" or "incomplete"; else its state."""
    if state == CrawlRun.State.FINISHED:
        return "complete" if complete else "incomplete"
    return state
