"""What an engine is trained on: the texts of the books, and what readers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Corpus:
    """Books as columns of equal length: entry `i` of each column is of the same book, which is row `i` everywhere.

    A text that is not known is "". What is not here, like ratings and stock, no engine sees.
    """

    ids: NDArray[np.int64]  # the catalogue's, ascending and distinct; 0 for a text that is not in the catalogue
    upcs: Sequence[str]
    titles: Sequence[str]
    descriptions: Sequence[str]
    categories: Sequence[str]  # names
    authors: Sequence[tuple[str, ...]]
    prices: NDArray[np.float64]  # NaN where not known; used by the recipe `title_category_price` alone

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_text(
        cls,
        title: str = "",
        description: str = "",
        category: str = "",
        authors: Sequence[str] = (),
        price: float | None = None,
    ) -> Corpus:
        """One book that the catalogue does not have."""
        unpriced = np.nan if price is None else price
        ids, prices = np.zeros(1, np.int64), np.array([unpriced], np.float64)
        return cls(ids, [""], [title], [description], [category], [tuple(authors)], prices)

    def take(self, rows: Sequence[int] | NDArray[np.int32]) -> Corpus:
        """The books of these rows, in this order."""
        texts = (self.upcs, self.titles, self.descriptions, self.categories)
        upcs, titles, descriptions, categories = ([column[i] for i in rows] for column in texts)
        authors = [self.authors[i] for i in rows]
        return Corpus(self.ids[rows], upcs, titles, descriptions, categories, authors, self.prices[rows])

    def fingerprint(self) -> str:
        """Equal for equal books in the same order: 32 hexadecimal digits."""
        digest = blake2b(self.ids.tobytes(), digest_size=16)
        digest.update(self.prices.tobytes())
        for row in zip(self.upcs, self.titles, self.descriptions, self.categories, self.authors, strict=True):
            digest.update(orjson.dumps(row))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Readings:
    """Which reader read which book, and how much that says: one row a reader, one column a book of the corpus.

    Weights are above 0 and at most 1. Whoever makes this has taken out dislikes, and has capped what one reader or one
    account can weigh.
    """

    matrix: csr_array  # (n_readers, n_books), float32

    @property
    def n_readers(self) -> int:
        return int(self.matrix.shape[0])

    @classmethod
    def of_pairs(cls, readers: NDArray[np.int64], rows: NDArray[np.int64], n_books: int) -> Readings:
        """From pairs of reader (any numbers) and row of the corpus, each weighing 1. Repeated pairs count once."""
        names, positions = np.unique(readers, return_inverse=True)
        matrix = csr_array((np.ones(len(rows), np.float32), (positions, rows)), shape=(len(names), n_books))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return cls(matrix)
