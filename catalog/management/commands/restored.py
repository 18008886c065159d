"""`manage.py restored`: what a database needs to be told after it was brought back from a backup."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from catalog.revision import skip_ahead


class Command(BaseCommand):
    help = (
        "Call this after a backup was restored, before anybody is served: it moves the revision beyond all that were "
        "given out, so that no client takes an old ETag for a new one or misses changes. Again does no harm."
    )

    def handle(self, **options: Any) -> None:
        self.stdout.write(f"The revision is {skip_ahead()} now.")
