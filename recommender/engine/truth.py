"""What readers tell of likeness: for each book that is asked about, the books that the same people read."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine.corpus import Readings

DEPTH = 10  # nearest books that a query's truth holds
SHRINKAGE = 5  # a likeness seen in c readers counts c / (c + 5) of itself
MIN_SHARED = 3  # readers of both books, for the two to be alike at all
MAX_QUERIES = 5_000  # asked about at most: so many show a gain of .005
BLOCK = 1_000  # queries worked out at once, so that memory stays small however many there are


@dataclass(frozen=True, slots=True)
class Truth:
    """Graded nearest books of some queries, all of them rows of one corpus.

    Queries without any near book are not among them: `n_skipped` says how many those were.
    """

    queries: NDArray[np.int32]  # (n_queries,), ascending
    neighbors: NDArray[np.int32]  # (n_queries, DEPTH), nearest first; -1 pads
    grades: NDArray[np.float32]  # (n_queries, DEPTH), descending: the shrunk cosine, above 0 and below 1; 0 pads
    candidates: NDArray[np.int32]  # rows of the books that anybody read, ascending: a ranking is judged among these
    n_skipped: int

    def __len__(self) -> int:
        return len(self.queries)

    def fingerprint(self) -> str:
        """Equal for equal truths: 32 hexadecimal digits."""
        digest = blake2b(str(self.n_skipped).encode(), digest_size=16)
        for column in (self.queries, self.neighbors, self.grades, self.candidates):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Freeze it in an .npz file, so that two versions can be judged by the same truth on different days."""
        with path.open("wb") as file:  # a name without .npz is kept as it is
            np.savez_compressed(
                file,
                queries=self.queries,
                neighbors=self.neighbors,
                grades=self.grades,
                candidates=self.candidates,
                n_skipped=np.int64(self.n_skipped),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` froze. No pickle is read."""
        with np.load(path, allow_pickle=False) as file:
            columns = (file["queries"], file["neighbors"], file["grades"], file["candidates"])
            return cls(*columns, n_skipped=int(file["n_skipped"]))


def truth_of(readings: Readings, query_rows: NDArray[np.int32] | None = None) -> Truth:
    """The `DEPTH` nearest books of each query by the readers they share.

    Likeness is the cosine of the two books' sets of readers, shrunk by `c / (c + SHRINKAGE)` for c readers of both,
    and nothing below `MIN_SHARED` of them: chance makes small sets alike (Bell & Koren, "Scalable Collaborative
    Filtering with Jointly Derived Neighborhood Interpolation Weights", ICDM 2007, shrink so). A reader of one book says
    nothing about pairs and is left out, though the book stays a candidate. How much a reading weighs is left out too.

    Without `query_rows` it is asked about the `books_to_ask`.
    """
    read = readings.matrix.astype(bool).astype(np.float32)
    candidates = np.unique(read.indices).astype(np.int32)
    if query_rows is None:
        query_rows = books_to_ask(readings)
    asked = np.unique(query_rows).astype(np.int32)
    pairs = read[np.flatnonzero(np.diff(read.indptr) >= 2)]
    n_readers = np.bincount(pairs.indices, minlength=pairs.shape[1])
    books = csr_array(pairs.T)
    neighbors = np.full((len(asked), DEPTH), -1, np.int32)
    grades = np.zeros((len(asked), DEPTH), np.float32)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        shared = csr_array(books[block] @ pairs)
        for i, row in enumerate(block):
            near, likeness = _nearest(shared, i, int(row), n_readers)
            neighbors[start + i, : len(near)], grades[start + i, : len(near)] = near, likeness
    known = grades[:, 0] > 0
    return Truth(asked[known], neighbors[known], grades[known], candidates, int((~known).sum()))


def books_to_ask(readings: Readings, seed: int = 0) -> NDArray[np.int32]:
    """Rows of all books that anybody read, or of a sample of `MAX_QUERIES` of them; ascending."""
    rows = np.unique(readings.matrix.indices).astype(np.int32)
    if len(rows) > MAX_QUERIES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_QUERIES, replace=False))
    return rows


def split_readers(readings: Readings, seed: int, share: float = 0.5) -> tuple[Readings, Readings]:
    """Two parts without a common reader: `share` of them to train on, and the rest to judge by.

    An engine that was trained with readers knows the truth that the same readers make. So fit one on the first part to
    judge its recipe by the second, and then another one on all readers to publish.
    """
    order = np.random.default_rng(seed).permutation(readings.n_readers)
    cut = round(share * readings.n_readers)
    first, second = np.sort(order[:cut]), np.sort(order[cut:])
    return Readings(readings.matrix[first]), Readings(readings.matrix[second])


def _nearest(
    shared: csr_array, i: int, row: int, n_readers: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The nearest books of one query, and their likeness; of equally near ones the lower row comes first."""
    entries = slice(shared.indptr[i], shared.indptr[i + 1])
    books, counts = shared.indices[entries], shared.data[entries].astype(np.float64)
    enough = (counts >= MIN_SHARED) & (books != row)
    books, counts = books[enough], counts[enough]
    cosine = counts / np.sqrt(n_readers[books] * float(n_readers[row]))
    likeness = cosine * counts / (counts + SHRINKAGE)
    best = np.lexsort((books, -likeness))[:DEPTH]
    return books[best], likeness[best]
