"""Trainings: what they read, what they leave behind, and that there is one at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from catalog.models import Book
from catalog.revision import current_revision
from recommender import registry
from recommender.engine.artifact import Store
from recommender.engine.engine import Engine
from recommender.engine.errors import UnknownRecipe
from recommender.engine.recipes import DEFAULT
from recommender.models import ModelVersion
from recommender.registry import (
    SILENCE_S,
    TrainingUnderWay,
    UnknownTraining,
    adopt_training,
    close_dead_trainings,
    fail_training,
    heart,
    record_decision,
    start_training,
)
from recommender.training import TrainingFailed, corpus_from_catalogue, train
from tests.bookapi.logins import all_at_once
from tests.factories import make_book, make_books
from tests.recommender.trainings import make_readers, make_shelves, promoted, trained

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("store")]


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- What is read -----------------------------------------------------------------------------------------------------
def test_the_corpus_is_the_listed_books_in_the_order_of_their_ids() -> None:
    book = make_book(title="Té", authors=["A. B.", "C"], category="Poésie", price="12.50", description="A\u00a0b")
    make_book(listed=False)
    make_book(hidden=True)
    make_book(merged_into=book)
    last = make_book(authors=[])
    corpus = corpus_from_catalogue()
    assert corpus.ids.tolist() == [book.pk, last.pk]
    assert corpus.ids.dtype == np.int64
    assert list(corpus.upcs) == [book.upc, last.upc]
    assert (corpus.titles[0], corpus.descriptions[0], corpus.categories[0]) == ("Té", "A\u00a0b", "Poésie")
    assert list(corpus.authors) == [("A. B.", "C"), ()]
    assert corpus.prices.tolist() == [12.5, 51.5]


def test_books_of_one_shelf_share_its_name_in_memory() -> None:
    make_books(6)
    names = corpus_from_catalogue().categories
    assert len({id(name) for name in names}) == 3


def test_books_that_the_shop_has_not_sorted_have_no_category_in_common() -> None:
    for name in ("Default", "Add a comment", "Poetry"):
        make_book(category=name)
    assert list(corpus_from_catalogue().categories) == ["", "", "Poetry"]


def test_some_books_can_be_asked_for() -> None:
    make_book(shop="a")
    other = make_book(shop="b")
    assert corpus_from_catalogue(Book.objects.listed().filter(shop="b")).ids.tolist() == [other.pk]


@pytest.mark.parametrize("number", [0, 2, 40])
def test_one_query_reads_any_number_of_books(number: int, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    make_books(number)
    with django_assert_num_queries(1):
        assert len(corpus_from_catalogue()) == number


# --- What is left behind ----------------------------------------------------------------------------------------------
def test_a_training_publishes_a_candidate_with_its_figures_and_serves_nothing(store: str) -> None:
    books = make_shelves()
    make_readers(books)
    row = trained().row
    row.refresh_from_db()
    assert (row.state, row.kind, row.recipe, row.decision) == ("candidate", "first", DEFAULT, "")
    assert (row.n_books, row.n_readers, row.revision) == (60, 120, current_revision())
    assert row.data_fingerprint == corpus_from_catalogue().fingerprint()
    assert row.finished_at is not None
    assert set(row.durations) == {"read", "train", "evaluate", "publish"}
    assert (row.pid, row.host) == (os.getpid(), socket.gethostname())
    ndcg = row.metrics["metrics"]["ndcg@10"]
    assert 0 < ndcg["low"] < ndcg["value"] < ndcg["high"] <= 1
    assert {"random", "same_category", "title_tfidf", "s"} <= set(row.metrics["baselines"])
    assert Store(store).champion() is None
    engine = Store(store).load(row.version)
    assert engine.ids.tolist() == [book.pk for book in books]
    assert engine.manifest["revision"] == row.revision
    assert engine.manifest["metrics"]["per_query"]["book"], "what each query scored can be looked into later"
    assert "per_query" not in row.metrics


def test_content_alone_can_be_trained_on_and_is_judged_by_the_same_readers() -> None:
    make_readers(make_shelves())
    row = trained(content_only=True).row
    assert row.n_readers == 0
    assert row.metrics["n_queries"] > 0


def test_without_enough_readers_there_are_proxies_and_no_figures() -> None:
    make_readers(make_shelves(), n=4)
    row = trained().row
    assert (row.metrics["metrics"], row.metrics["baselines"]) == ({}, {})
    assert row.metrics["proxies"]["same_category_precision@10"] > 0.8


def test_a_second_version_is_told_how_much_moved_since_the_champion() -> None:
    make_shelves()
    promoted()
    assert trained().row.metrics["proxies"]["churn@10"] == 0


def test_progress_is_told_step_by_step() -> None:
    make_shelves()
    told: list[tuple[str, int, int]] = []
    trained(progress=lambda *step: told.append(step))
    steps = [step for step, done, total in told if done == total == 1]
    assert steps == ["read", "train", "evaluate", "publish"]


# --- What goes wrong --------------------------------------------------------------------------------------------------
def test_a_training_without_books_fails_and_says_why() -> None:
    training = adopt_training(start_training().pk)
    with pytest.raises(TrainingFailed, match="train: TooFewBooks"):
        train(training)
    training.refresh_from_db()
    assert (training.state, training.version) == ("failed", "")
    assert training.reason.startswith("train: TooFewBooks: ")
    assert training.finished_at is not None
    assert start_training().state == "training", "the lock is free again"


def test_a_full_disk_fails_the_training_and_the_champion_stays(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shelves()
    champion = promoted()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Engine, "save", full)
    with pytest.raises(TrainingFailed, match="No space left"):
        trained()
    failed = ModelVersion.objects.get(state="failed")
    assert failed.reason.startswith("publish: ")
    assert "No space left" in failed.reason
    assert ModelVersion.objects.champions().get() == champion
    assert (Store(store).champion(), Store(store).versions()) == (champion.version, [champion.version])


def test_an_interrupted_training_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shelves()

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained()
    assert ModelVersion.objects.get().reason == "train: interrupted."


# --- One at a time ----------------------------------------------------------------------------------------------------
def test_a_training_whose_process_was_killed_is_marked_failed_at_the_next_start(store: str) -> None:
    make_shelves()
    champion = promoted()
    killed = start_training()
    ModelVersion.objects.filter(pk=killed.pk).update(pid=dead_pid(), host=socket.gethostname())
    assert start_training().state == "training"
    killed.refresh_from_db()
    assert (killed.state, killed.reason) == ("failed", "Its process died.")
    assert ModelVersion.objects.champions().get() == champion
    assert Store(store).champion() == champion.version


def test_a_candidate_whose_process_was_killed_before_its_decision_is_refused_at_the_next_start(store: str) -> None:
    make_shelves()
    killed, waits, lives = (trained().row for _ in range(3))
    dead = ModelVersion.objects.filter(pk__in=[killed.pk, waits.pk])
    dead.update(pid=dead_pid(), host=socket.gethostname())
    record_decision(waits, ModelVersion.Decision.WAITING, "A person decides.")
    close_dead_trainings()
    for row in (killed, waits, lives):
        row.refresh_from_db()
    assert [row.state for row in (killed, waits, lives)] == ["refused", "candidate", "candidate"]
    assert killed.reason == killed.decisions.get().reason == "Its process died before it was decided on."


def test_a_training_elsewhere_is_dead_after_a_long_silence_and_not_before() -> None:
    training = start_training()
    elsewhere = ModelVersion.objects.filter(pk=training.pk)
    silent = timezone.now() - timedelta(seconds=SILENCE_S)
    elsewhere.update(host="elsewhere", pid=1, heartbeat_at=silent + timedelta(seconds=60))
    with pytest.raises(TrainingUnderWay, match=f"Training {training.pk}"):
        start_training()
    elsewhere.update(heartbeat_at=silent - timedelta(seconds=1))
    assert start_training().pk != training.pk


@pytest.mark.django_db(transaction=True)
def test_of_trainings_that_start_at_once_one_wins() -> None:
    def start(_: int) -> bool:
        try:
            return bool(start_training())
        except TrainingUnderWay:
            return False

    assert sorted(all_at_once(4, start)) == [False, False, False, True]
    assert ModelVersion.objects.count() == 1


def test_a_training_is_adopted_by_one_living_process() -> None:
    training = start_training()
    ModelVersion.objects.filter(pk=training.pk).update(pid=os.getppid(), host=socket.gethostname())
    with pytest.raises(TrainingUnderWay):
        adopt_training(training.pk)
    ModelVersion.objects.filter(pk=training.pk).update(pid=dead_pid())
    assert adopt_training(training.pk).pid == os.getpid()
    fail_training(training.pk, "-")
    with pytest.raises(UnknownTraining):
        adopt_training(training.pk)


def test_a_training_that_ended_is_not_failed_afterwards() -> None:
    make_shelves()
    row = trained().row
    assert not fail_training(row.pk, "The process ended with code 0.")
    row.refresh_from_db()
    assert row.state == "candidate"


@pytest.mark.django_db(transaction=True)
def test_a_training_under_way_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "HEARTBEAT_S", 0.01)
    training = start_training()
    with heart(training.pk):
        while ModelVersion.objects.get(pk=training.pk).heartbeat_at == training.heartbeat_at:
            pass


def test_without_a_recipe_the_champions_is_trained() -> None:
    make_shelves()
    assert start_training().recipe == DEFAULT
    fail_training(ModelVersion.objects.get().pk, "-")
    promoted("s")
    assert start_training().recipe == "s"


def test_an_unknown_recipe_starts_nothing() -> None:
    with pytest.raises(UnknownRecipe):
        start_training("magic")
    assert not ModelVersion.objects.exists()
