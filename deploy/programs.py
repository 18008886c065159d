"""A program to run, and how one knows that it serves: what `deploy.services` and `deploy.cluster` start."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bookapi.processes import GRACE_S, Child

START_S = 60.0
#: Seconds between two looks at a program that starts.
LOOK_S = 0.1


class NotInstalled(Exception):
    """A program is not on this machine; the message says which package brings it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed (on Debian and Ubuntu: apt install {package})")
        self.program, self.package = program, package


class NotStarted(Exception):
    """A program ended, or did not answer in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started, where its lines go, and when it is ready."""

    name: str
    command: Sequence[str]
    folder: Path  # where it runs
    log: Path
    is_ready: Callable[[], bool] = lambda: True
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None  # for root alone
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = GRACE_S

    def start(self) -> Child:
        """Its process, which is not ready yet."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            return Child(
                self.name,
                self.command,
                environment=self.environment,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                user=self.user,
                stop_signal=self.stop_signal,
                grace_s=self.grace_s,
            )

    def wait(self, process: Child, seconds: float = START_S) -> None:
        """Return once it is ready. Raises NotStarted."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if process.code is not None or time.monotonic() > deadline:
                raise NotStarted(f"{self.name} {self._trouble(process, seconds)}: {end_of(self.log)}")
            time.sleep(LOOK_S)

    def _trouble(self, process: Child, seconds: float) -> str:
        return f"did not answer in {seconds:.0f} s" if process.code is None else f"ended with code {process.code}"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers, and the process, to be killed by those who want to see what happens."""

    url: str
    process: Child
    log: Path


@contextmanager
def running(program: Program) -> Iterator[Server]:
    """The program, ready, until the block ends. Raises NotStarted."""
    with program.start() as process:
        program.wait(process)
        yield Server(program.url, process, program.log)


def find_program(name: str, package: str, *places: str) -> str:
    """The path of a program: where the distribution hides it, or on PATH. Raises NotInstalled."""
    # Servers are in /usr/sbin, which an ordinary user's PATH leaves out.
    for place in (*places, "", "/usr/sbin", "/usr/local/sbin"):
        if found := shutil.which(name, path=place or None):
            return found
    raise NotInstalled(name, package)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def says_ok(port: int, path: str, seconds: float = 3.0) -> bool:
    """Whether a GET is answered with 200. Straight to loopback, whatever proxies the environment names."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def end_of(log: Path, size: int = 2000) -> str:
    """The last lines of a log; nothing where there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as lines:
        lines.seek(max(0, os.fstat(lines.fileno()).st_size - size))
        return lines.read().decode(errors="replace")
