"""Named, chainable questions about many rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from django.db import models

from catalog.text import fold

if TYPE_CHECKING:
    from catalog.models import Book, CrawlRun  # noqa: F401 - for the annotations below


class BookQuerySet(models.QuerySet["Book"]):
    def visible(self) -> Self:
        """Not withheld by a person and not merged away: what the API may speak of."""
        return self.filter(hidden=False, merged_into__isnull=True)

    def listed(self) -> Self:
        """Visible, and in the shop as far as the last complete run knows."""
        return self.visible().filter(listed=True)

    def in_categories(self, names: Iterable[str]) -> Self:
        """In one of the categories, each named by its name, without regard to case and accents, or by its slug."""
        names = list(names)
        by_name = models.Q(category__name_key__in=[fold(name) for name in names])
        return self.filter(by_name | models.Q(category__slug__in=[name.lower() for name in names]))

    def titled(self, text: str) -> Self:
        """With `text` in the title, without regard to case and accents."""
        return self.filter(title_key__contains=fold(text))

    def in_stock(self) -> Self:
        return self.filter(in_stock=True)

    def rated_at_least(self, stars: int) -> Self:
        return self.filter(rating__gte=stars)


class CrawlRunQuerySet(models.QuerySet["CrawlRun"]):
    def complete(self) -> Self:
        return self.filter(complete=True)

    def running(self) -> Self:
        return self.filter(state="running")

    def under_way(self) -> Self:
        """Running, or waiting for what the queue still holds."""
        return self.filter(state__in=["running", "settling"])
