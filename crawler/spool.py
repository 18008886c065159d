"""The way from the spider to the queue: on disk first, then written down in the catalogue, then published.

Each step is taken again until it is known to have succeeded, and each may be taken twice. So a batch outlives the
broker and the spider: whatever a killed one left on the disk, the next one publishes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from catalog.ingest import UnknownRun, register
from catalog.records import Read, read_from_json
from catalog.tasks import ingest_batch
from crawler.catalogue import Catalogue

logger = logging.getLogger(__name__)

#: Seconds in which the broker has to say that a batch is on its disks.
CONFIRM_S = 10
#: Seconds before a batch is offered again to a broker that did not take it; each time twice as many.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
#: Bytes of a batch, unless a single record has more. A broker that is handed 128 MB refuses them for ever, and whatever
#: waits behind them; 250 pages of a shop that means ill can be that long.
BATCH_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpooledBatch:
    """A batch as it lies on the disk."""

    path: Path

    @property
    def run_id(self) -> int:
        return int(self.path.parent.name)

    @property
    def key(self) -> UUID:
        return UUID(self.path.stem)

    def records(self) -> list[dict[str, Any]]:
        """As `to_json` wrote them. Raises FileNotFoundError where another process has published it, ValueError."""
        records = json.loads(self.path.read_bytes())
        if not isinstance(records, list):
            raise ValueError("It holds no list.")
        return records

    def publish(self) -> None:
        """Hand it to the broker, and delete it once that has confirmed. Blocks; raises whatever a broker can raise."""
        try:
            records = self.records()
        except FileNotFoundError:
            return
        run_id, key = self.run_id, str(self.key)
        ingest_batch.apply_async(
            kwargs={"run": run_id, "key": key, "records": records},
            task_id=key,
            headers={"run_id": run_id, "batch": key},
            kwargsrepr=f"{len(records)} records",  # it would spell out all of them
            confirm_timeout=CONFIRM_S,
        )
        self.path.unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Keep it under a name that is not published: it cannot be, and a person has to look."""
        with suppress(FileNotFoundError):  # another process has done it
            self.path.replace(self.path.with_suffix(".unusable"))


class Spool:
    """The batches on the disk that the broker has not confirmed: `FOLDER/<run>/<key>.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, run_id: int, records: Sequence[Read]) -> SpooledBatch:
        """The batch, on the disk when this returns. Raises OSError."""
        place = self.folder / str(run_id)
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{uuid4()}.json"
        unfinished = path.with_suffix(".part")
        with unfinished.open("w", encoding="ascii") as file:  # JSON escapes the rest, halves of surrogate pairs too
            json.dump([record.to_json() for record in records], file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(place)
        return SpooledBatch(path)

    def __iter__(self) -> Iterator[SpooledBatch]:
        """All batches of all runs, those of a killed spider too."""
        for path in sorted(self.folder.glob("[0-9]*/*.json")):
            yield SpooledBatch(path)


def in_parts(records: Sequence[Read]) -> list[list[Read]]:
    """The records in their order, in lists of `BATCH_BYTES` at most."""
    parts: list[list[Read]] = []
    room = 0
    for record in records:
        size = len(json.dumps(record.to_json()))
        if not parts or size > room:
            parts.append([])
            room = BATCH_BYTES
        parts[-1].append(record)
        room -= size
    return parts


def _sync_folder(folder: Path) -> None:
    """A new name in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Outbox:
    """Takes batches from the spider at any time, and publishes them while there is a broker.

    The memory holds names of files alone, so a broker may stay away for as long as the disk has room.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self.spool = Spool(folder)
        self.catalogue = catalogue
        self.waiting: deque[SpooledBatch] = deque()
        self.added = asyncio.Event()
        self.refused = False  # the broker did not take the last one that was offered
        self.publisher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take over what earlier spiders left, and begin to publish. Raises DatabaseError."""
        for batch in await asyncio.to_thread(list, self.spool):
            await self._take_over(batch)
        self.publisher = asyncio.create_task(self._publish())

    async def _take_over(self, batch: SpooledBatch) -> None:
        try:
            records = [read_from_json(record) for record in await asyncio.to_thread(batch.records)]
            await self.catalogue.call(register, batch.run_id, batch.key, records)
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError, UnknownRun) as error:
            logger.error("spooled batch set aside", extra={"file": str(batch.path), "error": str(error)})
            batch.set_aside()
        else:
            self._add(batch)

    async def take(self, run_id: int, records: Sequence[Read]) -> None:
        """The records are safe when this returns: a batch, or several of long ones. Raises OSError, DatabaseError."""
        for part in await asyncio.to_thread(in_parts, records):
            batch = await asyncio.to_thread(self.spool.put, run_id, part)
            await self.catalogue.call(register, run_id, batch.key, part)
            self._add(batch)

    def _add(self, batch: SpooledBatch) -> None:
        self.waiting.append(batch)
        self.added.set()

    async def _publish(self) -> None:
        """Publish for as long as the spider lives: a broker that is away, or is full, is asked again and again."""
        pause = FIRST_PAUSE_S
        while True:
            if not self.waiting:
                self.added.clear()
                await self.added.wait()
            try:
                # In a thread, because it waits for the broker; one after the other, so over one connection.
                await asyncio.to_thread(self.waiting[0].publish)
            except Exception as error:  # the broker's libraries raise many kinds
                self.refused = True
                facts = {"error": f"{type(error).__name__}: {error}", "spooled": len(self.waiting), "retry_in_s": pause}
                logger.warning("broker did not take a batch", extra=facts)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self.waiting.popleft()
                self.refused, pause = False, FIRST_PAUSE_S

    async def flush(self, longest_s: float) -> None:
        """Wait until all is published, the broker does not take one, or the time is over."""
        deadline = time.monotonic() + longest_s
        while self.waiting and not self.refused and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Publish no more; what is left stays on the disk."""
        if self.publisher is not None:
            self.publisher.cancel()
