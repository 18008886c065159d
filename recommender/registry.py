"""The registry's rows: trainings under their lock, and decisions, none of which is ever forgotten."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from catalog.liveness import is_dead
from recommender.engine.recipes import DEFAULT, RECIPES, recipe
from recommender.models import NAME_MAX, REASON_MAX, DecisionRecord, ModelVersion

logger = logging.getLogger(__name__)

HEARTBEAT_S = 20
#: A training on another host that has not been heard of for so long is dead. Native code can hold Python's lock, and
#: with it the heart, for minutes; on this host the process itself is asked.
SILENCE_S = 900


class TrainingError(Exception):
    """There is no new model."""


class TrainingUnderWay(TrainingError):
    """A training is under way already."""

    def __init__(self, training: ModelVersion | None) -> None:
        super().__init__(f"Training {training.pk} is under way." if training else self.__doc__)
        self.training = training


class UnknownTraining(TrainingError):
    """There is no such training under way."""


# --- The life of a training -------------------------------------------------------------------------------------------
def start_training(recipe_name: str | None = None, requested_by: str = "") -> ModelVersion:
    """A new training, which holds the lock until it ends. One that died is marked failed first.

    Without a recipe it is the champion's, which is a refresh.

    Raises:
        UnknownRecipe: there is no recipe of this name.
        TrainingUnderWay: another training lives.
    """
    wanted = recipe(recipe_name or _champions_recipe())
    close_dead_trainings()
    try:
        with transaction.atomic():
            return ModelVersion.objects.create(
                recipe=wanted.name, recipe_version=wanted.version, requested_by=requested_by
            )
    except IntegrityError:
        raise TrainingUnderWay(ModelVersion.objects.training().first()) from None


def _champions_recipe() -> str:
    served = champion()
    return served.recipe if served and served.recipe in RECIPES else DEFAULT


def adopt_training(pk: int) -> ModelVersion:
    """The training, now this process's: while the process lives, so does the training.

    Raises:
        UnknownTraining: there is none of this number under way.
        TrainingUnderWay: another living process has it.
    """
    training = ModelVersion.objects.training().filter(pk=pk).first()
    if training is None:
        raise UnknownTraining(f"There is no training {pk} under way.")
    as_read = ModelVersion.objects.training().filter(pk=pk, pid=training.pid, host=training.host)
    taken = training.pid is not None and not _is_dead(training)
    training.pid, training.host, training.heartbeat_at = os.getpid(), socket.gethostname(), timezone.now()
    if taken or not as_read.update(pid=training.pid, host=training.host, heartbeat_at=training.heartbeat_at):
        raise TrainingUnderWay(training)
    return training


def close_dead_trainings() -> None:
    """Trainings whose process is gone have failed; what one had published, and not decided on, is refused."""
    for training in ModelVersion.objects.training():
        if _is_dead(training):
            fail_training(training.pk, "Its process died.")
    undecided = ModelVersion.objects.filter(state=ModelVersion.State.CANDIDATE, decision="")
    for pk in [candidate.pk for candidate in undecided if _is_dead(candidate)]:
        with transaction.atomic():
            if (candidate := undecided.select_for_update().filter(pk=pk).first()) is not None:
                candidate.state = ModelVersion.State.REFUSED
                record_decision(candidate, ModelVersion.Decision.REFUSED, "Its process died before it was decided on.")


def fail_training(pk: int, reason: str) -> bool:
    """Whether the training was under way; now it has failed, for this reason."""
    now = timezone.now()
    failed = ModelVersion.objects.training().filter(pk=pk)
    if not failed.update(state=ModelVersion.State.FAILED, reason=reason[:REASON_MAX], finished_at=now):
        return False
    logger.error("training failed", extra={"training": pk, "reason": reason})
    return True


def _is_dead(training: ModelVersion) -> bool:
    return is_dead(training.pid, training.host, training.heartbeat_at, SILENCE_S)


@contextmanager
def heart(pk: int) -> Iterator[None]:
    """Tells the database every `HEARTBEAT_S` that the training lives, over a connection of its own."""
    ended = threading.Event()

    def beat() -> None:
        try:
            while not ended.wait(HEARTBEAT_S):
                ModelVersion.objects.training().filter(pk=pk).update(heartbeat_at=timezone.now())
        except Exception:  # the training can do without; whoever finds it silent asks for its process
            logger.exception("heartbeat failed", extra={"training": pk})
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name=f"heart of training {pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# --- The champion -----------------------------------------------------------------------------------------------------
def champion() -> ModelVersion | None:
    """The version that is served. One query."""
    return ModelVersion.objects.champions().first()


# --- Decisions --------------------------------------------------------------------------------------------------------
def record_decision(
    version: ModelVersion,
    decision: ModelVersion.Decision,
    reason: str,
    *,
    by: str = "",
    figures: dict[str, Any] | None = None,
    replaced: ModelVersion | None = None,
) -> None:
    """Keep a decision, and show it on the version's row as the last one, together with the state that it now has."""
    version.decision, version.reason = decision, reason[:REASON_MAX]
    version.decided_at, version.decided_by = timezone.now(), by[:NAME_MAX]
    version.save(update_fields=["state", "decision", "reason", "decided_at", "decided_by"])
    DecisionRecord.objects.create(
        model_version=version,
        decision=decision,
        reason=version.reason,
        figures=figures or {},
        replaced=replaced,
        by=version.decided_by,
        at=version.decided_at,
    )
    logger.info("model decided on", extra=version.log_context())
