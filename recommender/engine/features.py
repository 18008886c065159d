"""A book as a row of numbers, such that the dot product of two rows is the likeness of the two books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from scipy.sparse.linalg import svds

from recommender.engine import embeddings
from recommender.engine.accents import unaccented
from recommender.engine.corpus import Corpus
from recommender.engine.errors import TooFewBooks
from recommender.engine.names import names_in
from recommender.engine.recipes import Recipe
from recommender.engine.series import series_of

if TYPE_CHECKING:
    # Imported where it is used: half the start of a process that only knows of models, a worker or a command, was it.
    from sklearn.feature_extraction.text import TfidfVectorizer

LARGE = 100_000  # books; above it, everything but series, authors and names is dense
WORDS = 16  # per book
BATCH = 10_000  # books transformed at a time
EMBEDDED_AT_A_TIME = 500  # books, some half a minute
SAMPLE = 20_000  # books that topics are learned from; in a large corpus, words too
TERMS = 50_000  # of a large corpus
LARGE_DIMENSIONS = 192  # of topics that stand for the words too
SEED = 20_200

MOST_CATEGORIES = 256  # the commonest have a column each
SHARPNESS = 15.0  # of guessed categories: the larger, the more the likeliest one takes all
COMMON = 0.05  # share of books; words of more are no part of a name
NAMED_TOGETHER = (2, 30)  # books that share a name: fewer tell nothing, of more it is no author

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
        vocabulary: NDArray[np.str_],
        topics: NDArray[np.float32],
        centroids: NDArray[np.float32],
        columns: Mapping[str, dict[str, int]],
        common: frozenset[str],
        prices: NDArray[np.float64],
        embedding_dimensions: int = 0,
    ) -> None:
        self.recipe = recipe
        self.large = large
        self.vectorizer = vectorizer
        self.vocabulary = vocabulary  # (n_terms,): how a term is shown
        self.topics = topics  # (n_terms, k)
        self.centroids = centroids  # (n_categories, k + d): mean topics and embeddings of its books, L2-normalised
        self.columns = columns  # of "category", "series", "authors" and "names": value -> column
        self.common = common
        self.prices = prices  # ascending
        self.embedding_dimensions = embedding_dimensions
        self._readable = np.char.isalpha(vocabulary) & (np.char.str_len(vocabulary) >= 3)

    @classmethod
    def fit(
        cls,
        corpus: Corpus,
        recipe: Recipe,
        progress: Progress | None = None,
        embed: embeddings.Embedder | None = None,
    ) -> tuple[Featurizer, Features]:
        """`embed` makes the embeddings of a recipe that weighs them; the configured model when left out.

        Raises TooFewBooks when the corpus has fewer than 2 books or no word, NoEmbeddings when a recipe weighs them and
        there is no model.
        """
        if len(corpus) < 2:
            raise TooFewBooks("An engine needs at least 2 books.")
        embed = (embed or embeddings.configured()) if recipe.embedding else None
        large = len(corpus) > LARGE
        sample = _sample(len(corpus))
        read = sample if large else np.arange(len(corpus))
        vectorizer, words = _vectorizer(corpus, recipe, read, large=large)
        learned = words if large else words[sample]
        topics = _topics(learned, recipe, large=large)
        whole, books_of = _whole_words(corpus, recipe, read)
        common = frozenset(whole[books_of > max(COMMON * len(read), 5)].tolist())
        columns = _all_columns(corpus, recipe, common)
        embedded = _embedded(corpus, embed, progress)
        signals = _side_by_side(_unit(learned @ topics), embedded[sample])
        featurizer = cls(
            recipe,
            large=large,
            vectorizer=vectorizer,
            vocabulary=_shown(vectorizer.get_feature_names_out(), whole, books_of, recipe.word_length),
            topics=topics,
            centroids=_centroids(signals, [corpus.categories[i] for i in sample], columns["category"]),
            columns=columns,
            common=common,
            prices=np.sort(corpus.prices[~np.isnan(corpus.prices)]),
            embedding_dimensions=embedded.shape[1],
        )
        return featurizer, featurizer._transform(corpus, embedded, progress)

    def transform(self, corpus: Corpus, progress: Progress | None = None) -> Features:
        """The columns are those of the corpus that was fitted; a name or a word that it did not have is left out.

        The embedding block is zeros: the model is not there where an engine answers.
        """
        return self._transform(corpus, np.zeros((len(corpus), self.embedding_dimensions), np.float32), progress)

    def parts(self, corpus: Corpus) -> Parts:
        return Parts([series_of(t) for t in corpus.titles], corpus.categories, corpus.authors)

    def save(self, folder: Path) -> None:
        """Arrays and JSON; nothing that runs when it is read."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "recipe": self.recipe.as_json(),
            "large": self.large,
            "terms": self.vectorizer.get_feature_names_out().tolist(),
            "vocabulary": self.vocabulary.tolist(),
            "columns": self.columns,
            "common": sorted(self.common),
            "embedding_dimensions": self.embedding_dimensions,
        }
        (folder / "featurizer.json").write_bytes(orjson.dumps(facts))
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> Featurizer:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - see above

        facts: dict[str, Any] = orjson.loads((folder / "featurizer.json").read_bytes())
        recipe = Recipe.from_json(facts["recipe"])
        vectorizer = TfidfVectorizer(**_reading(recipe), vocabulary=facts["terms"])
        vectorizer.idf_ = np.load(folder / "idf.npy")
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("topics", "centroids", "prices")}
        return cls(
            recipe,
            large=facts["large"],
            vectorizer=vectorizer,
            vocabulary=np.array(facts["vocabulary"], np.str_),
            columns=facts["columns"],
            common=frozenset(facts["common"]),
            embedding_dimensions=facts["embedding_dimensions"],
            **arrays,
        )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "idf": self.vectorizer.idf_,
            "topics": self.topics,
            "centroids": self.centroids,
            "prices": self.prices,
        }

    def _transform(self, corpus: Corpus, embedded: NDArray[np.float32], progress: Progress | None) -> Features:
        batches: list[Features] = []
        for rows in _batches(len(corpus)):
            batches.append(self._batch(corpus, rows, embedded[rows]))
            if progress:
                progress("features", int(rows[-1]) + 1, len(corpus))
        return Features(
            np.concatenate([b.dense for b in batches]),
            csr_array(vstack([b.sparse for b in batches], format="csr")),
            np.concatenate([b.words for b in batches]),
        )

    def _batch(self, corpus: Corpus, rows: NDArray[np.intp], embedded: NDArray[np.float32]) -> Features:
        words = csr_array(self.vectorizer.transform(_texts(corpus, self.recipe, rows)))
        topics = _unit(words @ self.topics)
        dense: dict[str, Callable[[], NDArray[np.float32]]] = {
            "topics": lambda: topics,
            "category": lambda: self._category([corpus.categories[i] for i in rows], _side_by_side(topics, embedded)),
            "price": lambda: self._price_angle(corpus.prices[rows]),
            "embedding": lambda: embedded,
        }
        sparse: dict[str, Callable[[], csr_array]] = {
            "text": lambda: words,
            "series": lambda: self._one_hot("series", [(series_of(corpus.titles[i]),) for i in rows]),
            "authors": lambda: self._one_hot("authors", [corpus.authors[i] for i in rows]),
            "names": lambda: self._one_hot("names", [names_in(corpus.descriptions[i], self.common) for i in rows]),
        }
        none = np.zeros((len(rows), 0), np.float32)
        return Features(
            np.concatenate([none, *self._weighed(dense)], axis=1),
            csr_array(hstack([csr_array(none), *self._weighed(sparse)], format="csr")),
            self._weightiest(words),
        )

    def _weighed(self, blocks: Mapping[str, Callable[[], Any]]) -> Iterator[Any]:
        return (make() * self._scales[name] for name, make in blocks.items() if name in self._scales)

    @cached_property
    def _scales(self) -> dict[str, np.float32]:
        """For each block that has a weight and that the corpus has: the root of its share of their weights."""
        has = {name: len(columns) for name, columns in self.columns.items()} | {
            "text": len(self.vocabulary),
            "topics": self.topics.shape[1],
            "price": len(self.prices),
            "embedding": self.embedding_dimensions,
        }
        weights = {name: getattr(self.recipe, name) for name in has if has[name] and getattr(self.recipe, name)}
        scales = {name: np.float32(np.sqrt(weight / sum(weights.values()))) for name, weight in weights.items()}
        if self.large:  # words are in the topics alone
            scales["topics"] = np.float32(np.hypot(scales.get("topics", 0), scales.pop("text", 0)))
        return scales

    def _category(self, told: Sequence[str], signals: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_categories): the category told, mixed with those that topics and embedding are nearest to.

        Shelves overlap, and some hold what nobody has sorted: a book of "Young Adult" may be one of "Fantasy" too.
        """
        one_hot = self._one_hot("category", [(name,) for name in told]).toarray()
        share = self.recipe.category_guess
        if not share:
            return np.asarray(one_hot, np.float32)
        nearness = np.exp(SHARPNESS * (signals @ self.centroids.T - 1))
        nearness[~signals.any(axis=1)] = 0
        return _unit((1 - share) * one_hot + share * _unit(nearness))

    def _one_hot(self, block: str, values: Sequence[tuple[str, ...]]) -> csr_array:
        """(n, n_columns), L2-normalised; a value that the fitted corpus did not have is left out."""
        columns = self.columns[block]
        known = [sorted({columns[value] for value in of_book if value in columns}) for of_book in values]
        sizes = np.array([len(of_book) for of_book in known], np.int64)
        indices = np.array([column for of_book in known for column in of_book], np.int64)
        data = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
        return csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(len(values), len(columns)))

    def _price_angle(self, prices: NDArray[np.float64]) -> NDArray[np.float32]:
        """The price's rank as an angle from 0 to 90 degrees, so that near prices have a cosine near 1."""
        angle = np.searchsorted(self.prices, prices) / len(self.prices) * np.pi / 2
        known = ~np.isnan(prices)[:, np.newaxis]
        return np.where(known, np.stack([np.cos(angle), np.sin(angle)], axis=1), 0).astype(np.float32)

    def _weightiest(self, words: csr_array) -> NDArray[np.int32]:
        """(n_books, WORDS) terms of letters alone, the weightiest first."""
        row_of = np.repeat(np.arange(words.shape[0]), np.diff(words.indptr))
        readable = np.flatnonzero(self._readable[words.indices])
        order = readable[np.lexsort((words.indices[readable], -words.data[readable], row_of[readable]))]
        rank = np.arange(len(order)) - np.searchsorted(row_of[order], row_of[order])
        kept = rank < WORDS
        result = np.full((words.shape[0], WORDS), -1, np.int32)
        result[row_of[order][kept], rank[kept]] = words.indices[order][kept]
        return result


