"""What one caller may do at once, so that no caller stops the others: calls wait for a turn of their caller.

A call that reads little (``short_calls.py``) and one that waits for Mailchimp have turns of their own, so that neither
waits for the long reads of the same caller.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from civiapi.api.call import Caller
from civiapi.api.errors import ApiError
from civiapi.store.deadline import current_deadline

LONG_AT_ONCE = 2
"""Calls of one caller that read or write at the same time, fewer than the store has threads for."""

OTHER_AT_ONCE = 8
WAIT_SECONDS = 10.0
MAX_WAITING = 200


class TooManyCalls(ApiError):
    """The caller has too many calls in progress; this one was not begun."""

    def __init__(self, at_once: int) -> None:
        super().__init__(
            f"Too many calls at once: {at_once} of one user run at the same time, and the others waited too long. "
            "Send fewer calls in parallel, or ask for less in each.",
            "too_many_calls",
        )


@dataclass(slots=True)
class _Turns:
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class CallGate:
    """Lets *at_once* calls of each caller run at the same time; further ones wait in order."""

    def __init__(self, at_once: int, *, wait_seconds: float = WAIT_SECONDS, max_waiting: int = MAX_WAITING) -> None:
        self._at_once = at_once
        self._wait_seconds = wait_seconds
        self._max_waiting = max_waiting
        self._turns: dict[Hashable, _Turns] = {}

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """In the block, a call of *caller* runs; one without a deadline always may.

        Raises ``TooManyCalls`` if its turn does not come in time.
        """
        if current_deadline() is None:
            yield
            return
        key: Hashable = caller.contact_id if caller.contact_id is not None else caller
        turns = self._turns.setdefault(key, _Turns())
        if turns.running < self._at_once:
            turns.running += 1
        else:
            await self._wait(key, turns)
        try:
            yield
        finally:
            self._pass_on(key, turns)

    def _pass_on(self, key: Hashable, turns: _Turns) -> None:
        """Give the turn to the call that waits longest."""
        if turns.waiting:
            turns.waiting.popleft().set_result(None)
        else:
            turns.running -= 1
            if not turns.running:
                del self._turns[key]

    async def _wait(self, key: Hashable, turns: _Turns) -> None:
        if len(turns.waiting) >= self._max_waiting:
            raise TooManyCalls(self._at_once)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns.waiting.append(mine)
        try:
            await asyncio.wait((mine,), timeout=self._wait_seconds)
        except BaseException:  # the client has left
            if mine.done():
                self._pass_on(key, turns)
            else:
                turns.waiting.remove(mine)
            raise
        if not mine.done():
            turns.waiting.remove(mine)
            raise TooManyCalls(self._at_once)
