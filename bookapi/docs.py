"""The API's description: OpenAPI, and two pages that show it to people. Open to everyone, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from bookapi.api.params import Parameters
from bookapi.errors import problem_response

#: Scripts from here alone, and none in the page. Both tools write style elements of their own, and ReDoc searches in a
#: worker that it makes itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PARAMETERS = Parameters(others={"format"})


@cache
def schema() -> dict[str, Any]:
    """The OpenAPI document. It takes half a second and does not change while a process lives."""
    described: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return described


class Schema(SpectacularAPIView):
    """OpenAPI 3 as JSON, or as YAML by `?format=yaml` or `Accept`."""

    renderer_classes = [OpenApiJsonRenderer, OpenApiYamlRenderer]
    throttle_classes = []

    def _get_schema_response(self, request: Request) -> Response:
        PARAMETERS.read(request)
        kind = request.accepted_renderer.format
        return Response(schema(), headers={"Content-Disposition": f'inline; filename="bookapi.{kind}"'})


def shown(page: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A page of the API that can only be looked at: any other method is a problem, as everywhere below /api."""

    @csrf_exempt  # its check comes before the view, and answers in HTML
    @wraps(page)
    def view(request: HttpRequest) -> HttpResponse:
        if request.method not in {"GET", "HEAD"}:
            return problem_response(405, request=request, headers={"Allow": "GET, HEAD"})
        return page(request)

    return view


@shown
def swagger(request: HttpRequest) -> HttpResponse:
    return _page(request, "bookapi/swagger.html")


@shown
def redoc(request: HttpRequest) -> HttpResponse:
    return _page(request, "bookapi/redoc.html")


def _page(request: HttpRequest, template: str) -> HttpResponse:
    response = render(request, template, {"title": settings.SPECTACULAR_SETTINGS["TITLE"]})
    response.headers["Content-Security-Policy"] = POLICY
    return response
