"""The process that writes what a crawl reads: cleaning and SQL on another core than the spider's.

In the spider's own process they took a fifth of its rate (docs/adr/0009). The process gets calls over a socket and ends
when the socket does: at the end of the crawl, or when the spider is killed, then after the call that it is at. The run
is the writer's (see `adopt_run`), so that nobody can go on with a run while something is still being written to it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).parents[1]


class WriterDied(Exception):
    """The writing process has died."""


class Writer:
    """Calls functions in a process of its own, one after the other. Arguments and results are pickled."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "crawler.writer", str(number)]
            self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=[number], stdin=subprocess.DEVNULL)
        self.connection = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises over there. Blocks.

        Raises:
            WriterDied: the process is gone; whether the call was carried out is not known.
        """
        try:
            self.connection.send((function, args, kwargs))
            result, error = self.connection.recv()
        except (EOFError, OSError) as lost:
            raise WriterDied(WriterDied.__doc__) from lost
        if error is not None:
            raise error
        returned: T = result
        return returned

    def close(self) -> None:
        """End the process; it has answered every call by now."""
        self.connection.close()
        self.process.wait()


def serve(connection: Connection) -> None:
    """Carry out calls until the other end is gone."""
    # Signals are for the spider, which ends what it has begun and then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import crawler.settings  # noqa: F401, PLC0415 - starts Django, which takes as long as the first pages do

    with suppress(EOFError, ConnectionError):
        while True:
            function, args, kwargs = connection.recv()
            try:
                outcome: tuple[Any, Exception | None] = (function(*args, **kwargs), None)
            except Exception as error:
                outcome = (None, error)
            connection.send(outcome)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
