"""A circuit breaker: who has failed several times in a row is left alone for a while."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class CircuitOpen(Exception):
    """Not asked: it failed too often a moment ago."""


class Breaker:
    """Closed, it lets everybody through; after `failures` in a row it opens and lets nobody through for `pause_s`.

    Then it lets one through to try, and one more after every further pause, until one of them succeeds. For many
    threads; see M. Nygard, Release It!, "Circuit Breaker".
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = failures
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0  # in a row
        self._try_at = -math.inf  # when open: from then on one may try

    def admit(self) -> None:
        """Return if the caller may go on; it then has to tell how it went.

        Raises:
            CircuitOpen: it may not.
        """
        with self._lock:
            if self._failed >= self._allowed:
                now = self._clock()
                if now < self._try_at:
                    raise CircuitOpen
                self._try_at = now + self._pause_s  # this one tries; the next one then, should it never come back

    def succeeded(self) -> None:
        with self._lock:
            self._failed = 0

    def failed(self) -> bool:
        """Whether this failure opened it."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._allowed:
                self._try_at = self._clock() + self._pause_s
            return self._failed == self._allowed
