"""What outside models predicted: to be read."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from catalog.admin.common import column, pretty_json, time_column
from catalog.admin.history import LongListAdmin
from catalog.models import Prediction


@admin.register(Prediction)
class PredictionAdmin(LongListAdmin):
    list_display = ("model", "model_version", "of_book", "score", "account", "made")
    list_select_related = ("book", "account")
    list_filter = (("created_at", admin.DateFieldListFilter),)
    search_fields = ("=book__upc", "=model", "=account__username")
    search_help_text = "A UPC, a model or an account"
    fields = ("model", "model_version", "of_book", "score", "extra_fields", "account", "created_at")

    made = time_column("created_at", "made")

    @column("extra")
    def extra_fields(self, prediction: Prediction) -> SafeString:
        return pretty_json(prediction.extra)
