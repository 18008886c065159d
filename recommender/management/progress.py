"""How far a long command is: a bar a step on a terminal, lines of a log elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from recommender.engine.features import Progress as Report

LINE_S = 10.0  # between two lines of one step


@contextmanager
def progress_on(console: Console) -> Iterator[Report]:
    """A function to tell of step, done and total."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield report


class _Lines:
    """A line when a step begins, when it is done, and now and then between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.told: dict[str, float] = {}  # step -> when there was a line of it

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.told.get(step, -LINE_S) < LINE_S:
            return
        self.told[step] = now
        self.console.print(f"{step}: {done:,} of {total:,}", highlight=False, soft_wrap=True)
