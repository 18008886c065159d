"""Which of many scores are the greatest, in an order that never depends on chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRIDE = 16  # of the sample that a long row is judged by


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Positions of the k greatest of a row, descending; of equal ones the first comes first. All when k are not there.

    A partition of a whole long row costs more than computing it did. The greatest of every 16th score tell a bound that
    leaves little to sort; where the bound turns out too high, the row is partitioned after all.
    """
    n = len(scores)
    if k <= 0:
        return np.zeros(0, np.intp)
    if n <= k:
        return np.argsort(-scores, kind="stable")
    in_sample = 2 * k // STRIDE + 16
    if n > 8 * in_sample * STRIDE:
        bound = np.partition(scores[::STRIDE], -in_sample)[-in_sample]
        chosen = np.flatnonzero(scores >= bound)
    if n <= 8 * in_sample * STRIDE or len(chosen) < k:
        chosen = np.flatnonzero(scores >= np.partition(scores, n - k)[n - k])
    order = np.argsort(-scores[chosen], kind="stable")[:k]
    return np.asarray(chosen[order])


def diverse(
    relevance: NDArray[np.float32], likeness: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.intp]:
    """Positions of k candidates by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each next one has the most of `(1 - diversity) * relevance - diversity * likeness to the nearest one chosen`; of
    equal ones the first comes first.

    Args:
        relevance: (n,) of the candidates to the question, 0..1.
        likeness: (n, n) of the candidates to each other, 0..1.
        diversity: 0 orders by relevance alone, 1 looks at the first candidate's relevance only.
    """
    chosen: list[int] = []
    nearest = np.zeros(len(relevance), np.float32)
    left = np.ones(len(relevance), bool)
    for _ in range(min(k, len(relevance))):
        marginal = (1 - diversity) * relevance - diversity * nearest
        # Nothing is chosen yet at first, so that relevance alone decides, whatever the diversity.
        pick = int(np.argmax(np.where(left, marginal if chosen else relevance, -np.inf)))
        chosen.append(pick)
        left[pick] = False
        nearest = np.maximum(nearest, likeness[pick])
    return np.array(chosen, np.intp)
