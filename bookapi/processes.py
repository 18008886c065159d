"""Processes of our own: children that end when we do, and jobs that outlive us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import structlog
from django.conf import settings

#: Seconds a child has to finish its work after SIGTERM. A crawl writes its last batch and closes its run.
GRACE_S = 8.0
_PR_SET_PDEATHSIG = 1
# Loaded here, because nothing may be imported between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A process in a group of its own, ended with everything it started.

    Its own group, because Ctrl-C on a terminal goes to every process of the foreground group: the crawl would get it
    from the terminal and once more from us, and take the second one for "stop at once".

    On Linux the kernel sends it its stop signal when the thread that started it dies, so that `kill -9` of the parent
    leaves no process behind that holds a port. Start children from a thread that outlives them, such as the main one.
    Other systems have no such call.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_s: float = GRACE_S,
    ) -> None:
        """`user` is for root alone, as whom some servers refuse to run."""
        self.name = name
        self.stop_signal, self.grace_s = stop_signal, grace_s
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
            user=user,
            extra_groups=[] if user else None,
            preexec_fn=_die_with(os.getpid(), stop_signal),  # noqa: PLW1509 - one system call
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to end; after `grace_s` seconds end it and its descendants. Does nothing twice."""
        self.ask_to_stop()
        try:
            self.process.wait(self.grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        # A worker that outlived its parent is still in the group.
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def ask_to_stop(self) -> None:
        """Send the signal at which it finishes its work and ends. Does not wait."""
        if self.code is None:
            self.process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """End it and its descendants at once, as a power cut would. Does not wait."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        # Nobody is left, or zombies alone, which macOS calls a question of permission.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def traced() -> dict[str, str]:
    """For the environment of a job: the id of the request that asked for it, which its log lines then bear as well."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return {"REQUEST_ID": request_id} if request_id else {}


def start_detached(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A job that goes on when we end, with all it says in the log. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            env={**os.environ, **traced()},
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C or a restart of the server is not meant for the job
        )


def _die_with(parent: int, number: signal.Signals) -> Any:
    """What the child does between fork and exec; None where the system cannot."""
    if _libc is None:
        return None
    prctl = _libc.prctl

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_signal
