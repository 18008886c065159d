"""All that is forgotten, of every part of the product: what `manage.py prune` and the schedule do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.utils import timezone

from bookapi.models import LoginCounter, RefreshFamily
from bookapi.upkeep import forgettable_runs
from catalog import retention
from recommender.models import Interaction


def prune(*, dry_run: bool = False) -> dict[str, int]:
    """How many rows of each kind were deleted; with `dry_run`, how many would be."""
    now = timezone.now()
    gone = retention.prune(dry_run=dry_run, now=now)
    others: dict[str, QuerySet[Any]] = {
        "expired logins": RefreshFamily.objects.filter(expires_at__lt=now),
        "expired login counters": LoginCounter.objects.filter(expires_at__lt=now),
        "expired sessions": Session.objects.filter(expire_date__lt=now),
        "runs of the schedule": forgettable_runs(),
    }
    if settings.KEEP_INTERACTIONS_DAYS:
        kept_since = now - timedelta(days=settings.KEEP_INTERACTIONS_DAYS)
        others["interactions"] = Interaction.objects.filter(at__lt=kept_since)
    for name, rows in others.items():
        gone[name] = rows.count() if dry_run else retention.delete(rows)
    return gone
