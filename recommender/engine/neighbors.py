"""The nearest books of every book: exactly where all pairs can be looked at, through an index where they cannot."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from recommender.engine.coreads import CoReads, blended
from recommender.engine.features import Progress
from recommender.engine.nearby import Nearby
from recommender.engine.ranking import best
from recommender.engine.vectors import Vectors

DEEP = 100  # neighbors that are kept of each book; ten are asked for, and filters take some away
DEEP_AMONG_MANY = 64  # where an index finds them: for more it would visit more
CELLS = 8_000_000  # scores of pairs that are held at a time
#: A column that more than this share of the books has is cheaper as one more dense column than as a sparse one.
FREQUENT = 0.05

#: Some books' rows, and the rows and scores of their neighbors, padded with -1 and 0.
Block = tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.float32]]


def top_neighbors(
    vectors: Vectors,
    coreads: CoReads | None = None,
    weight: float = 0.0,
    k: int | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    """Rows (n_books, k) of each book's nearest others, and their scores 0..1, descending; equal ones by row.

    By default k is `DEEP`, or `DEEP_AMONG_MANY` where there is an index. `weight` is that of co-reads beside content
    (see `blended`). Where there are not k others, or the index does not find them, -1 and 0 pad.
    """
    weight = weight if coreads else 0.0
    k = k or (DEEP_AMONG_MANY if vectors.nearby else DEEP)
    blocks = (
        _through_index(vectors, vectors.nearby, coreads, weight, k)
        if vectors.nearby
        else _exactly(vectors, coreads, weight, k)
    )
    rows = np.full((len(vectors), k), -1, np.int32)
    scores = np.zeros((len(vectors), k), np.float16)
    done = 0
    for books, nearest, their_scores in blocks:
        rows[books, : nearest.shape[1]], scores[books, : nearest.shape[1]] = nearest, their_scores
        done += len(books)
        if progress:
            progress("neighbors", done, len(vectors))
    return rows, scores


def _exactly(vectors: Vectors, coreads: CoReads | None, weight: float, k: int) -> Iterator[Block]:
    """A dense product and a sparse one for each block of books.

    Some two hundred words stand in more than a twentieth of the books, and are most of the work of a sparse product.
    Multiplied densely they cost little: a third, in all, of a sparse product that keeps only the best.
    """
    dense, sparse = _by_frequency(vectors)
    transposed = csr_array(sparse.T)
    k = min(k, len(vectors) - 1)
    for start, end in _spans(len(vectors), max(1, CELLS // len(vectors))):
        content = dense[start:end] @ dense.T
        _add(content, sparse[start:end] @ transposed)
        together = coreads.scores[start:end].toarray() if coreads else np.float32(0)
        scores = blended(content, np.asarray(together), weight)
        scores[np.arange(end - start), np.arange(start, end)] = -1  # below every score: no book is its own neighbor
        rows = np.stack([best(row, k) for row in scores]).astype(np.int32)
        yield np.arange(start, end), rows, np.take_along_axis(scores, rows, axis=1)


def _by_frequency(vectors: Vectors) -> tuple[NDArray[np.float32], csr_array]:
    """The same vectors with the frequent columns of the sparse part moved to the dense part."""
    sparse = vectors.sparse
    counts = np.bincount(sparse.indices, minlength=sparse.shape[1])
    frequent = counts > FREQUENT * len(vectors)
    moved = sparse[:, np.flatnonzero(frequent)].toarray()
    return np.hstack([np.asarray(vectors.dense, np.float32), moved]), csr_array(sparse[:, np.flatnonzero(~frequent)])


def _add(block: NDArray[np.float32], product: csr_array) -> None:
    for row, start, end in zip(block, product.indptr[:-1], product.indptr[1:], strict=True):
        row[product.indices[start:end]] += product.data[start:end]


def _through_index(vectors: Vectors, nearby: Nearby, coreads: CoReads | None, weight: float, k: int) -> Iterator[Block]:
    """Candidates are what the index finds, who shares a series or an author, and what readers read; all are scored."""
    n = len(vectors)
    for books, nearest in nearby.near_each(k + 1):
        features = vectors.features(books)
        there = np.nonzero(nearest >= 0)
        near = there[0] * n + nearest[there]
        asked, found = nearby.sharers_of_each(features)
        read = coreads.scores[books].tocoo() if coreads else coo_array((0, 0), dtype=np.float32)
        together = read.row.astype(np.intp) * n + read.col
        pairs = np.unique(np.concatenate([near, asked.astype(np.intp) * n + found, together]))
        asked, found = np.divmod(pairs, n)

        dense = np.full(len(pairs), np.nan, np.float32)
        dense[np.searchsorted(pairs, near)] = vectors.dense_with(features, nearest)[there]
        unseen = np.isnan(dense)
        dense[unseen] = vectors.dense_of_pairs(books[asked[unseen]], found[unseen])
        content = dense + vectors.sparse_of_pairs(books[asked], found)
        of_readers = np.zeros(len(pairs), np.float32)
        of_readers[np.searchsorted(pairs, together)] = read.data
        scores = blended(content, of_readers, weight)

        others = found != books[asked]
        yield books, *_ranked(asked[others], found[others], scores[others], len(books), k)


def _ranked(
    asked: NDArray[np.intp], found: NDArray[np.intp], scores: NDArray[np.float32], n: int, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best of what was found for each of n books; `asked` and, of each, `found` ascend."""
    order = np.lexsort((found, -scores, asked))
    rank = np.arange(len(order)) - np.searchsorted(asked, asked)  # how many of its own come before
    kept = rank < k
    place = (asked[kept], rank[kept])
    rows, their_scores = np.full((n, k), -1, np.int32), np.zeros((n, k), np.float32)
    rows[place], their_scores[place] = found[order[kept]], scores[order[kept]]
    return rows, their_scores


def _spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)
