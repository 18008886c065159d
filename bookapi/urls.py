"""Every address of the product. Each area adds its own lines."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from bookapi import docs, health, metrics
from bookapi.api import interactions, login, ml, model_versions, scraping, stats
from bookapi.api.books import BookViewSet
from bookapi.api.categories import CategoryViewSet
from bookapi.api.changes import ChangeViewSet
from bookapi.api.formats import EXPORTABLE
from bookapi.api.recommendations import RecommendationViewSet

handler400 = "bookapi.errors.bad_request"
handler403 = "bookapi.errors.permission_denied"
handler404 = "bookapi.errors.not_found"
handler500 = "bookapi.errors.server_error"

api: list[URLPattern | URLResolver] = [
    # The busiest first: every address before the one that is asked for costs a microsecond.
    path("books/<int:book_id>", BookViewSet.as_view({"get": "retrieve"})),
    path("books", BookViewSet.as_view({"get": "list"}, renderer_classes=EXPORTABLE)),
    path("books/<int:book_id>/recommendations", RecommendationViewSet.as_view({"get": "of_book"})),
    path("recommendations", RecommendationViewSet.as_view({"post": "of_question"})),
    path("login", login.LoginAliasView.as_view()),
    path("auth/login", login.LoginView.as_view()),
    path("auth/refresh", login.RefreshView.as_view()),
    path("auth/logout", login.LogoutView.as_view()),
    path("auth/verify", login.VerifyView.as_view()),
    path("stats/overview", stats.StatsViewSet.as_view({"get": "overview"})),
    path("stats/categories", stats.StatsViewSet.as_view({"get": "categories"}, renderer_classes=EXPORTABLE)),
    path("ml/features", ml.MachineLearning.as_view({"get": "features"})),
    path("ml/training-data", ml.MachineLearning.as_view({"get": "training_data"})),
    path("ml/predictions", ml.Predictions.as_view({"get": "list", "post": "create"}, renderer_classes=EXPORTABLE)),
    path("ml/models", model_versions.ModelVersions.as_view({"get": "list"})),
    path("ml/retrain", model_versions.Retrain.as_view({"post": "create"})),
    path("interactions", interactions.Interactions.as_view({"post": "create", "delete": "destroy"})),
    path("scraping/trigger", scraping.Trigger.as_view({"post": "create"})),
    path("scraping/runs", scraping.Runs.as_view({"get": "list"})),
    path("scraping/runs/<int:run_id>", scraping.Runs.as_view({"get": "retrieve"})),
    path("books/search", BookViewSet.as_view({"get": "search"})),
    path("books/top-rated", BookViewSet.as_view({"get": "top_rated"})),
    path("books/price-range", BookViewSet.as_view({"get": "price_range"})),
    path("books/<int:book_id>/history", BookViewSet.as_view({"get": "history"})),
    path("categories", CategoryViewSet.as_view({"get": "list"})),
    path("categories/<str:slug>", CategoryViewSet.as_view({"get": "retrieve"})),
    path("changes", ChangeViewSet.as_view({"get": "list"}, renderer_classes=EXPORTABLE)),
    path("schema", docs.Schema.as_view(), name="schema"),
    path("docs", docs.swagger, name="docs"),
    path("redoc", docs.redoc, name="redoc"),
    path("health", health.Health.as_view()),
    path("health/live", health.Live.as_view()),
    path("health/ready", health.Ready.as_view()),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(api)),
    path("admin/", admin.site.urls),
    path("metrics", metrics.metrics),
    path("", RedirectView.as_view(pattern_name="docs")),  # people who come without knowing where to
]
