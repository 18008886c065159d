"""The books' vectors as they are searched: in memory or mapped from files, all of them or those that are allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine.features import Features, Progress
from recommender.engine.mapped import load_csr, mapped, save_csr
from recommender.engine.nearby import Nearby

CHUNK = 50_000  # rows of `dense` that are widened to float32 at a time

Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What `Features` says of the books, and what finds near ones where looking at all would take too long.

    Products are einsum's, not BLAS's: a BLAS shares even these small ones out among threads, and on a server whose
    cores are busy waits a hundred times longer for the threads than the product takes.
    """

    dense: NDArray[np.float32] | NDArray[np.float16]  # (n_books, d)
    sparse: csr_array  # (n_books, m), float32
    nearby: Nearby | None = None

    @classmethod
    def of(cls, features: Features, *, indexed: bool, progress: Progress | None = None) -> Vectors:
        """With an index, the dense part is kept at half precision, here as there."""
        if not indexed:
            return cls(features.dense, features.sparse)
        dense = features.dense.astype(np.float16)
        return cls(dense, features.sparse, Nearby.of(dense, features.sparse, progress))

    def __len__(self) -> int:
        return int(self.dense.shape[0])

    def features(self, rows: Rows | slice) -> Features:
        """Of these books, without their words."""
        dense = np.asarray(self.dense[rows], np.float32)
        return Features(dense, self.sparse[rows], np.zeros((len(dense), 0), np.int32))

    def content(self, query: Features, rows: Rows | None = None) -> NDArray[np.float32]:
        """Content scores of the query with these books, or with all: the mean over the query's rows."""
        dense, sparse = query.dense.mean(axis=0), np.asarray(query.sparse.mean(axis=0), np.float32).ravel()
        scores = np.zeros(len(self) if rows is None else len(rows), np.float32)
        for start in range(0, len(scores) if dense.any() else 0, CHUNK):
            part = slice(start, start + CHUNK)
            chosen: slice | Rows = part if rows is None else rows[part]
            scores[part] = np.einsum("ij,j->i", np.asarray(self.dense[chosen], np.float32), dense)
        if sparse.any():
            scores += (self.sparse if rows is None else self.sparse[rows]) @ sparse
        return scores

    def dense_of_pairs(self, left: Rows, right: Rows) -> NDArray[np.float32]:
        """The dense part of the content scores of the books `left[i]` and `right[i]`."""
        return np.asarray(np.einsum("ij,ij->i", self.dense[left], self.dense[right], dtype=np.float32))

    def dense_with(self, features: Features, rows: Rows) -> NDArray[np.float32]:
        """(m, k): the dense part of the content scores of each of m books with k rows of its own, (m, k)."""
        theirs = np.asarray(self.dense[rows], np.float32)
        return np.asarray(np.einsum("id,ikd->ik", features.dense, theirs), np.float32)

    def sparse_of_pairs(self, left: Rows, right: Rows) -> NDArray[np.float32]:
        return np.asarray(self.sparse[left].multiply(self.sparse[right]).sum(axis=1), np.float32)

    def likeness(self, rows: Rows) -> NDArray[np.float32]:
        """(len(rows), len(rows)): content scores of the books with each other."""
        dense, sparse = np.asarray(self.dense[rows], np.float32), self.sparse[rows]
        return np.asarray(np.einsum("ij,kj->ik", dense, dense) + (sparse @ sparse.T).toarray(), np.float32)

    def save(self, folder: Path) -> None:
        np.save(folder / "dense.npy", self.dense)
        save_csr(self.sparse, folder, "sparse")
        if self.nearby:
            self.nearby.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Vectors:
        return cls(mapped(folder / "dense.npy"), load_csr(folder, "sparse"), Nearby.load(folder))
