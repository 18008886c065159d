"""`manage.py retry_rejected`: what was refused is cleaned again, after the cleaner has learned."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from catalog.ingest import retry_rejected
from catalog.models import RejectedItem


class Command(BaseCommand):
    help = "Clean the open rejected items again and ingest those that are books now."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--run", type=int, metavar="RUN", help="only the items of this run")

    def handle(self, *, run: int | None, **options: Any) -> None:
        items = RejectedItem.objects.filter(state=RejectedItem.State.OPEN)
        if run is not None:
            items = items.filter(run=run)
        counts = retry_rejected(list(items.values_list("pk", flat=True)))
        taken = counts.seen - counts.rejected
        self.stdout.write(
            f"{taken} taken ({counts.created} created, {counts.updated} updated, {counts.unchanged} unchanged, "
            f"{counts.stale} stale), {counts.rejected} still rejected."
        )
