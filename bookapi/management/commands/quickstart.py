"""`manage.py quickstart`: what `make run` does."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from bookapi.quickstart import PRACTICE_BOOKS, PRACTICE_PORT, CannotRun, Options, run


class Command(BaseCommand):
    help = (
        "Serve the API on this machine, fill the catalogue from the live shop or a practice shop, "
        "and train the recommender."
    )
    # Checks of tables that are not migrated yet would only be noise before the first migrate.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the API (default 8000)")
        parser.add_argument("--no-crawl", action="store_true", help="serve what the catalogue holds")
        parser.add_argument("--no-train", action="store_true", help="leave the recommender as it is")
        parser.add_argument(
            "--practice", action="store_true", help="read the practice shop without asking the live one"
        )
        parser.add_argument("--practice-port", type=int, default=PRACTICE_PORT, help=f"(default {PRACTICE_PORT})")

        parser.add_argument("--practice-books", type=int, default=PRACTICE_BOOKS, help=f"(default {PRACTICE_BOOKS})")

    def handle(self, *, no_crawl: bool, no_train: bool, **options: Any) -> None:
        console = Console(highlight=False)
        names = ("port", "practice", "practice_port", "practice_books")
        try:
            chosen = {name: options[name] for name in names}
            run(Options(crawl=not no_crawl, train=not no_train, **chosen), console)
        except CannotRun as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            console.print("Ended.")
