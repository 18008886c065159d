"""`manage.py schedule`: what is scheduled, when it ran, what came of it, and when it runs next."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.table import Table

from bookapi.timetable import Line, timetable


class Command(BaseCommand):
    help = "Show the schedule: each task, its last outcome and its next time (UTC)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *, json: bool, **_: Any) -> None:
        try:
            lines = timetable()
        except DatabaseError as error:
            raise CommandError(f"The database answers: {error}. Has `manage.py migrate` run?") from error
        if json:
            self.stdout.write(_as_json(lines))
            return
        table = Table(box=None, pad_edge=False)
        for header in ("name", "schedule", "last run", "outcome", "next run"):
            table.add_column(header, overflow="fold")
        for line in lines:
            outcome = f"{line.outcome} {line.detail}".strip()
            table.add_row(line.row.name, line.words, _minute(line.last_at), outcome, line.next_told)
        console = Console(markup=False, highlight=False)
        with console.capture() as printed:
            console.print(table)
        self.stdout.write(printed.get())


def _minute(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "never"


def _as_json(lines: list[Line]) -> str:
    return json.dumps([line.as_json() for line in lines], indent=2, default=lambda at: at.isoformat())
