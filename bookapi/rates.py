"""Limits on how often one account or address may ask, for when there is no gateway to do it.

Each process counts for itself; with `CACHE_URL` all processes count together, in Redis.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from bookapi.accounts import Account
from bookapi.addresses import client_address

if TYPE_CHECKING:
    from bookapi.shared_rates import SharedWindows

_UNITS_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_RATE = re.compile(r"(?P<count>[1-9]\d{0,8})/(?P<unit>[a-z]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds."""

    count: int
    period_s: int


@lru_cache(maxsize=64)
def parse_rate(text: str) -> Rate | None:
    """The rate that "6000/min" stands for, or None for "off". Raises ImproperlyConfigured."""
    if text == "off":
        return None
    match = _RATE.fullmatch(text)
    if match is None or match["unit"] not in _UNITS_S:
        raise ImproperlyConfigured(f'A rate limit is {text!r}: say "600/min" (or /sec, /hour, /day), or "off".')
    return Rate(int(match["count"]), _UNITS_S[match["unit"]])


class Windows:
    """Counts of requests by key, each in a window that opens with the key's first request.

    Exact under threads, which DRF's own throttles are not: they read, decide and write in three steps. Bounded: when
    it is full, the window that opened first gives way. At the border of two windows twice the rate can pass.
    """

    def __init__(self, size: int = 50_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.clock = clock
        self._windows: dict[str, list[float]] = {}  # [end, count], in the order of opening
        self._lock = threading.Lock()

    def take(self, key: str, rate: Rate) -> float:
        """Count one request: 0 if it may pass, else the seconds until the window closes."""
        now = self.clock()
        with self._lock:
            window = self._windows.get(key)
            if window is None or window[0] <= now:
                self._open(key, now + rate.period_s)
                return 0
            if window[1] < rate.count:
                window[1] += 1
                return 0
            return window[0] - now

    def _open(self, key: str, end: float) -> None:
        self._windows.pop(key, None)
        while len(self._windows) >= self.size:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = [end, 1]

    def clear(self) -> None:
        with self._lock:
            self._windows.clear()

    def __len__(self) -> int:
        return len(self._windows)


@cache
def _shared(url: str) -> SharedWindows:
    from bookapi.shared_rates import SharedWindows  # noqa: PLC0415 - its client takes a while to import

    return SharedWindows(url)


class _Limit(BaseThrottle):
    """A limit of this process, or with `CACHE_URL` of all of them. Behind a gateway, the gateway's limit is the hard
    one: it counts before anything of ours runs."""

    name: str
    windows: Windows
    wait_s = 0.0

    def take(self, key: str, setting: str) -> bool:
        rate = parse_rate(setting)
        if rate is None:
            return True
        if settings.CACHE_URL:
            self.wait_s = _shared(settings.CACHE_URL).take(f"{self.name}:{key}", rate, self.windows)
        else:
            self.wait_s = self.windows.take(key, rate)
        return self.wait_s == 0

    def wait(self) -> float:
        return math.ceil(self.wait_s)


class AccountRate(_Limit):
    """`RATE_LIMIT_ACCOUNT`: requests of one account, from wherever they come."""

    name = "account"
    windows = Windows()

    def allow_request(self, request: Request, _view: object) -> bool:
        user = request.user
        return not isinstance(user, Account) or self.take(str(user.pk), settings.RATE_LIMIT_ACCOUNT)


class AddressRate(_Limit):
    """`RATE_LIMIT_ADDRESS`: requests without an account from one address (IPv6: from one /64)."""

    name = "address"
    windows = Windows()

    def allow_request(self, request: Request, _view: object) -> bool:
        if isinstance(request.user, Account):
            return True
        return self.take(client_address(request.META), settings.RATE_LIMIT_ADDRESS)