def _sample(n: int) -> NDArray[np.intp]:
    """At most SAMPLE rows of n, ascending, the same ones every time."""
    if n <= SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, SAMPLE, replace=False))


def _batches(n: int, size: int = BATCH) -> Iterator[NDArray[np.intp]]:
    for start in range(0, max(n, 1), size):
        yield np.arange(start, min(start + size, n))


def _texts(corpus: Corpus, recipe: Recipe, rows: NDArray[np.intp]) -> Iterator[str]:
    for i in rows:
        description = corpus.descriptions[i] if recipe.with_description else ""
        yield " ".join([*[corpus.titles[i]] * recipe.title_boost, description])


def _reading(recipe: Recipe) -> dict[str, Any]:
    """How texts are cut into terms and weighed.

    Accents are stripped, and words that most books have weigh little or are left out by their number alone, so that
    no language needs a list. The first letters of a word do for its stem: McNamee and Mayfield, 2004, "Character
    n-gram tokenization for European language text retrieval", find five to do as well as a stemmer.
    """
    pattern = rf"(?u)\b(\w{{2,{recipe.word_length}}})\w*" if recipe.word_length else r"(?u)\b\w\w+\b"
    return {"strip_accents": unaccented, "sublinear_tf": True, "dtype": np.float32, "token_pattern": pattern}


