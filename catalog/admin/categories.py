"""Shelves: renamed for readers, while ingest goes on finding them by the shop's name."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString

from catalog import curation
from catalog.admin.common import CatalogueAdmin, column, counted, list_link
from catalog.admin.forms import CategoryForm
from catalog.models import Book, Category


@admin.register(Category)
class CategoryAdmin(CatalogueAdmin):
    form = CategoryForm
    list_display = ("name", "shop_name", "slug", "books")
    search_fields = ("name", "shop_name")
    readonly_fields = ("shop_name", "slug", "books")
    fields = ("name", "shop_name", "slug", "books")

    @column("books")
    def books(self, category: Category) -> SafeString:
        return list_link(Book, "show its books", category__id__exact=category.pk)

    def save_model(self, request: HttpRequest, obj: Category, form: Any, change: bool) -> None:
        old = str(form.initial["name"])
        form.done = []
        try:
            count = curation.rename_category(obj.pk, form.cleaned_data["name"])
        except curation.CurationError as error:  # somebody took the name since the form was checked
            request.refused = True  # type: ignore[attr-defined]
            self.message_user(request, str(error), messages.ERROR)
            return
        if old != obj.name:
            form.done = [f"name: {old} → {obj.name}"]
            text = f"{counted(count, 'book stands', 'books stand')} on the renamed shelf."
            self.message_user(request, text, messages.INFO)

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> list[dict[str, Any]]:
        return [{"changed": {"fields": form.done}}] if form.done else []

    def response_change(self, request: HttpRequest, obj: Category) -> HttpResponse:
        if getattr(request, "refused", False):
            return HttpResponseRedirect(request.get_full_path())
        answer: HttpResponse = super().response_change(request, obj)
        return answer
