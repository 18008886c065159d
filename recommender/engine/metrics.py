"""How good lists of neighbors are. Lists are rows of a corpus, best first, and -1 pads the short ones.

The first functions judge lists by a truth and answer one figure a query, 0..1; the others look at the lists alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine.features import Features
from recommender.engine.truth import Truth

Lists = NDArray[np.int32]  # (n_lists, k)
PerQuery = NDArray[np.float64]  # (n_queries,)

SAMPLE = 2_000  # lists looked at where looking at a million would take long and tell the same
BLOCK = 50_000  # lists compared at once
MIN_READ = 100  # books with readers; of fewer a mean percentile strays from .5 by chance


def ndcg(lists: Lists, truth: Truth, k: int = 10) -> PerQuery:
    """Normalised discounted cumulative gain of the first `k`: 1 when the truth's best are there in the truth's order.

    DCG sums gain / log2(1 + rank) and is divided by that of the ideal list. The gain is the grade itself, the shrunk
    cosine of readers, not 2 to its power. Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques",
    ACM TOIS 20(4), 2002, with the discount from the first rank on, as trec_eval computes it.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains = (_hits(lists[:, :k], truth) * truth.grades[:, None, :]).sum(2, dtype=np.float64)
    ideal = truth.grades[:, :k].astype(np.float64)
    return np.asarray((gains @ discount[: gains.shape[1]]) / (ideal @ discount[: ideal.shape[1]]))


def recall(lists: Lists, truth: Truth, k: int = 20) -> PerQuery:
    """The share of the truth's books, whatever their grade, that are among the first `k`.

    Buckland & Gey, "The relationship between Recall and Precision", JASIS 45(1), 1994.
    """
    found = _hits(lists[:, :k], truth).sum(axis=(1, 2))
    return np.asarray(found / (truth.neighbors >= 0).sum(axis=1))


def reciprocal_rank(lists: Lists, truth: Truth, k: int = 20) -> PerQuery:
    """1 / rank of the first book that is in the truth; 0 where the first `k` hold none. Voorhees, TREC-8, 1999."""
    hit = _hits(lists[:, :k], truth).sum(axis=2) > 0
    return np.where(hit.any(axis=1), 1 / (1 + hit.argmax(axis=1)), 0.0)


def coverage(lists: Lists, n_books: int, k: int = 10) -> float:
    """The share of the books that are among the first `k` of any. Ge et al., "Beyond accuracy", RecSys 2010."""
    shown = lists[:, :k]
    return len(np.unique(shown[shown >= 0])) / n_books


def popularity_percentile(lists: Lists, n_readers: NDArray[np.int64], k: int = 10) -> float | None:
    """How popular the books in the first `k` are, on average: near .5 for a list that does not look at popularity.

    A book's percentile is its rank by number of readers among the books that have readers, from 0 for the least read to
    1 for the most (ties share the middle of theirs). Of a book that nobody read nothing is known, so it does not count.
    None, for unknown, where fewer than `MIN_READ` books have readers, or no list holds one.
    """
    read = np.flatnonzero(n_readers > 0)
    if len(read) < MIN_READ:
        return None
    counts, places = np.unique(n_readers[read], return_inverse=True)
    ties = np.bincount(places, minlength=len(counts))
    percentile = np.full(len(n_readers), np.nan)
    percentile[read] = ((np.cumsum(ties) - ties / 2) / len(read))[places]
    shown = lists[:, :k]
    known = percentile[shown[shown >= 0]]
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


def full_share(lists: Lists, n_books: int, k: int = 10) -> float:
    """The share of the lists that have `k` books, or all other books of a catalogue with fewer."""
    wanted = min(k, n_books - 1)
    return float(((lists[:, :k] >= 0).sum(axis=1) >= wanted).mean())


def self_neighbors(lists: Lists, queries: NDArray[np.int32]) -> int:
    """How many lists hold the book that they are of."""
    return int((lists == queries[:, None]).any(axis=1).sum())


