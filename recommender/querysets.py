"""Named, chainable questions about many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db import models

if TYPE_CHECKING:
    from recommender.models import ModelVersion  # noqa: F401 - for the annotation below


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def training(self) -> Self:
        """Under way, or left so by a process that died."""
        return self.filter(state="training")

    def champions(self) -> Self:
        """The one that is served, or none."""
        return self.filter(state="champion")
