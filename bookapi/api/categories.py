"""Categories, and how many listed books they have."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from bookapi.api.conditional import UNCHANGED, conditional
from bookapi.api.formats import dumps
from bookapi.api.paging import page_of
from bookapi.api.params import Parameters
from bookapi.api.views import ReadingViewSet
from bookapi.errors import problems
from catalog.models import Category
from catalog.rows import Row, compiled, run

PARAMETERS = Parameters()


class CategorySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    slug = serializers.CharField()
    count = serializers.IntegerField(help_text="Listed books.")


class CategoryViewSet(ReadingViewSet):
    @extend_schema(
        operation_id="categories_list",
        summary="All categories, by name",
        description="There are few: the list has one page, and `next` and `previous` are null.",
        responses={200: page_of(CategorySerializer, "CategoryPage"), **UNCHANGED, **problems(400)},
        tags=["categories"],
    )
    @conditional
    def list(self, request: Request) -> HttpResponseBase:
        PARAMETERS.read(request)
        results = [_category(row) for row in sorted(_rows(), key=lambda row: (row[3], row[4]))]
        return _json({"count": len(results), "next": None, "previous": None, "results": results})

    @extend_schema(
        operation_id="categories_retrieve",
        summary="One category",
        responses={200: CategorySerializer, **UNCHANGED, **problems(400, 404)},
        tags=["categories"],
    )
    @conditional
    def retrieve(self, request: Request, slug: str) -> HttpResponseBase:
        PARAMETERS.read(request)
        if "\0" in slug or not (rows := _rows(slug=slug)):
            raise Http404("There is no category with this slug.")
        return _json(_category(rows[0]))


def _rows(**filters: str) -> list[Row]:
    """(name, slug, listed books, name_key, id) of categories. One query, the order is Python's on every database."""
    listed = Q(books__listed=True, books__hidden=False, books__merged_into__isnull=True)
    categories = Category.objects.filter(**filters).annotate(count=Count("books", filter=listed)).order_by()
    return run(*compiled(categories.values_list("name", "slug", "count", "name_key", "id")))


def _category(row: Row) -> dict[str, Any]:
    return {"name": row[0], "slug": row[1], "count": row[2]}


def _json(data: Any) -> HttpResponse:
    return HttpResponse(dumps(data), content_type="application/json")
