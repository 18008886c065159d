"""Processes in place of crawls and trainings: what they do is all that the server sees of a job."""

from __future__ import annotations

import os
import time

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
