"""Metrics of the prediction service, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import Scope

from recommender.engine.engine import Engine
from recommender.engine.errors import UnknownBook
from recommender.service.counting import counted

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

REQUESTS = Counter("prediction_requests", "Requests by route and status.", ["route", "status"])
DURATION = Histogram("prediction_request_duration_seconds", "From request to answer.", ["route"], buckets=BUCKETS)
QUESTIONS = Counter("prediction_questions", "What was asked about, and what became of it.", ["about", "outcome"])
THINKING = Histogram("prediction_question_duration_seconds", "Time of one search.", ["about"], buckets=BUCKETS)


def observe(scope: Scope, status: int, seconds: float) -> None:
    """Count an answered request. The route is one of ours: a raw path would let anybody make series."""
    route = getattr(scope.get("route"), "path", "unmatched")
    REQUESTS.labels(route, str(status)).inc()
    DURATION.labels(route).observe(seconds)


@contextmanager
def question(about: str, number: int = 1) -> Iterator[None]:
    """Around the search for one question, or for several of one kind that are answered together."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "answered"
    except UnknownBook:
        outcome = "unknown"
        raise
    finally:
        QUESTIONS.labels(about, outcome).inc(number)
        THINKING.labels(about).observe(time.perf_counter() - began)


class Model(Collector):
    """Which version answers now."""

    def __init__(self, engine: Callable[[], Engine | None]) -> None:
        self.engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        engine = self.engine()
        yield GaugeMetricFamily("prediction_model_loaded", "1 if there is a model to ask.", bool(engine))
        version = GaugeMetricFamily("prediction_model_info", "The version that answers.", labels=["version"])
        if engine:
            version.add_metric([engine.version], 1)
            yield GaugeMetricFamily("prediction_model_books", "Books that it knows.", len(engine))
        yield version


def exposition(engine: Callable[[], Engine | None]) -> bytes:
    """Everything, in Prometheus' text format."""
    model = CollectorRegistry()
    model.register(Model(engine))
    return generate_latest(counted()) + generate_latest(model)
