"""Crawls: start one, and see how each went."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db.models import Case, Count, F, IntegerField, OuterRef, Subquery, When
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request

from bookapi.api.conditional import base_url
from bookapi.api.formats import dumps
from bookapi.api.paging import PAGE_PARAMETERS, Filtered, Key, Ordering, PageRequest, answer, page_of
from bookapi.api.params import INT64_MAX, OneOf, Parameter, Parameters, Words
from bookapi.api.views import ReadingViewSet
from bookapi.auth import IsOperator
from bookapi.crawls import CannotStart, start_crawl
from bookapi.errors import problem_response, problems
from catalog.cleaning import CATEGORY_MAX
from catalog.export import Column
from catalog.ingest import RunUnderWay
from catalog.models import CrawlRun, FailedPage, RejectedItem
from catalog.querysets import CrawlRunQuerySet
from catalog.rows import Row, compiled, python_rows
from catalog.rows import run as run_query

LIMIT_MAX = 100_000  # books
#: Rejected items whose reasons are read for one answer; a run that refuses more has one cause, not many.
REJECTIONS_READ = 10_000


# --- Shapes -----------------------------------------------------------------------------------------------------------
class WarningSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="For programs: `coverage_fell`, `sums_do_not_hold` ...")
    detail = serializers.CharField(help_text="For people.")


class RunSerializer(serializers.Serializer[Any]):
    """One run over one shop. While it is under way, its counts grow; seen is the sum of the six that follow it.

    With a queue, published is the sum of seen and of what is on its way; at the end nothing is.
    """

    id = serializers.IntegerField()
    shop = serializers.CharField()
    kind = serializers.CharField(help_text="`crawl` of a shop, or `file` that was read.")
    state = serializers.CharField(
        help_text="`running`, `settling` (all is read, and waits in the queue), `finished`, `interrupted` (can be "
        "resumed) or `failed`."
    )
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    duration_s = serializers.FloatField(help_text="Seconds, so far or in all.")
    filters = serializers.DictField(help_text="`limit`, `category`: a filtered run is never complete.")
    announced = serializers.IntegerField(allow_null=True, help_text="Books that the shop says it has.")
    published = serializers.IntegerField(help_text="Records that were handed to the queue; 0 where there is none.")
    seen = serializers.IntegerField(help_text="Records that reached the catalogue, or died on their way.")
    created = serializers.IntegerField()
    updated = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    stale = serializers.IntegerField(help_text="Older than what the catalogue has.")
    rejected = serializers.IntegerField(help_text="Refused with a reason.")
    dead = serializers.IntegerField(help_text="Given up by the queue; an operator can replay them.")
    failed_pages = serializers.IntegerField(help_text="Pages of books that gave no record.")
    delisted = serializers.IntegerField(help_text="Books that a complete run no longer found.")
    complete = serializers.BooleanField(help_text="Finished, not filtered, and the sums hold.")
    coverage = serializers.DictField(
        child=serializers.FloatField(), help_text="Field to the share of seen books that have it, 0-1; at the end."
    )
    warnings = WarningSerializer(many=True)


class RunDetailSerializer(RunSerializer):
    failures = serializers.DictField(child=serializers.IntegerField(), help_text="Pages by reason: `http_404`.")
    rejections = serializers.DictField(
        child=serializers.IntegerField(),
        help_text=f"Refused fields by `field.code`, of the first {REJECTIONS_READ} rejected items.",
    )


RUN_PAGE = page_of(RunSerializer, "RunPage")

COLUMNS = (
    Column("id", "integer"),
    Column("shop", "word"),
    Column("kind", "word"),
    Column("state", "word"),
    Column("started_at", "time"),
    Column("finished_at", "time"),
    Column("filters", "json"),
    Column("announced", "integer"),
    Column("published", "integer"),
    Column("seen", "integer"),
    Column("created", "integer"),
    Column("updated", "integer"),
    Column("unchanged", "integer"),
    Column("stale", "integer"),
    Column("rejected", "integer"),
    Column("dead", "integer"),
    Column("failed_pages", "integer"),
    Column("delisted", "integer"),
    Column("complete", "boolean"),
    Column("coverage", "json"),
    Column("warnings", "json"),
)


class RunShape:
    """A run as the API shows it, from rows of `runs()`."""

    columns = tuple("live_failed_pages" if column.name == "failed_pages" else column.name for column in COLUMNS)

    def objects(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        names = [column.name for column in COLUMNS]
        return [_timed(dict(zip(names, cells, strict=True))) for cells in python_rows(COLUMNS, rows)]


def _timed(run: dict[str, Any]) -> dict[str, Any]:
    end = run["finished_at"] or timezone.now()
    return {**run, "duration_s": round(max(0.0, (end - run["started_at"]).total_seconds()), 3)}


def runs() -> CrawlRunQuerySet:
    """All runs; the failed pages of one that is under way are counted, since it notes their number at its end."""
    failed = FailedPage.objects.filter(run=OuterRef("pk"), kind=FailedPage.Kind.BOOK).order_by()
    number = Coalesce(Subquery(failed.values("run").annotate(n=Count("pk")).values("n")), 0)
    running = When(state__in=[CrawlRun.State.RUNNING, CrawlRun.State.SETTLING], then=number)
    return CrawlRun.objects.annotate(
        live_failed_pages=Case(running, default=F("failed_pages"), output_field=IntegerField())
    )


def one_run(run_id: int) -> dict[str, Any]:
    """One query. Raises Http404."""
    found = run_query(*compiled(runs().filter(pk=run_id).values_list(*RunShape.columns)))
    if not found:
        raise Http404("There is no run with this id.")
    return RunShape().objects(found)[0]


def failures(run_id: int) -> dict[str, int]:
    """Failed pages by reason, the most frequent first. One query."""
    counts = FailedPage.objects.filter(run=run_id).order_by().values_list("reason").annotate(n=Count("pk"))
    return dict(sorted(counts, key=lambda pair: (-pair[1], pair[0])))


def rejections(run_id: int) -> dict[str, int]:
    """Refused fields by `field.code`, the most frequent first. One query."""
    items = RejectedItem.objects.filter(run=run_id).order_by("id").values_list("errors", flat=True)
    counts = Counter(f"{error['field']}.{error['code']}" for errors in items[:REJECTIONS_READ] for error in errors)
    return dict(counts.most_common())


# --- Endpoints --------------------------------------------------------------------------------------------------------
NOTHING = Parameters(others={"format"})
LIST = Parameters(
    Parameter("shop", Words(max_length=50), "Slug of the shop."),
    Parameter("state", OneOf(*CrawlRun.State.values), "How it stands.", enum=CrawlRun.State.values),
    *PAGE_PARAMETERS,
    others={"format"},
)
NEWEST_FIRST = Ordering("-id", (Key("id", descending=True),))


class TriggerSerializer(serializers.Serializer[Any]):
    limit = serializers.IntegerField(
        min_value=1, max_value=LIMIT_MAX, required=False, allow_null=True, help_text="Books to read at most."
    )
    category = serializers.CharField(
        max_length=CATEGORY_MAX, required=False, allow_null=True, help_text="Name of the only category to read."
    )

    def validate_category(self, value: str | None) -> str | None:
        if value and any(unicodedata.category(character).startswith("C") for character in value):
            raise serializers.ValidationError("Control characters are not allowed.")
        return value

    def to_internal_value(self, data: Any) -> Any:
        # Strict, as everywhere: a limit that is misspelled would start a crawl of the whole shop.
        if isinstance(data, dict):
            unknown = sorted(set(map(str, data)) - set(self.fields))
            if unknown:
                detail = exceptions.ErrorDetail(f"Unknown. Known: {', '.join(sorted(self.fields))}.", "unknown")
                raise serializers.ValidationError({name: [detail] for name in unknown})
            if isinstance(data.get("limit"), (bool, str, float)):
                raise serializers.ValidationError({"limit": ["A whole number is needed."]})
            if not isinstance(data.get("category"), (str, type(None))):
                raise serializers.ValidationError({"category": ["Text is needed."]})
        return super().to_internal_value(data)


def run_url(request: Request, run_id: int) -> str:
    return f"{base_url(request)}/api/v1/scraping/runs/{run_id}"


class Trigger(ReadingViewSet):
    permission_classes = [IsOperator]

    @extend_schema(
        operation_id="scraping_trigger",
        tags=["scraping"],
        summary="Start a crawl of the configured shop",
        description="The spider runs as a process of its own; follow it at the `Location`. One crawl a shop at a time.",
        request={"application/json": TriggerSerializer},
        responses={
            (202, "application/json"): OpenApiResponse(RunSerializer, "The run, which has just begun."),
            **problems(400, 409, 415, 503),
        },
    )
    def create(self, request: Request) -> HttpResponse:
        NOTHING.read(request)
        data = request.data
        wanted = TriggerSerializer(data={} if isinstance(data, QueryDict) and not data else data)
        wanted.is_valid(raise_exception=True)
        filters = {name: value for name, value in wanted.validated_data.items() if value is not None}
        try:
            run = start_crawl(filters, requested_by=str(request.user))
        except RunUnderWay as error:
            headers = {"Location": run_url(request, error.run.pk)} if error.run else {}
            return problem_response(409, str(error), request=request, headers=headers)
        except CannotStart:
            return problem_response(503, "The crawl could not be started: see its run.", request=request)
        response = _json(one_run(run.pk), status=202)
        response["Location"] = run_url(request, run.pk)
        return response


class Runs(ReadingViewSet):
    @extend_schema(
        operation_id="scraping_runs",
        tags=["scraping"],
        summary="Runs, the newest first",
        parameters=LIST.schema(),
        responses={200: RUN_PAGE, **problems(400, 404)},
    )
    def list(self, request: Request) -> HttpResponseBase:
        values = LIST.read(request)
        found = runs()
        for name in ("shop", "state"):
            if values[name]:
                found = found.filter(**{name: values[name]})
        signature = f"runs&shop={values['shop']!r}&state={values['state']!r}"
        wanted = PageRequest.of(values["page_size"], values["page"], values["cursor"])
        response = answer(
            request, Filtered(found, signature), RunShape(), ordering=NEWEST_FIRST, wanted=wanted, revision=None
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    @extend_schema(
        operation_id="scraping_run",
        tags=["scraping"],
        summary="One run, live while it is under way",
        responses={200: RunDetailSerializer, **problems(400, 404)},
    )
    def retrieve(self, request: Request, run_id: int) -> HttpResponseBase:
        NOTHING.read(request)
        if run_id > INT64_MAX:
            raise Http404("There is no run with this id.")
        return _json({**one_run(run_id), "failures": failures(run_id), "rejections": rejections(run_id)})


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    headers = {"Cache-Control": "no-store"}
    return HttpResponse(dumps(body), status=status, content_type="application/json", headers=headers)
