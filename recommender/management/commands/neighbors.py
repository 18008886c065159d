"""`manage.py neighbors`: every listed book's nearest books, as a table to read."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from recommender.engine.engine import Engine
from recommender.engine.errors import EngineError
from recommender.engine.recipes import DEFAULT, RECIPES, recipe
from recommender.management.progress import progress_on
from recommender.readings import readings_from_interactions
from recommender.training import corpus_from_catalogue

TOP_MAX = 100


class Command(BaseCommand):
    help = (
        "Write upc, neighbor_upc, rank and score (0 to 1) of the nearest books of every listed book. They are computed "
        "from the catalogue as it is now; no published model is read or changed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--top", type=int, default=10, metavar="N", help=f"1 to {TOP_MAX} neighbors of each book")
        parser.add_argument("--format", choices=["csv"], default="csv")
        parser.add_argument("--recipe", choices=list(RECIPES), default=DEFAULT, help=f"{DEFAULT} by default")
        parser.add_argument("--content-only", action="store_true", help="leave interactions out")
        parser.add_argument("--output", type=Path, metavar="FILE", help="standard output by default")

    def handle(self, *, top: int, recipe: str, content_only: bool, output: Path | None, **options: Any) -> None:
        if not 1 <= top <= TOP_MAX:
            raise CommandError(f"--top is {top}: 1 to {TOP_MAX} are allowed.")
        try:
            if output is not None:
                output.open("a").close()  # a file that cannot be written is told of now, not after a training
            with progress_on(Console(file=sys.stderr)) as progress:
                engine = trained(recipe, content_only, progress)
            with self._opened(output) as stream:
                write(engine, top, stream)
                stream.flush()
        except BrokenPipeError:  # whoever reads it, like `head`, has read enough
            _silence(sys.stdout)
        except (EngineError, OSError) as error:
            raise CommandError(str(error)) from error

    @contextmanager
    def _opened(self, output: Path | None) -> Iterator[IO[str]]:
        if output is None:
            yield cast(IO[str], self.stdout)
            return
        with output.open("w", encoding="utf-8", newline="") as stream:
            yield stream


def _silence(stream: IO[str]) -> None:
    """What is still to be written goes nowhere: Python writes it when it ends, and complains when it cannot."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def trained(name: str, content_only: bool, progress: Any) -> Engine:
    corpus = corpus_from_catalogue()
    readings = None if content_only else readings_from_interactions(corpus)
    return Engine.train(corpus, recipe(name), readings if readings and readings.n_readers else None, progress=progress)


def write(engine: Engine, top: int, stream: IO[str]) -> None:
    """The best first, of every book, in the order of ids."""
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["upc", "neighbor_upc", "rank", "score"])
    rows, scores = engine.top(top)
    for upc, near, likeness in zip(engine.upcs, rows.tolist(), scores.tolist(), strict=True):
        for rank, (row, score) in enumerate(zip(near, likeness, strict=True), start=1):
            if row >= 0:
                lines.writerow([upc, engine.upcs[row], rank, f"{score:.4f}"])
