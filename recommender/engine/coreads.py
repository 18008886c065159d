"""What readers read together: a likeness of two books that no text tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, vstack

from recommender.engine.corpus import Readings
from recommender.engine.recipes import Recipe

MIN_IN_COMMON = 2  # readers: the shelf of one says nothing
SHRINKAGE = 10.0  # readers: a cosine that rests on c of them counts c / (c + 10)
NEAREST = 10  # books whose co-reads a book shares in
SHARED_IN = 0.4  # weight of those beside the book's own
KEPT = 200  # books per book
MOST_BOOKS = 2_000  # per reader: whoever has more is no reader, and would cost the square of it
PAIRS_AT_A_TIME = 20_000_000  # at most so many are held, some 0.5 GB

Product = Callable[[int, int], csr_array]  # its rows from one number to another


@dataclass(frozen=True, slots=True)
class CoReads:
    """Two matrices (n_books, n_books) of one pattern, with at most `KEPT` in a row and nothing on the diagonal."""

    scores: csr_array  # float32, above 0 and at most 1
    counts: csr_array  # int32: readers of both; 0, and yet stored, where only books near to one of them share readers


def co_reads(readings: Readings, recipe: Recipe) -> CoReads:
    """Cosine of the readers of two books, shrunk where few have read both, and a step of a walk through it.

    The step gives a book a share in what the ten nearest to it are read with, which helps where it has few readers of
    its own. A reader of many books weighs less in each, by 1 / log2(1 + books), and no pair rests on one reader, so
    that none sways the result. Shrinkage: Bell and Koren, 2007, "Scalable collaborative filtering with jointly derived
    neighborhood interpolation weights"; the walk: Christoffel et al., 2015, "Blockbusters and wallflowers" (RP3).
    """
    read = _of_readers(readings)
    present = csr_array((np.ones(read.nnz, np.int32), read.indices, read.indptr), shape=read.shape)
    weights = 1 / np.sqrt(np.log2(1 + np.diff(read.indptr)))
    weighted = csr_array(diags_array(weights.astype(np.float32)) @ read)
    norms = np.sqrt(np.bincount(weighted.indices, weighted.data**2, minlength=read.shape[1]))
    cosine = csr_array((weighted @ diags_array((1 / np.where(norms > 0, norms, 1)).astype(np.float32))).T)
    books = csr_array(present.T)
    pairs_of = books @ np.diff(read.indptr)
    scores, counts = [], []
    for start, end in _blocks(pairs_of):
        block, common = _shrunk(cosine[start:end] @ cosine.T, books[start:end] @ present, start)
        scores.append(block)
        counts.append(common)
    own, shared = csr_array(vstack(scores, format="csr")), csr_array(vstack(counts, format="csr"))
    walked = _walked(own)
    return CoReads(walked, _at_places_of(walked, shared))


def blended(content: NDArray[np.float32], coreads: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Scores 0..1 of candidates from their content scores and their co-read scores, both 0..1.

    A pair without common readers is left with its content, so that books without readers are ranked by content alone.
    """
    return np.asarray((np.clip(content, 0, 1) + weight * coreads) / (1 + weight), np.float32)


def _of_readers(readings: Readings) -> csr_array:
    """Without readers of one book, who tell nothing of two, and without those of more than anybody reads."""
    books_of = np.diff(readings.matrix.indptr)
    return csr_array(readings.matrix[np.flatnonzero((books_of >= 2) & (books_of <= MOST_BOOKS))], dtype=np.float32)


def _blocks(pairs_of: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows from and to, such that they have no more pairs than can be held; a row that has more is alone."""
    block_of = np.cumsum(pairs_of) // PAIRS_AT_A_TIME
    starts = np.flatnonzero(np.diff(block_of, prepend=-1))
    yield from pairwise([*starts.tolist(), len(pairs_of)])


def _shrunk(cosines: csr_array, counts: csr_array, first: int) -> tuple[csr_array, csr_array]:
    """The best `KEPT` of each row; `first` is the number of the first row."""
    cosines.sort_indices()
    counts.sort_indices()
    common = counts.data
    scores = np.minimum(cosines.data * (common / (common + SHRINKAGE)), 1).astype(np.float32)
    rows = _rows_of(cosines)
    useful = np.flatnonzero((common >= MIN_IN_COMMON) & (cosines.indices != rows + first))
    kept = useful[_best(rows[useful], scores[useful], KEPT)]
    return _with(cosines, kept, scores[kept]), _with(cosines, kept, common[kept])


def _walked(own: csr_array) -> csr_array:
    """What a book is read with and, for less, what the books nearest to it are read with; the best `KEPT`."""
    rows = _rows_of(own)
    near = _with(own, kept := _best(rows, own.data, NEAREST), own.data[kept])
    totals = np.asarray(near.sum(axis=1))
    steps = csr_array(diags_array((SHARED_IN / np.where(totals > 0, totals, 1)).astype(np.float32)) @ near)
    parts = []
    for start, end in _blocks(_with(own, kept, np.ones(len(kept), np.int64)) @ np.diff(own.indptr)):
        block = csr_array(own[start:end] + steps[start:end] @ own)
        block.sort_indices()
        rows = _rows_of(block)
        others = np.flatnonzero(block.indices != rows + start)
        kept = others[_best(rows[others], block.data[others], KEPT)]
        parts.append(_with(block, kept, np.minimum(block.data[kept] / (1 + SHARED_IN), 1)))
    return csr_array(vstack(parts, format="csr"))


def _best(rows: NDArray[np.intp], scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Places of the k highest scores of each row, in the order given; of equal ones the first."""
    order = np.lexsort((-scores, rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    return np.sort(order[rank < k])


def _with(matrix: csr_array, places: NDArray[np.intp], data: NDArray[np.generic]) -> csr_array:
    """Of the matrix's shape, with these of its places alone, which ascend."""
    indptr = np.searchsorted(places, matrix.indptr)
    return csr_array((data, matrix.indices[places], indptr), shape=matrix.shape)


def _rows_of(matrix: csr_array) -> NDArray[np.intp]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _at_places_of(pattern: csr_array, counts: csr_array) -> csr_array:
    """The counts at the places of the pattern; 0 where they have none."""
    width = pattern.shape[1]
    wanted = _rows_of(pattern) * width + pattern.indices
    known = _rows_of(counts) * width + counts.indices
    place = np.searchsorted(known, wanted)
    found = np.flatnonzero(place < len(known))
    found = found[known[place[found]] == wanted[found]]
    data = np.zeros(len(wanted), np.int32)
    data[found] = counts.data[place[found]]
    return csr_array((data, pattern.indices, pattern.indptr), shape=pattern.shape)
