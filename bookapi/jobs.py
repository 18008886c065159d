"""Long jobs of a worker: a process of its own for each, with a time limit, ended when the worker is.

A crawl cannot run in the worker's process (docs/adr/0004), and a training shall give back its memory. The kernel tells
the process to end when the worker is killed, so what a dead worker was doing does not go on unseen.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from bookapi.processes import Child, traced
from catalog.liveness import lives

#: Seconds a job has to end by itself: the spider writes what it has read, and drains its spool.
GRACE_S = 30.0
POLL_S = 0.2

#: A byte that the worker shares with the processes that it forks; its own one alone gets the signal.
_ending = mmap.mmap(-1, 1)


def end_jobs(**_: object) -> None:
    """Signal handler: the worker was told to end, and so are its jobs, since it waits for them."""
    _ending[0] = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job's process ended."""

    group: int  # number of its process group
    code: int  # below 0: by a signal
    why: str = ""  # for people: why we ended it; empty where it ended by itself


def run_job(name: str, command: Sequence[str], log: Path, limit_s: float) -> Ended:
    """Run it to its end, with all that it says in the log. Raises OSError where it cannot start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as output,
        Child(
            name,
            command,
            environment=traced(),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(settings.BASE_DIR),
            grace_s=GRACE_S,
        ) as child,
    ):
        deadline = time.monotonic() + limit_s
        why = ""
        while child.code is None and not why:
            if _ending[0]:
                why = "The worker was told to end."
            elif time.monotonic() > deadline:
                why = f"It took longer than {limit_s:.0f} seconds."
            else:
                time.sleep(POLL_S)
        child.stop()
        return Ended(child.process.pid, child.process.wait(), why)


def has_another(pid: int | None, host: str, group: int) -> bool:
    """Whether a process that is none of this group's has the row, as far as can be seen from here."""
    if pid is None:
        return False
    if host != socket.gethostname():
        return True
    try:
        return lives(pid) and os.getpgid(pid) != group
    except ProcessLookupError:
        return False
