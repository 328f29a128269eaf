"""Lets go of clients that ask and do not take the answer: what waits for them is held in memory.

Heads and bodies that do not come have their limits where they are read (``web.make_runner``, ``adapters.http.read``);
what nobody reads waits in the buffers of connections, where only looking at them tells.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiohttp import web

STEP = 65_536
"""Bytes that must have been taken of what waits for a client to count as slow only, not as stuck."""

LOOKS = 20
"""How often in the time that a client has; often enough to see the buffer of a stream that flows grow now and then."""

AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: what waits in the kernel's buffers is dropped too, and the client told."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """How much waited for a client when it was last seen to take any, when that was, and how much waits now."""

    size: int
    since: float
    now: int


class SlowReaders:
    """Looks at the connections of a server again and again."""

    def __init__(self, server: web.Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._waiting: dict[Any, _Waiting] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / LOOKS)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Close every connection whose client took too little for too long."""
        seen: dict[Any, _Waiting] = {}
        for connection in self._server.connections:
            transport = connection.transport
            if transport is None or not (size := transport.get_write_buffer_size()):
                continue
            before = self._waiting.get(connection)
            # More waits than before: a stream goes on, which it does only while its client takes it.
            if before is None or size <= before.size - STEP or size > before.now:
                seen[connection] = _Waiting(size, now, size)
            elif now - before.since < self._seconds:
                seen[connection] = replace(before, now=size)
            else:
                log.info("a client that does not take its answer is let go", waiting_bytes=size)
                link = transport.get_extra_info("socket")
                if link is not None:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                transport.abort()
        self._waiting = seen


@asynccontextmanager
async def letting_go(runner: web.AppRunner, *, answer_seconds: float) -> AsyncIterator[None]:
    """While inside, clients of *runner* that do not take 64 kB of their answer in *answer_seconds* are let go."""
    assert runner.server is not None  # noqa: S101  it was set up
    watching = asyncio.create_task(SlowReaders(runner.server, answer_seconds).watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
