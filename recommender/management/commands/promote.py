"""`manage.py promote VERSION`: a person decides."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from recommender.engine.errors import ArtifactError
from recommender.models import ModelVersion
from recommender.promotion import PromotionError, mend_pointer, promote


class Command(BaseCommand):
    help = "Serve a version from now on. Exit code 0: it is served; 1: it is not, and the champion stays."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("version", nargs="?", metavar="VERSION", help="as `manage.py train_recommender` names it")
        which.add_argument(
            "--sync", action="store_true", help="only set the store's pointer to the champion of the registry"
        )
        parser.add_argument("--reason", default="By hand.", help="kept with the decision")

    def handle(self, *, version: str | None, sync: bool, reason: str, **options: Any) -> None:
        try:
            if sync:
                self.stdout.write("The pointer was mended." if mend_pointer() else "There was nothing to mend.")
                return
            found = ModelVersion.objects.filter(version=version or "?").first()
            if found is None:
                raise CommandError(f"There is no version {version!r}.")
            promote(found, reason)
        except (PromotionError, ArtifactError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{found.version} is champion.")
