"""What was seen, what changed, what it cost: facts of the past, to be read.

These tables grow with every run, so their lists are turned page by page and never counted.
"""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.paginator import InfinitePaginator

from catalog.admin.common import ReadOnlyAdmin, column, differences, page_link, pretty_json, shown, table, time_column
from catalog.models import BookSource, CatalogueRevision, Change, PriceObservation, Sighting


class LongListAdmin(ReadOnlyAdmin):
    paginator = InfinitePaginator
    list_select_related: ClassVar[tuple[str, ...]] = ("book",)
    search_fields: ClassVar[tuple[str, ...]] = ("=book__upc",)
    search_help_text = "A UPC"
    sortable_by = ()

    @column("book")
    def of_book(self, row: Change | PriceObservation | Sighting | BookSource) -> SafeString | str:
        return page_link(row.book)


@admin.register(Change)
class ChangeAdmin(LongListAdmin):
    list_display = ("revision", "kind", "of_book", "summary", "when")
    list_filter = (("kind", ChoicesDropdownFilter), ("at", admin.DateFieldListFilter))
    fields = ("revision", "kind", "of_book", "at", "what")
    ordering = ("-revision", "-id")

    when = time_column("at", "when")

    @column("fields")
    def summary(self, change: Change) -> str:
        return shown("; ".join(differences(change.fields)) or "-")

    @column("fields")
    def what(self, change: Change) -> SafeString | str:
        rows = [(name, shown(sides.get("old")), shown(sides.get("new"))) for name, sides in change.fields.items()]
        return table(["field", "before", "after"], rows)


@admin.register(PriceObservation)
class PriceObservationAdmin(LongListAdmin):
    list_display = ("of_book", "when", "price", "stock", "rating")
    list_display_links = ("when",)
    fields = ("of_book", "at", "price", "stock", "rating")
    ordering = ("-id",)
    when = time_column("at", "from")


@admin.register(Sighting)
class SightingAdmin(LongListAdmin):
    list_display = ("of_book", "of_run", "read")
    list_display_links = ("read",)
    list_select_related = ("book", "run")
    fields = ("of_book", "of_run", "scraped_at", "page", "fingerprint")
    ordering = ("-id",)
    read = time_column("scraped_at", "read")

    @column("run")
    def of_run(self, sighting: Sighting) -> SafeString | str:
        return page_link(sighting.run)


@admin.register(BookSource)
class BookSourceAdmin(LongListAdmin):
    list_display = ("of_book", "read", "etag", "parser_version", "cleaner_version")
    list_display_links = ("read",)
    fields = ("of_book", "scraped_at", "etag", "parser_version", "cleaner_version", "fingerprint", "page", "raw_record")
    ordering = ("-book",)
    read = time_column("scraped_at", "read")

    @column("as the shop wrote it")
    def raw_record(self, source: BookSource) -> SafeString:
        return pretty_json(source.raw)


@admin.register(CatalogueRevision)
class CatalogueRevisionAdmin(ReadOnlyAdmin):
    list_display = ("number",)
    fields = ("number",)
    search_fields = ("=number",)