def duplicates(lists: Lists) -> int:
    """How many places hold a book that their list has already."""
    ordered = np.sort(lists, axis=1)
    return int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum())


def intra_list_diversity(lists: Lists, features: Features, k: int = 10, seed: int = 0) -> float | None:
    """1 less the mean likeness of two books of one list, averaged over (a sample of) lists: 1 for nothing in common.

    Smyth & McClave, "Similarity vs. diversity", ICCBR 2001. None where no list has two books.
    """
    shown = _sample(lists[(lists[:, :k] >= 0).sum(axis=1) > 1], seed)[:, :k]
    if not len(shown):
        return None
    filled = shown >= 0
    sizes = filled.sum(axis=1)
    members = csr_array(
        (np.ones(sizes.sum(), np.float32), shown[filled], np.concatenate([[0], sizes.cumsum()])),
        shape=(len(shown), len(features)),
    )
    lengths = (features.dense**2).sum(axis=1) + features.sparse.power(2).sum(axis=1)
    together = ((members @ features.dense) ** 2).sum(axis=1) + (members @ features.sparse).power(2).sum(axis=1)
    likeness = (together - members @ lengths) / (sizes * (sizes - 1))  # |sum of x|^2 = sum of |x|^2 + all ordered pairs
    return float(1 - likeness.mean())


def same_label_precision(lists: Lists, labels: Sequence[str], k: int = 10) -> float | None:
    """The share of the first `k` that have the query's label, list `i` being of book `i`. "" is no label.

    None where no book has a label.
    """
    same, known = _same_label(lists[:, :k], labels)
    return float(same[known].mean()) if known.any() else None


def same_label_recall(lists: Lists, labels: Sequence[str], k: int = 10) -> float | None:
    """The share of the other books of the query's label that are among the first `k`, of those that have room there.

    None where no two books have a label in common.
    """
    same, known = _same_label(lists[:, :k], labels)
    _, codes, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    others = np.where(known, sizes[codes] - 1, 0)
    asked = others > 0
    return float((same[asked].sum(axis=1) / np.minimum(others[asked], k)).mean()) if asked.any() else None


def churn(old_ids: NDArray[np.int64], old: Lists, new_ids: NDArray[np.int64], new: Lists, k: int = 10) -> float | None:
    """The share of the first `k` that were not there in the version before, over the books that both versions have.

    0 when nothing moved in or out. `ids` say which book a row is, ascending: the versions' rows differ.
    None where no book is in both.
    """
    both, old_rows, new_rows = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    changed = places = 0
    for start in range(0, len(both), BLOCK):
        part = slice(start, start + BLOCK)
        before = _ids(old[old_rows[part], :k], old_ids)
        after = _ids(new[new_rows[part], :k], new_ids)
        filled = after >= 0
        stayed = (after[:, :, None] == before[:, None, :]).any(axis=2)
        changed += int((filled & ~stayed).sum())
        places += int(filled.sum())
    return changed / places if places else None


def _hits(lists: Lists, truth: Truth) -> NDArray[np.bool_]:
    """(n_queries, k, DEPTH): which place of a list holds which book of the truth. One that comes again counts once."""
    hits = (lists[:, :, None] == truth.neighbors[:, None, :]) & (lists[:, :, None] >= 0)
    return np.asarray(hits & (hits.cumsum(axis=1) == 1))


def _sample(lists: Lists, seed: int) -> Lists:
    if len(lists) <= SAMPLE:
        return lists
    return lists[np.random.default_rng(seed).choice(len(lists), SAMPLE, replace=False)]


def _same_label(lists: Lists, labels: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    known = (names != "")[codes]
    return (codes[lists] == codes[:, None]) & (lists >= 0), known


def _ids(rows: Lists, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(rows >= 0, ids[rows], -1)
