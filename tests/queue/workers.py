"""Real Celery workers on a test's deployment."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bookapi import queues
from bookapi.processes import Child
from tests.crawler.deployment import ROOT, Deployment, wait_until

_numbers = count()


@dataclass
class Worker:
    """A worker's process, with one child that does the work."""

    process: Child
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.process.pid)

    @property
    def child_pid(self) -> int:
        """The number of the process that does the work."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def kill(self) -> None:
        """kill -9, of the child as well: it would finish what it is at."""
        child = self.child_pid
        self.process.process.kill()
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def says(self, event: str) -> bool:
        return any(event in line["event"] for line in self.lines)


@contextmanager
def worker(deployment: Deployment, *options: str) -> Iterator[Worker]:
    """A worker that is ready for batches, until the block ends."""
    log = deployment.folder / f"worker-{next(_numbers)}.log"
    command = [sys.executable, "-m", "celery", "-A", "bookapi", "worker", "-Q", queues.INGEST.name, "-c", "1"]
    command += ["-n", f"{log.stem}@%h", "--without-gossip", "--without-mingle", *options]
    with (
        log.open("ab") as output,
        Child(
            "worker", command, environment=deployment.environment(), stdout=output, stderr=output, cwd=ROOT
        ) as process,
    ):
        started = Worker(process, log)
        wait_until(lambda: started.says(" ready.") or process.code is not None, "the worker is not ready")
        assert process.code is None, log.read_text()[-3000:]
        yield started
