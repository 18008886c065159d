"""How good a ranking is: by what readers read together where that is known, and by its looks where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import thread_time
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.sparse import csr_array

from recommender.engine import metrics
from recommender.engine.baselines import Ranker, Rows, by_likeness
from recommender.engine.coreads import co_reads
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.features import Features
from recommender.engine.metrics import Lists, PerQuery
from recommender.engine.recipes import Recipe
from recommender.engine.series import series_of
from recommender.engine.significance import Gain, Interval
from recommender.engine.truth import Truth, books_to_ask, split_readers, truth_of

DEPTH = 20  # books a query is judged by
SEEDS = range(5)

Fit = Callable[[Readings | None], Ranker]
"""From the readers that may be trained on, None for none of them, to a ranking of the corpus they are of."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fair question: what may be learned from, and what the answer is judged by."""

    training: Readings | None
    truth: Truth


@dataclass(frozen=True, slots=True)
class Scores:
    """A ranking's figures, query by query: two rankings of one truth can be compared in pairs."""

    queries: NDArray[np.int32]  # rows of the corpus, ascending
    ndcg: PerQuery  # at 10
    recall: PerQuery  # at 20
    reciprocal_rank: PerQuery  # within the first 20
    times: PerQuery  # how many trials had truth for the query, and so what it weighs in a mean
    n_skipped: int  # queries without any truth
    n_candidates: int  # books that were ranked
    truth: str  # fingerprint

    @classmethod
    def of(cls, lists: Lists, truth: Truth) -> Self:
        """Of each query's best candidates, in the truth's order of queries."""
        return cls(
            truth.queries,
            metrics.ndcg(lists, truth, 10),
            metrics.recall(lists, truth, 20),
            metrics.reciprocal_rank(lists, truth, 20),
            np.ones(len(truth)),
            truth.n_skipped,
            len(truth.candidates),
            truth.fingerprint(),
        )

    @classmethod
    def mean(cls, trials: Sequence[Self]) -> Self:
        """Each query's mean over the trials that had truth for it; the trials asked about the same books."""
        if len(trials) == 1:
            return trials[0]
        queries, places = np.unique(np.concatenate([t.queries for t in trials]), return_inverse=True)
        times = np.bincount(places).astype(np.float64)

        def mean(figures: Iterable[PerQuery]) -> PerQuery:
            return np.bincount(places, np.concatenate(list(figures))) / times

        return cls(
            queries,
            mean(t.ndcg for t in trials),
            mean(t.recall for t in trials),
            mean(t.reciprocal_rank for t in trials),
            times,
            max(t.n_skipped + len(t.queries) for t in trials) - len(queries),
            round(float(np.mean([t.n_candidates for t in trials]))),
            blake2b("".join(t.truth for t in trials).encode(), digest_size=16).hexdigest(),
        )

    def __len__(self) -> int:
        return len(self.queries)

    def gain_over(self, other: Scores, seed: int = 0) -> Gain:
        """How much better its nDCG@10 is. Raises ValueError when the two were judged by different truths."""
        if self.truth != other.truth:
            raise ValueError("Rankings are compared on one truth, and these two were judged by different ones.")
        return Gain.of(self.ndcg - other.ndcg, self.times, seed)

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """The means, each query weighing as many times as it was asked: of trials alike, the mean of their means."""
        figures = {"ndcg@10": self.ndcg, "recall@20": self.recall, "mrr@20": self.reciprocal_rank}
        return {name: Interval.of(per_query, self.times, seed) for name, per_query in figures.items()}

    def per_query(self, ids: NDArray[np.int64]) -> dict[str, list[float]]:
        """Columns fit for JSON, so that the figures can be looked into later; `ids` are the corpus's."""
        figures = {"ndcg@10": self.ndcg, "recall@20": self.recall, "reciprocal_rank@20": self.reciprocal_rank}
        columns = {name: np.round(per_query, 5).tolist() for name, per_query in figures.items()}
        return {"book": ids[self.queries].tolist()} | columns

    def as_json(self, seed: int = 0) -> dict[str, dict[str, float]]:
        return {name: interval.as_json() for name, interval in self.intervals(seed).items()}


@dataclass(frozen=True, slots=True)
class Assessment:
    """All that is known of how good one version is."""

    scores: Scores | None  # None, or without queries, where there is no truth
    guards: dict[str, float | None]  # what must hold of any version; None: not measured
    proxies: dict[str, float | None]  # what can be seen without readers; none of it says that readers agree
    with_readers: bool = False  # it learned from readers, so that it leans to what is read much, as they do


def trials(
    readings: Readings, seeds: Iterable[int] = SEEDS, query_rows: Rows | None = None, share: float = 0.5
) -> list[Trial]:
    """For each seed `share` of the readers to train on, and the truth of the others.

    An engine trained with the readers that make the truth would be asked what it was told.
    """
    asked = books_to_ask(readings) if query_rows is None else query_rows
    halves = (split_readers(readings, seed, share) for seed in seeds)
    return [Trial(training, truth_of(judging, asked)) for training, judging in halves]


def judge(questions: Sequence[Trial], fit: Fit) -> Scores:
    """What a ranking scores that is fitted anew for each trial. Queries without truth are skipped.

    A version that is trained on content alone may have one trial, `Trial(None, truth_of(all readings))`. To compare it
    with one that learns from readers, give both the same trials.
    """
    return Scores.mean(
        [Scores.of(fit(q.training)(q.truth.queries, q.truth.candidates, DEPTH), q.truth) for q in questions]
    )


