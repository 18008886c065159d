"""Finds candidates among more books than can all be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from usearch.index import BatchMatches, Index

from recommender.engine.features import Features, Progress
from recommender.engine.mapped import load_csr, save_csr

INDEX = "dense.usearch"
#: Candidates that the index visits for an answer. With its library's 64 it misses more.
EXPANSION = 128
#: A name that more books share, like "Various", tells little: its books are not gathered as candidates. With 1,000
#: they were half of the work of finding the neighbors of a million books.
MOST_SHARING = 200
BATCH = 20_000  # rows added between two words of progress


@dataclass(frozen=True, slots=True)
class Nearby:
    """An index over the dense part of the vectors, and who shares a column of the sparse part."""

    index: Index  # keys are rows
    sharing: csr_array  # (m, n_books): the books of a column; none for a column of more than `MOST_SHARING`

    @classmethod
    def of(cls, dense: NDArray[np.float16], sparse: csr_array, progress: Progress | None = None) -> Nearby:
        """Hierarchical navigable small worlds (Malkov and Yashunin, TPAMI 2020) under the inner product."""
        index = Index(ndim=dense.shape[1], metric="ip", dtype="f16", expansion_search=EXPANSION)
        for start in range(0, len(dense), BATCH):
            keys = np.arange(start, min(start + BATCH, len(dense)), dtype=np.uint64)
            index.add(keys, dense[start : start + BATCH])
            if progress:
                progress("index", int(keys[-1]) + 1, len(dense))
        return cls(index, _without_crowds(csr_array(sparse.T)))

    def near(self, query: Features, n: int) -> NDArray[np.intp]:
        """Some n rows whose dense part is near the query's, ascending."""
        dense = query.dense.mean(axis=0)
        found = self.index.search(dense, n, threads=1).keys if dense.any() else np.zeros(0)
        return np.sort(found.astype(np.intp))

    def sharers(self, query: Features) -> NDArray[np.intp]:
        """The rows that share a column with the query, ascending."""
        return np.unique(self.sharing[np.unique(query.sparse.indices)].indices).astype(np.intp)

    def of_each(self, features: Features, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Each query's place, some n rows whose dense part is near its own, and the product of the dense parts."""
        matches = self.index.search(features.dense, n)
        assert isinstance(matches, BatchMatches)  # noqa: S101 - several questions have several answers
        asked, place = np.nonzero(np.arange(matches.keys.shape[1]) < matches.counts[:, np.newaxis])
        return asked, matches.keys[asked, place].astype(np.intp), 1 - matches.distances[asked, place]

    def sharers_of_each(self, features: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each query's place, and the rows that share a column with it."""
        shared = (features.sparse @ self.sharing).tocoo()
        return shared.row, shared.col

    def save(self, folder: Path) -> None:
        self.index.save(folder / INDEX)
        if (size := (folder / INDEX).stat().st_size) < self.index.serialized_length:  # the library does not tell
            raise OSError(f"{folder / INDEX} was cut short at {size:,} bytes")
        save_csr(self.sharing, folder, "sharing")

    @classmethod
    def load(cls, folder: Path) -> Nearby | None:
        """Mapped, not read; None where none was saved."""
        if not (folder / INDEX).exists():
            return None
        index = Index.restore(folder / INDEX, view=True, expansion_search=EXPANSION, enable_key_lookups=False)
        return cls(index, load_csr(folder, "sharing")) if index else None


def _without_crowds(sharing: csr_array) -> csr_array:
    sizes = np.diff(sharing.indptr)
    kept = np.repeat(sizes <= MOST_SHARING, sizes)
    indptr = np.concatenate([[0], np.cumsum(np.where(sizes <= MOST_SHARING, sizes, 0))])
    return csr_array((sharing.data[kept], sharing.indices[kept], indptr), shape=sharing.shape)
