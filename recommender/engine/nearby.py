"""Finds candidates among more books than can all be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine.cells import Cells
from recommender.engine.features import Features, Progress
from recommender.engine.mapped import load_csr, mapped, save_csr

#: The books of a column of the sparse part that more have are not gathered as candidates one by one: with 1,000 they
#: were half of the work of finding the neighbors of a million books.
MOST_SHARING = 100
#: Such a crowded column is in the index instead, as a vector of random signs beside the dense part: those of a column
#: agree, those of two hardly do (Achlioptas, 2003, JCSS 66(4)). Without it a fifth of the nearest of a million books
#: were missed, with 16 dimensions none of 1,000.
SKETCHED = 16
SEED = 0


@dataclass(frozen=True, slots=True)
class Nearby:
    """An index over the dense part of the vectors and a sketch of the sparse one, and who shares a column of that."""

    cells: Cells
    sharing: csr_array  # (m, n_books): the books of a column; none for a column of more than `MOST_SHARING`
    signs: NDArray[np.float32]  # (m, SKETCHED): of the crowded columns; zeros for the others

    @classmethod
    def of(cls, dense: NDArray[np.float16], sparse: csr_array, progress: Progress | None = None) -> Nearby:
        sharing = csr_array(sparse.T)
        signs = _signs(np.diff(sharing.indptr) > MOST_SHARING)

        def read(rows: slice | NDArray[np.intp]) -> NDArray[np.float32]:
            return _sketched(np.asarray(dense[rows], np.float32), sparse[rows], signs)

        return cls(Cells.of(read, len(dense), progress), _without_crowds(sharing), signs)

    def near(self, query: Features, n: int) -> NDArray[np.intp]:
        """Some n rows that are near the query, ascending; none for a query without a word that is known."""
        vector = _sketched(query.dense, query.sparse, self.signs).mean(axis=0)
        return self.cells.near(vector, n) if vector.any() else np.zeros(0, np.intp)

    def sharers(self, query: Features) -> NDArray[np.intp]:
        """The rows that share a column with the query, ascending."""
        return np.unique(self.sharing[np.unique(query.sparse.indices)].indices).astype(np.intp)

    def near_each(self, n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Some books' rows (m,), and some n rows near each, (m, n), where -1 pads; until every book was there."""
        return self.cells.near_each(n)

    def sharers_of_each(self, features: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each query's place, and the rows that share a column with it."""
        shared = (features.sparse @ self.sharing).tocoo()
        return shared.row, shared.col

    def save(self, folder: Path) -> None:
        self.cells.save(folder, "nearby")
        save_csr(self.sharing, folder, "sharing")
        np.save(folder / "signs.npy", self.signs)

    @classmethod
    def load(cls, folder: Path) -> Nearby | None:
        """Mapped, not read; None where none was saved."""
        cells = Cells.load(folder, "nearby")
        return cls(cells, load_csr(folder, "sharing"), mapped(folder / "signs.npy")) if cells else None


def _without_crowds(sharing: csr_array) -> csr_array:
    sizes = np.diff(sharing.indptr)
    kept = np.repeat(sizes <= MOST_SHARING, sizes)
    indptr = np.concatenate([[0], np.cumsum(np.where(sizes <= MOST_SHARING, sizes, 0))])
    return csr_array((sharing.data[kept], sharing.indices[kept], indptr), shape=sharing.shape)


def _signs(crowded: NDArray[np.bool_]) -> NDArray[np.float32]:
    signs = np.zeros((len(crowded), SKETCHED), np.float32)
    chance = np.random.default_rng(SEED)
    signs[crowded] = chance.choice([-1, 1], size=(np.count_nonzero(crowded), SKETCHED)) / np.sqrt(SKETCHED)
    return signs


def _sketched(dense: NDArray[np.float32], sparse: csr_array, signs: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack([dense, np.asarray(sparse @ signs, np.float32)])
