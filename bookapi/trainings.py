"""Starts a retraining as a process of its own, and buries it.

It outlives the request and the server, and the memory that it needs is given back when it ends. With a broker the
process is a worker's job.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.utils import timezone

from bookapi.jobs import Ended, has_another, run_job
from bookapi.processes import start_detached
from bookapi.publishing import NotPublished, publish
from recommender.models import ModelVersion
from recommender.registry import TrainingError, fail_training, start_training

logger = logging.getLogger(__name__)

#: The reason of a training that no worker has taken yet.
WAITING = "No worker has taken it yet."


class CannotStart(TrainingError):
    """The training could not be started."""


def start_retraining(recipe: str | None, requested_by: str) -> ModelVersion:
    """A new training, with its process started or, with a broker, asked for; without a recipe, the champion's.

    The training's row exists before its process, so that the database's lock decides which of two requests wins; what
    the process says goes to `log_file(training)`.

    Raises:
        UnknownRecipe: there is no such recipe.
        TrainingUnderWay: another training is under way.
        CannotStart: the system refused the process, or the broker the message; the training has failed, and says why.
    """
    if settings.BROKER_URL:
        from bookapi.upkeep import keep_waiting  # noqa: PLC0415 - see `bookapi.crawls`

        keep_waiting()
    training = start_training(recipe, requested_by)
    try:
        _begin(training)
    except CannotStart as error:
        fail_training(training.pk, str(error))
        raise
    return training


def _begin(training: ModelVersion) -> None:
    if settings.BROKER_URL:
        ModelVersion.objects.filter(pk=training.pk).update(reason=WAITING)
        try:
            publish("bookapi.tasks.train", training.pk)
        except NotPublished as error:
            raise CannotStart(str(error)) from error
        logger.info("training published", extra={"training": training.pk})
        return
    try:
        process = start_detached(command(training), log_file(training))
    except OSError as error:
        raise CannotStart(f"The process could not be started: {error.strerror}.") from error
    logger.info("training started", extra={"training": training.pk, "pid": process.pid})
    burial = threading.Thread(target=_bury, args=(process, training.pk), name=f"training {training.pk}", daemon=True)
    burial.start()


def perform(pk: int) -> None:
    """A worker's job: the training from its beginning to its end. Does nothing for one that no longer waits."""
    waiting = ModelVersion.objects.training().filter(pk=pk, pid=None)
    if not waiting.update(reason="", heartbeat_at=timezone.now()):
        logger.warning("training is not wanted any more", extra={"training": pk})
        return
    training = ModelVersion.objects.get(pk=pk)
    try:
        ended = run_job(f"training {pk}", command(training), log_file(training), settings.TRAINING_TIMEOUT_S)
    except OSError as error:
        fail_training(pk, f"The process could not be started: {error.strerror}.")
        raise
    close(pk, ended)


def command(training: ModelVersion) -> list[str]:
    """The arguments of the training's process: never a shell, and nothing that came in a request."""
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "retrain", "--training", str(training.pk)]


def log_file(training: ModelVersion) -> Path:
    return Path(settings.VAR_DIR) / "trainings" / f"training-{training.pk}.log"


def close(pk: int, ended: Ended) -> None:
    """Close the training if its process could not do so itself."""
    training = ModelVersion.objects.training().filter(pk=pk).first()
    if training is None or has_another(training.pid, training.host, ended.group):
        return
    told = f" {ended.why}" if ended.why else ""
    fail_training(pk, f"The process ended with code {ended.code}.{told} Its log is training-{pk}.log.")


def _bury(process: subprocess.Popen[bytes], training: int) -> None:
    """Wait for the process, so that it leaves no zombie, and close its training."""
    code = process.wait()
    try:
        close(training, Ended(process.pid, code))
    except Exception:
        logger.exception("training could not be closed", extra={"training": training})
    finally:
        connection.close()
