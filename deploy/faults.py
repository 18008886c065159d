"""Faults of a network on demand: a proxy on loopback that cuts, holds up or swallows what goes through it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, Self, TypeVar

T = TypeVar("T")

CHUNK = 65_536


class Mode(StrEnum):
    OK = "ok"
    DOWN = "down"  # connections are refused, and those that there are stay
    BLACKHOLE = "blackhole"  # bytes are taken and never arrive: no error, no answer
    SLOW = "slow"  # every chunk waits for `delay_s`
    RESET = "reset"  # a connection is cut once it has carried `reset_after` bytes, both directions together


class FaultProxy:
    """Stands before a server at a port of its own, while the block lasts.

        with FaultProxy("127.0.0.1", 5432) as proxy:
            connect(port=proxy.port)
            proxy.mode = Mode.BLACKHOLE
            proxy.cut()

    A mode counts for every connection from the next bytes on, those that are open as well. It runs in a thread of its
    own, so whoever uses it may wait for what goes through it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.mode = Mode.OK
        self.delay_s = 0.2
        self.reset_after = 10_000
        self.port = 0  # ours, once it runs
        self.connections = 0  # so far
        self.cuts = 0
        self._open: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """Cut every connection that is open, as a firewall that forgets them would; how many there were."""
        return self._run(self._cut_all())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut_all()
        mine = asyncio.current_task()
        if others := [task for task in asyncio.all_tasks() if task is not mine]:
            await asyncio.wait(others)

    async def _cut_all(self) -> int:
        pairs = list(self._open)
        for pair in pairs:
            self._cut(pair)
        return len(pairs)

    def _cut(self, pair: _Pair) -> None:
        if not pair.is_cut:
            self.cuts += 1
            pair.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.mode is Mode.DOWN:
            _reset(writer)
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, there_writer)
        self._open.add(pair)
        try:
            await asyncio.gather(self._carry(reader, there_writer, pair), self._carry(there_reader, writer, pair))
        finally:
            self._open.discard(pair)
            pair.close()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, pair: _Pair) -> None:
        """One direction, until one end closes. What the other direction still brings is brought."""
        try:
            while chunk := await source.read(CHUNK):
                if self.mode is Mode.BLACKHOLE:
                    continue
                if self.mode is Mode.SLOW:
                    await asyncio.sleep(self.delay_s)
                pair.carried += len(chunk)
                if self.mode is Mode.RESET and pair.carried > self.reset_after:
                    self._cut(pair)
                    return
                target.write(chunk)
                await target.drain()
            if target.can_write_eof() and not pair.is_cut:
                target.write_eof()
        except OSError:
            pair.cut()  # one end is gone: the other one learns of it at once


class _Pair:
    """The two ends of one connection through the proxy."""

    def __init__(self, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self.here, self.there = here, there
        self.carried = 0
        self.is_cut = False

    def close(self) -> None:
        self.here.close()
        self.there.close()

    def cut(self) -> None:
        self.is_cut = True
        for end in (self.here, self.there):
            _reset(end)


def _reset(end: asyncio.StreamWriter) -> None:
    """Close it so that the other side hears of an error, and not of an end."""
    if not end.transport.is_closing():
        at_once = struct.pack("ii", 1, 0)
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    end.transport.abort()
