"""How good an engine is by the catalogue's own readers, where there are enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recommender.engine.baselines import Ranker, Rows, baselines
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.engine import Engine
from recommender.engine.evaluation import (
    Assessment,
    Fit,
    Scores,
    Trial,
    assess,
    judge,
    likeness_fit,
    p99_ms,
    readers_of,
    trials,
)
from recommender.engine.features import LARGE, Features
from recommender.engine.judgement import Limits

DEPTH = 20  # books of a list that are looked at
ASKED = 200  # books for which the time of an answer is taken


def questions_of(readings: Readings) -> Sequence[Trial]:
    """The trials that the readers make possible; none where any of them would ask about too few books."""
    found = trials(readings) if readings.n_readers > 1 else ()
    return found if all(len(trial.truth) >= Limits().queries for trial in found) else ()


def assessment_of(
    engine: Engine, corpus: Corpus, readings: Readings, questions: Sequence[Trial], previous: Engine | None = None
) -> Assessment:
    """All figures of an engine that was just trained on the corpus."""
    asked = np.random.default_rng(0).permutation(engine.ids)[:ASKED].tolist()
    return assess(
        corpus,
        engine.top(DEPTH)[0],
        scores=scores_of(engine, corpus, questions),
        readings=readings,
        features=_without_words(engine.vectors.dense, engine.vectors.sparse),
        previous=(previous.ids, previous.top(DEPTH)[0]) if previous else None,
        latency_ms=p99_ms(lambda book: engine.similar(book, 10), asked),
        with_readers=engine.coreads is not None,
    )


def scores_of(engine: Engine, corpus: Corpus, questions: Sequence[Trial]) -> Scores | None:
    """What an engine, of today or of long ago, scores on today's books. None without questions.

    Books that it was trained without it does not offer; asked about one, it goes by the text. An engine that learned
    from readers is given those of each trial anew: with its own it would be asked what it was told. So two versions
    differ in what they know of books, and how they weigh it, not in how many readers there were in their time.
    """
    if not questions:
        return None
    features, known = _aligned(engine, corpus)
    weighed = engine.recipe if engine.coreads is not None else replace(engine.recipe, readers_weight=0.0)
    return judge(questions, likeness_fit(features, weighed, known))


def baseline_scores(corpus: Corpus, readings: Readings, questions: Sequence[Trial]) -> Mapping[str, Scores]:
    """What simpler rankings score on the same questions. None for a large corpus, where fitting them takes minutes."""
    if not questions or len(corpus) > LARGE:
        return {}
    rankers = baselines(corpus, readers_of(readings, len(corpus)))
    return {name: judge(questions, _unlearning(ranker)) for name, ranker in rankers.items()}


def _unlearning(ranker: Ranker) -> Fit:
    return lambda _: ranker


def _aligned(engine: Engine, corpus: Corpus) -> tuple[Features, Rows]:
    """The engine's features of a corpus, those of new books made from their texts; and the rows that are not new."""
    places = np.minimum(np.searchsorted(engine.ids, corpus.ids), len(engine.ids) - 1)
    is_known = engine.ids[places] == corpus.ids
    known, new = (np.flatnonzero(mask).astype(np.int32) for mask in (is_known, ~is_known))
    old_dense, old_sparse = engine.vectors.dense[places[known]], engine.vectors.sparse[places[known]]
    if not len(new):
        return _without_words(old_dense, old_sparse), known
    texts = engine.featurizer.transform(corpus.take(new))
    dense = np.empty((len(corpus), texts.dense.shape[1]), np.float32)
    dense[known], dense[new] = old_dense, texts.dense
    sparse = _spread(old_sparse, known, len(corpus)) + _spread(texts.sparse, new, len(corpus))
    return _without_words(dense, csr_array(sparse)), known


def _spread(rows: csr_array, to: Rows, n: int) -> csr_array:
    """The rows as rows `to` of n, which are otherwise empty."""
    placing = csr_array((np.ones(len(to), np.float32), (to, np.arange(len(to)))), shape=(n, len(to)))
    return csr_array(placing @ rows)


def _without_words(dense: NDArray[np.float32] | NDArray[np.float16], sparse: csr_array) -> Features:
    return Features(np.asarray(dense, np.float32), sparse, np.zeros((sparse.shape[0], 0), np.int32))
