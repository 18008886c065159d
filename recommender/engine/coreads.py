"""What readers read together: the likeness of two books that no text tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, diags_array, vstack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recommender.engine.corpus import Readings
    from recommender.engine.recipes import Recipe

MIN_IN_COMMON = 2  # readers; one reader's shelf says little
SHRINKAGE = 5.0  # readers; a cosine of c readers counts c / (c + 5)
KEPT = 200  # books per book
ROWS_AT_A_TIME = 2_000


@dataclass(frozen=True, slots=True)
class CoReads:
    """Two matrices (n_books, n_books) of one pattern, with at most `KEPT` in a row and nothing on the diagonal."""

    scores: csr_array  # float32, above 0 and at most 1; row i holds the books that readers of book i read
    counts: csr_array  # int32; how many readers read both


def co_reads(readings: Readings, recipe: Recipe) -> CoReads:
    """Shrunk cosine of the readers of two books.

    A reader of many books weighs less in each, by 1 / log2(1 + books), so that none sways the result.
    """
    read = readings.matrix[np.diff(readings.matrix.indptr) >= 2].astype(np.float32)
    books_of = np.diff(read.indptr)
    weighted = csr_array(diags_array((1 / np.sqrt(np.log2(1 + books_of))).astype(np.float32)) @ read)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0))).astype(np.float32)
    by_book = csr_array((weighted @ diags_array(1 / np.where(norms > 0, norms, 1))).T)
    present = csr_array(read.T, copy=True)
    present.data[:] = 1
    parts = [
        _kept(
            by_book[start : start + ROWS_AT_A_TIME] @ by_book.T,
            present[start : start + ROWS_AT_A_TIME] @ present.T,
            start,
        )
        for start in range(0, by_book.shape[0], ROWS_AT_A_TIME)
    ]
    scores, counts = zip(*parts, strict=True)
    return CoReads(csr_array(vstack(scores, format="csr")), csr_array(vstack(counts, format="csr")))


def blended(content: NDArray[np.float32], coreads: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Scores 0..1 of candidates from their content scores and their co-read scores, both 0..1.

    A pair without common readers is left with its content, so that books without readers are ranked by content alone.
    """
    return np.asarray((np.clip(content, 0, 1) + weight * coreads) / (1 + weight), np.float32)


def _kept(cosines: csr_array, counts: csr_array, first: int) -> tuple[csr_array, csr_array]:
    """The best `KEPT` of each row, shrunk; `first` is the number of the first row."""
    cosines.sort_indices()
    counts.sort_indices()
    common = counts.data
    rows = np.repeat(np.arange(cosines.shape[0]), np.diff(cosines.indptr))
    scores = np.minimum(cosines.data * (common / (common + SHRINKAGE)), 1)
    useful = np.flatnonzero((common >= MIN_IN_COMMON) & (cosines.indices != rows + first))
    order = useful[np.lexsort((-scores[useful], rows[useful]))]
    starts = np.searchsorted(rows[order], np.arange(cosines.shape[0]))
    order = np.sort(order[np.arange(len(order)) - starts[rows[order]] < KEPT])
    places = (rows[order], cosines.indices[order])
    return (
        csr_array((scores[order].astype(np.float32), places), shape=cosines.shape),
        csr_array((common[order].astype(np.int32), places), shape=cosines.shape),
    )
