"""Records that could not become books: read, retried, set aside."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter

from catalog import curation
from catalog.admin.common import (
    ReadOnlyAdmin,
    badge,
    column,
    counted,
    log,
    page_link,
    pretty_json,
    shown,
    table,
    time_column,
    web_link,
)
from catalog.ingest import retry_rejected
from catalog.models import RejectedItem

#: Items retried at once: each is a transaction of its own, and a person waits.
RETRY_MAX = 1000
STATES = {"open": "warning", "retried": "success", "dismissed": "info"}


@admin.register(RejectedItem)
class RejectedItemAdmin(ReadOnlyAdmin):
    list_display = ("reference", "why", "condition", "of_run", "read")
    list_select_related = ("run",)
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("run", AutocompleteSelectFilter),
        ("scraped_at", admin.DateFieldListFilter),
    )
    search_fields = ("reference", "upc")
    sortable_by = ()
    fields = ("condition", "page_read", "upc", "of_run", "scraped_at", "reasons", "raw_record")
    actions = ("retry", "dismiss")
    change_form_outer_after_template = "catalog/admin/rejected_buttons.html"

    def has_curate_permission(self, request: HttpRequest) -> bool:
        """Whether this person decides what becomes of rejected items; the records themselves nobody edits."""
        return bool(request.user.has_perm("catalog.change_rejecteditem"))

    read = time_column("scraped_at", "read")

    @column("state")
    def condition(self, item: RejectedItem) -> SafeString:
        return badge(item.state, STATES)

    @column("reasons")
    def why(self, item: RejectedItem) -> str:
        return shown("; ".join(f"{e.get('field')}: {e.get('code')}" for e in item.errors))

    @column("run")
    def of_run(self, item: RejectedItem) -> SafeString | str:
        return page_link(item.run)

    @column("read from")
    def page_read(self, item: RejectedItem) -> SafeString | str:
        return web_link(item.reference)

    @column("reasons")
    def reasons(self, item: RejectedItem) -> SafeString | str:
        rows = [(e.get("field"), e.get("code"), e.get("detail")) for e in item.errors]
        return table(["field", "reason", "detail"], rows)

    @column("as it was read")
    def raw_record(self, item: RejectedItem) -> SafeString | str:
        return pretty_json(item.raw)

    @admin.action(description="Retry: clean and ingest again", permissions=["curate"])
    def retry(self, request: HttpRequest, items: QuerySet[RejectedItem]) -> None:
        chosen = list(items.filter(state=RejectedItem.State.OPEN)[: RETRY_MAX + 1])
        if len(chosen) > RETRY_MAX:
            self.message_user(request, f"Retry at most {RETRY_MAX:,} items at once.", messages.ERROR)
            return
        counts = retry_rejected([item.pk for item in chosen])
        log(request, chosen, "retried")
        accepted = counts.seen - counts.rejected
        level = messages.WARNING if counts.rejected else messages.SUCCESS
        text = f"{counted(accepted, 'item was', 'items were')} accepted; {counts.rejected:,} still refused."
        self.message_user(request, text, level)

    @admin.action(description="Dismiss: set aside for good", permissions=["curate"])
    def dismiss(self, request: HttpRequest, items: QuerySet[RejectedItem]) -> None:
        with transaction.atomic():
            chosen = list(items.filter(state=RejectedItem.State.OPEN))
            count = curation.dismiss_rejected([item.pk for item in chosen])
            log(request, chosen, "dismissed")
        self.message_user(request, f"{counted(count, 'item was', 'items were')} dismissed.", messages.SUCCESS)
