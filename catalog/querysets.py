"""Named, chainable questions about many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db import models

if TYPE_CHECKING:
    from catalog.models import Book, CrawlRun  # noqa: F401 - for the annotations below


class BookQuerySet(models.QuerySet["Book"]):
    def visible(self) -> Self:
        """Not withheld by a person and not merged away: what the API may speak of."""
        return self.filter(hidden=False, merged_into__isnull=True)

    def listed(self) -> Self:
        """Visible, and in the shop as far as the last complete run knows."""
        return self.visible().filter(listed=True)

    def in_stock(self) -> Self:
        return self.filter(in_stock=True)

    def rated_at_least(self, stars: int) -> Self:
        return self.filter(rating__gte=stars)


class CrawlRunQuerySet(models.QuerySet["CrawlRun"]):
    def complete(self) -> Self:
        return self.filter(complete=True)

    def running(self) -> Self:
        return self.filter(state="running")
