"""What the pages of the administration share.

Scraped text is never HTML here: it goes through templates and `format_html`, which escape it, and an address becomes
a link only when a browser would fetch it from the web.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ERROR_FLAG, SEARCH_VAR
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

if TYPE_CHECKING:

    class ModelAdmin(admin.ModelAdmin[Any]):
        """What unfold, which has no types, adds to Django's."""

        def get_actions_submit_line(self, request: HttpRequest, object_id: Any) -> list[Any]:
            """The buttons at the foot of a row's page."""
            raise NotImplementedError

else:
    from unfold.admin import ModelAdmin

F = TypeVar("F", bound=Callable[..., Any])

#: Characters of a value in a message, a log entry or a cell.
SHOWN = 80
#: What surely fits a BIGINT; and the longest name of a row, a UUID's.
ID_DIGITS, PK_LENGTH = 18, 36


class CatalogueAdmin(ModelAdmin):
    """Pages that stay fast with a million rows: no second count, no facets, nobody deletes."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    list_filter_submit = True

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list; without its filters where one of them is nothing that a database can look for."""
        for name, value in request.GET.items():
            digits = str(value).removeprefix("-")
            too_big = name != SEARCH_VAR and digits.isdecimal() and len(digits) > ID_DIGITS
            if too_big or "\0" in value:
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
        answer: HttpResponse = super().changelist_view(request, extra_context)
        return answer

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The rows that fit. PostgreSQL takes no NUL, and whoever asks for completions is not checked by a form."""
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *rest: Any) -> HttpResponse | None:
        """What the action answers. Raises SuspiciousOperation, a 400, where a chosen row is none that there can be."""
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            _check_possible(self.model, chosen)
        return super().response_action(request, queryset, *rest)

    def changeform_view(self, request: HttpRequest, *rest: Any, **more: Any) -> HttpResponse:
        """The form. Raises SuspiciousOperation, a 400, where it is sent with a row that there cannot be: Django's own
        lists of rows to choose from look for it, and fail."""
        for field in self.opts.get_fields():
            if field.many_to_one and field.related_model and (chosen := request.POST.get(field.name)):
                _check_possible(field.related_model, chosen)
        answer: HttpResponse = super().changeform_view(request, *rest, **more)
        return answer

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _check_possible(model: type[Model], chosen: str) -> None:
    """Return if the text may be the primary key of a row. Raises SuspiciousOperation."""
    try:
        value = model._meta.pk.to_python(chosen)
    except ValidationError:
        value = None
    if value is None or len(chosen) > PK_LENGTH or (isinstance(value, int) and len(chosen) > ID_DIGITS):
        raise SuspiciousOperation("There can be no such row.")


class ReadOnlyAdmin(CatalogueAdmin):
    """Pages of facts: whoever may view or change the model may read them, and nobody writes them."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Not super(): it would ask for our own permission to change, which nobody has.
        name = self.opts.model_name
        user = request.user
        return user.has_perm(f"{self.opts.app_label}.view_{name}") or user.has_perm(
            f"{self.opts.app_label}.change_{name}"
        )


def web_link(url: str) -> SafeString | str:
    """A link that opens the page apart and tells it nothing of us; plain text unless it is http or https."""
    if not url.lower().startswith(("http://", "https://")):
        return url
    return format_html(
        '<a href="{}" class="text-link" target="_blank" rel="noopener noreferrer nofollow">{}</a>', url, shown(url)
    )


def page_link(row: Model | None, text: object = None) -> SafeString | str:
    """A link to the row's own page."""
    if row is None:
        return "-"
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}" class="text-link">{}</a>', url, shown(row if text is None else text))


def list_link(model: type[Model], text: object, **lookups: object) -> SafeString:
    """A link to the list of a model's rows that fit."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist", query=lookups or None)
    return format_html('<a href="{}" class="text-link">{}</a>', url, text)


def pretty_json(value: object) -> SafeString:
    return format_html(
        '<pre class="whitespace-pre-wrap break-words text-xs max-w-4xl">{}</pre>',
        json.dumps(value, indent=2, ensure_ascii=False),
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> SafeString | str:
    """A small table; "-" without rows."""
    cells = [list(row) for row in rows]
    if not cells:
        return "-"
    return render_to_string("catalog/admin/table.html", {"table": {"headers": list(headers), "rows": cells}})


def shown(value: object) -> str:
    """A value, of a field or of `as_json`, in at most `SHOWN` characters."""
    if isinstance(value, Mapping):
        value = value.get("name", value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def differences(fields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What changed, a line a field: "price: 51.77 → 12.50"."""
    return [
        f"{name.replace('_', ' ')}: {shown(_or_dash(sides.get('old')))} → {shown(_or_dash(sides.get('new')))}"
        for name, sides in fields.items()
    ]


def _or_dash(value: object) -> object:
    return "-" if value in (None, "", []) else value


def badge(text: str, kinds: Mapping[str, str]) -> SafeString:
    """A word on the colour of its kind: success, info, warning or danger."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kinds.get(text, "")})


def one_line(text: str) -> SafeString:
    """The text, never broken into lines."""
    return format_html('<span class="whitespace-nowrap">{}</span>', text)


def moment(at: datetime | None) -> SafeString | str:
    """A time to the minute, UTC, on one line."""
    return one_line(f"{at.astimezone(UTC):%Y-%m-%d %H:%M}") if at else "-"


def time_column(field: str, description: str = "") -> Callable[[Any, Any], SafeString | str]:
    """A column of such times, in the order of the field where the list may be sorted by it."""

    @column(description or field.removesuffix("_at").replace("_", " "), ordering=field)
    def show(_admin: Any, row: Any) -> SafeString | str:
        return moment(getattr(row, field))

    return show


def column(
    description: str, *, ordering: str | None = None, label: bool | None = None, header: bool | None = None
) -> Callable[[F], F]:
    """A computed column or field; `label` frames its values, `header` sets a second line under the first."""
    return cast("Callable[[F], F]", display(description=description, ordering=ordering, label=label, header=header))


def log(request: HttpRequest, rows: QuerySet[Any] | Sequence[Model], message: str) -> None:
    """Enter in each row's history what was done to it. Two queries."""
    LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, message)  # type: ignore[arg-type]


def counted(number: int, one: str, many: str) -> str:
    """The number with its noun: "1 book was", "2 books were"."""
    return f"{number:,} {one if number == 1 else many}"