def _vectorizer(
    corpus: Corpus, recipe: Recipe, rows: NDArray[np.intp], *, large: bool
) -> tuple[TfidfVectorizer, csr_array]:
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - see above

    limits = {"min_df": 2, "max_features": TERMS} if large else {}
    max_df = 0.5 if len(rows) > 20 else 1.0
    vectorizer = TfidfVectorizer(**_reading(recipe), **limits, max_df=max_df)
    try:
        return vectorizer, csr_array(vectorizer.fit_transform(_texts(corpus, recipe, rows)))
    except ValueError as error:
        raise TooFewBooks("The books have no words to compare.") from error


def _topics(words: csr_array, recipe: Recipe, *, large: bool) -> NDArray[np.float32]:
    """(n_terms, k): latent semantic analysis of TF-IDF. Deerwester et al., 1990, JASIS 41(6)."""
    wanted = recipe.topics or recipe.category_guess or large
    dimensions = min(LARGE_DIMENSIONS if large else recipe.lsa_dimensions, min(words.shape) - 1)
    if not wanted or dimensions < 1:
        return np.zeros((words.shape[1], 0), np.float32)
    _, values, directions = svds(words, dimensions, rng=SEED)
    real = values > 1e-5 * values.max()  # of books that repeat each other there are fewer
    return np.ascontiguousarray(directions[real].T, np.float32)


