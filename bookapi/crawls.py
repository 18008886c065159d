"""Starts the spider as a process of its own, and buries it.

One process a crawl: Scrapy's reactor cannot be started twice, and a crawl outlives the request and the server. With a
broker the process is a worker's job; the run is what lasts, and its message only says that it waits.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from bookapi.jobs import Ended, has_another, run_job
from bookapi.processes import start_detached
from bookapi.publishing import NotPublished, publish
from catalog.ingest import finish_run, start_run
from catalog.models import CrawlRun

logger = logging.getLogger(__name__)

#: The warning of a run that no worker has taken yet.
WAITING = "waiting"
#: Seconds that emptying a spool may take; what is left stays in it.
DRAIN_S = 900.0


class CannotStart(Exception):
    """The crawl could not be started."""


def start_crawl(filters: dict[str, Any], requested_by: str) -> CrawlRun:
    """A new run over the configured shop, with its process started or, with a broker, asked for.

    `filters` are the spider's `limit` and `category`. The run exists before its process, so that the database's lock
    on running crawls decides which of two requests wins; what the process says goes to `log_file(run)`.

    Raises:
        RunUnderWay: a crawl of the shop is under way.
        CannotStart: the system refused the process, or the broker the message; the run has failed, and says why.
    """
    if settings.BROKER_URL:
        from bookapi.upkeep import keep_waiting  # noqa: PLC0415 - it resumes crawls, with the functions below

        keep_waiting()  # or what waits for a worker would be taken for dead
    run = start_run(settings.SHOP_NAME, settings.SHOP_URL, filters=filters, requested_by=requested_by)
    if settings.BROKER_URL:
        run.warnings = [{"code": WAITING, "detail": "No worker has taken it yet."}]
        CrawlRun.objects.filter(pk=run.pk).update(warnings=run.warnings)
    try:
        _begin(run, resume=False)
    except CannotStart as error:
        finish_run(run.pk, state=CrawlRun.State.FAILED, warnings=[{"code": "not_started", "detail": str(error)}])
        raise
    return run


def resume_crawl(run: CrawlRun) -> None:
    """Go on with an interrupted run. The spider opens it again, unless another crawl has begun by then.

    Raises CannotStart.
    """
    _begin(run, resume=True)


def _begin(run: CrawlRun, *, resume: bool) -> None:
    if settings.BROKER_URL:
        try:
            publish("bookapi.tasks.crawl", run.pk, resume)
        except NotPublished as error:
            raise CannotStart(str(error)) from error
        logger.info("crawl published", extra={"run_id": run.pk, "resume": resume})
        return
    try:
        process = start_detached(resume_command(run) if resume else command(run), log_file(run))
    except OSError as error:
        raise CannotStart(f"The process could not be started: {error.strerror}.") from error
    logger.info("crawl started", extra={"run_id": run.pk, "pid": process.pid, "resume": resume})
    threading.Thread(target=_bury, args=(process, run.pk), name=f"crawl {run.pk}", daemon=True).start()


def perform(run_id: int, resume: bool) -> None:
    """A worker's job: the crawl from its beginning to its end. Does nothing for a run that no longer waits."""
    run = CrawlRun.objects.filter(pk=run_id).first()
    if run is None or not (resume or _take(run_id)):
        logger.warning("crawl is not wanted any more", extra={"run_id": run_id, "state": run and run.state})
        return
    line = resume_command(run) if resume else command(run)
    try:
        ended = run_job(f"crawl {run_id}", line, log_file(run), settings.CRAWL_TIMEOUT_S)
    except OSError as error:
        reason = f"The process could not be started: {error.strerror}."
        if not resume:
            finish_run(run_id, state=CrawlRun.State.FAILED, warnings=[{"code": "not_started", "detail": reason}])
        raise
    close(run_id, ended)


def _take(run_id: int) -> bool:
    """Whether the run still waits; now it does not. A message that comes twice finds its process there."""
    waiting = CrawlRun.objects.running().filter(pk=run_id, pid=None)
    return bool(waiting.update(warnings=[], heartbeat_at=timezone.now()))


def drain() -> None:
    """A worker's job: what the spool of this host holds goes to the broker, as far as that takes it."""
    ended = run_job("drain", [sys.executable, "-m", "scrapy", "drain"], _logs() / "drain.log", DRAIN_S)
    if ended.code:
        logger.warning("spool is not empty", extra={"exit_code": ended.code, "reason": ended.why})


def command(run: CrawlRun) -> list[str]:
    """The arguments of the crawl's process: never a shell, and nothing but the run's own filters."""
    arguments = [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"run={run.pk}"]
    for name, value in run.filters.items():
        arguments += ["-a", f"{name}={value}"]
    return arguments


def resume_command(run: CrawlRun) -> list[str]:
    """The same for a run that goes on: it keeps its filters."""
    return [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"resume={run.pk}"]


def log_file(run: CrawlRun) -> Path:
    return _logs() / f"run-{run.pk}.log"


def _logs() -> Path:
    return Path(settings.VAR_DIR) / "crawls"


def close(run_id: int, ended: Ended) -> None:
    """Close the run if its process could not do so itself, and keep why we ended it."""
    run = CrawlRun.objects.get(pk=run_id)
    reason = [{"code": "stopped", "detail": ended.why}] if ended.why else []
    if run.state != CrawlRun.State.RUNNING:
        if reason and run.state == CrawlRun.State.INTERRUPTED:
            CrawlRun.objects.filter(pk=run_id).update(warnings=[*run.warnings, *reason])
        return
    if has_another(run.pid, run.host, ended.group):  # resumed by hand meanwhile: ours was refused
        return
    # A signal is somebody's wish, and the run can be resumed; anything else is an error of ours.
    state = CrawlRun.State.INTERRUPTED if ended.code < 0 or ended.why else CrawlRun.State.FAILED
    detail = f"The process ended with code {ended.code} and left its run open. Its log is run-{run_id}.log."
    finish_run(run_id, state=state, warnings=[{"code": "process_ended", "detail": detail}, *reason])
    logger.error("crawl ended badly", extra={"run_id": run_id, "exit_code": ended.code})


def _bury(process: subprocess.Popen[bytes], run_id: int) -> None:
    """Wait for the process, so that it leaves no zombie, and close its run."""
    code = process.wait()
    try:
        close(run_id, Ended(process.pid, code))
    except Exception:
        logger.exception("run could not be closed", extra={"run_id": run_id})
    finally:
        connection.close()
