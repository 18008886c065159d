"""What readers read, and which books to ask about, from CSV files: plain, or packed with gzip."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recommender.engine.corpus import Corpus, Readings


class UnusableFile(Exception):
    """The file is not what was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class BooksByUPC:
    """Rows of a corpus by UPC."""

    rows: dict[str, int]
    n_books: int

    @classmethod
    def of(cls, corpus: Corpus) -> BooksByUPC:
        """Raises UnusableFile when two shops have a book of one UPC, so that it names none."""
        rows = {upc: row for row, upc in enumerate(corpus.upcs)}
        if len(rows) < len(corpus):
            raise UnusableFile("Books of several shops share a UPC: name one shop.")
        return cls(rows, len(corpus))

    def readings(self, path: Path) -> tuple[Readings, int]:
        """Who read what, from columns `reader` and `upc`, and how many lines were of books that are not there.

        How a book was rated does not matter: whoever rates it has read it. Raises UnusableFile and OSError.
        """
        numbers: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        unknown = 0
        for reader, upc in _cells(path, ("reader", "upc")):
            if (row := self.rows.get(upc)) is None:
                unknown += 1
            else:
                pairs.append((numbers.setdefault(reader, len(numbers)), row))
        readers, rows = np.array(pairs, np.int64).reshape(-1, 2).T
        return Readings.of_pairs(readers, rows, self.n_books), unknown

    def queries(self, path: Path) -> tuple[NDArray[np.int32], int]:
        """Rows of the books of column `upc`, and how many lines were of books that are not there.

        Raises UnusableFile and OSError.
        """
        rows = [self.rows.get(upc) for (upc,) in _cells(path, ("upc",))]
        known = [row for row in rows if row is not None]
        return np.array(known, np.int32), len(rows) - len(known)


def _cells(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The columns of every line."""
    with path.open("rb") as stream:
        packed = stream.peek(2)[:2] == b"\x1f\x8b"
    opened = gzip.open if packed else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            if missing := set(columns) - set(lines.fieldnames or ()):
                raise UnusableFile(f"{path}: there is no column {', '.join(sorted(missing))}.")
            for line in lines:
                yield tuple(line[column] or "" for column in columns)
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise UnusableFile(f"{path}: {error}") from error
