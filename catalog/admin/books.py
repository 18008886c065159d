"""Books: looked at, corrected, given back, hidden, merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from catalog import curation
from catalog.admin.common import (
    CatalogueAdmin,
    badge,
    column,
    counted,
    differences,
    list_link,
    log,
    moment,
    one_line,
    page_link,
    pretty_json,
    shown,
    table,
    time_column,
    web_link,
)
from catalog.admin.filters import BookStateFilter, LockedFilter, PriceFilter, RatingFilter, ShopFilter, StockFilter
from catalog.admin.forms import GIVE_BACK, BookForm
from catalog.models import Book, Change, PriceObservation
from catalog.text import fold

#: Books on one page of merging, which a person still compares by eye.
MERGE_MAX = 20
#: Changes and observations on a book's page; the lists have all of them.
HISTORY = 20
STATES = {"in the shop": "success", "left the shop": "info", "hidden": "warning", "merged": "danger"}


def state_of(book: Book) -> str:
    """Where readers find the book: one of `STATES`."""
    if book.merged_into_id is not None:
        return "merged"
    if book.hidden:
        return "hidden"
    return "in the shop" if book.listed else "left the shop"


@admin.register(Book)
class BookAdmin(CatalogueAdmin):
    form = BookForm
    list_display = ("titled", "shelf", "cost", "stars", "stock", "state", "locks", "updated")
    list_select_related = ("category",)
    list_filter = (
        BookStateFilter,
        ("category", AutocompleteSelectFilter),
        ShopFilter,
        ("price", PriceFilter),
        RatingFilter,
        StockFilter,
        LockedFilter,
        ("updated_at", admin.DateFieldListFilter),
    )
    search_fields = ("title", "upc")
    search_help_text = "Words of the title, or a UPC"
    sortable_by = ("titled", "cost", "stars", "stock", "updated")  # what an index answers
    ordering = ("-id",)  # newest first; an index answers it together with every filter that has one
    autocomplete_fields = ("category",)
    actions = ("hide", "show", "give_back", "merge")
    actions_submit_line = ("hide_this", "show_this", "give_back_this", "undo_merge_of_this")
    change_form_before_template = "catalog/admin/book_form_top.html"
    readonly_fields = (
        "shop",
        "upc",
        "page_in_shop",
        "cover",
        "state",
        "merged_book",
        "locked_and_said",
        "first_seen_at",
        "updated_at",
        "latest_changes",
        "latest_prices",
        "raw_record",
    )
    fieldsets = (
        (None, {"fields": ("title", "authors", "category", "description")}),
        (
            "Price and stock",
            {"fields": (("price", "price_excl_tax"), ("tax", "currency"), ("stock", "availability"))},
        ),
        ("Product", {"fields": (("rating", "review_count"), "product_type", "image_url")}),
        (
            "In the shop",
            {
                "fields": (
                    "state",
                    "merged_book",
                    "locked_and_said",
                    ("shop", "upc"),
                    "page_in_shop",
                    "cover",
                    ("first_seen_at", "updated_at"),
                )
            },
        ),
        ("History", {"fields": ("latest_changes", "latest_prices")}),
        ("Raw record", {"fields": ("raw_record",), "classes": ("collapse",)}),
    )

    # -- the list -------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Book]:
        rows: QuerySet[Book] = super().get_queryset(request)
        match = request.resolver_match
        if match and match.url_name and match.url_name.endswith("_changelist"):
            return rows.defer("description", "search_key", "shop_values")
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Book], search_term: str
    ) -> tuple[QuerySet[Book], bool]:
        """Books whose title has every word, without case and accents, or whose UPC begins like this."""
        words = Q()
        search_term = search_term.replace("\0", "")
        for word in fold(search_term).split():
            words &= Q(title_key__contains=word)
        return (queryset.filter(words | Q(upc__istartswith=search_term.strip())) if words else queryset), False

    @column("title", ordering="title_key", header=True)
    def titled(self, book: Book) -> list[str]:
        return [shown(book.title), one_line(f"{book.upc} · {book.shop}")]

    @column("category")
    def shelf(self, book: Book) -> str:
        """Computed, so that no address asks for a million books in the order of their shelves' names."""
        return book.category.name

    @column("price", ordering="price")
    def cost(self, book: Book) -> str:
        return f"{book.price:,.2f}\N{NO-BREAK SPACE}{book.currency}"

    @column("rating", ordering="rating")
    def stars(self, book: Book) -> str:
        return "★" * book.rating + "☆" * (5 - book.rating)

    @column("state")
    def state(self, book: Book) -> SafeString:
        return badge(state_of(book), STATES)

    updated = time_column("updated_at")

    @column("locked", label=True)
    def locks(self, book: Book) -> list[str]:
        return [name.replace("_", " ") for name in book.locked_fields]

    # -- the page of a book ---------------------------------------------------------------------------------------

    @column("page in the shop")
    def page_in_shop(self, book: Book) -> SafeString | str:
        return web_link(book.source_url) or "-"

    @column("cover")
    def cover(self, book: Book) -> SafeString | str:
        """A link: nobody's work here is told to the shop by pictures that load by themselves."""
        return web_link(book.image_url) or "-"

    @column("merged into")
    def merged_book(self, book: Book) -> SafeString | str:
        return page_link(book.merged_into)

    @column("locked")
    def locked_and_said(self, book: Book) -> SafeString | str:
        rows = [
            (name.replace("_", " "), shown(getattr(book, name)), shown(book.shop_values.get(name) or "nothing"))
            for name in book.locked_fields
        ]
        return table(["field", "we say", "the shop says"], rows) if rows else "nothing: the shop decides"

    @column("latest changes")
    def latest_changes(self, book: Book) -> SafeString | str:
        rows = Change.objects.filter(book=book).order_by("-revision", "-id")[:HISTORY]
        return table(
            ["when", "revision", "what", "fields"],
            [(moment(c.at), c.revision, c.kind, "; ".join(differences(c.fields))) for c in rows],
        )

    @column("prices")
    def latest_prices(self, book: Book) -> SafeString | str:
        rows = PriceObservation.objects.filter(book=book).order_by("-at", "-id")[:HISTORY]
        return table(
            ["from", "price", "stock", "rating"],
            [(moment(o.at), f"{o.price} {book.currency}", o.stock, "★" * o.rating) for o in rows],
        )

    @column("as the shop wrote it")
    def raw_record(self, book: Book) -> SafeString | str:
        try:
            return pretty_json(book.source.raw)
        except ObjectDoesNotExist:
            return "-"

    # -- saving ---------------------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Book, form: BookForm, change: bool) -> None:
        """Write what the curator edited, through `curation`; never the row, of which the form holds an older copy."""
        edit = curation.edit_book(obj.pk, form.edits, seen=form.cleaned_data["seen"])
        form.done = differences(edit.fields)  # type: ignore[attr-defined]
        for name in edit.overtaken:
            old = edit.fields.get(name, {}).get("old", "the same")
            what = name.replace("_", " ").capitalize()
            text = f"{what} had changed to “{shown(old)}” since you opened the page; yours stands."
            self.message_user(request, text, messages.WARNING)
        if form.giving_back and curation.give_back([obj.pk], [form.giving_back]):
            form.done.append(f"{form.giving_back.replace('_', ' ')}: given back to the shop")  # type: ignore[attr-defined]
        for submitted in self.get_actions_submit_line(request, obj.pk):
            if submitted.action_name in request.POST and (done := submitted.method(request, obj)):
                form.done.append(done)  # type: ignore[attr-defined]

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> list[dict[str, Any]]:
        return [{"changed": {"fields": form.done}}] if form.done else []

    def response_change(self, request: HttpRequest, obj: Book) -> HttpResponse:
        if GIVE_BACK in request.POST:
            what = request.POST[GIVE_BACK].replace("_", " ").capitalize()
            self.message_user(request, f"{what} belongs to the shop; the rest was saved.", messages.SUCCESS)
            return HttpResponseRedirect(request.get_full_path())
        answer: HttpResponse = super().response_change(request, obj)
        return answer

    def get_actions_submit_line(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The buttons that mean something for this book in its present state. One query."""
        book = self.get_object(request, str(object_id))
        if book is None:
            return []
        fitting = {
            "hide_this": not book.hidden,
            "show_this": book.hidden,
            "give_back_this": len(book.locked_fields) > 1,
            "undo_merge_of_this": book.merged_into_id is not None,
        }
        found = super().get_actions_submit_line(request, object_id)
        return [a for a in found if fitting[a.action_name.removeprefix("catalog_book_")]]

    @admin.action(description="Save and hide", permissions=["change"])
    def hide_this(self, request: HttpRequest, book: Book) -> str:
        return "hidden" if curation.set_hidden([book.pk], True) else ""

    @admin.action(description="Save and show again", permissions=["change"])
    def show_this(self, request: HttpRequest, book: Book) -> str:
        return "shown again" if curation.set_hidden([book.pk], False) else ""

    @admin.action(description="Give all fields back", permissions=["change"])
    def give_back_this(self, request: HttpRequest, book: Book) -> str:
        return "all fields given back to the shop" if curation.give_back([book.pk]) else ""

    @admin.action(description="Undo the merge", permissions=["change"])
    def undo_merge_of_this(self, request: HttpRequest, book: Book) -> str:
        return "merge undone" if curation.unmerge(book.pk) else ""

    # -- many books at once ---------------------------------------------------------------------------------------

    def _all(
        self,
        request: HttpRequest,
        books: QuerySet[Book],
        work: Callable[[Sequence[int]], int],
        done: str,
    ) -> None:
        """Do it to all of them, enter it in their histories, and say how many there were."""
        with transaction.atomic():
            ids = list(books.order_by().values_list("pk", flat=True))
            count = work(ids)
            log(request, Book.objects.filter(pk__in=ids).only("title") if len(ids) <= curation.CHUNK else books, done)
        self.message_user(request, f"{counted(count, 'book was', 'books were')} {done}.", messages.SUCCESS)

    @admin.action(description="Hide from readers", permissions=["change"])
    def hide(self, request: HttpRequest, books: QuerySet[Book]) -> None:
        self._all(request, books, lambda ids: curation.set_hidden(ids, True), "hidden")

    @admin.action(description="Show to readers again", permissions=["change"])
    def show(self, request: HttpRequest, books: QuerySet[Book]) -> None:
        self._all(request, books, lambda ids: curation.set_hidden(ids, False), "shown again")

    @admin.action(description="Give all fields back to the shop", permissions=["change"])
    def give_back(self, request: HttpRequest, books: QuerySet[Book]) -> None:
        self._all(request, books, curation.give_back, "given back to the shop")

    @admin.action(description="Merge into one…", permissions=["change"])
    def merge(self, request: HttpRequest, books: QuerySet[Book]) -> HttpResponse | None:
        """A page on which to choose the book that stays; then the merge."""
        chosen = list(books.select_related("category").order_by("pk")[: MERGE_MAX + 1])
        if not 1 < len(chosen) <= MERGE_MAX:
            text = f"Choose two books or more to merge, and at most {MERGE_MAX}."
            self.message_user(request, text, messages.ERROR)
            return None
        survivor = next((book for book in chosen if str(book.pk) == request.POST.get("survivor")), None)
        if survivor is not None and self._merge(request, survivor, [book for book in chosen if book is not survivor]):
            return HttpResponseRedirect(reverse("admin:catalog_book_change", args=[survivor.pk]))
        rows = [
            {
                "book": book,
                "state": state_of(book),
                "kind": STATES[state_of(book)],
                "locks": ", ".join(book.locked_fields),
                "link": list_link(Change, "changes", book__id__exact=book.pk),
            }
            for book in chosen
        ]
        first = survivor or next((b for b in chosen if b.visible and b.listed), chosen[0])
        context = {
            **self.admin_site.each_context(request),
            "title": "Merge books",
            "opts": self.opts,
            "rows": rows,
            "first": first.pk,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "catalog/admin/merge.html", context)

    def _merge(self, request: HttpRequest, survivor: Book, duplicates: list[Book]) -> bool:
        try:
            with transaction.atomic():
                count = curation.merge(survivor.pk, [book.pk for book in duplicates])
                log(request, duplicates, f"merged into book {survivor.pk}")
        except curation.CurationError as error:
            self.message_user(request, str(error), messages.ERROR)
            return False
        text = f"{counted(count, 'book was', 'books were')} merged into “{shown(survivor.title)}”."
        self.message_user(request, text, messages.SUCCESS)
        return True
