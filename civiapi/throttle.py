"""Slows down an address that keeps failing to say who it is.

A few slips cost nothing. From then on each failure waits longer for its answer, and failures sent side by side queue
up behind each other. Memory is bounded: the addresses that failed longest ago are forgotten first.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

FREE = 5  # failures that are answered at once
FIRST = 0.05  # seconds the next one waits; each further one twice as long
LONGEST = 2.0  # seconds between two answers to one address at most
PATIENCE = 30.0  # seconds anyone waits at most, however many stand before them
FORGET = 300.0  # seconds after which a quiet address starts anew
ADDRESSES = 4096


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last: float = 0.0
    next_slot: float = 0.0


class Throttle:
    """Counts failures by address. *sleep* and *now* (seconds that never run backwards) can be replaced."""

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()

    async def failed(self, address: str) -> int:
        """Note a failure, wait as long as it costs, and say how many there were of late."""
        now = self._now()
        record = self._record(address, now)
        record.failures += 1
        record.last = now
        failures = record.failures
        if failures > FREE:
            gap = min(LONGEST, FIRST * 2.0 ** min(failures - FREE - 1, 16))
            record.next_slot = min(max(record.next_slot, now) + gap, now + PATIENCE)
            await self._sleep(record.next_slot - now)
        return failures

    def _record(self, address: str, now: float) -> _Record:
        record = self._records.pop(address, None)
        if record is None or now - record.last > FORGET:
            record = _Record()
        self._records[address] = record
        while len(self._records) > ADDRESSES:
            self._records.popitem(last=False)
        return record
