"""The catalogue as the event loop sees it: off the loop, and with patience while the database cannot be reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Catalogue:
    """Calls functions of `catalog.ingest` for one crawl.

    The ORM blocks, and Django refuses it on an event loop: everything runs on the one thread of `sync_to_async`, which
    also means one database connection and one call after the other.
    """

    def __init__(self, pauses_s: Sequence[float]) -> None:
        self.pauses_s = pauses_s
        self.lost = False  # all patience was in vain once

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(...)`, tried again after each pause while the database cannot be reached or stays locked.

        Raises what the last try raised, and whatever else goes wrong at once. When patience was in vain before, there
        is one try only: the crawl is ending.
        """
        for pause in () if self.lost else self.pauses_s:
            try:
                return await sync_to_async(function)(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                logger.warning("catalogue out of reach", extra={"retry_in_s": pause, "error": str(error).strip()})
            await sync_to_async(close_old_connections)()
            await asyncio.sleep(pause)
        try:
            return await sync_to_async(function)(*args, **kwargs)
        except (OperationalError, InterfaceError):
            self.lost = True
            raise
