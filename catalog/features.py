"""Books as rows for machine learning: numbers, raw or standardized, and text with its category.

Rows are read in chunks and handed on one at a time, so that a million books need no more memory than a thousand.
Nothing depends on the clock: a revision of the catalogue has one set of features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from operator import mul
from typing import Any, Literal

from django.db.models import F, IntegerField
from django.db.models.functions import Cast, Length

from catalog.querysets import BookQuerySet

CHUNK = 2000

Scale = Literal["raw", "standard"]

#: The numbers of a book, in the order of the columns.
NUMBERS = (
    "price",
    "price_excl_tax",
    "tax",
    "rating",  # stars, 1-5
    "stock",  # copies
    "in_stock",  # 0 or 1
    "review_count",
    "title_length",  # characters
    "description_length",
)
_MONEY = 3  # so many of them are decimals

#: Columns of `feature_rows`. The category's number is a code, not a quantity: it is never standardized.
FEATURE_COLUMNS = ("id", "upc", *NUMBERS, "category_id", "category_slug")
TRAINING_COLUMNS = (
    "id",
    "shop",
    "upc",
    "title",
    "authors",
    "description",
    "category",
    "category_slug",
    "price",
    "price_excl_tax",
    "tax",
    "currency",
    "rating",
    "stock",
    "in_stock",
    "review_count",
    "product_type",
)
_TRAINING_PATHS = {"category": "category__name", "category_slug": "category__slug"}
_EXPRESSIONS = {
    "in_stock": Cast("in_stock", IntegerField()),
    "title_length": Length("title"),
    "description_length": Length("description"),
    "category_slug": F("category__slug"),
}


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and standard deviation of each of NUMBERS, money in pennies: z-scores as scikit-learn's StandardScaler.

    The deviation is the population's, and a number that is the same for all books becomes 0.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def of(cls, books: BookQuerySet) -> Scaler:
        """The scaler of `books`. One query; exact, since every number is whole in pennies, copies or characters."""
        n = 0
        sums, squares = [0] * len(NUMBERS), [0] * len(NUMBERS)
        for chunk in _chunks(books, NUMBERS):
            n += len(chunk)
            for place, column in enumerate(zip(*chunk, strict=True)):
                whole = [int(value.scaleb(2)) for value in column] if place < _MONEY else column
                sums[place] += sum(whole)
                squares[place] += sum(map(mul, whole, whole))
        if not n:
            return cls((0.0,) * len(NUMBERS), (0.0,) * len(NUMBERS))
        return cls(
            tuple(total / n for total in sums),
            tuple(sqrt(n * square - total * total) / n for total, square in zip(sums, squares, strict=True)),
        )

    def __call__(self, numbers: Sequence[Any]) -> tuple[float, ...]:
        """The z-scores of one book's NUMBERS."""
        return tuple(
            ((float(value) * 100 if isinstance(value, Decimal) else value) - mean) / deviation if deviation else 0.0
            for value, mean, deviation in zip(numbers, self.means, self.deviations, strict=True)
        )


def feature_rows(books: BookQuerySet, scale: Scale = "raw") -> Iterator[tuple[Any, ...]]:
    """Rows of FEATURE_COLUMNS in the order of `books`. One query, and one more before it to standardize.

    Money is Decimal when raw; every number is a float when standardized, with mean and deviation of all of `books`.
    """
    scaler = Scaler.of(books) if scale == "standard" else None
    for chunk in _chunks(books, FEATURE_COLUMNS):
        if scaler is None:
            yield from chunk
        else:
            for row in chunk:
                yield (*row[:2], *scaler(row[2:-2]), *row[-2:])


def training_rows(books: BookQuerySet) -> Iterator[tuple[Any, ...]]:
    """Rows of TRAINING_COLUMNS in the order of `books`: text, category and numbers. One query."""
    for chunk in _chunks(books, TRAINING_COLUMNS):
        yield from chunk


def _chunks(books: BookQuerySet, columns: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """`columns` of `books`, CHUNK rows at a time."""
    computed = {f"_{name}": _EXPRESSIONS[name] for name in columns if name in _EXPRESSIONS}
    paths = [f"_{name}" if name in _EXPRESSIONS else _TRAINING_PATHS.get(name, name) for name in columns]
    chunk: list[tuple[Any, ...]] = []
    for row in books.annotate(**computed).values_list(*paths).iterator(chunk_size=CHUNK):
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
