"""`manage.py train_recommender`: a candidate, for a person to look at."""

from __future__ import annotations

import sys
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from rich.console import Console

from recommender.engine.errors import UnknownRecipe
from recommender.engine.evaluation import table
from recommender.engine.recipes import RECIPES
from recommender.management.progress import progress_on
from recommender.models import ModelVersion
from recommender.registry import TrainingUnderWay, adopt_training, record_decision, start_training
from recommender.training import TrainingFailed, train

FAILED, NOT_STARTED = 1, 2


class Command(BaseCommand):
    help = (
        "Train and evaluate a model and publish it as a candidate; what is served stays. "
        "Exit code 0: there is a candidate; 1: the training failed; 2: another one is under way."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--recipe", choices=list(RECIPES), help="by default the champion's")
        parser.add_argument("--content-only", action="store_true", help="leave interactions out")

    def handle(self, *, recipe: str | None, content_only: bool, **options: Any) -> None:
        try:
            training = adopt_training(start_training(recipe).pk)
            with progress_on(Console(file=sys.stderr)) as progress:
                trained = train(training, content_only=content_only, progress=progress)
        except (TrainingUnderWay, UnknownRecipe) as error:
            raise CommandError(str(error), returncode=NOT_STARTED) from error
        except TrainingFailed as error:
            raise CommandError(str(error), returncode=FAILED) from error
        with transaction.atomic():
            record_decision(trained.row, ModelVersion.Decision.WAITING, "Trained alone: a person decides.")
        console = Console(file=cast(IO[str], self.stdout))
        console.print(table(trained.row.metrics))
        console.print(f"Candidate {trained.row.version}: manage.py promote {trained.row.version}", soft_wrap=True)
