"""Starts the spider as a process of its own, and buries it.

One process a crawl: Scrapy's reactor cannot be started twice, and a crawl outlives the request and the server.
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

from bookapi.processes import start_detached
from catalog.ingest import finish_run, start_run
from catalog.models import CrawlRun

logger = logging.getLogger(__name__)


class CannotStart(Exception):
    """The crawl's process could not be started."""


def start_crawl(filters: dict[str, Any], requested_by: str) -> CrawlRun:
    """A new run over the configured shop, with its process started.

    `filters` are the spider's `limit` and `category`. The run exists before its process, so that the database's lock
    on running crawls decides which of two requests wins; what the process says goes to `log_file(run)`.

    Raises:
        RunUnderWay: a crawl of the shop is under way.
        CannotStart: the system refused the process; the run has failed, and says why.
    """
    run = start_run(settings.SHOP_NAME, settings.SHOP_URL, filters=filters, requested_by=requested_by)
    try:
        process = start_detached(command(run), log_file(run))
    except OSError as error:
        reason = f"The process could not be started: {error.strerror}."
        finish_run(run.pk, state=CrawlRun.State.FAILED, warnings=[{"code": "not_started", "detail": reason}])
        raise CannotStart(reason) from error
    logger.info("crawl started", extra={"run_id": run.pk, "pid": process.pid})
    threading.Thread(target=_bury, args=(process, run.pk), name=f"crawl {run.pk}", daemon=True).start()
    return run


def command(run: CrawlRun) -> list[str]:
    """The arguments of the crawl's process: never a shell, and nothing but the run's own filters."""
    arguments = [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"run={run.pk}"]
    for name, value in run.filters.items():
        arguments += ["-a", f"{name}={value}"]
    return arguments


def log_file(run: CrawlRun) -> Path:
    return Path(settings.VAR_DIR) / "crawls" / f"run-{run.pk}.log"


def _bury(process: subprocess.Popen[bytes], run_id: int) -> None:
    """Wait for the process, so that it leaves no zombie, and close its run if it could not do so itself."""
    code = process.wait()
    try:
        if CrawlRun.objects.running().filter(pk=run_id).exists():
            # A signal is somebody's wish, and the run can be resumed; anything else is an error of ours.
            state = CrawlRun.State.INTERRUPTED if code < 0 else CrawlRun.State.FAILED
            detail = f"The process ended with code {code} and left its run open. Its log is run-{run_id}.log."
            finish_run(run_id, state=state, warnings=[{"code": "process_ended", "detail": detail}])
            logger.error("crawl ended badly", extra={"run_id": run_id, "exit_code": code})
    except Exception:
        logger.exception("run could not be closed", extra={"run_id": run_id})
    finally:
        connection.close()
