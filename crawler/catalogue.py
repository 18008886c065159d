"""The catalogue as the event loop sees it: off the loop, and with patience while the database cannot be reached."""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, close_old_connections

from crawler.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Catalogue:
    """Calls functions of `catalog.ingest` for one crawl.

    The ORM blocks, and Django refuses it on an event loop. Small questions (`call`) run on the one thread of
    `sync_to_async`, which also means one database connection and one call after the other; batches (`write`) in the
    writer's process, where there is one.
    """

    def __init__(self, pauses_s: Sequence[float]) -> None:
        self.pauses_s = pauses_s
        self.writer: Writer | None = None
        self.lost = False  # all patience was in vain once

    def start_writer(self) -> int:
        """Start the process for what is written; its number."""
        self.writer = Writer()
        # A second Ctrl-C ends the spider without "closed"; the writer must not be waited for with the socket open.
        atexit.register(self.writer.connection.close)
        return self.writer.pid

    async def close(self) -> None:
        """End the writer's process."""
        if self.writer is not None:
            await asyncio.to_thread(self.writer.close)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(...)` in this process, with patience."""
        return await self._patiently(sync_to_async, partial(function, *args, **kwargs))

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(...)` in the writer's process, with patience. Raises WriterDied when that is gone."""
        if self.writer is None:
            return await self.call(function, *args, **kwargs)
        return await self._patiently(self._in_writer, partial(function, *args, **kwargs))

    def _in_writer(self, function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
        assert self.writer is not None  # noqa: S101 - `write` has looked
        return partial(asyncio.to_thread, self.writer.call, function)

    async def _patiently(
        self, where: Callable[[Callable[[], Any]], Callable[[], Awaitable[Any]]], function: Callable[[], T]
    ) -> T:
        """`function()`, tried again after each pause while the database cannot be reached or stays locked.

        Raises what the last try raised, and whatever else goes wrong at once. When patience was in vain before, there
        is one try only: the crawl is ending.
        """
        for pause in () if self.lost else self.pauses_s:
            try:
                return cast(T, await where(function)())
            except (OperationalError, InterfaceError) as error:
                logger.warning("catalogue out of reach", extra={"retry_in_s": pause, "error": str(error).strip()})
            await where(close_old_connections)()
            await asyncio.sleep(pause)
        try:
            return cast(T, await where(function)())
        except (OperationalError, InterfaceError):
            self.lost = True
            raise
