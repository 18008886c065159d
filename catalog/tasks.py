"""What workers are asked to do with the catalogue. Doors only: what happens stands in `catalog.ingest`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from celery import shared_task
from celery.exceptions import Reject
from django.db import InterfaceError, OperationalError, close_old_connections

from catalog import deadletters
from catalog.ingest import ingest_published, note_error, settle
from catalog.models import CrawlRun
from catalog.records import read_from_json

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Pauses while the database cannot be reached. Together shorter than the time limit of a task; a message that goes back
#: to the queue each time is given up after the limit of deliveries, some minutes later.
PATIENCE_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0)


@shared_task(name="catalog.tasks.ingest_batch")  # type: ignore[untyped-decorator]
def ingest_batch(run: int, key: str, records: list[dict[str, Any]]) -> None:
    """Take a batch that a spider has published: once, however often it is delivered.

    Raises:
        Reject: the database was away for too long; the queue delivers the batch again.
        Exception: whatever else goes wrong. The queue gives the batch up, and its row keeps what it was.
    """
    batch = UUID(key)
    try:
        counts = _patiently(ingest_published, batch, run, [read_from_json(record) for record in records])
    except (OperationalError, InterfaceError) as error:
        raise Reject(str(error), requeue=True) from error
    except Exception as error:
        _patiently(note_error, batch, error)
        raise
    logger.info("batch ingested", extra={"run_id": run, "batch": key, "records": len(records), "seen": counts.seen})


@shared_task(name="catalog.tasks.settle_runs")  # type: ignore[untyped-decorator]
def settle_runs() -> None:
    """Close the runs that waited for the queue, and those that have waited for too long."""
    for run_id in CrawlRun.objects.filter(state=CrawlRun.State.SETTLING).values_list("pk", flat=True):
        settle(run_id)


# A failure of it is no letter of its own: it is asked again soon, and what it did not collect is still there.
@shared_task(name="catalog.tasks.collect_dead_letters", acks_on_failure_or_timeout=True)  # type: ignore[untyped-decorator]
def collect_dead_letters() -> None:
    """Bring what the queue has given up into the database, where people see it."""
    deadletters.collect()


def _patiently(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function(...)`, tried again after each pause while the database cannot be reached. Raises what the last did."""
    for pause in PATIENCE_S:
        try:
            return function(*args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            logger.warning("catalogue out of reach", extra={"retry_in_s": pause, "error": str(error).strip()})
        close_old_connections()
        time.sleep(pause)
    return function(*args, **kwargs)
