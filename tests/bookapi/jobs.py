"""Processes in place of crawls and trainings: what they do is all that the server sees of a job."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bookapi import crawls

BREAKS = "import sys; print('no such module', file=sys.stderr); sys.exit(3)"
HANGS = "import time; time.sleep(60)"


def alive(pid: int) -> bool:
    """A zombie counts as alive: it is one that nobody has buried."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


#: A crawl that reads nothing and ends well.
FINISHES = (
    "import django; django.setup()\n"
    "from catalog.ingest import adopt_run, finish_run\n"
    "import sys; run = int(sys.argv[1]); adopt_run(run); finish_run(run); print('read', run)\n"
)


class Jobs:
    """Programs in place of the spider; ended with the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.processes: list[subprocess.Popen[bytes]] = []
        real = crawls.start_detached

        def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
            process = real(arguments, log)
            self.processes.append(process)
            return process

        monkeypatch.setattr(crawls, "start_detached", start)

    def use(self, program: str) -> None:
        for name in ("command", "resume_command"):
            self.monkeypatch.setattr(crawls, name, lambda run: [sys.executable, "-c", program, str(run.pk)])

    def wait(self) -> None:
        """Until they have ended, and their runs were closed."""
        for process in self.processes:
            process.wait(60)
        for thread in threading.enumerate():
            if thread.name.startswith("crawl "):
                thread.join(60)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        self.wait()