def likeness_fit(features: Features, recipe: Recipe, known: Rows | None = None) -> Fit:
    """The exact ranking by features, which know no readers, and by the readers of each trial.

    `known` are the rows of the books that the version has which the features are of: it offers no others, and learns
    nothing of their readers. Without training readers, or in a recipe without a weight for them, content alone ranks.
    """
    known = np.arange(len(features), dtype=np.int32) if known is None else known

    def fit(training: Readings | None) -> Ranker:
        coreads = None
        if training is not None and recipe.readers_weight:
            coreads = co_reads(of_books(training, known), recipe)
        rank = by_likeness(features, coreads, recipe.readers_weight)
        return lambda queries, candidates, k: rank(queries, np.intersect1d(candidates, known), k)

    return fit


def assess(
    corpus: Corpus,
    lists: Lists,
    *,
    scores: Scores | None = None,
    readings: Readings | None = None,
    features: Features | None = None,
    previous: tuple[NDArray[np.int64], Lists] | None = None,
    latency_ms: float | None = None,
    with_readers: bool = False,
) -> Assessment:
    """Look at the neighbors of all books: `lists` has a row for each, of 10 or more.

    `features` say what makes two books alike for diversity: take the same recipe's for all that are compared, since
    every ranking finds its own lists alike. `previous` are ids and lists of the version before; `latency_ms` the 99th
    percentile of asking; `with_readers` whether the ranking learned from readers.
    """
    top = lists[:, :10]
    n = len(corpus)
    guards = {
        "exactly_10": metrics.full_share(top, n),
        "self_neighbors": float(metrics.self_neighbors(lists, np.arange(n, dtype=np.int32))),
        "duplicates": float(metrics.duplicates(lists)),
        "coverage@10": metrics.coverage(top, n),
        "popularity_percentile@10": metrics.popularity_percentile(top, readers_of(readings, n)),
        "latency_p99_ms": latency_ms,
    }
    proxies = {
        "same_category_precision@10": metrics.same_label_precision(top, corpus.categories),
        "same_series_recall@10": metrics.same_label_recall(top, [series_of(title) for title in corpus.titles]),
        "intra_list_diversity@10": metrics.intra_list_diversity(top, features) if features else None,
        "churn@10": metrics.churn(*previous, corpus.ids, top) if previous else None,
    }
    return Assessment(scores, guards, proxies, with_readers)


def readers_of(readings: Readings | None, n_books: int) -> NDArray[np.int64]:
    """(n_books,): how many readers each book has."""
    if readings is None:
        return np.zeros(n_books, np.int64)
    return np.bincount(readings.matrix.indices, minlength=n_books).astype(np.int64)


def p99_ms(ask: Callable[[int], object], books: Sequence[int]) -> float:
    """The 99th percentile of the time that asking about one of the books takes, in milliseconds of this thread's CPU.

    What else the machine was doing says nothing of the engine, and a busy machine must not refuse a model.
    """
    took = []
    for book in books:
        start = thread_time()
        ask(book)
        took.append(thread_time() - start)
    return float(np.percentile(took, 99)) * 1000


def report(assessment: Assessment, baselines: Mapping[str, Scores] | None = None, seed: int = 0) -> dict[str, Any]:
    """Everything as JSON can hold it: figures with their intervals, and each baseline's beside them."""
    scores = assessment.scores
    return {
        "metrics": scores.as_json(seed) if scores else {},
        "n_queries": len(scores) if scores is not None else 0,
        "n_skipped": scores.n_skipped if scores is not None else 0,
        "n_candidates": scores.n_candidates if scores is not None else 0,
        "truth": scores.truth if scores is not None else None,
        "baselines": {
            name: of.as_json(seed) | {"gain_over_it": scores.gain_over(of, seed).as_json()}
            for name, of in (baselines or {}).items()
            if scores
        },
        "guards": _rounded(assessment.guards),
        "proxies": _rounded(assessment.proxies),
    }


def table(report: Mapping[str, Any]) -> Table:
    """A report for people at a terminal."""
    result = Table(
        title=f"{report['n_queries']} queries, {report['n_skipped']} more skipped for want of truth, "
        f"{report['n_candidates']} candidates; 95 % intervals",
        caption=f"Guards: {_told(report['guards'])}.\nProxies, which do not know readers: {_told(report['proxies'])}.",
        caption_justify="left",
    )
    for column in ("ranking", "nDCG@10", "recall@20", "MRR@20", "gain over it", "p"):
        result.add_column(column, justify="left" if column == "ranking" else "right")
    for name, figures in report["baselines"].items():
        gain = figures["gain_over_it"]
        result.add_row(name, *_cells(figures), _cell(gain), f"{gain['p']:.4f}")
    if report["metrics"]:
        result.add_row("this one", *_cells(report["metrics"]), "", "", style="bold")
    return result


def of_books(readings: Readings, rows: Rows) -> Readings:
    """The readings of these books, in columns of all."""
    kept = np.zeros(readings.matrix.shape[1], np.float32)
    kept[rows] = 1
    matrix = csr_array(readings.matrix.multiply(kept))
    matrix.eliminate_zeros()
    return Readings(matrix)


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [_cell(figures[name]) for name in ("ndcg@10", "recall@20", "mrr@20")]


def _cell(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _told(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {'not measured' if f is None else format(f, 'g')}" for name, f in figures.items())


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if figure is None else round(figure, 5) for name, figure in figures.items()}
