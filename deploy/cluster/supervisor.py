"""Keeps processes running: starts what is wanted, starts again what ended by itself, ends what is not wanted.

One thread starts all of them and lives until the last has ended, because the kernel ends a process with the thread that
started it (`bookapi.processes.Child`): `kill -9` of the supervisor leaves nothing behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum

from bookapi.processes import Child
from deploy.programs import NotStarted, Program, end_of

#: Seconds between two looks at the processes.
LOOK_S = 0.1
#: Seconds before a process that ended is started again: doubled each time, and as at first once it ran for a while.
BACKOFF_S, BACKOFF_MAX_S, SETTLED_S = 0.5, 30.0, 30.0
#: Seconds that a process has until it is ready. A machine that starts all at once is slow.
READY_S = 120.0


class State(StrEnum):
    ENDED = "ended"
    STARTING = "starting"
    READY = "ready"
    WAITING = "restarting"  # it ended by itself, and will be started again in a moment
    ENDING = "ending"


class Kept:
    """One process that is kept running while it is wanted. Its program is made anew at each start."""

    def __init__(self, name: str, kind: str, make: Callable[[], Program]) -> None:
        self.name, self.kind, self.make = name, kind, make
        self.state = State.ENDED
        self.wanted = False
        self.program: Program | None = None
        self.process: Child | None = None
        self.restarts = 0
        self.since = time.monotonic()  # it is in this state
        self._in_a_row = 0
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.process.pid if process is not None and process.code is None else None

    @property
    def url(self) -> str:
        return self.program.url if self.program else ""

    def kill(self) -> None:
        """End it and its descendants as a power cut would; the supervisor starts it again."""
        if self.process is not None:
            self.process.kill()

    def tend(self, say: Callable[[str], None]) -> None:
        """What there is to do for it at this moment. Of the supervisor's thread alone."""
        if self.state is State.ENDING or not self.wanted:
            return
        if self.process is not None and self.process.code is not None:
            self._ended(self.process, say)
        elif self.state in {State.ENDED, State.WAITING}:
            if time.monotonic() >= self._start_at:
                self._start(say)
        elif self.state is State.STARTING:
            self._look(say)
        elif self._in_a_row and time.monotonic() - self.since > SETTLED_S:
            self._in_a_row = 0

    def _start(self, say: Callable[[str], None]) -> None:
        try:
            self.program = self.make()
            self.process = self.program.start()
        except Exception as error:  # whatever it is: the others live as long as this thread does
            self._wait(say, f"{self.name} cannot be started: {error}")
        else:
            self._enter(State.STARTING)

    def _look(self, say: Callable[[str], None]) -> None:
        assert self.program is not None  # noqa: S101 - it is starting
        if self.program.is_ready():
            self._enter(State.READY)
            if self.restarts:
                say(f"{self.name} is ready again.")
        elif time.monotonic() - self.since > READY_S:
            say(f"{self.name} is not ready after {READY_S:.0f} s, and is started anew.")
            self.kill()

    def _ended(self, process: Child, say: Callable[[str], None]) -> None:
        process.stop()  # what it left behind in its group
        self.process = None
        self.restarts += 1
        self._wait(say, f"{self.name} ended with code {process.code}")

    def _wait(self, say: Callable[[str], None], what: str) -> None:
        delay = min(BACKOFF_MAX_S, BACKOFF_S * 2**self._in_a_row)
        self._in_a_row += 1
        self._start_at = time.monotonic() + delay
        self._enter(State.WAITING)
        say(f"{what}; starting it again in {delay:g} s.")

    def end(self) -> None:
        """Let it finish and end; it is not started again. Returns when it has ended."""
        self.wanted = False
        self._enter(State.ENDING)
        if self.process is not None:
            self.process.stop()
        self._enter(State.ENDED)

    def _enter(self, state: State) -> None:
        self.state = state
        self.since = time.monotonic()


class Supervisor:
    """All processes of a topology, by name, in the order in which they were added."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        self._kept: dict[str, Kept] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)

    def __getitem__(self, name: str) -> Kept:
        return self._kept[name]

    def all(self, *kinds: str) -> list[Kept]:
        """Those of some kinds, or all."""
        with self._lock:
            return [kept for kept in self._kept.values() if not kinds or kept.kind in kinds]

    def add(self, kept: Kept) -> None:
        """Start it as soon as possible, and keep it running. One of the same name gives its place up."""
        with self._lock:
            kept.wanted = True
            self._kept[kept.name] = kept
        if not self._thread.ident:
            self._thread.start()

    def remove(self, name: str) -> None:
        """End it for good."""
        self.end([self[name]])
        with self._lock:
            del self._kept[name]

    def swap(self, new: Kept, old: Kept) -> None:
        """The new one takes the old one's place and name; the old one is still running."""
        with self._lock:
            del self._kept[new.name]
            new.name = old.name
            self._kept[old.name] = new

    def end(self, several: Iterable[Kept]) -> None:
        """End them at the same time; returns when all have ended."""
        threads = [threading.Thread(target=self._end_one, args=(kept,), daemon=True) for kept in several]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _end_one(self, kept: Kept) -> None:
        with self._lock:  # not while it is being started
            kept.wanted = False
        kept.end()

    def wait(self, several: Iterable[Kept] | None = None, seconds: float = READY_S) -> None:
        """Return once they are ready; by default all. Raises NotStarted, with the end of the log of one that is not."""
        wanted = self.all() if several is None else list(several)
        deadline = time.monotonic() + seconds
        while late := [kept for kept in wanted if kept.state is not State.READY]:
            if time.monotonic() > deadline or any(kept.restarts > 2 for kept in late):
                worst = max(late, key=lambda kept: kept.restarts)
                log = end_of(worst.program.log) if worst.program else ""
                raise NotStarted(f"{worst.name} is not ready after {seconds:.0f} s: {log}")
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End the supervision, once every process has been ended."""
        self._over.set()
        if self._thread.ident:
            self._thread.join()

    def _tend(self) -> None:
        while not self._over.wait(LOOK_S):
            for kept in self.all():
                with self._lock:
                    self._tend_one(kept)

    def _tend_one(self, kept: Kept) -> None:
        try:
            kept.tend(self.say)
        except Exception as error:  # the thread lives, and looks again
            self.say(f"{kept.name} cannot be looked after: {error}")
