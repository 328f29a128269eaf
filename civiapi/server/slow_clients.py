"""Disconnect clients that stop reading responses, which would otherwise stay in memory.

Time limits for request heads and bodies are set where those are read (``endpoints.routes.make_runner``,
``http.messages.read``). A response that nobody reads fills connection buffers, so these are checked periodically.
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

MIN_PROGRESS = 65_536
"""Bytes that a client must read within its time."""

CHECKS = 20
"""Checks within a client's time: often enough to see a stream's buffer grow."""

DISCARD = struct.pack("ii", 1, 0)
"""For SO_LINGER: drop the kernel's buffers as well, and reset the connection."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A connection's buffer: its size and the time when the client last made progress, and its size now."""

    size: int
    since: float
    now: int


class SlowClients:
    """Checks the connections of a server."""

    def __init__(self, server: web.Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._buffers: dict[Any, _Buffer] = {}

    async def watch(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / CHECKS)
            self.check(time.monotonic())

    def check(self, now: float) -> None:
        """Close every connection whose client has read too little for too long."""
        seen: dict[Any, _Buffer] = {}
        for connection in self._server.connections:
            transport = connection.transport
            if transport is None or not (size := transport.get_write_buffer_size()):
                continue
            before = self._buffers.get(connection)
            # A growing buffer is progress too: a stream is only written on while its client reads.
            if before is None or size <= before.size - MIN_PROGRESS or size > before.now:
                seen[connection] = _Buffer(size, now, size)
            elif now - before.since < self._seconds:
                seen[connection] = replace(before, now=size)
            else:
                log.info("disconnected a client that does not read its response", buffered_bytes=size)
                sock = transport.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DISCARD)
                transport.abort()
        self._buffers = seen


@asynccontextmanager
async def drop_slow_clients(runner: web.AppRunner, *, answer_seconds: float) -> AsyncIterator[None]:
    """In the block, disconnect clients of *runner* that read less than 64 kB of a response in *answer_seconds*."""
    assert runner.server is not None  # noqa: S101  it was set up
    watching = asyncio.create_task(SlowClients(runner.server, answer_seconds).watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
