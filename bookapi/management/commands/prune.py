"""`manage.py prune`: delete what is older than the settings say, and no longer needed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from bookapi.pruning import prune


class Command(BaseCommand):
    help = "Delete what is older than KEEP_..._DAYS and no longer needed, expired logins and sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say how much would be deleted")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        for name, count in prune(dry_run=dry_run).items():
            self.stdout.write(f"{count:>10,} {name} {'would be' if dry_run else 'were'} deleted")
