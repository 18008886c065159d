"""Every address of the product. Each area adds its own lines."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from bookapi import health, metrics
from bookapi.api import login

handler400 = "bookapi.errors.bad_request"
handler403 = "bookapi.errors.permission_denied"
handler404 = "bookapi.errors.not_found"
handler500 = "bookapi.errors.server_error"

api: list[URLPattern | URLResolver] = [
    path("login", login.LoginAliasView.as_view()),
    path("auth/login", login.LoginView.as_view()),
    path("auth/refresh", login.RefreshView.as_view()),
    path("auth/logout", login.LogoutView.as_view()),
    path("auth/verify", login.VerifyView.as_view()),
    path("health", health.Health.as_view()),
    path("health/live", health.Live.as_view()),
    path("health/ready", health.Ready.as_view()),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(api)),
    path("metrics", metrics.metrics),
]