def _whole_words(corpus: Corpus, recipe: Recipe, rows: NDArray[np.intp]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """All words of the books, in the order of the alphabet, and how many books have each."""
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - see above

    counter = CountVectorizer(strip_accents=unaccented, binary=True, dtype=np.int32)
    counts = csr_array(counter.fit_transform(_texts(corpus, recipe, rows)))
    return counter.get_feature_names_out().astype(np.str_), np.bincount(counts.indices, minlength=counts.shape[1])


def _shown(terms: NDArray[Any], whole: NDArray[np.str_], books_of: NDArray[np.int64], length: int) -> NDArray[np.str_]:
    """For each term the commonest word that it stands for."""
    if not length:
        return terms.astype(np.str_)
    order = np.argsort(-books_of, kind="stable")
    starts = whole[order].astype(f"<U{length}")
    found, first = np.unique(starts, return_index=True)
    return np.asarray(whole[order][first[np.searchsorted(found, terms.astype(np.str_))]])


def _all_columns(corpus: Corpus, recipe: Recipe, common: frozenset[str]) -> dict[str, dict[str, int]]:
    named = (names_in(d, common) for d in corpus.descriptions) if recipe.names else ()
    least, most = NAMED_TOGETHER
    return {
        "category": _columns(((name,) for name in corpus.categories), kept=MOST_CATEGORIES),
        "series": _columns((series_of(title),) for title in corpus.titles),
        "authors": _columns(corpus.authors),
        "names": _columns(named, least, most),
    }


def _columns(
    values: Iterable[tuple[str, ...]], least: int = 1, most: int | None = None, kept: int | None = None
) -> dict[str, int]:
    """A column for each value that from `least` to `most` books have, or for the `kept` commonest of them."""
    counts = Counter(value for of_book in values for value in of_book if value)
    common = sorted(counts, key=lambda value: (-counts[value], value))[:kept]
    chosen = sorted(value for value in common if least <= counts[value] <= (most or counts[value]))
    return {value: column for column, value in enumerate(chosen)}


def _embedded(corpus: Corpus, embed: embeddings.Embedder | None, progress: Progress | None) -> NDArray[np.float32]:
    """(n_books, d), centred: what all books have in common says nothing about two of them."""
    if embed is None:
        return np.zeros((len(corpus), 0), np.float32)
    batches: list[NDArray[np.float32]] = []
    for rows in _batches(len(corpus), EMBEDDED_AT_A_TIME):
        batches.append(_unit(embed([f"{corpus.titles[i]}. {corpus.descriptions[i]}" for i in rows])))
        if progress:
            progress("embeddings", int(rows[-1]) + 1, len(corpus))
    embedded = np.concatenate(batches)
    return _unit(embedded - embedded.mean(axis=0))


def _side_by_side(topics: NDArray[np.float32], embedded: NDArray[np.float32]) -> NDArray[np.float32]:
    return _unit(np.concatenate([topics, embedded], axis=1))


def _centroids(
    signals: NDArray[np.float32], categories: Sequence[str], columns: Mapping[str, int]
) -> NDArray[np.float32]:
    known = [(columns[name], row) for row, name in enumerate(categories) if name in columns]
    at = np.array(known, np.int64).reshape(-1, 2).T
    belongs = csr_array((np.ones(len(known), np.float32), at), shape=(len(columns), len(categories)))
    return _unit(belongs @ signals)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2-normalised rows; zeros stay zeros."""
    from sklearn.preprocessing import normalize  # noqa: PLC0415 - see above

    return np.asarray(normalize(rows), np.float32) if rows.size else np.asarray(rows, np.float32)
