"""Why one book is near another, in facts that a reader can check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recommender.engine.features import Parts
from recommender.engine.mapped import Strings, mapped

Kind = Literal["series", "author", "category", "words", "readers", "pin"]

MOST_WORDS = 5
#: Fewer readers of two books are not told of: they might know each other.
FEWEST_READERS = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """`detail` is the series, the authors, the category, or the words that are shared, or says how many readers."""

    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of one book, or of the books of a basket together."""

    series: frozenset[str]
    categories: frozenset[str]
    authors: frozenset[str]
    words: tuple[int, ...]  # numbers in the vocabulary, the weightiest first
    books: int  # how many this is told of

    @classmethod
    def of(cls, parts: Parts, words: NDArray[np.int32]) -> Told:
        """`words` is (n_books, 16) as in `Features`."""
        terms = dict.fromkeys(int(term) for term in words.T.ravel() if term >= 0)
        return cls(
            frozenset(filter(None, parts.series)),
            frozenset(filter(None, parts.categories)),
            frozenset(name for of_book in parts.authors for name in of_book if name),
            tuple(terms),
            len(words),
        )


class Facts:
    """What is told of every book of an engine, as arrays that are mapped from files."""

    def __init__(
        self,
        series: Labels,
        categories: Labels,
        authors: Labels,
        words: NDArray[np.int32],
        vocabulary: Sequence[str],
    ) -> None:
        self._series, self._categories, self._authors = series, categories, authors
        self.words, self.vocabulary = words, vocabulary

    @classmethod
    def of(cls, parts: Parts, words: NDArray[np.int32], vocabulary: Iterable[str]) -> Facts:
        series = Labels.of([(name,) for name in parts.series])
        categories = Labels.of([(name,) for name in parts.categories])
        return cls(series, categories, Labels.of(parts.authors), words, Strings.of(vocabulary))

    def told(self, rows: Iterable[int]) -> Told:
        rows = [int(row) for row in rows]
        parts = Parts(
            [name for row in rows for name in self._series[row]],
            [name for row in rows for name in self._categories[row]],
            [self._authors[row] for row in rows],
        )
        return Told.of(parts, self.words[rows])

    def reasons(self, query: Told, row: int, readers: int, score: float) -> tuple[Reason, ...]:
        """At least one, the strongest first.

        Args:
            readers: how many read both; 0 where nobody did, or nobody knows.
            score: of the book, 0..1: where nothing that can be named is shared, it tells whether anything is.
        """
        other = self.told([row])
        reasons = [Reason("series", name) for name in sorted(query.series & other.series)]
        if authors := query.authors & other.authors:
            reasons.append(Reason("author", ", ".join(sorted(authors))))
        if readers >= FEWEST_READERS:
            asked = "this book" if query.books == 1 else "one of these books"
            reasons.append(Reason("readers", f"{readers} readers of {asked} also read it"))
        reasons += [Reason("category", name) for name in sorted(query.categories & other.categories)]
        said = {word for reason in reasons for word in reason.detail.casefold().split()}
        shared = (self.vocabulary[term] for term in query.words if term in other.words)
        if words := [word for word in shared if word not in said][:MOST_WORDS]:
            reasons.append(Reason("words", ", ".join(words)))
        if not reasons:
            unnamed = "similar vocabulary" if score > 0 else "nothing in common: no nearer book was asked for"
            reasons.append(Reason("words", unnamed))
        return tuple(reasons)

    def save(self, folder: Path) -> None:
        self._series.save(folder, "series")
        self._categories.save(folder, "categories")
        self._authors.save(folder, "authors")
        np.save(folder / "words.npy", self.words)
        Strings.of(self.vocabulary).save(folder, "vocabulary")

    @classmethod
    def load(cls, folder: Path) -> Facts:
        return cls(
            Labels.load(folder, "series"),
            Labels.load(folder, "categories"),
            Labels.load(folder, "authors"),
            mapped(folder / "words.npy"),
            Strings.load(folder, "vocabulary"),
        )


class Labels:
    """Names of each book, none or several; a name is kept once, however many books have it."""

    def __init__(self, names: Strings, codes: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
        self._names, self._codes, self._starts = names, codes, starts

    @classmethod
    def of(cls, names: Iterable[Sequence[str]]) -> Labels:
        number: dict[str, int] = {}
        codes: list[int] = []
        starts = [0]
        for of_book in names:
            codes += [number.setdefault(name, len(number)) for name in of_book if name]
            starts.append(len(codes))
        return cls(Strings.of(number), np.array(codes, np.int32), np.array(starts, np.int64))

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return tuple(self._names[int(code)] for code in self._codes[self._starts[row] : self._starts[row + 1]])

    def save(self, folder: Path, name: str) -> None:
        self._names.save(folder, name)
        np.save(folder / f"{name}.codes.npy", self._codes)
        np.save(folder / f"{name}.of_book.npy", self._starts)

    @classmethod
    def load(cls, folder: Path, name: str) -> Labels:
        codes, starts = mapped(folder / f"{name}.codes.npy"), mapped(folder / f"{name}.of_book.npy")
        return cls(Strings.load(folder, name), codes, starts)
