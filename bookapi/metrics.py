"""Metrics for Prometheus: requests by route, and how the catalogue and its runs are doing.

`RequestLog` calls `observe` for every request: 9 us, where django-prometheus' two middlewares took 58. What workers and
crawls do is read from the database at each scrape: their own counters would begin anew with every process that dies.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, Min, Q, Sum
from django.db.models.functions import Greatest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotFound
from django.utils import timezone
from django.views.decorators.http import require_safe
from django_celery_beat.models import PeriodicTask
from kombu import Connection
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bookapi import queues
from bookapi.health import DEADLINE_S, Unavailable, ask
from catalog.models import Book, CrawlRun, DeadLetter, PublishedBatch, RejectedItem
from catalog.revision import current_revision
from recommender.client import recommender
from recommender.service.counting import counted

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: What became of a record for good; `rejected` and `dead` may still turn into one of these.
WRITTEN = ("created", "updated", "unchanged", "stale")
REFUSED = ("rejected", "dead")
BROKER_S = 1.5  # for the whole conversation with the broker

DURATION = Histogram(
    "bookapi_request_duration_seconds", "Time until the answer began.", ["route", "method"], buckets=BUCKETS
)
REQUESTS = Counter("bookapi_requests", "Answers by route, method and status.", ["route", "method", "status"])


def observe(request: HttpRequest, status: int, seconds: float) -> None:
    """Count an answered request. Labels are ours alone: a raw path or method would let anybody make series."""
    match = request.resolver_match
    route = match.route if match else "unmatched"
    method = request.method if request.method in METHODS else "other"
    DURATION.labels(route, method).observe(seconds)
    REQUESTS.labels(route, method, str(status)).inc()


class Catalogue(Collector):
    """Database, broker and model as they are now, each asked with a deadline: what hangs must not hang its alarm."""

    def collect(self) -> Iterator[Metric]:
        yield from self._asked("database", lambda: list(families()))
        if settings.BROKER_URL:
            yield from self._asked("broker", lambda: list(depths()), BROKER_S)
        yield from model()

    @staticmethod
    def _asked(name: str, question: Callable[[], list[Metric]], seconds: float = DEADLINE_S) -> Iterator[Metric]:
        found: list[Metric] = []
        with suppress(Unavailable):  # why is in the log
            found = ask(question, seconds)
        yield GaugeMetricFamily(f"bookapi_{name}_up", f"The {name} answered this scrape.", bool(found))
        yield from found


def families() -> Iterator[Metric]:
    """Books, runs and queue, from the database. Nine queries."""
    yield from gauges()
    yield from _sums()
    yield from _queue()
    yield from _schedule()


def gauges() -> Iterator[GaugeMetricFamily]:
    """Books, revision, and the last run of every shop. Five queries."""
    yield GaugeMetricFamily("catalogue_revision", "The number that every visible change moves.", current_revision())
    listed = GaugeMetricFamily("catalogue_books", "Listed books.", labels=["shop"])
    in_stock = GaugeMetricFamily("catalogue_books_in_stock", "Listed books in stock.", labels=["shop"])
    shops = Book.objects.listed().order_by().values("shop")
    for row in shops.annotate(n=Count("pk"), available=Count("pk", filter=Q(in_stock=True))):
        listed.add_metric([row["shop"]], row["n"])
        in_stock.add_metric([row["shop"]], row["available"])
    yield from (listed, in_stock)
    waiting = RejectedItem.objects.filter(state=RejectedItem.State.OPEN).count()
    yield GaugeMetricFamily("catalogue_rejected_items_open", "Rejected items that nobody has settled.", waiting)
    yield from _run_gauges()


def _run_gauges() -> Iterator[GaugeMetricFamily]:
    """Of each shop the run that ended last, and how old its last complete one is. Two queries."""
    ended = CrawlRun.objects.filter(finished_at__isnull=False).order_by().values("shop")
    newest = ended.annotate(last=Max("pk"), complete=Max("pk", filter=Q(complete=True)))
    wanted = list(newest.values_list("last", "complete"))
    runs = CrawlRun.objects.in_bulk({pk for pair in wanted for pk in pair if pk})
    age = GaugeMetricFamily(
        "catalogue_last_complete_run_age_seconds", "Since the last complete run ended.", labels=["shop"]
    )
    books = GaugeMetricFamily(
        "catalogue_last_run_books", "What became of the books of the run that ended last.", labels=["shop", "outcome"]
    )
    failed = GaugeMetricFamily("catalogue_last_run_failed_pages", "Pages of it that gave no book.", labels=["shop"])
    complete = GaugeMetricFamily("catalogue_last_run_complete", "1 if it read the whole shop.", labels=["shop"])
    for last, last_complete in wanted:
        run = runs[last]
        for outcome in WRITTEN + REFUSED:
            books.add_metric([run.shop, outcome], getattr(run, outcome))
        failed.add_metric([run.shop], run.failed_pages)
        complete.add_metric([run.shop], run.complete)
        if last_complete and (finished_at := runs[last_complete].finished_at):
            age.add_metric([run.shop], (timezone.now() - finished_at).total_seconds())
    yield from (age, books, failed, complete)


def _sums() -> Iterator[Metric]:
    """What all runs have done together. One query.

    Sums of what never moves back, so that `rate()` holds: a replayed dead letter lowers `dead` and `seen`, which a
    counter must not do. Runs are kept for good; if some were deleted, Prometheus would see a restart.
    """
    written = CounterMetricFamily("catalogue_records", "Records in the catalogue.", labels=["shop", "outcome"])
    refused = GaugeMetricFamily("catalogue_records_refused", "Records outside of it.", labels=["shop", "outcome"])
    read = CounterMetricFamily("catalogue_crawled_records", "Pages of books that spiders have read.", labels=["shop"])
    # Published where there is a queue; where there is none, what was written.
    pages = Greatest(F("published"), F("created") + F("updated") + F("unchanged") + F("stale"))
    sums = {name: Sum(name) for name in WRITTEN + REFUSED}
    crawled = Sum(pages, filter=Q(kind=CrawlRun.Kind.CRAWL))
    rows: Iterable[Mapping[str, Any]] = CrawlRun.objects.order_by().values("shop").annotate(crawled=crawled, **sums)
    for row in rows:
        for name in WRITTEN:
            written.add_metric([row["shop"], name], row[name])
        for name in REFUSED:
            refused.add_metric([row["shop"], name], row[name])
        read.add_metric([row["shop"]], row["crawled"] or 0)
    yield from (written, refused, read)


def _queue() -> Iterator[Metric]:
    """Batches between spider and catalogue (in a spool, the broker, a worker), and those given up. Two queries."""
    pending = PublishedBatch.objects.filter(state=PublishedBatch.State.PENDING)
    queue = pending.aggregate(batches=Count("pk"), records=Sum("records"), oldest=Min("published_at"))
    yield GaugeMetricFamily("catalogue_pending_batches", "Batches that no worker has settled.", queue["batches"])
    yield GaugeMetricFamily("catalogue_pending_records", "Records in them.", queue["records"] or 0)
    yield GaugeMetricFamily("catalogue_oldest_pending_batch_age_seconds", "0 without one.", _age(queue["oldest"]))
    letters = GaugeMetricFamily(
        "catalogue_dead_letters_open", "Dead letters that nobody has settled.", labels=["reason"]
    )
    counts = (
        DeadLetter.objects.filter(state=DeadLetter.State.OPEN).order_by().values_list("reason").annotate(Count("pk"))
    )
    known = dict.fromkeys(DeadLetter.Reason.values, 0) | dict(counts)
    for reason, number in known.items():
        letters.add_metric([reason], number)
    yield letters


def _schedule() -> Iterator[Metric]:
    """When the schedule last started anything; nothing before it did for the first time. One query."""
    last = PeriodicTask.objects.filter(enabled=True).aggregate(last=Max("last_run_at"))["last"]
    if last:
        yield GaugeMetricFamily("bookapi_schedule_age_seconds", "Since a scheduled task was started.", _age(last))


def _age(moment: datetime | None) -> float:
    return max(0.0, (timezone.now() - moment).total_seconds()) if moment else 0.0


def depths() -> Iterator[Metric]:
    """Messages that wait in each queue of the broker, and who reads it."""
    ready = GaugeMetricFamily("bookapi_queue_messages", "Messages that wait in the broker.", labels=["queue"])
    readers = GaugeMetricFamily("bookapi_queue_consumers", "Workers that read it.", labels=["queue"])
    timeouts = {"read_timeout": BROKER_S, "write_timeout": BROKER_S}
    tls = settings.BROKER_TLS
    with Connection(settings.BROKER_URL, ssl=tls, connect_timeout=BROKER_S, transport_options=timeouts) as link:
        for queue in (*queues.WORK, queues.DEAD, queues.UNROUTED):
            # Passive: it asks, and makes nothing. A channel of its own, because the answer "no such queue" ends it.
            with suppress(link.channel_errors), link.channel() as channel:
                found = channel.queue_declare(queue.name, passive=True)
                ready.add_metric([queue.name], found.message_count)
                readers.add_metric([queue.name], found.consumer_count)
    yield from (ready, readers)


def model() -> Iterator[Metric]:
    """The version that recommends: this process's own, or that of the prediction service, asked with its deadline."""
    version = recommender().version()
    yield GaugeMetricFamily("bookapi_model_loaded", "1 if there is a model to recommend with.", version is not None)
    info = GaugeMetricFamily("bookapi_model_info", "The version that recommends.", labels=["version"])
    if version is not None:
        info.add_metric([version], 1)
    yield info


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    catalogue = CollectorRegistry()
    catalogue.register(Catalogue())
    return generate_latest(counted()) + generate_latest(catalogue)


@require_safe
def metrics(request: HttpRequest) -> HttpResponseBase:
    """For whoever knows METRICS_TOKEN. Without such a token there is nothing here."""
    if not settings.METRICS_TOKEN:
        return HttpResponseNotFound()
    offered = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(offered, f"Bearer {settings.METRICS_TOKEN}".encode()):
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
