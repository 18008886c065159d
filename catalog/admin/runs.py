"""Runs and the pages that failed in them: to be read."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter

from catalog.admin.common import (
    ReadOnlyAdmin,
    badge,
    column,
    list_link,
    one_line,
    page_link,
    pretty_json,
    table,
    time_column,
    web_link,
)
from catalog.admin.filters import ShopFilter
from catalog.ingest import pending_records
from catalog.models import CrawlRun, FailedPage, RejectedItem, Sighting

OUTCOMES = {
    "complete": "success",
    "finished": "warning",
    "running": "info",
    "settling": "info",
    "interrupted": "warning",
    "failed": "danger",
}


def outcome_of(run: CrawlRun) -> str:
    """How the run ended: complete says more than finished, that all which was announced is accounted for."""
    return "complete" if run.complete else str(run.state)


def duration_of(run: CrawlRun) -> str:
    """Hours, minutes and seconds; of a running one, until now."""
    seconds = int(((run.finished_at or timezone.now()) - run.started_at).total_seconds())
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@admin.register(CrawlRun)
class CrawlRunAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "of_shop",
        "outcome",
        "started",
        "duration",
        "seen_of_announced",
        "created",
        "updated",
        "same",
        "rejected",
        "failures",
        "warned",
    )
    list_filter = (
        ShopFilter,
        ("state", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
        ("started_at", admin.DateFieldListFilter),
    )
    date_hierarchy = "started_at"
    search_fields = ("=id", "shop", "source", "requested_by")
    sortable_by = ("id", "started")
    fieldsets = (
        (None, {"fields": (("outcome", "shop"), ("kind", "source"), "filtered", "requested_by")}),
        ("When", {"fields": (("started_at", "finished_at"), ("duration", "heartbeat_at"), ("host", "pid"))}),
        ("Sums", {"fields": ("sums", "links")}),
        ("Quality", {"fields": ("coverage_table", "price_mean", "warnings_table")}),
    )

    @column("outcome")
    def outcome(self, run: CrawlRun) -> SafeString:
        return badge(outcome_of(run), OUTCOMES)

    started = time_column("started_at")

    @column("shop")
    def of_shop(self, run: CrawlRun) -> SafeString:
        return one_line(run.shop)

    @column("seen")
    def seen_of_announced(self, run: CrawlRun) -> SafeString:
        return one_line(f"{run.seen:,}" if run.announced is None else f"{run.seen:,} of {run.announced:,}")

    @column("same")
    def same(self, run: CrawlRun) -> int:
        return run.unchanged

    @column("failed")
    def failures(self, run: CrawlRun) -> int:
        return run.failed_pages

    @column("duration")
    def duration(self, run: CrawlRun) -> str:
        return duration_of(run)

    @column("warnings")
    def warned(self, run: CrawlRun) -> int | str:
        return len(run.warnings) or "-"

    @column("filters")
    def filtered(self, run: CrawlRun) -> SafeString | str:
        return pretty_json(run.filters) if run.filters else "none: the whole shop"

    @column("sums")
    def sums(self, run: CrawlRun) -> SafeString | str:
        parts = (run.created, run.updated, run.unchanged, run.stale, run.rejected, run.dead)
        accounted = run.seen + run.failed_pages
        announced = "-" if run.announced is None else f"{run.announced:,}"
        rows = [
            ("seen = created + updated + unchanged + stale + rejected + dead", _sum(run.seen, *parts)),
            ("announced = seen + failed pages", f"{announced} = {run.seen:,} + {run.failed_pages:,}"),
            ("unaccounted for", "-" if run.announced is None else f"{run.announced - accounted:,}"),
            ("left the shop", f"{run.delisted:,}"),
        ]
        if run.published:
            pending = pending_records(run.pk)
            rows.insert(0, ("published = seen + in the queue", _sum(run.published, run.seen, pending)))
        return table(["", "books"], rows)

    @column("see")
    def links(self, run: CrawlRun) -> SafeString | str:
        rows = [
            (list_link(FailedPage, "failed pages", run__id__exact=run.pk),
             list_link(RejectedItem, "rejected items", run__id__exact=run.pk),
             list_link(Sighting, "sightings", run__id__exact=run.pk)),
        ]  # fmt: skip
        return table(["pages without a record", "records without a book", "books seen"], rows)

    @column("coverage")
    def coverage_table(self, run: CrawlRun) -> SafeString | str:
        return table(
            ["field", "books that have it"],
            [(name.replace("_", " "), f"{share:.1%}") for name, share in run.coverage.items()],
        )

    @column("warnings")
    def warnings_table(self, run: CrawlRun) -> SafeString | str:
        return table(
            ["warning", "detail"], [(w.get("code", "").replace("_", " "), w.get("detail", "")) for w in run.warnings]
        )


def _sum(total: int, *parts: int) -> str:
    return f"{total:,} = {' + '.join(f'{part:,}' for part in parts)}"


@admin.register(FailedPage)
class FailedPageAdmin(ReadOnlyAdmin):
    list_display = ("url", "reason", "kind", "of_run", "failed")
    list_select_related = ("run",)
    list_filter = (
        ("run", AutocompleteSelectFilter),
        ("kind", ChoicesDropdownFilter),
        ("at", admin.DateFieldListFilter),
    )
    search_fields = ("url", "reason", "detail")
    sortable_by = ("failed",)
    fields = ("page", "kind", "reason", "detail", "of_run", "at")
    ordering = ("-at", "-id")

    failed = time_column("at", "when")

    @column("page")
    def page(self, failed: FailedPage) -> SafeString | str:
        return web_link(failed.url)

    @column("run")
    def of_run(self, failed: FailedPage) -> SafeString | str:
        return page_link(failed.run)
