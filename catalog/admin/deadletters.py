"""What became of messages: batches on their way, and dead letters for operators to decide about."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter

from catalog import deadletters
from catalog.admin.common import (
    ReadOnlyAdmin,
    badge,
    column,
    counted,
    log,
    one_line,
    page_link,
    pretty_json,
    shown,
    time_column,
)
from catalog.admin.filters import ChoiceFilter
from catalog.ingest.published import mark_dead
from catalog.ingest.raw import restored
from catalog.models import DeadLetter, PublishedBatch

#: Letters decided about at once: each replay waits for the broker's word, and a person waits for all of them.
LETTERS_MAX = 1000
STATES = {"open": "warning", "replayed": "success", "dropped": "info"}
BATCH_STATES = {"pending": "info", "settled": "success", "dead": "danger"}


class LetterStateFilter(ChoiceFilter):
    """Open ones, unless somebody asks for others: they are what the page is looked at for."""

    title = "state"
    parameter_name = "state"
    all_option = None

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*DeadLetter.State.choices, ("all", "All")]

    def value(self) -> str:
        return super().value() or DeadLetter.State.OPEN

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        return queryset.filter(state=self.value()) if self.value() in DeadLetter.State.values else queryset


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ("id", "why", "task_name", "said", "condition", "of_run", "books", "age")
    list_select_related = ("run",)
    list_filter = (
        LetterStateFilter,
        ("reason", ChoicesDropdownFilter),
        ("run", AutocompleteSelectFilter),
        ("received_at", admin.DateFieldListFilter),
    )
    search_fields = ("task", "detail", "queue")
    sortable_by = ()
    fieldsets = (
        (None, {"fields": (("why", "condition"), "detail", ("task_name", "queue"), ("of_run", "of_batch"), "books")}),
        ("When", {"fields": ("received_at", ("settled_at", "decided_by"))}),
        ("Message", {"fields": ("content", "envelope")}),
    )
    actions = ("replay", "drop")
    change_form_outer_after_template = "catalog/admin/letter_buttons.html"

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Whether this person decides what becomes of dead letters."""
        return bool(request.user.has_perm("catalog.settle_deadletter"))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or self.has_settle_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        rows: QuerySet[DeadLetter] = super().get_queryset(request)
        match = request.resolver_match
        if match and match.url_name and match.url_name.endswith("_changelist"):
            return rows.defer("body", "properties")  # 10 MB each, if somebody wants it so
        return rows

    @column("reason")
    def why(self, letter: DeadLetter) -> str:
        return letter.get_reason_display()

    @column("task")
    def task_name(self, letter: DeadLetter) -> str:
        return shown(letter.task or "-")

    @column("detail")
    def said(self, letter: DeadLetter) -> str:
        return shown(letter.detail or "-")

    @column("state")
    def condition(self, letter: DeadLetter) -> SafeString:
        return badge(letter.state, STATES)

    @column("run")
    def of_run(self, letter: DeadLetter) -> SafeString | str:
        return page_link(letter.run)

    @column("batch")
    def of_batch(self, letter: DeadLetter) -> SafeString | str:
        if letter.batch is None:
            return "-"
        return format_html("{} {}", page_link(letter.batch), badge(letter.batch.state, BATCH_STATES))

    @column("records")
    def books(self, letter: DeadLetter) -> int | str:
        return letter.records or "-"

    @column("age")
    def age(self, letter: DeadLetter) -> SafeString:
        return one_line(timesince(letter.received_at, depth=1))

    @column("settled by")
    def decided_by(self, letter: DeadLetter) -> str:
        if letter.settled_at is None:
            return "-"
        return letter.settled_by or "the command line"

    @column("what it says")
    def content(self, letter: DeadLetter) -> SafeString:
        text = deadletters.readable(letter)
        return format_html('<pre class="whitespace-pre-wrap break-words text-xs max-w-4xl">{}</pre>', text)

    @column("its headers")
    def envelope(self, letter: DeadLetter) -> SafeString:
        return pretty_json(restored(letter.properties))

    def _decide(
        self,
        request: HttpRequest,
        letters: QuerySet[DeadLetter],
        work: Callable[[Collection[int], str], int],
        done: str,
    ) -> None:
        chosen = list(letters.filter(state=DeadLetter.State.OPEN).defer("body", "properties")[: LETTERS_MAX + 1])
        if len(chosen) > LETTERS_MAX:
            self.message_user(request, f"Choose at most {LETTERS_MAX:,} letters at once.", messages.ERROR)
            return
        try:
            count = work([letter.pk for letter in chosen], request.user.get_username())
        except (deadletters.NoBroker, *deadletters.BROKER_ERRORS) as error:
            text = f"The broker did not take all of them, and those stay open: {shown(error) or type(error).__name__}"
            self.message_user(request, text, messages.ERROR)
            return
        log(request, chosen, done)
        self.message_user(request, f"{counted(count, 'letter was', 'letters were')} {done}.", messages.SUCCESS)

    @admin.action(description="Replay: publish again", permissions=["settle"])
    def replay(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        self._decide(request, letters, deadletters.replay, "replayed")

    @admin.action(description="Drop: give up for good", permissions=["settle"])
    def drop(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        self._decide(request, letters, deadletters.drop, "dropped")


@admin.register(PublishedBatch)
class PublishedBatchAdmin(ReadOnlyAdmin):
    list_display = ("batch", "condition", "of_run", "records", "published", "settled", "last_error")
    list_select_related = ("run",)
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("run", AutocompleteSelectFilter),
        ("published_at", admin.DateFieldListFilter),
    )
    search_fields = ("error",)
    search_help_text = "Words of an error"
    sortable_by = ()
    ordering = ("-published_at", "key")
    fields = ("key", "condition", "of_run", "records", "published_at", "settled_at", "error")

    actions = ("give_up",)

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Whether this person decides what becomes of batches, as of dead letters."""
        return bool(request.user.has_perm("catalog.settle_deadletter"))

    @admin.action(description="Give up: its spool or message is lost", permissions=["settle"])
    def give_up(self, request: HttpRequest, batches: QuerySet[PublishedBatch]) -> None:
        """Their records are dead in the sums of their runs; those that come after all are what they become."""
        given_up = [batch for batch in batches if mark_dead(batch.pk)]
        log(request, given_up, "given up")
        self.message_user(request, f"{counted(len(given_up), 'batch was', 'batches were')} given up.", messages.SUCCESS)

    published = time_column("published_at")
    settled = time_column("settled_at")

    @column("batch")
    def batch(self, batch: PublishedBatch) -> SafeString:
        return one_line(str(batch.key)[:8])

    @column("state")
    def condition(self, batch: PublishedBatch) -> SafeString:
        return badge(batch.state, BATCH_STATES)

    @column("run")
    def of_run(self, batch: PublishedBatch) -> SafeString | str:
        return page_link(batch.run)

    @column("last error")
    def last_error(self, batch: PublishedBatch) -> str:
        return shown(batch.error or "-")
