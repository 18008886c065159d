"""Metrics for Prometheus: requests by route, and how the catalogue and its runs are doing.

`RequestLog` calls `observe` for every request: 9 us, where django-prometheus' two middlewares took 58. Served by
several processes, set PROMETHEUS_MULTIPROC_DIR to an empty folder that they share, or each scrape meets another one.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count, Max, Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotFound
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bookapi.health import Unavailable, ask
from catalog.models import Book, CrawlRun, RejectedItem
from catalog.revision import current_revision

logger = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
OUTCOMES = ("created", "updated", "unchanged", "stale", "rejected")

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
    """The catalogue as it is now, asked with a deadline: a database that hangs must not hang its alarm."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            families = ask(lambda: list(gauges()))
        except Unavailable:
            families = []
        yield GaugeMetricFamily("bookapi_database_up", "The database answered this scrape.", bool(families))
        yield from families


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
        for outcome in OUTCOMES:
            books.add_metric([run.shop, outcome], getattr(run, outcome))
        failed.add_metric([run.shop], run.failed_pages)
        complete.add_metric([run.shop], run.complete)
        if last_complete and (finished_at := runs[last_complete].finished_at):
            age.add_metric([run.shop], (timezone.now() - finished_at).total_seconds())
    yield from (age, books, failed, complete)


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    requests = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        requests = CollectorRegistry()
        MultiProcessCollector(requests)  # type: ignore[no-untyped-call]
    catalogue = CollectorRegistry()
    catalogue.register(Catalogue())
    return generate_latest(requests) + generate_latest(catalogue)


@require_safe
def metrics(request: HttpRequest) -> HttpResponseBase:
    """For whoever knows METRICS_TOKEN. Without such a token there is nothing here."""
    if not settings.METRICS_TOKEN:
        return HttpResponseNotFound()
    offered = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(offered, f"Bearer {settings.METRICS_TOKEN}".encode()):
        return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="metrics"'})
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
