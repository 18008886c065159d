"""The schedule on the administration site: what runs when, what came of it, and a button to run it now."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminSelectWidget

from bookapi.models import Lease, ScheduledRun
from bookapi.schedule import KNOWN, Misconfigured, in_words
from bookapi.ticking import run_now
from bookapi.timetable import line_of, rows
from catalog.admin.common import (
    CatalogueAdmin,
    ModelAdmin,
    ReadOnlyAdmin,
    badge,
    column,
    list_link,
    log,
    moment,
    one_line,
    page_link,
    shown,
    time_column,
)
from catalog.admin.runs import OUTCOMES, outcome_of

for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(model)

KINDS = {"ok": "success", "waiting": "info", "already under way": "info", "failed": "danger"}


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg, unused-ignore]
    """A row of the schedule: one of the tasks that may be scheduled, with an interval or a crontab."""

    task = forms.ChoiceField(
        choices=[(name, known.title) for name, known in KNOWN.items()], widget=UnfoldAdminSelectWidget
    )

    class Meta:
        model = PeriodicTask
        fields = ("name", "task", "enabled", "interval", "crontab", "start_time", "expires", "description")

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if bool(values.get("interval")) == bool(values.get("crontab")):
            raise forms.ValidationError("Choose an interval or a crontab, one of the two.")
        return values


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(CatalogueAdmin):
    form = ScheduleForm
    list_display = ("name", "when", "enabled", "last_run", "outcome", "came_of_it", "next_run")
    list_select_related = ("interval", "crontab")
    search_fields = ("name", "task")
    sortable_by = ("name",)
    ordering = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "task", "enabled", "description")}),
        (
            "When",
            {
                "fields": (("interval", "crontab"), "start_time", "expires"),
                "description": "One interval or one crontab. All times are UTC. A change counts within seconds; what "
                "was missed while no scheduler ran is run once.",
            },
        ),
        ("What happened", {"fields": (("last_run", "next_run"), ("outcome", "came_of_it"), "history")}),
    )
    readonly_fields = ("last_run", "next_run", "outcome", "came_of_it", "history")
    actions = ("run_now",)

    # Unlike facts, schedules are made and removed here.
    has_add_permission = ModelAdmin.has_add_permission
    has_delete_permission = ModelAdmin.has_delete_permission

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return rows()

    @column("schedule")
    def when(self, row: PeriodicTask) -> SafeString:
        return one_line(in_words(row))

    @column("last run")
    def last_run(self, row: PeriodicTask) -> SafeString | str:
        return moment(line_of(row).last_at)

    @column("outcome")
    def outcome(self, row: PeriodicTask) -> SafeString | str:
        line = line_of(row)
        return badge(line.outcome, KINDS) if line.last else "-"

    @column("what came of it")
    def came_of_it(self, row: PeriodicTask) -> SafeString | str:
        last = line_of(row).last
        return came_of(last) if last else "-"

    @column("next run")
    def next_run(self, row: PeriodicTask) -> SafeString | str:
        line = line_of(row)
        return one_line(line.next_told) if line.next_at else line.next_told

    @column("runs")
    def history(self, row: PeriodicTask) -> SafeString | str:
        return list_link(ScheduledRun, "all that are kept", schedule__id__exact=row.pk)

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: ModelForm[PeriodicTask], change: bool) -> None:
        if change and "enabled" in form.changed_data and obj.enabled:
            obj.last_run_at = None  # what it did not do while it was switched off was not missed
        super().save_model(request, obj, form, change)

    def has_run_now_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_celery_beat.change_periodictask"))

    @admin.action(description="Run now", permissions=["run_now"])
    def run_now(self, request: HttpRequest, schedules: QuerySet[PeriodicTask]) -> None:
        for row in schedules:
            try:
                entry = run_now(row, request.user.get_username())
            except Misconfigured as error:
                self.message_user(request, f"{row.name}: {error}", messages.ERROR)
                continue
            if entry is None:
                self.message_user(request, f"{row.name}: its last run is not over.", messages.WARNING)
                continue
            log(request, [row], "run now")
            failed = entry.outcome == ScheduledRun.Outcome.FAILED
            told = f"{row.name}: {entry.get_outcome_display().lower()}. {entry.detail}".rstrip()
            self.message_user(request, told, messages.ERROR if failed else messages.SUCCESS)


def came_of(entry: ScheduledRun) -> SafeString | str:
    """What it started, as it stands now, or what it said."""
    if entry.crawl is not None:
        link, state = page_link(entry.crawl, f"run {entry.crawl_id}"), badge(outcome_of(entry.crawl), OUTCOMES)
    elif entry.training is not None:
        link, state = page_link(entry.training), one_line(entry.training.state)
    else:
        return shown(entry.detail or "-")
    return format_html('<span class="whitespace-nowrap">{} {}</span>', link, state)


class WhenAdmin(CatalogueAdmin):
    """Intervals and crontabs, to choose from. Deleting one would delete its schedules as well: nobody does."""

    list_display = ("__str__", "used_by")

    has_add_permission = ModelAdmin.has_add_permission

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("periodictask_set")

    @column("used by")
    def used_by(self, when: Any) -> str:
        return ", ".join(row.name for row in when.periodictask_set.all()) or "-"


@admin.register(IntervalSchedule)
class IntervalAdmin(WhenAdmin):
    fields = (("every", "period"),)

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "period":  # a scheduler that looks every few seconds knows no microseconds
            kwargs["choices"] = [pair for pair in db_field.choices if pair[0] != IntervalSchedule.MICROSECONDS]
        return super().formfield_for_choice_field(db_field, request, **kwargs)


@admin.register(CrontabSchedule)
class CrontabAdmin(WhenAdmin):
    """Times of day in UTC: elsewhere an hour may be missing, or come twice."""

    fields = (("minute", "hour"), ("day_of_week", "day_of_month"), "month_of_year")


@admin.register(ScheduledRun)
class ScheduledRunAdmin(ReadOnlyAdmin):
    list_display = ("of_schedule", "started", "outcome_badge", "came_of_it", "took", "requested_by")
    list_display_links = ("started",)
    list_select_related = ("schedule", "crawl", "training")
    list_filter = (
        ("outcome", ChoicesDropdownFilter),
        ("schedule", RelatedDropdownFilter),
        ("started_at", admin.DateFieldListFilter),
    )
    sortable_by = ("started",)
    search_fields = ("schedule__name", "task", "detail", "=requested_by")
    fields = (
        ("of_schedule", "task"),
        ("outcome_badge", "came_of_it"),
        "detail",
        ("due_at", "started_at"),
        ("sent_at", "taken_at"),
        ("finished_at", "resumed_at"),
        "requested_by",
    )

    started = time_column("started_at", "when")

    @column("schedule")
    def of_schedule(self, entry: ScheduledRun) -> SafeString | str:
        return page_link(entry.schedule, entry.schedule.name)

    @column("outcome")
    def outcome_badge(self, entry: ScheduledRun) -> SafeString:
        return badge(entry.get_outcome_display().lower(), KINDS)

    @column("what came of it")
    def came_of_it(self, entry: ScheduledRun) -> SafeString | str:
        return came_of(entry)

    @column("seconds")
    def took(self, entry: ScheduledRun) -> str:
        return f"{(entry.finished_at - entry.started_at).total_seconds():.1f}" if entry.finished_at else "-"


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    """Which of several schedulers is at work."""

    list_display = ("name", "holder", "expires_at")
    search_fields = ("name", "holder")
    fields = list_display
