"""How many bytes of request bodies are held at a time, over all requests.

Each byte of a body costs several once it is read, and a body is held until its request is answered. So a body is only
read once there is room for all of it, in the order in which they came; those whose clients send slowly make room for
others. Small bodies have a budget of their own, so that they need not wait for large ones.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field

SMALL = 65_536
"""Bytes up to which a body is small."""

BUDGET = 16_777_216
"""Bytes of small bodies, and as many of large ones, at least four of the largest."""

WAIT_SECONDS = 10.0
CHECK_SECONDS = 0.5
FAIR_SECONDS = 2.0
FAIR_RATE = 65_536
"""Bytes a second that must arrive, after ``FAIR_SECONDS``, of a body that others wait for."""


class NoRoom(Exception):
    """Too many bytes are held for others."""


@dataclass(slots=True, eq=False)
class HeldBody:
    """The room for the body of one request. *reading*: it may be given up by setting this time-out."""

    budget: "BodyBudget"
    room: int = 0
    arrived: int = 0
    since: float = 0.0
    reading: asyncio.Timeout | None = None

    def make_room(self, size: int) -> Awaitable[None]:
        """Wait for room for *size* bytes in all. Raises ``NoRoom``."""
        return self.budget.take(self, size)

    def release(self) -> None:
        """Give the room back; may be called twice."""
        self.budget.give_back(self)


@dataclass(slots=True)
class _Pool:
    left: int
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)

    def give_back(self, count: int) -> None:
        """Admit the waiting request that waits longest and has room now."""
        self.left += count
        while self.waiting and (self.waiting[0][1].done() or self.waiting[0][0] <= self.left):
            needed, turn = self.waiting.popleft()
            if not turn.done():
                self.left -= needed
                turn.set_result(None)


class BodyBudget:
    """The bytes that the bodies of all requests may hold together."""

    def __init__(self, max_body: int, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._small = _Pool(BUDGET)
        self._large = _Pool(max(BUDGET, 4 * max_body))
        self._wait_seconds = wait_seconds
        self._held: set[HeldBody] = set()

    def hold(self) -> HeldBody:
        """Room for no bytes yet; to be released."""
        body = HeldBody(self)
        self._held.add(body)
        return body

    async def take(self, body: HeldBody, size: int) -> None:
        """Give *body* room for *size* bytes instead of what it has. Raises ``NoRoom``."""
        if body.room:
            self._pool_for(body.room).give_back(body.room)
            body.room = 0
        pool = self._pool_for(size)
        if pool.waiting or pool.left < size:
            await self._wait(pool, size)
        else:
            pool.left -= size
        body.room = size
        body.since = asyncio.get_running_loop().time()

    def give_back(self, body: HeldBody) -> None:
        """Free the room of *body*."""
        if body in self._held:
            self._held.discard(body)
            self._pool_for(body.room).give_back(body.room)

    def _pool_for(self, size: int) -> _Pool:
        return self._small if size <= SMALL else self._large

    async def _wait(self, pool: _Pool, size: int) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        pool.waiting.append((size, turn))
        until = loop.time() + self._wait_seconds
        try:
            while not turn.done() and loop.time() < until:
                self._give_up_slow_ones(pool)
                await asyncio.wait((turn,), timeout=min(CHECK_SECONDS, self._wait_seconds))
        except BaseException:  # the client has left
            if not turn.cancel():
                pool.give_back(size)
            raise
        if not turn.done():
            turn.cancel()
            pool.give_back(0)  # a request behind it in the queue may have room
            raise NoRoom

    def _give_up_slow_ones(self, pool: _Pool) -> None:
        now = asyncio.get_running_loop().time()
        for body in self._held:
            took = now - body.since
            slow = took > FAIR_SECONDS and body.arrived < FAIR_RATE * took
            if body.reading is not None and body.room and self._pool_for(body.room) is pool and slow:
                body.reading.reschedule(now)
                body.reading = None
