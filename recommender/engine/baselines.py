"""Rankings to beat: each says what a figure is worth that stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recommender.engine.coreads import CoReads, blended
from recommender.engine.corpus import Corpus
from recommender.engine.features import Features, Featurizer
from recommender.engine.recipes import recipe

Rows = NDArray[np.int32]
Ranker = Callable[[Rows, Rows, int], Rows]
"""From (queries, candidates, k) to each query's best `k` candidates but itself, best first: (n_queries, k), -1 pads.

Queries and candidates are rows of one corpus; candidates ascend.
"""

RECIPES = ("title_tfidf", "title_category_price", "s")
BLOCK = 256  # queries scored at once: with a hundred thousand candidates a block has 100 MB


def baselines(
    corpus: Corpus, n_readers: NDArray[np.int64], *, seed: int = 0, recipes: Sequence[str] = RECIPES
) -> dict[str, Ranker]:
    """All of them by name. Fitting the recipes takes a second for a thousand books."""
    simple = {
        "random": at_random(seed),
        "popularity": most_read(n_readers),
        "same_category": same_category(corpus.categories, seed),
    }
    return simple | {name: by_likeness(Featurizer.fit(corpus, recipe(name))[1]) for name in recipes}


def at_random(seed: int = 0) -> Ranker:
    """Any books."""

    def rank(queries: Rows, candidates: Rows, k: int) -> Rows:
        random = np.random.default_rng(seed)
        return _each(queries, k, lambda row: _shuffled(random, candidates[candidates != row], k))

    return rank


def most_read(n_readers: NDArray[np.int64]) -> Ranker:
    """The same books for every query: those with the most readers; of equals the lower row.

    Counted on the readers that judge it, it is a bound of what popularity can reach.
    """

    def rank(queries: Rows, candidates: Rows, k: int) -> Rows:
        best = candidates[np.argsort(-n_readers[candidates], kind="stable")[: k + 1]]
        return _each(queries, k, lambda row: best[best != row])

    return rank


def same_category(categories: Sequence[str], seed: int = 0) -> Ranker:
    """Any books of the query's category, then any others."""
    _, codes = np.unique(np.asarray(categories), return_inverse=True)

    def rank(queries: Rows, candidates: Rows, k: int) -> Rows:
        random = np.random.default_rng(seed)

        def of(row: int) -> Rows:
            same = codes[candidates] == codes[row]
            within = _shuffled(random, candidates[same & (candidates != row)], k)
            return np.concatenate([within, _shuffled(random, candidates[~same], k - len(within))])

        return _each(queries, k, of)

    return rank


def by_likeness(features: Features, coreads: CoReads | None = None, readers_weight: float = 0.0) -> Ranker:
    """The books of the best scores, each pair compared: what a recipe ranks before any index makes it fast."""

    def rank(queries: Rows, candidates: Rows, k: int) -> Rows:
        dense, sparse = features.dense[candidates].T, features.sparse[candidates].T
        read = coreads.scores[:, candidates] if coreads else None
        result = np.full((len(queries), k), -1, np.int32)
        for start in range(0, len(queries), BLOCK):
            rows = queries[start : start + BLOCK]
            scores = features.dense[rows] @ dense + (features.sparse[rows] @ sparse).toarray()
            if read is not None:
                scores = blended(scores, read[rows].toarray(), readers_weight)
            scores[rows[:, None] == candidates] = -np.inf
            best = _best(scores, k)
            found = np.where(np.isfinite(np.take_along_axis(scores, best, axis=1)), candidates[best], -1)
            result[start : start + len(rows), : found.shape[1]] = found
        return result

    return rank


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Columns of the `k` best scores of each row, best first; of equal ones the lower column, whatever `k` is."""
    k = min(k, scores.shape[1])
    least = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k, None]
    tied = np.where(scores >= least, scores, -np.inf)
    return np.argsort(-tied, axis=1, kind="stable")[:, :k]


def _each(queries: Rows, k: int, of: Callable[[int], Rows]) -> Rows:
    result = np.full((len(queries), k), -1, np.int32)
    for i, row in enumerate(queries):
        best = of(int(row))[:k]
        result[i, : len(best)] = best
    return result


def _shuffled(random: np.random.Generator, rows: Rows, k: int) -> Rows:
    return random.choice(rows, min(k, len(rows)), replace=False)
