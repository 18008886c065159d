"""`manage.py evaluate`: how good a recipe is, beside simpler ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from catalog.models import Book
from recommender.engine.corpus import Corpus, Readings
from recommender.engine.engine import Engine
from recommender.engine.errors import EngineError
from recommender.engine.evaluation import Trial, report, table, trials
from recommender.engine.features import Progress
from recommender.engine.recipes import DEFAULT, RECIPES, Recipe, recipe
from recommender.engine.truth import truth_of
from recommender.evaluating import assessment_of, baseline_scores, questions_of
from recommender.management.progress import progress_on
from recommender.reading_files import BooksByUPC, UnusableFile
from recommender.readings import readings_from_interactions
from recommender.training import corpus_from_catalogue


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a recipe is judged by."""

    corpus: Corpus
    readings: Readings
    questions: Sequence[Trial]  # none: there is no truth
    source: str  # for people


class Command(BaseCommand):
    help = (
        "Judge recipes by what readers read together, beside simple baselines: trained on half of the readers, judged "
        "by the others, over five halves. Without FILE by the catalogue's own interactions; where these are too few, "
        "only proxies are told, which do not know readers."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--interactions", type=Path, metavar="FILE", help="CSV (or .gz): reader, upc")
        parser.add_argument("--queries", type=Path, metavar="FILE", help="CSV: upc of the books to ask about")
        parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may be given several times")
        parser.add_argument(
            "--content-only", action="store_true", help="train on no readers, and judge by all of them at once"
        )
        parser.add_argument("--shop", help="only books of this shop, by its slug")
        parser.add_argument("--format", choices=["table", "json"], default="table")

    def handle(self, *, recipe: list[str] | None, content_only: bool, format: str, **options: Any) -> None:  # noqa: A002
        console = Console(file=sys.stderr)
        try:
            evidence = evidence_of(options["interactions"], options["queries"], options["shop"], content_only, console)
            with progress_on(console) as progress:
                reports = reports_of(recipe or [DEFAULT], evidence, content_only, progress)
        except (UnusableFile, OSError, EngineError) as error:
            raise CommandError(str(error)) from error
        out = Console(file=cast(IO[str], self.stdout))
        if format == "json":
            found = {"source": evidence.source, "content_only": content_only, "recipes": reports}
            self.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
            return
        for name, figures in reports.items():
            out.print(f"{name}: {evidence.source}", markup=False, highlight=False, soft_wrap=True)
            out.print(table(figures))


def reports_of(
    names: Sequence[str], evidence: Evidence, content_only: bool, progress: Progress
) -> dict[str, dict[str, Any]]:
    """A report for each recipe."""
    progress("baselines", 0, 1)
    beside = baseline_scores(evidence.corpus, evidence.readings, evidence.questions)
    progress("baselines", 1, 1)
    return {name: _report(recipe(name), evidence, beside, content_only, progress) for name in names}


def _report(wanted: Recipe, evidence: Evidence, beside: Any, content_only: bool, progress: Progress) -> dict[str, Any]:
    learns = not content_only and evidence.readings.n_readers > 0
    engine = Engine.train(evidence.corpus, wanted, evidence.readings if learns else None, progress=progress)
    assessment = assessment_of(engine, evidence.corpus, evidence.readings, evidence.questions)
    return report(assessment, beside)


def evidence_of(
    interactions: Path | None, queries: Path | None, shop: str | None, content_only: bool, console: Console
) -> Evidence:
    """The books, and the readers of the file, or of the catalogue.

    Raises UnusableFile: it is no CSV of that kind, or no book that is asked about has any truth in it.
    """
    books = Book.objects.listed()
    corpus = corpus_from_catalogue(books.filter(shop=shop) if shop else books)
    if interactions is None:
        if queries is not None:
            raise UnusableFile("--queries needs --interactions: they are asked of the readers of that file.")
        readings = readings_from_interactions(corpus)
        questions = questions_of(readings)
        if questions and content_only:
            questions = [Trial(None, truth_of(readings))]
        told = "the catalogue's own interactions" if questions else "proxies alone: there are not enough readers"
        return Evidence(corpus, readings, questions, told)
    by_upc = BooksByUPC.of(corpus)
    readings, unknown = by_upc.readings(interactions)
    rows, unknown_queries = by_upc.queries(queries) if queries else (None, 0)
    for n, file in ((unknown, interactions), (unknown_queries, queries)):
        if n:
            console.print(f"{file}: {n:,} lines are of books that are not in the catalogue.", soft_wrap=True)
    questions = [Trial(None, truth_of(readings, rows))] if content_only else trials(readings, query_rows=rows)
    if not all(len(trial.truth) for trial in questions):
        raise UnusableFile(f"{interactions}: no book that is asked about has three readers in common with another.")
    return Evidence(corpus, readings, questions, f"readers of {interactions.name}")
