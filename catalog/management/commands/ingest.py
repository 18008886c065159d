"""`manage.py ingest FILE --shop NAME`: a catalogue that comes as a file, through the same ingest as a crawl."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from catalog.ingest import IngestError, adopt_run, finish_run, start_run
from catalog.ingest.files import FileIngest
from catalog.models import CrawlRun

SOME_REJECTED, UNUSABLE, INTERRUPTED = 1, 2, 130


class Command(BaseCommand):
    help = (
        "Ingest a catalogue from a file: one JSON object a line, plain or .gz, or - for standard input. "
        "Exit code 0: every line was taken; 1: some were not; 2: the file or the arguments are unusable."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="path of the file, or - for standard input")
        parser.add_argument("--shop", required=True, metavar="NAME", help="slug of the shop: its books are (NAME, UPC)")
        parser.add_argument(
            "--complete", action="store_true", help="the file is the whole catalogue: books that it lacks are delisted"
        )
        parser.add_argument("--resume", type=int, metavar="RUN", help="go on with a run that was interrupted")

    def handle(self, *, file: str, shop: str, complete: bool, resume: int | None, **options: Any) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,50}", shop):
            raise CommandError(f"{shop!r} is not a slug of at most 50 letters, digits, - and _.", returncode=UNUSABLE)
        try:
            with opened(file) as (stream, size):
                run = self._run(file, shop, complete, resume)
                self._ingest(stream, size, file, run)
        except (OSError, EOFError, zlib.error) as error:
            raise CommandError(f"{file}: {error}", returncode=UNUSABLE) from error
        except IngestError as error:
            raise CommandError(str(error), returncode=UNUSABLE) from error

    def _run(self, file: str, shop: str, complete: bool, resume: int | None) -> CrawlRun:
        """A new run, or the one to resume if it is of this very file."""
        source = "-" if file == "-" else str(Path(file).resolve())
        filters = {} if complete else {"partial": True}
        if resume is not None and (before := CrawlRun.objects.filter(pk=resume, shop=shop, kind="file").first()):
            if before.source != source[:2000]:
                raise CommandError(f"Run {resume} reads {before.source}, not {source}.", returncode=UNUSABLE)
            if complete and before.filters:
                raise CommandError(f"Run {resume} was not begun with --complete.", returncode=UNUSABLE)
            if file != "-" and datetime.fromtimestamp(Path(file).stat().st_mtime, UTC) > before.started_at:
                raise CommandError(f"{file} was changed after run {resume} began: ingest it anew.", returncode=UNUSABLE)
        run = start_run(shop, source[:2000], kind=CrawlRun.Kind.FILE, filters=filters, resume=resume)
        return adopt_run(run.pk)

    def _ingest(self, stream: BufferedReader, size: int | None, file: str, run: CrawlRun) -> None:
        console = Console(file=sys.stderr)
        job = FileIngest(
            run, file, lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True)
        )
        try:
            with lines_with_progress(stream, size, console) as lines:
                job.read(lines)
            ended = job.finish()
        except KeyboardInterrupt:
            finish_run(run.pk, state=CrawlRun.State.INTERRUPTED)
            again = f"manage.py ingest {file} --shop {run.shop} --resume {run.pk}"
            raise CommandError(f"Interrupted. Go on with: {again}", returncode=INTERRUPTED) from None
        except BaseException:
            finish_run(run.pk, state=CrawlRun.State.FAILED)
            raise
        Console(file=cast(IO[str], self.stdout)).print(summary(ended, job))
        if ended.rejected or job.contradicted:
            sys.exit(SOME_REJECTED)


@contextmanager
def opened(file: str) -> Iterator[tuple[BufferedReader, int | None]]:
    """The file as it lies on the disk, and its size in bytes where it is known."""
    if file == "-":
        yield cast(BufferedReader, sys.stdin.buffer), None
        return
    path = Path(file)
    with path.open("rb") as stream:
        yield stream, path.stat().st_size


@contextmanager
def lines_with_progress(stream: BufferedReader, size: int | None, console: Console) -> Iterator[Iterator[bytes]]:
    """The lines, unpacked where they are packed, with a bar on a terminal: bytes done of total, as on the disk."""
    columns = (TextColumn("{task.fields[lines]} lines"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("ingest", total=size, lines=0)
        seekable = stream.seekable()

        def lines() -> Iterator[bytes]:
            packed = stream.peek(2)[:2] == b"\x1f\x8b"
            source = gzip.GzipFile(fileobj=stream) if packed else stream
            for number, line in enumerate(source, start=1):
                if number % 500 == 0:
                    bar.update(task, lines=number, completed=stream.tell() if seekable else None)
                yield line

        yield lines()


def summary(run: CrawlRun, job: FileIngest) -> Table:
    table = Table(title=f"Run {run.pk}: {job.name} into {run.shop}", show_header=False)
    for name in ("created", "updated", "unchanged", "stale", "rejected", "delisted"):
        table.add_row(name, str(getattr(run, name)))
    for name in ("repeated", "contradicted"):
        if n := getattr(job, name):
            table.add_row(name, str(n))
    table.add_row("complete", "yes" if run.complete else "no")
    for warning in run.warnings:
        table.add_row("warning", f"{warning['code']}: {warning['detail']}")
    return table
