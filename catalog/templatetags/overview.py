"""The catalogue at a glance, for the first page of the administration."""

from __future__ import annotations

from typing import Any

from django import template

from catalog.models import Book, CrawlRun, FailedPage, RejectedItem
from catalog.revision import current_revision

register = template.Library()


@register.simple_tag
def catalogue_overview() -> dict[str, Any]:
    """Counts, the latest run and what waits for a person. Four queries, five with a run."""
    # Not at the top: the theme renders a template while it is imported, and so imports every tag before its own end.
    from catalog.admin.runs import OUTCOMES, duration_of, outcome_of  # noqa: PLC0415

    run = CrawlRun.objects.first()
    outcome = outcome_of(run) if run else ""
    return {
        # All of them, which an index counts; those that readers can see would have to be read, seconds of a million.
        "books": Book.objects.count(),
        "revision": current_revision(),
        "open_rejections": RejectedItem.objects.filter(state=RejectedItem.State.OPEN).count(),
        "run": run,
        "failed_pages": FailedPage.objects.filter(run=run).count() if run else 0,
        "outcome": outcome,
        "kind": OUTCOMES.get(outcome, ""),
        "duration": duration_of(run) if run else "",
    }
