"""Whether this process can serve, told to those who ask every few seconds: balancers, orchestrators, people.

Open to everyone, so it says what is wrong in words of ours and never repeats an error message.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import stats
from catalog.memo import Memo
from catalog.models import Book
from catalog.revision import current_revision
from recommender.client import recommender

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEADLINE_S = 2.0  # less than the usual time-out of a probe
_asking = threading.BoundedSemaphore(4)  # questions to a database that does not answer must not pile up


class Unavailable(APIException):
    status_code = 503
    default_detail = "The database cannot be reached."
    default_code = "unavailable"


class NotMigrated(Unavailable):
    default_detail = "The database is not migrated yet."


def ask(question: Callable[[], T], seconds: float = DEADLINE_S) -> T:
    """The answer to `question`, asked in a thread and over a connection of its own, so that the caller never hangs.

    A connection that a request uses could wait for minutes on a host that went away or on a locked table.

    Raises:
        Unavailable: no answer within `seconds`, or an error, which is logged.
    """
    if not _asking.acquire(blocking=False):
        raise Unavailable
    answers: SimpleQueue[T | Exception] = SimpleQueue()

    def work() -> None:
        try:
            answers.put(question())
        except Exception as error:
            logger.warning("question failed", exc_info=True)
            answers.put(error)
        finally:
            connection.close()
            _asking.release()

    threading.Thread(target=work, name="health", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        logger.warning("question took too long", extra={"deadline_s": seconds})
        raise Unavailable from None
    if isinstance(answer, APIException):
        raise answer
    if isinstance(answer, Exception):
        raise Unavailable from None
    return answer


@cache
def _newest_migrations() -> frozenset[tuple[str, str]]:
    """The last migration of each application, as the code has them. They do not change while a process lives."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def check_ready() -> None:
    """Return if the database has the tables that this code needs. Two queries.

    Raises:
        NotMigrated: it does not.
    """
    if not _newest_migrations() <= set(MigrationRecorder(connection).applied_migrations()):
        raise NotMigrated


#: Listed books by revision: counting a million takes a tenth of a second.
_books: Memo[int] = Memo(size=1)


def listed_books(revision: int) -> int:
    """The number of listed books. No query while the revision stands."""
    if (known := _books.get(revision)) is not None:
        return known
    number = Book.objects.listed().count()
    _books.keep(revision, number)
    return number


def facts() -> dict[str, Any]:
    """What `/health` tells while the database answers. Two queries, and one more after the revision moved."""
    revision = current_revision()
    crawl = stats.last_crawl()
    return {
        "status": "ok",
        "database": "ok",
        "books": listed_books(revision),
        "last_crawl": crawl
        and {"run": crawl.run, "shop": crawl.shop, "finished_at": crawl.finished_at, "outcome": crawl.outcome},
        "model_version": recommender().version(),
        "revision": revision,
    }


#: The same fields without a database, so that a dashboard need not tell two shapes apart.
UNKNOWN = {
    "status": "unavailable",
    "database": "unavailable",
    "books": None,
    "last_crawl": None,
    "model_version": None,
    "revision": None,
}


class LastCrawlSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    shop = serializers.CharField()
    finished_at = serializers.DateTimeField()
    outcome = serializers.ChoiceField(["complete", "incomplete", "interrupted", "failed"])


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="`ok` or `unavailable`.")
    database = serializers.CharField(help_text="`ok` or `unavailable`.")
    books = serializers.IntegerField(allow_null=True, help_text="Listed books.")
    last_crawl = LastCrawlSerializer(allow_null=True, help_text="The run that ended last, of any shop.")
    model_version = serializers.CharField(allow_null=True, help_text="Of the recommender; null without a model.")
    revision = serializers.IntegerField(allow_null=True, help_text="Moves with every visible change.")


class StatusSerializer(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="`ok`.")


class OpenView(APIView):
    """Answers everybody, and asks neither for accounts nor for rates, which would both need a database."""

    authentication_classes = []
    permission_classes = []
    throttle_classes = []

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        final["Cache-Control"] = "no-store"
        return final


@extend_schema(tags=["health"])
class Health(OpenView):
    @extend_schema(
        operation_id="health",
        summary="Status, database, number of books, last crawl, model version, revision",
        responses={200: HealthSerializer, 503: OpenApiResponse(HealthSerializer, "The database cannot be reached.")},
    )
    def get(self, request: Request) -> Response:
        try:
            return Response(ask(facts))
        except Unavailable:
            return Response(UNKNOWN, status=503)


@extend_schema(tags=["health"])
class Live(OpenView):
    @extend_schema(operation_id="health_live", summary="The process answers", responses=StatusSerializer)
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(tags=["health"])
class Ready(OpenView):
    @extend_schema(
        operation_id="health_ready",
        summary="The database is reachable and migrated",
        responses={200: StatusSerializer},
    )
    def get(self, request: Request) -> Response:
        ask(check_ready)
        return Response({"status": "ok"})
