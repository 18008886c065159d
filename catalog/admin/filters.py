"""How the lists are narrowed down. None of them counts rows, and none breaks on what stands in an address."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter, RangeNumericFilter

from catalog import cleaning
from catalog.models import Book, CrawlRun

if TYPE_CHECKING:

    class ChoiceFilter(admin.SimpleListFilter):
        """A filter of our own choices."""

    class NumberRange(admin.FieldListFilter):
        """A filter from one number to another."""

        parameter_name: str

else:
    ChoiceFilter = DropdownFilter
    NumberRange = RangeNumericFilter


class PriceFilter(NumberRange):
    """From one price to another, both included; what is not a price is no filter."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        for side, lookup in (("from", "gte"), ("to", "lte")):
            text = str(self.used_parameters.get(f"{self.parameter_name}_{side}") or "")
            try:
                value = Decimal(text)
            except InvalidOperation:
                continue
            if value.is_finite() and abs(value) <= cleaning.MONEY_MAX:
                queryset = queryset.filter(**{f"{self.parameter_name}__{lookup}": round(value, 2)})
        return queryset


class ShopFilter(ChoiceFilter):
    """The shops that runs have visited: a short list, where the books would have to be read one by one."""

    title = "shop"
    parameter_name = "shop"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        shops = CrawlRun.objects.order_by("shop").values_list("shop", flat=True).distinct()
        return [(shop, shop) for shop in shops]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(shop=self.value()) if self.value() else queryset


class BookStateFilter(ChoiceFilter):
    title = "state"
    parameter_name = "state"
    states: dict[str, dict[str, Any]] = {
        "listed": {"listed": True, "hidden": False, "merged_into": None},
        "left": {"listed": False, "hidden": False, "merged_into": None},
        "hidden": {"hidden": True},
        "merged": {"merged_into__isnull": False},
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("listed", "in the shop"), ("left", "left the shop"), ("hidden", "hidden"), ("merged", "merged away")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Book]) -> QuerySet[Book]:
        return queryset.filter(**self.states.get(self.value() or "", {}))


class LockedFilter(ChoiceFilter):
    title = "locked fields"
    parameter_name = "locked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "some"), ("no", "none")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Book]) -> QuerySet[Book]:
        if self.value() == "yes":
            return queryset.exclude(locked_fields=[])
        return queryset.filter(locked_fields=[]) if self.value() == "no" else queryset


class StockFilter(ChoiceFilter):
    title = "stock"
    parameter_name = "in_stock"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "in stock"), ("0", "out of stock")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Book]) -> QuerySet[Book]:
        return queryset.filter(in_stock=self.value() == "1") if self.value() in {"0", "1"} else queryset


class RatingFilter(ChoiceFilter):
    title = "rating"
    parameter_name = "rating"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(stars), "★" * stars) for stars in range(5, 0, -1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Book]) -> QuerySet[Book]:
        return queryset.filter(rating=int(self.value() or 0)) if self.value() in set("12345") else queryset
