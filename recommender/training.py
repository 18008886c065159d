"""From the catalogue to a published candidate."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from django.conf import settings
from django.utils import timezone

from catalog.models import Book
from catalog.querysets import BookQuerySet
from catalog.revision import current_revision
from catalog.rows import authors_json, batches, snapshot
from recommender.engine.artifact import Store
from recommender.engine.corpus import Corpus
from recommender.engine.engine import Engine
from recommender.engine.errors import ArtifactError
from recommender.engine.evaluation import Assessment, Trial, report
from recommender.engine.features import Progress
from recommender.engine.recipes import recipe
from recommender.evaluating import assessment_of, baseline_scores, questions_of
from recommender.models import ModelVersion
from recommender.readings import readings_from_interactions
from recommender.registry import TrainingError, champion, fail_training, heart

logger = logging.getLogger(__name__)


class TrainingFailed(TrainingError):
    """The training failed, and its row says why."""


#: What shops call books that they have not sorted: two of them are not alike for being there.
UNSORTED = frozenset({"Default", "Add a comment"})


# --- What is learned from ---------------------------------------------------------------------------------------------
def corpus_from_catalogue(books: BookQuerySet | None = None) -> Corpus:
    """The listed books, or these, in the order of their ids. One query, read as a stream; a million books have 2 GB."""
    columns = ("id", "upc", "title", "description", "category__name", "authors", "price")
    rows = (Book.objects.listed() if books is None else books).order_by("id").values_list(*columns)
    ids, prices = array("q"), array("d")
    upcs, titles, descriptions, categories = [], [], [], []
    authors: list[tuple[str, ...]] = []
    names: dict[str, str] = {}  # so that a million books share the names of their few categories
    with snapshot() as own:
        for batch in batches(rows, own, size=5_000):
            for pk, upc, title, description, category, written, price in batch:
                ids.append(pk)
                prices.append(price)
                upcs.append(upc)
                titles.append(title)
                descriptions.append(description)
                categories.append("" if category in UNSORTED else names.setdefault(category, category))
                authors.append(tuple(authors_json(written)))
    return Corpus(
        np.array(ids, np.int64), upcs, titles, descriptions, categories, authors, np.array(prices, np.float64)
    )


@dataclass(frozen=True, slots=True)
class Champion:
    row: ModelVersion
    engine: Engine | None  # None: its artifact is gone or damaged


def load_champion() -> Champion | None:
    """One query, and its artifact."""
    if (row := champion()) is None:
        return None
    try:
        return Champion(row, Store(settings.ARTIFACT_STORE).load(row.version))
    except ArtifactError:
        logger.exception("champion cannot be loaded", extra=row.log_context())
        return Champion(row, None)


# --- Training ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Trained:
    """A published candidate, with what it takes to compare it with the champion."""

    row: ModelVersion
    champion: Champion | None  # as it was when the candidate was evaluated
    corpus: Corpus
    questions: Sequence[Trial]
    assessment: Assessment


def train(training: ModelVersion, *, content_only: bool = False, progress: Progress | None = None) -> Trained:
    """Train, evaluate and publish: the training becomes a candidate.

    Raises:
        TrainingFailed: something went wrong, which is on record; nothing that is served has changed.
    """
    steps = Steps(progress)
    try:
        with heart(training.pk):
            return _train(training, content_only, steps)
    except Exception as error:
        reason = f"{steps.current}: {type(error).__name__}: {error}"
        fail_training(training.pk, reason)
        raise TrainingFailed(reason) from error
    except BaseException:
        fail_training(training.pk, f"{steps.current}: interrupted.")
        raise


def _train(row: ModelVersion, content_only: bool, steps: Steps) -> Trained:
    wanted = recipe(row.recipe)
    with steps("read"):
        row.revision = current_revision()  # before the books: they are at least as new
        corpus = corpus_from_catalogue()
        told = readings_from_interactions(corpus)
        readings = None if content_only or not told.n_readers else told
    with steps("train"):
        engine = Engine.train(corpus, wanted, readings, progress=steps.progress)
    with steps("evaluate"):
        served, questions = load_champion(), questions_of(told)
        previous = served.engine if served else None
        assessment = assessment_of(engine, corpus, told, questions, previous)
        metrics = report(assessment, baseline_scores(corpus, told, questions))
        scores = assessment.scores
        per_query = {"per_query": scores.per_query(corpus.ids)} if scores else {}
    with steps("publish"):
        store = Store(settings.ARTIFACT_STORE)
        row.version = store.publish(engine, revision=row.revision, metrics={**metrics, **per_query})
    row.state, row.kind = ModelVersion.State.CANDIDATE, _kind(row, served)
    row.data_fingerprint = corpus.fingerprint()
    row.n_books, row.n_readers = len(corpus), readings.n_readers if readings else 0
    row.metrics, row.durations = metrics, steps.seconds
    row.finished_at = row.heartbeat_at = timezone.now()
    row.save()
    logger.info("model trained", extra=row.log_context())
    return Trained(row, served, corpus, questions, assessment)


def _kind(row: ModelVersion, served: Champion | None) -> ModelVersion.Kind:
    if served is None or served.engine is None:
        return ModelVersion.Kind.FIRST
    same = (served.row.recipe, served.row.recipe_version) == (row.recipe, row.recipe_version)
    return ModelVersion.Kind.REFRESH if same else ModelVersion.Kind.NEW_RECIPE


@dataclass(slots=True)
class Steps:
    """Which step we are in, and how many seconds each one took."""

    progress: Progress | None = None
    current: str = "start"
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.current = name
        if self.progress:
            self.progress(name, 0, 1)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        if self.progress:
            self.progress(name, 1, 1)
