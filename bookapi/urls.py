"""Every address of the product. Each area adds its own lines."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

handler400 = "bookapi.errors.bad_request"
handler403 = "bookapi.errors.permission_denied"
handler404 = "bookapi.errors.not_found"
handler500 = "bookapi.errors.server_error"

api: list[URLPattern | URLResolver] = []

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(api)),
]
