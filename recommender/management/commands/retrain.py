"""`manage.py retrain`: what a schedule runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from recommender.engine.recipes import RECIPES
from recommender.management.progress import progress_on
from recommender.models import ModelVersion
from recommender.promotion import PromotionError
from recommender.registry import TrainingUnderWay, UnknownTraining, adopt_training, start_training
from recommender.retraining import in_markdown, retrain
from recommender.training import TrainingFailed

FAILED, NOT_STARTED, NOT_PROMOTED = 1, 2, 3


class Command(BaseCommand):
    help = (
        "Train a model, compare it with the champion, and serve it if it is good enough. "
        "Exit code 0: trained and decided, whatever the decision is; 1: the training failed, or a good model could not "
        "be served; 2: not begun, since another training is under way or FILE cannot be written; 3, with --strict "
        "alone: decided, and not promoted. Except after 0 the champion stays."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--recipe", choices=list(RECIPES), help="by default the champion's")
        parser.add_argument("--content-only", action="store_true", help="leave interactions out")
        parser.add_argument("--summary", type=Path, metavar="FILE", help="append the decision to FILE, in Markdown")
        parser.add_argument("--strict", action="store_true", help=f"exit code {NOT_PROMOTED} unless promoted")
        parser.add_argument("--training", type=int, metavar="ID", help="go on with one that the API has begun")

    def handle(
        self,
        *,
        recipe: str | None,
        content_only: bool,
        summary: Path | None,
        strict: bool,
        training: int | None,
        **options: Any,
    ) -> None:
        if summary is not None:
            _check_writable(summary)
        try:
            row = adopt_training(start_training(recipe).pk if training is None else training)
        except (TrainingUnderWay, UnknownTraining) as error:
            raise CommandError(str(error), returncode=NOT_STARTED) from error
        try:
            with progress_on(Console(file=sys.stderr)) as progress:
                retrain(row, content_only=content_only, progress=progress)
        except (TrainingFailed, PromotionError) as error:
            raise CommandError(str(error), returncode=FAILED) from error
        finally:
            row.refresh_from_db()
            self._tell(row, summary)
        if strict and row.decision != ModelVersion.Decision.PROMOTED:
            sys.exit(NOT_PROMOTED)

    def _tell(self, row: ModelVersion, file: Path | None) -> None:
        self.stdout.write(f"{row.version or f'Training {row.pk}'}: {_told_once(row)}")
        if file is not None:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(in_markdown(row))


def _told_once(row: ModelVersion) -> str:
    """What became of it, and why; some reasons begin with it."""
    outcome = f"{row.decision or row.state}."
    return f"{outcome} {row.reason.removeprefix(outcome.capitalize()).strip()}"


def _check_writable(file: Path) -> None:
    """Now, since a model that was promoted cannot be told of later. Raises CommandError."""
    try:
        file.open("a").close()
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}.", returncode=NOT_STARTED) from error
