"""Whether the process that has a row still lives, so that what a dead one left open can be closed."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path

from django.utils import timezone


def is_dead(pid: int | None, host: str, heartbeat_at: datetime, silence_s: float) -> bool:
    """True of a process that is gone from this host, and of one, wherever it runs, that fell silent for so long."""
    if pid is not None and host == socket.gethostname() and not lives(pid):
        return True
    return timezone.now() - heartbeat_at > timedelta(seconds=silence_s)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process, so it lives
        return True
    try:
        # Where the first process of a container reaps nobody, the dead keep their number.
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:  # another system than Linux, or it ended just now
        return True
    return state not in {"Z", "X"}
