"""The life of a run: opened under a lock, and kept alive. See `closing` for its end."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from catalog.ingest.closing import pending_records, settle
from catalog.ingest.errors import NotResumable, RunUnderWay, UnknownRun
from catalog.liveness import is_dead
from catalog.models import CrawlRun
from catalog.revision import writing

logger = logging.getLogger(__name__)

#: A run whose process has not been heard of for this long is dead, wherever it runs.
SILENCE_S = 120


def start_run(
    shop: str,
    source: str,
    *,
    kind: str = CrawlRun.Kind.CRAWL,
    filters: dict[str, Any] | None = None,
    requested_by: str = "",
    resume: int | None = None,
) -> CrawlRun:
    """A new run, or with `resume` the interrupted one of that number, opened again.

    The database allows one running crawl a shop, and none while the queue holds books of the one before. A running one
    whose process is dead is closed as interrupted first.

    Raises:
        RunUnderWay: a crawl of the shop is under way.
        UnknownRun, NotResumable: `resume` names no run of this shop, or one that ended well.
    """
    close_dead_runs(shop)
    try:
        if resume is not None:
            with writing():  # a worker may be settling a batch of it, which moves the sums
                return _reopen(resume, shop, kind)
        with transaction.atomic():
            return CrawlRun.objects.create(
                shop=shop, source=source, kind=kind, filters=filters or {}, requested_by=requested_by
            )
    except IntegrityError:
        raise RunUnderWay(CrawlRun.objects.under_way().filter(shop=shop, kind=CrawlRun.Kind.CRAWL).first()) from None


def _reopen(run_id: int, shop: str, kind: str) -> CrawlRun:
    # Of two who resume it at once, one moves the state.
    ended = CrawlRun.objects.filter(pk=run_id, shop=shop, kind=kind).exclude(
        state__in=[CrawlRun.State.RUNNING, CrawlRun.State.SETTLING, CrawlRun.State.FINISHED]
    )
    reopened = ended.update(
        state=CrawlRun.State.RUNNING, finished_at=None, heartbeat_at=timezone.now(), pid=None, host=""
    )
    run = CrawlRun.objects.filter(pk=run_id, shop=shop, kind=kind).first()
    if run is None:
        raise UnknownRun(f"There is no run {run_id} of {shop}.")
    if not reopened:
        if run.state in {CrawlRun.State.RUNNING, CrawlRun.State.SETTLING}:
            raise RunUnderWay(run)
        raise NotResumable(f"Run {run_id} is finished: start a new one.")
    run.failed.all().delete()  # they are tried again
    # What it read without the queue was not published, and what is lost is read again: the count begins anew.
    run.published = run.seen + pending_records(run_id) if settings.BROKER_URL else 0
    run.save(update_fields=["published"])
    return run


def adopt_run(run_id: int, pid: int | None = None) -> CrawlRun:
    """The run, now the process's of this number, or this one's: while the process lives, so does the run.

    Raises:
        UnknownRun: there is no such run.
        NotResumable: it has ended.
        RunUnderWay: another living process has it.
    """
    run = CrawlRun.objects.filter(pk=run_id).first()
    if run is None:
        raise UnknownRun(f"There is no run {run_id}.")
    if run.state != CrawlRun.State.RUNNING:
        raise NotResumable(f"Run {run_id} is {run.state}.")
    if run.pid is not None and not _is_dead(run):
        raise RunUnderWay(run)
    as_read = CrawlRun.objects.running().filter(pk=run_id, pid=run.pid, host=run.host)
    run.pid, run.host, run.heartbeat_at = pid or os.getpid(), socket.gethostname(), timezone.now()
    if not as_read.update(pid=run.pid, host=run.host, heartbeat_at=run.heartbeat_at):
        raise RunUnderWay(run)  # another process was faster
    return run


def heartbeat(run_id: int) -> None:
    CrawlRun.objects.filter(pk=run_id).update(heartbeat_at=timezone.now())


def announce(run_id: int, books: int) -> None:
    """Note how many books the shop says it has."""
    CrawlRun.objects.filter(pk=run_id).update(announced=books)


def close_dead_runs(shop: str | None = None) -> None:
    """Interrupt what runs without a living process, of one shop or of all. Settling runs that have it all end."""
    of_shop = {} if shop is None else {"shop": shop}
    for settling in CrawlRun.objects.filter(**of_shop, state=CrawlRun.State.SETTLING):
        settle(settling.pk)
    for run in CrawlRun.objects.running().filter(**of_shop):
        if _is_dead(run):
            # Unless somebody took it meanwhile.
            as_read = CrawlRun.objects.running().filter(pk=run.pk, pid=run.pid, heartbeat_at=run.heartbeat_at)
            if as_read.update(state=CrawlRun.State.INTERRUPTED, finished_at=run.heartbeat_at):
                logger.warning("run interrupted", extra={"run_id": run.pk, "shop": run.shop})


def _is_dead(run: CrawlRun) -> bool:
    return is_dead(run.pid, run.host, run.heartbeat_at, SILENCE_S)
