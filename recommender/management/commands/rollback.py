"""`manage.py rollback`: the version before is served again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from recommender.promotion import PromotionError, roll_back


class Command(BaseCommand):
    help = "Serve the version that the champion replaced. Exit code 0: it is served; 1: the champion stays."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", default="", help="kept with the decision")

    def handle(self, *, reason: str, **options: Any) -> None:
        try:
            version = roll_back(reason)
        except PromotionError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{version.version} is champion again.")
