"""Books as rows for machine learning: numbers, raw or standardized, and text with its category.

Shapes of rows as `catalog.rows` has them: which columns to ask for, and what to make of a batch. Nothing depends on
the clock: a revision of the catalogue has one set of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from operator import mul
from typing import Any, Literal

from django.db.models.functions import Length

from catalog.export import Column
from catalog.rows import Row, Rows, authors_json, money_json, python_rows

Scale = Literal["raw", "standard"]

#: The numbers of a book, in the order of the columns; those that are money come first.
NUMBERS = (
    Column("price", "money"),
    Column("price_excl_tax", "money"),
    Column("tax", "money"),
    Column("rating", "integer"),  # stars, 1-5
    Column("stock", "integer"),  # copies
    Column("in_stock", "integer"),  # 0 or 1
    Column("review_count", "integer"),
    Column("title_length", "integer"),  # characters
    Column("description_length", "integer"),
)
_MONEY = sum(column.kind == "money" for column in NUMBERS)
_NUMBERS_AT = slice(2, 2 + len(NUMBERS))  # behind id and UPC


def with_lengths(books: Rows) -> Rows:
    """The books with the numbers that are no fields of theirs."""
    measured: Rows = books.annotate(title_length=Length("title"), description_length=Length("description"))
    return measured


def _whole(numbers: Sequence[Any]) -> list[int]:
    """NUMBERS of a row as whole numbers, money in pennies, whichever types the driver gave."""
    return [*(round(value * 100) for value in numbers[:_MONEY]), *map(int, numbers[_MONEY:])]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and standard deviation of each of NUMBERS, money in pennies: z-scores as scikit-learn's StandardScaler.

    The deviation is the population's, and a number that is the same for all books becomes 0.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    #: For `values_list` of the rows that it learns from.
    COLUMNS = tuple(column.name for column in NUMBERS)

    @classmethod
    def of(cls, batches: Iterable[Iterable[Row]]) -> Scaler:
        """The scaler of rows of COLUMNS. Exact, since every number is whole in pennies, copies or characters."""
        n = 0
        sums, squares = [0] * len(NUMBERS), [0] * len(NUMBERS)
        for batch in batches:
            rows = [_whole(row) for row in batch]
            n += len(rows)
            for place, column in enumerate(zip(*rows, strict=True)):
                sums[place] += sum(column)
                squares[place] += sum(map(mul, column, column))
        if not n:
            return cls((0.0,) * len(NUMBERS), (0.0,) * len(NUMBERS))
        return cls(
            tuple(total / n for total in sums),
            tuple(sqrt(n * square - total * total) / n for total, square in zip(sums, squares, strict=True)),
        )

    def __call__(self, numbers: Sequence[Any]) -> list[float]:
        """The z-scores of one book's NUMBERS."""
        return [
            (value - mean) / deviation if deviation else 0.0
            for value, mean, deviation in zip(_whole(numbers), self.means, self.deviations, strict=True)
        ]


def _amount(value: Any) -> Decimal:
    """An amount of the driver with its two places."""
    return Decimal("%.2f" % value)  # noqa: UP031 - floats and Decimals alike


class FeatureShape:
    """The numbers of a book, as they are or as z-scores, between its names and its category.

    The category's number is a code, not a quantity, and is never standardized. Rows are of `with_lengths`.
    """

    columns = ("id", "upc", *Scaler.COLUMNS, "category_id", "category__slug")

    def __init__(self, scaler: Scaler | None = None) -> None:
        self.scaler = scaler
        self.flat_columns: tuple[Column, ...] = (
            Column("id", "integer"),
            Column("upc", "text"),
            *(NUMBERS if scaler is None else (Column(column.name, "number") for column in NUMBERS)),
            Column("category_id", "integer"),
            Column("category_slug", "word"),
        )
        self._names = [column.name for column in self.flat_columns]

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        return [dict(zip(self._names, cells, strict=True)) for cells in self._cells(rows, money_json)]

    def flat(self, rows: Iterable[Row]) -> list[list[Any]]:
        return list(self._cells(rows, _amount))

    def _cells(self, rows: Iterable[Row], amount: Callable[[Any], Any]) -> Iterator[list[Any]]:
        end = _NUMBERS_AT.stop
        for row in rows:
            numbers = row[_NUMBERS_AT]
            if self.scaler is None:
                shown = [*map(amount, numbers[:_MONEY]), *map(int, numbers[_MONEY:])]
            else:
                shown = self.scaler(numbers)
            yield [*row[:2], *shown, *row[end : end + 2]]


_JSON: dict[str, Callable[[Any], Any]] = {"money": money_json, "boolean": bool, "texts": authors_json}


def _path(column: Column) -> str:
    """Where `values_list` finds a column of TrainingShape."""
    return {"category": "category__name", "category_slug": "category__slug"}.get(column.name, column.name)


class TrainingShape:
    """Text, category and numbers of a book, one flat row."""

    flat_columns = (
        Column("id", "integer"),
        Column("shop", "word"),
        Column("upc", "text"),
        Column("title", "text"),
        Column("authors", "texts"),
        Column("description", "text"),
        Column("category", "word"),
        Column("category_slug", "word"),
        Column("price", "money"),
        Column("price_excl_tax", "money"),
        Column("tax", "money"),
        Column("currency", "word"),
        Column("rating", "integer"),
        Column("stock", "integer"),
        Column("in_stock", "boolean"),
        Column("review_count", "integer"),
        Column("product_type", "word"),
    )
    columns = tuple(map(_path, flat_columns))

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        names = [column.name for column in self.flat_columns]
        conversions = [(column.name, _JSON[column.kind]) for column in self.flat_columns if column.kind in _JSON]
        books = []
        for row in rows:
            book = dict(zip(names, row, strict=False))  # a row may be longer: keys of the order
            for name, convert in conversions:
                book[name] = convert(book[name])
            books.append(book)
        return books

    def flat(self, rows: Iterable[Row]) -> list[list[Any]]:
        return python_rows(self.flat_columns, rows)
