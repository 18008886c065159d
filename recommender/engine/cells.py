"""Finds the greatest inner products among more vectors than can all be looked at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.engine.mapped import mapped
from recommender.engine.ranking import best

#: Cells that are looked through for an answer, of as many as the root of the number of vectors. Of a million books they
#: hold a twenty-fourth, and 98 of 100 of the nearest.
PROBED = 40
LEARNED_FROM = 50  # vectors of a cell that its place is learned from
ROUNDS = 10  # of k-means: more make no better cells
LARGEST = 127  # of a byte
BATCH = 20_000  # vectors put into cells at a time
AT_A_TIME = 500  # vectors of a cell whose scores are held together
SEED = 0
PARTS = ("centers", "starts", "rows", "codes")

#: The vectors of some rows, (m, d).
Read = Callable[[slice | NDArray[np.intp]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Cells:
    """Vectors in bytes, cell by cell, of which the cells that are likeliest to hold the nearest are looked through.

    An inverted file (Jégou, Douze and Schmid, TPAMI 2011) over k-means. A graph of small worlds (Malkov and Yashunin,
    TPAMI 2020) found .84 of the ten nearest of each of a million books and, visiting five times as many, .85.
    """

    centers: NDArray[np.float32]  # (n_cells, d)
    starts: NDArray[np.int64]  # (n_cells + 1,): where each cell begins, and the last one ends
    rows: NDArray[np.int32]  # (n,): whose vector stands there
    codes: NDArray[np.int8]  # (n, d): the vectors, by a factor that all share

    @classmethod
    def of(cls, read: Read, n: int, progress: Callable[[str, int, int], None] | None = None) -> Cells:
        """Whatever `read` gives for the rows 0 to n - 1; read a few at a time, since all would fill the memory."""
        n_cells = max(1, round(n**0.5))
        chance = np.random.default_rng(SEED)
        sample = read(np.sort(chance.choice(n, min(n, n_cells * LEARNED_FROM), replace=False)))
        centers = _centers(sample, n_cells)
        factor = LARGEST / (float(np.abs(sample).max()) or 1.0)

        cell_of = np.empty(n, np.int32)
        codes = np.empty((n, centers.shape[1]), np.int8)
        lengths = np.einsum("ij,ij->i", centers, centers)
        for start in range(0, n, BATCH):
            part = slice(start, min(start + BATCH, n))
            vectors = read(part)
            cell_of[part] = np.argmin(lengths - 2 * vectors @ centers.T, axis=1)
            codes[part] = np.rint(np.clip(vectors * factor, -LARGEST, LARGEST))
            if progress:
                progress("index", part.stop, n)
        rows = np.argsort(cell_of, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(cell_of, minlength=n_cells))])
        return cls(centers, starts, rows, codes[rows])

    def near(self, vector: NDArray[np.float32], n: int) -> NDArray[np.intp]:
        """Some n rows whose vectors have a great product with this one, ascending. Fewer where the cells hold fewer.

        Without BLAS, for the reason that `Vectors` has.
        """
        cells = best(np.einsum("ij,j->i", self.centers, vector), PROBED)
        scores = [np.einsum("ij,j->i", self.codes[self._inside(cell)].astype(np.float32), vector) for cell in cells]
        rows = np.concatenate([self.rows[self._inside(cell)] for cell in cells])
        return np.sort(rows[best(np.concatenate(scores), n)].astype(np.intp))

    def near_each(self, n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Some rows (m,), and some n rows near each of them, (m, n); -1 pads. Every row comes once, and is near itself.

        A cell's vectors are compared with the same others, those of the cells that are near its center, so that one
        product of matrices compares them all.
        """
        nearness = self.centers @ self.centers.T
        np.fill_diagonal(nearness, np.inf)
        for cell in np.flatnonzero(np.diff(self.starts)):
            probed = best(nearness[cell], PROBED)
            found = np.concatenate([self.rows[self._inside(other)] for other in probed]).astype(np.intp)
            others = np.concatenate([self.codes[self._inside(other)] for other in probed]).astype(np.float32)
            for start in range(self.starts[cell], self.starts[cell + 1], AT_A_TIME):
                part = slice(start, min(start + AT_A_TIME, int(self.starts[cell + 1])))
                scores = self.codes[part].astype(np.float32) @ others.T
                near = np.full((len(scores), n), -1, np.intp)
                near[:, : len(found)] = found[np.stack([best(row, n) for row in scores])]
                yield self.rows[part].astype(np.intp), near

    def _inside(self, cell: int | np.intp) -> slice:
        return slice(int(self.starts[cell]), int(self.starts[cell + 1]))

    def save(self, folder: Path, name: str) -> None:
        for part in PARTS:
            np.save(folder / f"{name}.{part}.npy", getattr(self, part))

    @classmethod
    def load(cls, folder: Path, name: str) -> Cells | None:
        """Mapped, not read; None where none was saved."""
        if not (folder / f"{name}.codes.npy").exists():
            return None
        parts: dict[str, Any] = {part: mapped(folder / f"{name}.{part}.npy") for part in PARTS}
        return cls(**parts)


def _centers(sample: NDArray[np.float32], n_cells: int) -> NDArray[np.float32]:
    """(n_cells, d). Where fewer vectors differ some cells stay empty, which k-means warns of and which harms nobody."""
    # What only training needs, an answer does not wait for.
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    kmeans = KMeans(n_cells, init="random", n_init=1, max_iter=ROUNDS, random_state=SEED)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return np.asarray(kmeans.fit(sample).cluster_centers_, np.float32)
