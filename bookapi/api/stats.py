"""Statistics of the listed books: of the whole, and of each category."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api.books import EXPORTS
from bookapi.api.conditional import UNCHANGED, conditional, revision_of
from bookapi.api.formats import dumps, export_response
from bookapi.api.params import Parameter, Parameters, Words
from bookapi.api.views import ReadingViewSet
from bookapi.errors import problems
from catalog import stats
from catalog.export import Column
from catalog.stats import CategoryStats, LastCrawl, Prices, Statistics

SHOP = Parameter("shop", Words(max_length=50), "Slug of the only shop to look at.")
PARAMETERS = Parameters(SHOP, others={"format"})


# --- Shapes -----------------------------------------------------------------------------------------------------------
class BinSerializer(serializers.Serializer[Any]):
    """Prices from `from` up to, and without, `to`; the last bin has its `to` as well."""

    to = serializers.FloatField()
    count = serializers.IntegerField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # "from" is a keyword, so it cannot be an attribute.
        return {"from": serializers.FloatField(), **super().get_fields()}


class PricesSerializer(serializers.Serializer[Any]):
    """Prices of the books of one currency, the one most books have: others are not mixed in.

    Each is null where there are too few books to say.
    """

    currency = serializers.CharField(allow_null=True, help_text="ISO 4217.")
    min = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)
    median = serializers.FloatField(allow_null=True)
    stddev = serializers.FloatField(allow_null=True, help_text="Of the sample: divided by n - 1.")
    q1 = serializers.FloatField(allow_null=True, help_text="By linear interpolation.")
    q3 = serializers.FloatField(allow_null=True)
    histogram = BinSerializer(many=True, help_text="Ten bins of equal width; none where there is no book.")


class RatingsSerializer(serializers.Serializer[Any]):
    mean = serializers.FloatField(allow_null=True)
    distribution = serializers.DictField(child=serializers.IntegerField(), help_text="Stars, 1 to 5, to books.")


class CorrelationSerializer(serializers.Serializer[Any]):
    """How price and rating go together, -1 to 1; null where one of them never changes."""

    pearson = serializers.FloatField(allow_null=True)
    spearman = serializers.FloatField(allow_null=True, help_text="Equal values share their average rank.")
    n = serializers.IntegerField(help_text="Books compared: those of the currency of the prices.")


class CrawlSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    finished_at = serializers.DateTimeField()
    outcome = serializers.ChoiceField(["complete", "incomplete", "interrupted", "failed"])


class OverviewSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField(help_text="Listed books.")
    in_stock = serializers.IntegerField(help_text="Of them in stock.")
    categories = serializers.IntegerField(help_text="Categories that have a listed book.")
    stock_units = serializers.IntegerField(help_text="Copies in stock.")
    price = PricesSerializer()
    rating = RatingsSerializer()
    price_rating_correlation = CorrelationSerializer()
    last_crawl = CrawlSerializer(allow_null=True, help_text="The run that ended last.")
    revision = serializers.IntegerField(help_text="Of the catalogue that was looked at.")


class CategoryRefSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    slug = serializers.CharField()


class CategoryPricesSerializer(serializers.Serializer[Any]):
    """Prices in the currency of `/stats/overview`; null where no book of the category has it."""

    min = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)
    median = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)


class CategoryStatsSerializer(serializers.Serializer[Any]):
    category = CategoryRefSerializer()
    count = serializers.IntegerField(help_text="Listed books.")
    in_stock = serializers.IntegerField(help_text="Of them in stock.")
    stock_units = serializers.IntegerField(help_text="Copies in stock.")
    price = CategoryPricesSerializer()
    rating_mean = serializers.FloatField()


class CategoryStatsPageSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="Categories that have a listed book: all of them are here.")
    results = CategoryStatsSerializer(many=True)


def overview(found: Statistics, crawl: LastCrawl | None) -> dict[str, Any]:
    return {
        "total": found.total,
        "in_stock": found.in_stock,
        "categories": len(found.categories),
        "stock_units": found.stock_units,
        "price": _prices(found.prices),
        "rating": {
            "mean": found.rating_mean,
            "distribution": {str(stars): count for stars, count in zip(stats.STARS, found.ratings, strict=True)},
        },
        "price_rating_correlation": asdict(found.correlation),
        "last_crawl": crawl and {"run": crawl.run, "finished_at": crawl.finished_at, "outcome": crawl.outcome},
        "revision": found.revision,
    }


def _prices(prices: Prices) -> dict[str, Any]:
    return {
        "currency": prices.currency,
        "min": prices.minimum,
        "max": prices.maximum,
        "mean": prices.mean,
        "median": prices.median,
        "stddev": prices.stddev,
        "q1": prices.q1,
        "q3": prices.q3,
        "histogram": [{"from": b.start, "to": b.end, "count": b.count} for b in prices.histogram],
    }


def category(found: CategoryStats) -> dict[str, Any]:
    prices = found.prices
    return {
        "category": {"name": found.name, "slug": found.slug},
        "count": found.count,
        "in_stock": found.in_stock,
        "stock_units": found.stock_units,
        "price": {"min": prices.minimum, "mean": prices.mean, "median": prices.median, "max": prices.maximum},
        "rating_mean": found.rating_mean,
    }


#: The same, flat.
CATEGORY_COLUMNS = (
    Column("category_name", "text"),
    Column("category_slug", "text"),
    Column("count", "integer"),
    Column("in_stock", "integer"),
    Column("stock_units", "integer"),
    Column("price_min", "money"),
    Column("price_mean", "money"),
    Column("price_median", "money"),
    Column("price_max", "money"),
    Column("rating_mean", "number"),
)


def category_row(found: CategoryStats) -> tuple[Any, ...]:
    prices = found.prices
    return (
        found.name,
        found.slug,
        found.count,
        found.in_stock,
        found.stock_units,
        prices.minimum,
        prices.mean,
        prices.median,
        prices.maximum,
        found.rating_mean,
    )


# --- Endpoints --------------------------------------------------------------------------------------------------------
def _last_run(request: Request) -> str:
    """The run that ended last, for the tag: it is shown, and a run that changed nothing moves no revision."""
    crawl = stats.last_crawl(_shop(request))
    request.last_crawl = crawl  # type: ignore[attr-defined]
    return f"{crawl.run} {crawl.finished_at} {crawl.outcome}" if crawl else ""


def _shop(request: Request) -> str:
    return PARAMETERS.read(request)["shop"] or ""


class StatsViewSet(ReadingViewSet):
    """Computed once a revision of the catalogue, in each process."""

    @extend_schema(
        operation_id="stats_overview",
        tags=["statistics"],
        summary="The whole: prices, ratings, stock",
        parameters=PARAMETERS.schema(),
        responses={200: OverviewSerializer, **UNCHANGED, **problems(400)},
    )
    @conditional(also=_last_run)
    def overview(self, request: Request) -> HttpResponseBase:
        found = stats.statistics(_shop(request), revision_of(request))
        return _json(overview(found, request.last_crawl))  # type: ignore[attr-defined]

    @extend_schema(
        operation_id="stats_categories",
        tags=["statistics"],
        summary="Books, stock, prices and ratings by category",
        parameters=PARAMETERS.schema(),
        responses={(200, "application/json"): CategoryStatsPageSerializer, **EXPORTS, **UNCHANGED, **problems(400)},
    )
    @conditional
    def categories(self, request: Request) -> HttpResponseBase:
        found = stats.statistics(_shop(request), revision_of(request)).categories
        if request.accepted_renderer.format == "json":
            return _json({"count": len(found), "results": [category(entry) for entry in found]})
        rows = iter([[category_row(entry) for entry in found]])
        objects = iter([[orjson.Fragment(dumps(category(entry))) for entry in found]])
        return export_response(request, "categories", CATEGORY_COLUMNS, rows, objects)


def _json(body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(dumps(body), content_type="application/json")
