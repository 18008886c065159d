"""What keeps order between the jobs: the dead are closed, the waiting kept, the old deleted."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from bookapi import queues
from bookapi.crawls import WAITING, CannotStart, resume_crawl
from bookapi.models import ScheduledRun
from bookapi.publishing import NotPublished, publish, waiting_in
from bookapi.schedule import START_CRAWL
from catalog.ingest import close_dead_runs
from catalog.models import CrawlRun
from recommender.models import ModelVersion
from recommender.registry import close_dead_trainings

#: Runs of a scheduled task that are kept. One that runs every half minute makes 2,880 a day.
KEPT = 200
#: A crawl that was interrupted earlier is not resumed: its shop is another one by now.
RESUMABLE = timedelta(days=1)
#: A run that waits for the queue, and has not moved for so long, may wait for a spool.
STILL = timedelta(minutes=2)
LOST = {"code": "not_started", "detail": "No worker took it, and its message is not in the queue any more."}


# --- Waiting and dead -------------------------------------------------------------------------------------------------
def keep_waiting() -> None:
    """Keep alive what waits for a worker, while there is a message that says so.

    Its run has no process that could tell that it lives. Without a message nothing is done: its silence ends it, as it
    ends a run whose worker died. A broker that does not answer keeps its messages, and so the runs wait on.
    """
    runs = CrawlRun.objects.running().filter(kind=CrawlRun.Kind.CRAWL, pid=None)
    trainings = ModelVersion.objects.training().filter(pid=None)
    now = timezone.now()
    if runs.exists() and waiting_in(queues.CRAWLS) != 0:
        runs.update(heartbeat_at=now)
    if trainings.exists() and waiting_in(queues.TRAININGS) != 0:
        trainings.update(heartbeat_at=now)


def close_dead() -> None:
    """Close the runs and trainings whose process is gone, or that no process ever had."""
    if settings.BROKER_URL:
        keep_waiting()
    close_dead_runs()
    close_dead_trainings()
    day_ago = timezone.now() - timedelta(days=1)
    for run in CrawlRun.objects.filter(state=CrawlRun.State.INTERRUPTED, pid=None, started_at__gte=day_ago):
        if any(warning["code"] == WAITING for warning in run.warnings):
            CrawlRun.objects.filter(pk=run.pk, state=run.state).update(warnings=[LOST])


def resume_interrupted() -> list[CrawlRun]:
    """The runs that were resumed: interrupted ones that the schedule had started, each once, if none came after it.

    Raises:
        CannotStart: it could not be resumed; the next call tries again.
    """
    close_dead()
    interrupted = ScheduledRun.objects.filter(
        task=START_CRAWL,
        outcome=ScheduledRun.Outcome.OK,
        resumed_at=None,
        crawl__state=CrawlRun.State.INTERRUPTED,
        crawl__finished_at__gte=timezone.now() - RESUMABLE,
    )
    resumed = []
    for entry in interrupted.select_related("crawl"):
        run = entry.crawl
        if run is None or CrawlRun.objects.filter(shop=run.shop, kind=run.kind, pk__gt=run.pk).exists():
            continue
        unresumed = ScheduledRun.objects.filter(pk=entry.pk, resumed_at=None)
        if not unresumed.update(resumed_at=timezone.now()):
            continue
        try:
            resume_crawl(run)
        except CannotStart:
            ScheduledRun.objects.filter(pk=entry.pk).update(resumed_at=None)
            raise
        resumed.append(run)
    return resumed


def drain_spools() -> None:
    """Ask the host of the crawls for what its spool holds, while a run that has read its shop waits in vain.

    A crawl empties the spool before anything else; but none of this shop can begin while the run waits.
    """
    silent = CrawlRun.objects.filter(state=CrawlRun.State.SETTLING, heartbeat_at__lt=timezone.now() - STILL)
    if not settings.BROKER_URL or not silent.exists() or CrawlRun.objects.running().exists():
        return
    if waiting_in(queues.CRAWLS) == 0:
        with suppress(NotPublished):  # the broker is away, so the next call tries again
            publish("bookapi.tasks.drain")


# --- Old --------------------------------------------------------------------------------------------------------------
def forgettable_runs() -> QuerySet[ScheduledRun]:
    """All but the newest `KEPT` runs of each scheduled task; never one that is not over. A query for each task."""
    old = Q(pk=None)
    for schedule in PeriodicTask.objects.values_list("pk", flat=True):
        newest = ScheduledRun.objects.filter(schedule=schedule).values_list("pk", flat=True)
        if (oldest_kept := newest[KEPT - 1 : KEPT].first()) is not None:
            old |= Q(schedule=schedule, pk__lt=oldest_kept)
    return ScheduledRun.objects.filter(old, finished_at__isnull=False)
