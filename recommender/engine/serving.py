"""The champion in memory: changed for the next one while callers go on asking."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref

from recommender.engine.artifact import Store
from recommender.engine.engine import Engine

logger = logging.getLogger(__name__)

RETRY_S = 60.0  # before a champion that was refused is tried again: verifying it reads every byte


class Serving:
    """Watches the pointer of a store, and holds the engine that it names.

    A thread of each process looks every `poll_s` seconds. A new champion is loaded and verified beside the old one,
    then one reference is changed; a caller that holds the old engine keeps it until it has its answer. A champion that
    cannot be used is refused with a line in the log, and the old engine stays.
    """

    def __init__(self, store: Store, poll_s: float) -> None:
        self.store, self.poll_s = store, poll_s
        self._engine: Engine | None = None
        self._refused: tuple[str, float] = ("", 0.0)  # a version, and when to try it again, on the monotonic clock
        self._complaint = ""  # what was logged last: a store that stays away is told of once
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting, self._looking = threading.Lock(), threading.Lock()
        _everyone.add(self)

    def engine(self) -> Engine | None:
        """The champion's engine; None until one is loaded. Takes microseconds: what is slow happens elsewhere."""
        if self._thread is None:
            self.start()
        return self._engine

    def start(self) -> None:
        """Begin to watch, where this process does not yet."""
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._watch, name="recommender-serving", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop watching. The engine stays."""
        self._closed.set()

    def refresh(self) -> None:
        """Look at the pointer now, and load what it names: what the thread does every `poll_s` seconds.

        A pointer that is gone changes nothing. Never raises: what went wrong is in the log.
        """
        with self._looking:
            try:
                version = self.store.champion()
                if self._engine and version == self._engine.version:
                    self._complaint = ""
                elif version and not self._is_refused(version):
                    self._engine = self._loaded(version) or self._engine
            except Exception as error:
                self._complain("", error)

    def _loaded(self, version: str) -> Engine | None:
        began = time.monotonic()
        try:
            engine = self.store.load(version)
        except Exception as error:
            self._refused = (version, time.monotonic() + RETRY_S)
            self._complain(version, error)
            return None
        self._complaint = ""
        logger.info("champion loaded", extra={"version": version, "seconds": round(time.monotonic() - began, 3)})
        return engine

    def _is_refused(self, version: str) -> bool:
        refused, until = self._refused
        return version == refused and time.monotonic() < until

    def _complain(self, version: str, error: Exception) -> None:
        complaint = f"{version} {type(error).__name__}: {error}"
        if complaint != self._complaint:
            serving = self._engine.version if self._engine else None
            facts = {"version": version, "serving": serving, "reason": f"{type(error).__name__}: {error}"}
            logger.error("champion refused" if version else "artifact store unreadable", extra=facts)
        self._complaint = complaint

    def _watch(self) -> None:
        while not self._closed.is_set():
            self.refresh()
            self._closed.wait(self.poll_s)

    def _begin_anew(self) -> None:
        """In a child process: a thread of the parent's is not there, and a lock that it held is never let go."""
        self._thread = None
        self._starting, self._looking = threading.Lock(), threading.Lock()


_everyone: weakref.WeakSet[Serving] = weakref.WeakSet()


def _after_fork() -> None:
    for serving in list(_everyone):
        serving._begin_anew()


os.register_at_fork(after_in_child=_after_fork)
