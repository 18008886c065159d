"""The recommender's pages: which model is served, what curators pin, what readers did."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter

from catalog.admin.common import (
    CatalogueAdmin,
    ModelAdmin,
    ReadOnlyAdmin,
    badge,
    column,
    counted,
    log,
    moment,
    page_link,
    pretty_json,
    table,
    time_column,
)
from catalog.admin.history import LongListAdmin
from recommender.interactions import erase
from recommender.models import Interaction, ModelVersion, Pin

STATES = {
    "training": "info",
    "candidate": "warning",
    "champion": "success",
    "retired": "info",
    "refused": "danger",
    "failed": "danger",
}


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("named", "condition", "recipe", "kind", "quality", "n_books", "n_readers", "decision", "started")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("recipe", admin.AllValuesFieldListFilter),
        ("started_at", admin.DateFieldListFilter),
    )
    search_fields = ("version", "=data_fingerprint")
    search_help_text = "A version"
    sortable_by = ()
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": (("named", "condition"), ("recipe", "recipe_version"), "kind", "requested_by")}),
        ("Decisions", {"fields": ("reason", "decided")}),
        ("Figures", {"fields": ("figures",)}),
        ("Data", {"fields": (("n_books", "n_readers"), ("revision", "data_fingerprint"))}),
        ("When", {"fields": (("started_at", "finished_at"), "seconds", ("heartbeat_at", "host", "pid"))}),
    )
    actions = ("promote", "roll_back", "refuse")
    change_form_outer_after_template = "recommender/admin/version_buttons.html"

    def has_promote_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("recommender.promote_modelversion"))

    started = time_column("started_at")

    @column("version")
    def named(self, version: ModelVersion) -> str:
        return str(version)

    @column("state")
    def condition(self, version: ModelVersion) -> SafeString:
        return badge(version.state, STATES)

    @column("nDCG@10")
    def quality(self, version: ModelVersion) -> str:
        figure = version.metrics.get("metrics", {}).get("ndcg@10")
        return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" if figure else "-"

    @column("decided")
    def decided(self, version: ModelVersion) -> SafeString | str:
        rows = version.decisions.select_related("replaced")
        return table(
            ["when", "decision", "by", "instead of", "why"],
            [
                (
                    moment(r.at),
                    r.get_decision_display(),
                    r.by or "-",
                    page_link(r.replaced),
                    f"{r.reason} {r.figures.get('error', '')}",
                )
                for r in rows
            ],
        )

    @column("as evaluated")
    def figures(self, version: ModelVersion) -> SafeString:
        return pretty_json(version.metrics)

    @column("seconds")
    def seconds(self, version: ModelVersion) -> SafeString | str:
        return table(["step", "seconds"], version.durations.items())

    # -- deciding -------------------------------------------------------------------------------------------------

    @admin.action(description="Promote: serve this one", permissions=["promote"])
    def promote(self, request: HttpRequest, versions: QuerySet[ModelVersion]) -> None:
        from recommender import promotion  # noqa: PLC0415 - numpy and scipy, which few processes need

        self._decide(request, versions, lambda one, why, by: promotion.promote(one, why, by=by), "promoted")

    @admin.action(description="Roll back: serve what this champion replaced", permissions=["promote"])
    def roll_back(self, request: HttpRequest, versions: QuerySet[ModelVersion]) -> None:
        from recommender import promotion  # noqa: PLC0415 - numpy and scipy, which few processes need

        def back(one: ModelVersion, why: str, by: str) -> None:
            if one.state != ModelVersion.State.CHAMPION:
                raise promotion.NothingBefore(f"{one} is not the champion.")
            promotion.roll_back(why, by=by)

        self._decide(request, versions, back, "rolled back")

    @admin.action(description="Refuse: this candidate is not to be served", permissions=["promote"])
    def refuse(self, request: HttpRequest, versions: QuerySet[ModelVersion]) -> None:
        from recommender import promotion  # noqa: PLC0415 - numpy and scipy, which few processes need

        self._decide(request, versions, lambda one, why, by: promotion.refuse(one, why, by=by), "refused")

    def _decide(
        self,
        request: HttpRequest,
        versions: QuerySet[ModelVersion],
        work: Callable[[ModelVersion, str, str], None],
        done: str,
    ) -> None:
        """Do it to the one version that was chosen, for the reason that was given."""
        from recommender.promotion import PromotionError  # noqa: PLC0415 - as above

        chosen = list(versions[:2])
        if len(chosen) != 1:
            self.message_user(request, "Choose one version.", messages.ERROR)
            return
        reason = request.POST.get("reason", "").replace("\0", "").strip() or "By hand."
        try:
            work(chosen[0], reason, request.user.get_username())
        except PromotionError as error:
            self.message_user(request, f"The champion stays. {error}", messages.ERROR)
            return
        log(request, chosen, done)
        self.message_user(request, f"{chosen[0]} was {done}.", messages.SUCCESS)


@admin.register(Pin)
class PinAdmin(CatalogueAdmin):
    list_display = ("kind", "of_book", "of_other", "position", "by", "set_at")
    list_display_links = ("kind",)
    list_select_related = ("book", "other")
    list_filter = (("kind", ChoicesDropdownFilter), ("book", AutocompleteSelectFilter))
    search_fields = ("=book__upc", "=other__upc", "book__title", "other__title")
    search_help_text = "A title or a UPC"
    sortable_by = ()
    autocomplete_fields = ("book", "other")
    fields = (("book", "other"), ("kind", "position"), ("by", "at"))
    readonly_fields = ("by", "at")

    # Pins are made and removed here, unlike everything that the shop says.
    has_add_permission = ModelAdmin.has_add_permission
    has_delete_permission = ModelAdmin.has_delete_permission

    set_at = time_column("at", "set")

    @column("beside")
    def of_book(self, pin: Pin) -> SafeString | str:
        return page_link(pin.book)

    @column("shown or blocked")
    def of_other(self, pin: Pin) -> SafeString | str:
        return page_link(pin.other)

    def save_model(self, request: HttpRequest, obj: Pin, form: ModelForm[Pin], change: bool) -> None:
        obj.by = request.user.get_username()
        obj.save()


@admin.register(Interaction)
class InteractionAdmin(LongListAdmin):
    list_display = ("kind", "of_book", "value", "reader", "account", "when")
    list_display_links = ("kind",)
    list_select_related: ClassVar[tuple[str, ...]] = ("book", "account")
    list_filter = (("kind", ChoicesDropdownFilter), ("at", admin.DateFieldListFilter))
    search_fields: ClassVar[tuple[str, ...]] = ("=reader", "=account__username", "=book__upc")
    search_help_text = "A reader, an account or a UPC"
    fields = ("kind", "value", "of_book", "reader", "account", "key", "at")
    ordering = ("-id",)
    actions = ("erase",)

    when = time_column("at", "when")

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("recommender.delete_interaction"))

    @admin.action(description="Erase everything of these readers", permissions=["erase"])
    def erase(self, request: HttpRequest, interactions: QuerySet[Interaction]) -> None:
        """Their history says that it was done, by whom and when, and not who they were."""
        with transaction.atomic():
            readers = set(interactions.order_by().values_list("account", "reader"))
            log(request, list(interactions[: len(readers)]), "the reader was erased")
            erased = sum(erase(account, reader) for account, reader in readers)
        text = f"{counted(len(readers), 'reader was', 'readers were')} erased: {erased:,} interactions."
        self.message_user(request, text, messages.SUCCESS)
