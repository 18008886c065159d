"""Starts a retraining as a process of its own, and buries it.

It outlives the request and the server, and the memory that it needs is given back when it ends.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

from django.conf import settings
from django.db import connection

from bookapi.processes import start_detached
from recommender.models import ModelVersion
from recommender.registry import TrainingError, fail_training, start_training

logger = logging.getLogger(__name__)


class CannotStart(TrainingError):
    """The training's process could not be started."""


def start_retraining(recipe: str | None, requested_by: str) -> ModelVersion:
    """A new training, with its process started; without a recipe, the champion's.

    The training's row exists before its process, so that the database's lock decides which of two requests wins; what
    the process says goes to `log_file(training)`.

    Raises:
        UnknownRecipe: there is no such recipe.
        TrainingUnderWay: another training is under way.
        CannotStart: the system refused the process; the training has failed, and says why.
    """
    training = start_training(recipe, requested_by)
    try:
        process = start_detached(command(training), log_file(training))
    except OSError as error:
        reason = f"The process could not be started: {error.strerror}."
        fail_training(training.pk, reason)
        raise CannotStart(reason) from error
    logger.info("training started", extra={"training": training.pk, "pid": process.pid})
    burial = threading.Thread(target=_bury, args=(process, training.pk), name=f"training {training.pk}", daemon=True)
    burial.start()
    return training


def command(training: ModelVersion) -> list[str]:
    """The arguments of the training's process: never a shell, and nothing that came in a request."""
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "retrain", "--training", str(training.pk)]


def log_file(training: ModelVersion) -> Path:
    return Path(settings.VAR_DIR) / "trainings" / f"training-{training.pk}.log"


def _bury(process: subprocess.Popen[bytes], training: int) -> None:
    """Wait for the process, so that it leaves no zombie, and close its training if it could not do so itself."""
    code = process.wait()
    try:
        fail_training(training, f"The process ended with code {code}. Its log is training-{training}.log.")
    except Exception:
        logger.exception("training could not be closed", extra={"training": training})
    finally:
        connection.close()
