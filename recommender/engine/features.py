"""A book as a row of numbers, such that the dot product of two rows is the likeness of the two books."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import skops.io
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from recommender.engine.corpus import Corpus
from recommender.engine.errors import TooFewBooks
from recommender.engine.recipes import Recipe
from recommender.engine.series import series_of

LARGE = 100_000  # books; above it, everything but series and authors is dense
WORDS = 16  # per book
BATCH = 20_000  # books transformed at a time
SAMPLE = 50_000  # books that the words and the topics of a large corpus are learned from
SEED = 20_200

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, slots=True)
class Features:
    """Weighted blocks side by side, each L2-normalised and scaled by the square root of its weight.

    The content score of two books is `dense[i] @ dense[j] + sparse[i] @ sparse[j]`. The weights of a recipe sum to 1,
    so that it lies between 0 and 1 as long as no block can be negative, and is 1 for two books that are alike in every
    block. A book without a value for a block has zeros there.
    """

    dense: NDArray[np.float32]  # (n_books, d); d may be 0
    sparse: csr_array  # (n_books, m), float32; m may be 0
    words: NDArray[np.int32]  # (n_books, 16): the book's weightiest terms, numbers in the vocabulary; -1 pads

    def __len__(self) -> int:
        return int(self.sparse.shape[0])


@dataclass(frozen=True, slots=True)
class Parts:
    """What can be told of each book as a reason, in the order of the corpus."""

    series: Sequence[str]  # "" when none
    categories: Sequence[str]
    authors: Sequence[tuple[str, ...]]


class Featurizer:
    """What was learned from a corpus, to make rows of the same columns from other books."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        large: bool,
        vectorizer: TfidfVectorizer,
        svd: TruncatedSVD | None,
        columns: dict[str, dict[str, int]],
        prices: NDArray[np.float64],
    ) -> None:
        self.recipe = recipe
        self.large = large
        self.vectorizer = vectorizer
        self.svd = svd
        self.columns = columns  # of "category", "series" and "authors": name -> column
        self.prices = prices  # ascending
        self.vocabulary: NDArray[np.str_] = vectorizer.get_feature_names_out().astype(str)
        self._readable = np.array([bool(re.fullmatch(r"[^\W\d_]{3,}", term)) for term in self.vocabulary])

    @classmethod
    def fit(cls, corpus: Corpus, recipe: Recipe, progress: Progress | None = None) -> tuple[Featurizer, Features]:
        """Raises TooFewBooks when the corpus has fewer than 2 books, or no word."""
        large = len(corpus) > LARGE
        rng = np.random.default_rng(SEED)
        sample = np.sort(rng.choice(len(corpus), SAMPLE, replace=False)) if large else np.arange(len(corpus))
        vectorizer = TfidfVectorizer(
            strip_accents="unicode",
            sublinear_tf=True,
            max_df=0.5 if len(corpus) > 20 else 1.0,
            min_df=5 if large else 1,
            max_features=50_000 if large else None,
            dtype=np.float32,
        )
        if len(corpus) < 2:
            raise TooFewBooks("An engine needs at least 2 books.")
        try:
            words = csr_array(vectorizer.fit_transform(_texts(corpus, recipe, sample)))
        except ValueError as error:
            raise TooFewBooks("The books have no words to compare.") from error
        svd = None
        dimensions = min(recipe.lsa_dimensions, min(words.shape) - 1)
        if dimensions > 0 and (recipe.topics or large):
            svd = TruncatedSVD(dimensions, random_state=SEED).fit(words)
        columns = {
            "category": _columns([(c,) for c in corpus.categories], at_least=1),
            "series": _columns([(series_of(t),) for t in corpus.titles], at_least=1),
            "authors": _columns(corpus.authors, at_least=1),
        }
        prices = np.sort(corpus.prices[~np.isnan(corpus.prices)])
        featurizer = cls(recipe, large=large, vectorizer=vectorizer, svd=svd, columns=columns, prices=prices)
        return featurizer, featurizer.transform(corpus, progress)

    def transform(self, corpus: Corpus, progress: Progress | None = None) -> Features:
        """The columns are those of the corpus that was fitted; a name or a word that it did not have is left out."""
        batches: list[Features] = []
        for rows in _batches(len(corpus)):
            batches.append(self._batch(corpus, rows))
            if progress:
                progress("features", int(rows[-1]) + 1, len(corpus))
        return Features(
            np.concatenate([b.dense for b in batches]),
            csr_array(vstack([b.sparse for b in batches], format="csr")),
            np.concatenate([b.words for b in batches]),
        )

    def parts(self, corpus: Corpus) -> Parts:
        return Parts([series_of(t) for t in corpus.titles], corpus.categories, corpus.authors)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        skops.io.dump({"vectorizer": self.vectorizer, "svd": self.svd}, folder / "text.skops")
        np.save(folder / "prices.npy", self.prices)
        facts = {"recipe": self.recipe.as_json(), "large": self.large, "columns": self.columns}
        (folder / "featurizer.json").write_bytes(orjson.dumps(facts))

    @classmethod
    def load(cls, folder: Path) -> Featurizer:
        text = skops.io.load(folder / "text.skops")
        facts: dict[str, Any] = orjson.loads((folder / "featurizer.json").read_bytes())
        return cls(
            Recipe.from_json(facts["recipe"]),
            large=facts["large"],
            vectorizer=text["vectorizer"],
            svd=text["svd"],
            columns=facts["columns"],
            prices=np.load(folder / "prices.npy"),
        )

    def _batch(self, corpus: Corpus, rows: NDArray[np.intp]) -> Features:
        words = csr_array(self.vectorizer.transform(_texts(corpus, self.recipe, rows)))
        category = self._one_hot("category", [(corpus.categories[i],) for i in rows])
        sparse = [
            self._one_hot("series", [(series_of(corpus.titles[i]),) for i in rows]) * self._scale("series"),
            self._one_hot("authors", [corpus.authors[i] for i in rows]) * self._scale("authors"),
        ]
        dense = [self._price_angle(corpus.prices[rows]) * self._scale("price")]
        if self.large:
            dense += [self._topics(words) * self._scale("text", "topics")]
            dense += [category.toarray() * self._scale("category")]
        else:
            sparse += [words * self._scale("text"), category * self._scale("category")]
            dense += [self._topics(words) * self._scale("topics")]
        return Features(
            np.concatenate(dense, axis=1).astype(np.float32),
            csr_array(hstack(sparse, format="csr", dtype=np.float32)),
            self._weightiest(words),
        )

    def _scale(self, *blocks: str) -> np.float32:
        """The root of the blocks' share of the weight of all blocks that the corpus has."""
        weights = {b: float(getattr(self.recipe, b)) for b in ("text", "topics", *self.columns, "price")}
        weights |= {b: 0.0 for b, columns in self.columns.items() if not columns}
        weights["topics"] *= self.svd is not None
        weights["price"] *= len(self.prices) > 0
        return np.float32(np.sqrt(sum(weights[b] for b in blocks) / sum(weights.values())))

    def _topics(self, words: csr_array) -> NDArray[np.float32]:
        if self.svd is None:
            return np.zeros((words.shape[0], 0), np.float32)
        return np.asarray(normalize(self.svd.transform(words)), np.float32)

    def _one_hot(self, block: str, names: Sequence[tuple[str, ...]]) -> csr_array:
        columns = self.columns[block]
        known = [[columns[name] for name in set(of_book) if name in columns] for of_book in names]
        sizes = np.array([len(of_book) for of_book in known], np.int64)
        indices = np.array([column for of_book in known for column in sorted(of_book)], np.int64)
        data = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
        return csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(len(names), len(columns)))

    def _price_angle(self, prices: NDArray[np.float64]) -> NDArray[np.float32]:
        """The price's rank as an angle from 0 to 90 degrees, so that near prices have a cosine near 1."""
        if not self.recipe.price:
            return np.zeros((len(prices), 0), np.float32)
        angle = np.searchsorted(self.prices, prices) / max(len(self.prices), 1) * np.pi / 2
        known = ~np.isnan(prices)[:, np.newaxis]
        return np.where(known, np.stack([np.cos(angle), np.sin(angle)], axis=1), 0).astype(np.float32)

    def _weightiest(self, words: csr_array) -> NDArray[np.int32]:
        """(n_books, WORDS) terms of letters alone, the weightiest first."""
        row_of = np.repeat(np.arange(words.shape[0]), np.diff(words.indptr))
        readable = np.flatnonzero(self._readable[words.indices])
        order = readable[np.lexsort((words.indices[readable], -words.data[readable], row_of[readable]))]
        rank = np.arange(len(order)) - np.searchsorted(row_of[order], np.arange(words.shape[0]))[row_of[order]]
        result = np.full((words.shape[0], WORDS), -1, np.int32)
        kept = rank < WORDS
        result[row_of[order][kept], rank[kept]] = words.indices[order][kept]
        return result


def _texts(corpus: Corpus, recipe: Recipe, rows: NDArray[np.intp]) -> Iterator[str]:
    for i in rows:
        description = corpus.descriptions[i] if recipe.with_description else ""
        yield " ".join([*[corpus.titles[i]] * recipe.title_boost, description])


def _columns(names: Sequence[tuple[str, ...]], at_least: int) -> dict[str, int]:
    """A column for each name that so many books have."""
    counts: dict[str, int] = {}
    for of_book in names:
        for name in of_book:
            counts[name] = counts.get(name, 0) + 1
    kept = sorted(name for name, count in counts.items() if name and count >= at_least)
    return {name: column for column, name in enumerate(kept)}


def _batches(n: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, max(n, 1), BATCH):
        yield np.arange(start, min(start + BATCH, n))
