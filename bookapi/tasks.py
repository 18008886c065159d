"""Doors for the workers: crawls and trainings as jobs, and what the schedule calls.

The two long ones acknowledge their message before they begin. RabbitMQ closes the channel of a message that is not
acknowledged for 30 minutes, and delivers it again beside the one that is still running; what lasts is the row of the
run or the training, in the database. A worker for both queues needs two processes (`-c 2`), so that neither waits,
unacknowledged, behind the other.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import InterfaceError, OperationalError

from bookapi import crawls, pruning, ticking, trainings, upkeep
from bookapi.celery import app
from bookapi.jobs import GRACE_S, end_jobs
from bookapi.schedule import Outcome
from catalog.ingest import RunUnderWay
from recommender.registry import TrainingUnderWay

logger = logging.getLogger(__name__)

SCHEDULE = "schedule"  # who requested what is due
#: For Celery's own limit, which kills without a word: we end the job long before.
BESIDE_THE_JOB_S = 300 + GRACE_S
DATABASE_PAUSE_S = 20.0  # before a message goes back, which it may do five times
EARLY: dict[str, Any] = {"acks_late": False, "reject_on_worker_lost": False}

worker_shutting_down.connect(end_jobs)


# --- Jobs -------------------------------------------------------------------------------------------------------------
@app.task(name="bookapi.tasks.crawl", time_limit=settings.CRAWL_TIMEOUT_S + BESIDE_THE_JOB_S, **EARLY)  # type: ignore[untyped-decorator, unused-ignore]
def crawl(run: int, resume: bool = False) -> None:
    crawls.perform(run, resume)


@app.task(name="bookapi.tasks.train", time_limit=settings.TRAINING_TIMEOUT_S + BESIDE_THE_JOB_S, **EARLY)  # type: ignore[untyped-decorator, unused-ignore]
def train(training: int) -> None:
    trainings.perform(training)


@app.task(name="bookapi.tasks.drain", time_limit=crawls.DRAIN_S + BESIDE_THE_JOB_S, **EARLY)  # type: ignore[untyped-decorator, unused-ignore]
def drain() -> None:
    crawls.drain()


# --- The schedule -----------------------------------------------------------------------------------------------------
# One that takes too long is not tried again, which would keep its worker from all else: the next time comes by itself.
@app.task(  # type: ignore[untyped-decorator, unused-ignore]
    name="bookapi.tasks.perform",
    bind=True,
    time_limit=ticking.PERFORMING.total_seconds(),
    acks_on_failure_or_timeout=True,
)
def perform(self: Task, scheduled_run: int) -> None:
    """What `bookapi.ticking` hands over: one run of a scheduled task."""
    again = bool((self.request.delivery_info or {}).get("redelivered"))
    try:
        ticking.perform(scheduled_run, again=again)
    except (OperationalError, InterfaceError) as error:
        logger.warning("the database is away", extra={"scheduled_run": scheduled_run})
        time.sleep(DATABASE_PAUSE_S)
        raise Reject(str(error), requeue=True) from error


@app.task(name="bookapi.tasks.start_crawl")  # type: ignore[untyped-decorator, unused-ignore]
def start_crawl() -> Outcome:
    try:
        run = crawls.start_crawl({}, requested_by=SCHEDULE)
    except RunUnderWay as error:
        return Outcome(str(error), crawl=error.run.pk if error.run else None, under_way=True)
    return Outcome(f"Run {run.pk} was started.", crawl=run.pk)


@app.task(name="bookapi.tasks.start_training")  # type: ignore[untyped-decorator, unused-ignore]
def start_training() -> Outcome:
    try:
        training = trainings.start_retraining(None, requested_by=SCHEDULE)
    except TrainingUnderWay as error:
        return Outcome(str(error), training=error.training.pk if error.training else None, under_way=True)
    return Outcome(f"Training {training.pk} was started.", training=training.pk)


@app.task(name="bookapi.tasks.resume_interrupted")  # type: ignore[untyped-decorator, unused-ignore]
def resume_interrupted() -> Outcome:
    resumed = upkeep.resume_interrupted()
    upkeep.drain_spools()
    if not resumed:
        return Outcome()
    return Outcome("".join(f"Run {run.pk} goes on. " for run in resumed).rstrip(), crawl=resumed[0].pk)


@app.task(name="bookapi.tasks.prune")  # type: ignore[untyped-decorator, unused-ignore]
def prune() -> Outcome:
    deleted = {name: number for name, number in pruning.prune().items() if number}
    return Outcome(", ".join(f"{number:,} {name}" for name, number in deleted.items()))
