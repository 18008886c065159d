"""Books and readers for the engine's tests, and the slow, obvious way to score every pair."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from crawler.practice_shop import Shop
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.engine import Engine

UNREAD = 20  # books, the last ones


@cache
def practice(books: int) -> Corpus:
    """The practice shop's. Each id is three times its place, so that none is taken for a row."""
    told = sorted(Shop(books).truth(), key=lambda book: book.id)
    return Corpus(
        np.array([3 * book.id for book in told], np.int64),
        [book.upc for book in told],
        [book.title for book in told],
        [book.description for book in told],
        [book.category for book in told],
        [book.authors for book in told],
        np.array([float(book.price) for book in told]),
    )


def readings_of(corpus: Corpus, readers: int = 60) -> Readings:
    """Readers of eight of the first sixty books each."""
    chance = np.random.default_rng(1)
    shelves = [chance.choice(min(len(corpus) - UNREAD, 60), 8, replace=False) for _ in range(readers)]
    return Readings.of_pairs(np.repeat(np.arange(readers), 8), np.concatenate(shelves), len(corpus))


@cache
def content_of(engine: Engine) -> NDArray[np.float64]:
    """(n, n): content scores of all pairs."""
    dense = engine.vectors.dense.astype(np.float64)
    sparse = engine.vectors.sparse.toarray().astype(np.float64)
    return np.asarray(dense @ dense.T + sparse @ sparse.T)


@cache
def coreads_of(engine: Engine) -> NDArray[np.float64]:
    """(n, n): co-read scores of all pairs."""
    n = len(engine)
    return np.zeros((n, n)) if engine.coreads is None else engine.coreads.scores.toarray().astype(np.float64)


def blend_of(engine: Engine, content: NDArray[np.float64], coreads: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = engine.recipe.readers_weight if engine.coreads else 0
    return np.asarray((np.clip(content, 0, 1) + weight * coreads) / (1 + weight))
