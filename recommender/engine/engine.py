"""Similar books: of a book, of a text that is not in the catalogue, or of a basket; filtered, diverse and explained."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.engine.adoption import adopt
from recommender.engine.coreads import CoReads, blended, co_reads
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.errors import UnknownBook
from recommender.engine.features import Features, Featurizer, Progress
from recommender.engine.mapped import Strings, load_csr, mapped, save_csr
from recommender.engine.neighbors import DEEP, top_neighbors
from recommender.engine.ranking import best, diverse
from recommender.engine.reasons import Facts, Reason, Told
from recommender.engine.recipes import Recipe
from recommender.engine.vectors import Vectors

__all__ = ["Engine", "Neighbor", "Reason"]

#: The index is asked for so many times the books that are wanted, since what it finds is not evenly spread.
OVERSHOOT = 4
#: If it had to find more than this for enough of them to be allowed, then the allowed ones are few: all are looked at.
MOST_FOUND = 2_000

Ids = Collection[int] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A book that is similar to what was asked."""

    id: int
    upc: str
    score: float  # 0..1
    reasons: tuple[Reason, ...]  # at least one, the strongest first


@dataclass(frozen=True, slots=True)
class Filter:
    """Which books an answer may hold, by ids."""

    allow: NDArray[np.int64] | None  # ascending; None: every book
    exclude: NDArray[np.int64]  # ascending

    @classmethod
    def of(cls, allow: Ids | None, exclude: Ids) -> Filter:
        return cls(None if allow is None else _ascending(allow), _ascending(exclude))

    def admits(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        refused = _among(ids, self.exclude)
        return ~refused if self.allow is None else _among(ids, self.allow) & ~refused


@dataclass(frozen=True, slots=True)
class Together:
    """What readers read together with what was asked: rows ascending, scores 0..1, how many readers read both."""

    rows: NDArray[np.int32]
    scores: NDArray[np.float32]
    counts: NDArray[np.int32]


NOBODY = Together(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Everything that is needed to answer. Never changes, so that any number of threads may ask it."""

    recipe: Recipe
    ids: NDArray[np.int64]  # (n_books,), ascending: the row of a book is its place here
    upcs: Sequence[str]
    upc_order: NDArray[np.int32]  # rows in the order of their UPCs
    neighbors: NDArray[np.int32]  # (n_books, deep) rows, the nearest first; -1 pads
    scores: NDArray[np.float16]  # of the neighbors, 0..1
    vectors: Vectors
    coreads: CoReads | None
    featurizer: Featurizer
    facts: Facts
    version: str = ""  # "" until published
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def train(
        cls,
        corpus: Corpus,
        recipe: Recipe,
        readings: Readings | None = None,
        *,
        progress: Progress | None = None,
    ) -> Engine:
        """Readings without a reader are none. Raises TooFewBooks."""
        featurizer, features = Featurizer.fit(corpus, recipe, progress)
        vectors, words = Vectors.of(features, indexed=featurizer.large, progress=progress), features.words
        del features  # of a million books, a gigabyte that the vectors hold at half precision
        coreads = co_reads(readings, recipe) if readings and readings.n_readers else None
        if coreads:  # rows of a matrix are searched as they are
            coreads.scores.sort_indices()
            coreads.counts.sort_indices()
        rows, scores = top_neighbors(vectors, coreads, recipe.readers_weight, progress=progress)
        adopt(rows, scores)
        return cls(
            recipe=recipe,
            ids=corpus.ids,
            upcs=Strings.of(corpus.upcs),
            upc_order=np.array(sorted(range(len(corpus)), key=corpus.upcs.__getitem__), np.int32),
            neighbors=rows,
            scores=scores,
            vectors=vectors,
            coreads=coreads,
            featurizer=featurizer,
            facts=Facts.of(featurizer.parts(corpus), words, featurizer.vocabulary),
            manifest={
                "recipe": recipe.name,
                "weights": recipe.as_json(),
                "fingerprint": corpus.fingerprint(),
                "n_books": len(corpus),
                "n_readers": readings.n_readers if readings else 0,
            },
        )

    def __len__(self) -> int:
        return len(self.ids)

    # -- which books ----------------------------------------------------------------------------------------------

    def knows(self, book_id: int) -> bool:
        return len(self._rows([book_id])) == 1

    def id_of(self, upc: str) -> int:
        """Raises UnknownBook, also where two shops have a book of this UPC: it names neither."""
        place = bisect_left(self.upc_order, upc, key=lambda row: self.upcs[row])
        rows = [int(row) for row in self.upc_order[place : place + 2] if self.upcs[row] == upc]
        if len(rows) != 1:
            raise UnknownBook(f"{'Several books have' if rows else 'No book has'} the UPC {upc!r}.")
        return int(self.ids[rows[0]])

    # -- what is similar ------------------------------------------------------------------------------------------

    def similar(
        self, book_id: int, k: int, *, allow: Ids | None = None, exclude: Ids = (), diversity: float = 0.0
    ) -> list[Neighbor]:
        """The k books most like this one, best first: exactly k where the filter admits k others.

        The order depends on nothing but the engine and the question. With a diversity above 0 (at most 1) the best
        comes first, and each next one is both near the question and unlike those before it.

        Raises:
            UnknownBook: the engine was trained without it.
            ValueError: k is negative, or diversity is not within 0..1.
        """
        row = self._row(book_id)
        wanted = Filter.of(allow, exclude)
        deep = self.neighbors[row]
        kept = (deep >= 0) & wanted.admits(self.ids[deep])
        question = Question(np.array([row]), None, self.facts.told([row]), self._together(np.array([row])))
        if np.count_nonzero(kept) >= k:
            return self._answer(question, deep[kept], self.scores[row][kept].astype(np.float32), k, diversity)
        return self._search(question, k, wanted, diversity)

    def similar_to_text(
        self, corpus: Corpus, k: int, *, allow: Ids | None = None, exclude: Ids = (), diversity: float = 0.0
    ) -> list[Neighbor]:
        """The k books most like one that the catalogue does not have (see `Corpus.of_text`); options as in `similar`.

        A text of which the engine knows no word still has k answers, with scores of 0.
        """
        features = self.featurizer.transform(corpus)
        told = Told.of(self.featurizer.parts(corpus), features.words)
        question = Question(np.zeros(0, np.intp), features, told, NOBODY)
        return self._search(question, k, Filter.of(allow, exclude), diversity)

    def similar_to_basket(
        self, book_ids: Iterable[int], k: int, *, allow: Ids | None = None, exclude: Ids = (), diversity: float = 0.0
    ) -> list[Neighbor]:
        """The k books most like these together, none of them; options as in `similar`. Unknown ones are ignored.

        Raises:
            UnknownBook: all of them are unknown.
        """
        rows = self._rows(np.fromiter(book_ids, np.int64))
        if not len(rows):
            raise UnknownBook("The engine was trained without any of these books.")
        question = Question(rows, None, self.facts.told(rows), self._together(rows))
        return self._search(question, k, Filter.of(allow, exclude), diversity)

    def top(self, k: int) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        """Rows (n_books, min(k, n_books - 1)) of each book's nearest others and their scores, descending."""
        k = min(k, len(self) - 1)
        rows = np.full((len(self), k), -1, np.int32)
        scores = np.zeros((len(self), k), np.float16)
        deep = min(k, self.neighbors.shape[1])
        rows[:, :deep], scores[:, :deep] = self.neighbors[:, :deep], self.scores[:, :deep]
        everything = Filter.of(None, ())
        for row in np.flatnonzero(np.any(rows < 0, axis=1)).tolist():
            question = Question(np.array([row]), None, self.facts.told([row]), self._together(np.array([row])))
            rows[row], scores[row] = self._nearest(question, k, everything)
        return rows, scores

    # -- how they are found ---------------------------------------------------------------------------------------

    def _search(self, question: Question, k: int, wanted: Filter, diversity: float) -> list[Neighbor]:
        rows, scores = self._nearest(question, max(k, DEEP) if diversity else k, wanted)
        return self._answer(question, rows, scores, k, diversity)

    def _nearest(self, question: Question, n: int, wanted: Filter) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The n best rows that are wanted and not asked about, and their scores, descending; of equal ones by row."""
        features = self.vectors.features(question.rows) if question.features is None else question.features
        rows = self._indexed(features, question, n, wanted)
        if rows is None and wanted.allow is not None:
            rows = self._rows(wanted.allow)
        if rows is not None:
            rows = rows[wanted.admits(self.ids[rows]) & ~np.isin(rows, question.rows)]
        scores = blended(self.vectors.content(features, rows), question.together_at(rows, len(self)), self._weight)
        if rows is not None:
            order = best(scores, n)
            return rows[order], scores[order]
        refused = np.union1d(self._rows(wanted.exclude), question.rows)
        scores[refused] = -1  # below every score
        order = best(scores, min(n, len(self) - len(refused)))
        return order, scores[order]

    def _indexed(self, features: Features, question: Question, n: int, wanted: Filter) -> NDArray[np.intp] | None:
        """Rows that hold the n best, ascending; None where there is no index, or it finds fewer than n wanted ones."""
        share = 1.0 if wanted.allow is None else len(wanted.allow) / len(self)
        if self.vectors.nearby is None or OVERSHOOT * n > MOST_FOUND * share:
            return None
        found = self.vectors.nearby.near(features, max(int(OVERSHOOT * n / share), DEEP))
        if np.count_nonzero(wanted.admits(self.ids[found]) & ~np.isin(found, question.rows)) < n:
            return None
        return np.unique(np.concatenate([found, self.vectors.nearby.sharers(features), question.together.rows]))

    def _answer(
        self, question: Question, rows: NDArray[np.integer[Any]], scores: NDArray[np.float32], k: int, diversity: float
    ) -> list[Neighbor]:
        """The first k of candidates, or k diverse ones of them, with their reasons."""
        if k < 0 or not 0 <= diversity <= 1:
            raise ValueError("k is at least 0, and diversity is between 0 and 1.")
        chosen = diverse(scores, self.vectors.likeness(rows), k, diversity) if diversity else np.arange(len(rows))[:k]
        readers = question.readers_of(rows[chosen])
        return [
            Neighbor(
                id=int(self.ids[row]),
                upc=self.upcs[int(row)],
                score=round(float(score), 4),
                reasons=self.facts.reasons(question.told, int(row), int(count), float(score)),
            )
            for row, score, count in zip(rows[chosen], scores[chosen], readers, strict=True)
        ]

    @property
    def _weight(self) -> float:
        return self.recipe.readers_weight if self.coreads else 0.0

    def _row(self, book_id: int) -> int:
        rows = self._rows([book_id])
        if not len(rows):
            raise UnknownBook(f"The engine was trained without book {book_id}.")
        return int(rows[0])

    def _rows(self, ids: Ids) -> NDArray[np.intp]:
        """Of the ids that are known, ascending and distinct."""
        ids = _ascending(ids)
        places = np.searchsorted(self.ids, ids)
        places[places == len(self)] = 0
        return np.unique(places[self.ids[places] == ids])

    def _together(self, rows: NDArray[np.intp]) -> Together:
        """Of several books: of each pair's scores the probabilistic sum, and the greatest count."""
        if self.coreads is None:
            return NOBODY
        scores, counts = self.coreads.scores, self.coreads.counts
        if len(rows) == 1:
            own = slice(*scores.indptr[rows[0] : rows[0] + 2])
            return Together(scores.indices[own], scores.data[own], counts.data[own])
        scores, counts = scores[rows], counts[rows]
        columns, places = np.unique(scores.indices, return_inverse=True)
        missing, most = np.ones(len(columns), np.float32), np.zeros(len(columns), np.int32)
        np.multiply.at(missing, places, 1 - scores.data)
        np.maximum.at(most, places, counts.data)
        return Together(columns, 1 - missing, most)

    # -- on disk --------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Every array in a file of its own; see `artifact` for what makes a folder trustworthy."""
        np.save(folder / "ids.npy", self.ids)
        np.save(folder / "upc_order.npy", self.upc_order)
        np.save(folder / "neighbors.npy", self.neighbors)
        np.save(folder / "scores.npy", self.scores)
        Strings.of(self.upcs).save(folder, "upcs")
        self.vectors.save(folder)
        self.facts.save(folder)
        self.featurizer.save(folder / "featurizer")
        if self.coreads:
            save_csr(self.coreads.scores, folder, "coread_scores")
            save_csr(self.coreads.counts, folder, "coread_counts")

    @classmethod
    def load(cls, folder: Path, manifest: dict[str, Any]) -> Engine:
        """Maps what `save` wrote. The folder's files are trusted: verify them first."""
        coreads = None
        if (folder / "coread_scores.data.npy").exists():
            coreads = CoReads(load_csr(folder, "coread_scores"), load_csr(folder, "coread_counts"))
        return cls(
            recipe=Recipe.from_json(manifest["weights"]),
            ids=mapped(folder / "ids.npy"),
            upcs=Strings.load(folder, "upcs"),
            upc_order=mapped(folder / "upc_order.npy"),
            neighbors=mapped(folder / "neighbors.npy"),
            scores=mapped(folder / "scores.npy"),
            vectors=Vectors.load(folder),
            coreads=coreads,
            featurizer=Featurizer.load(folder / "featurizer"),
            facts=Facts.load(folder),
            version=manifest["version"],
            manifest=manifest,
        )


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer is near to: books of the engine, or the features of a text."""

    rows: NDArray[np.intp]  # the books asked about, ascending: never in the answer
    features: Features | None  # of a text; None: those of `rows`, which only a search needs
    told: Told
    together: Together

    def together_at(self, rows: NDArray[np.intp] | None, n_books: int) -> NDArray[np.float32]:
        """Co-read scores of these ascending rows, or of all books."""
        if rows is None:
            everywhere = np.zeros(n_books, np.float32)
            everywhere[self.together.rows] = self.together.scores
            return everywhere
        scores = np.zeros(len(rows), np.float32)
        _, here, there = np.intersect1d(rows, self.together.rows, assume_unique=True, return_indices=True)
        scores[here] = self.together.scores[there]
        return scores

    def readers_of(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """How many readers of each also read what was asked about."""
        together = self.together
        if not len(together.rows):
            return np.zeros(len(rows), np.int32)
        places = np.minimum(np.searchsorted(together.rows, rows), len(together.rows) - 1)
        return np.where(together.rows[places] == rows, together.counts[places], 0)


def _ascending(ids: Ids) -> NDArray[np.int64]:
    array = ids if isinstance(ids, np.ndarray) else np.fromiter(ids, np.int64, len(ids))
    return np.sort(array) if np.any(array[1:] < array[:-1]) else array


def _among(ids: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(ids), bool)
    places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    return np.asarray(ascending[places] == ids)
