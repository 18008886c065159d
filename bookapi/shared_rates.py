"""Limits on how often one may ask that all processes count together, in Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bookapi.rates import Rate, Windows

logger = logging.getLogger(__name__)

#: Counts and says how long the window is open still, in one step: nobody comes in between, and no key stays for ever.
_COUNT = """
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    left = tonumber(ARGV[1])
    redis.call('PEXPIRE', KEYS[1], left)
end
return {count, left}
"""


class SharedWindows:
    """The same windows for every process, kept in Redis.

    While Redis is away each process counts for itself, so that more may pass, but nothing fails or waits: no answer
    within `TIMEOUT_S` is none, and then nobody asks for `PAUSE_S`.
    """

    TIMEOUT_S = 0.05
    PAUSE_S = 1.0
    COMPLAIN_S = 60.0

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        client = redis.Redis.from_url(
            url,
            socket_timeout=self.TIMEOUT_S,
            socket_connect_timeout=self.TIMEOUT_S,
            retry=Retry(NoBackoff(), retries=0),
            protocol=2,  # with the newer one, connecting is three exchanges more
            driver_info=None,
        )
        self._count = client.register_script(_COUNT)
        self._ask_at = self._complain_at = 0.0

    def take(self, key: str, rate: Rate, otherwise: Windows) -> float:
        """Count one request, in Redis or else in `otherwise`: 0 if it may pass, else the seconds until the window
        closes."""
        now = self.clock()
        if now < self._ask_at:
            return otherwise.take(key, rate)
        try:
            count, left_ms = self._count(keys=[f"bookapi:rate:{rate.period_s}:{key}"], args=[rate.period_s * 1000])
        except redis.RedisError as error:
            self._ask_at = self.clock() + self.PAUSE_S
            if now >= self._complain_at:
                self._complain_at = now + self.COMPLAIN_S
                logger.warning("rates are counted by each process: no cache", extra={"error": str(error)})
            return otherwise.take(key, rate)
        return 0 if count <= rate.count else max(1, left_ms) / 1000
