"""Limit how fast one address can try credentials. Whatever compares a secret does so within ``Throttle.attempt``.

An address with ``FREE`` recent failures is in debt: its attempts are decided one after the other with a growing gap
between them, and each waits for its turn before anything is compared. So a right guess takes as long as a wrong one,
and an answer that comes at once discloses nothing. Attempts that cannot be decided soon are refused undecided
(``TooManyAttempts``); memory is bounded, and the addresses with the oldest failures are dropped first.

A client that shares its address with an attacker waits in the same queue. An exception for credentials that were right
before would answer the attacker's right guess at once. Signed tokens and sessions are not throttled, because they
cannot be guessed: a client that shares its address with an attacker can use these. Behind a proxy that
``trusted_proxies`` does not name, all callers have one address.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from types import TracebackType

FREE = 5  # failures without delay
FIRST = 0.05  # seconds between the attempts after them; doubled by each further failure
MAX_DELAY = 2.0  # seconds between two attempts of one address
FORGET = 300.0  # seconds without failure after which the count is reset
ADDRESSES = 4096
MAX_UNDECIDED = 256  # attempts of one address at once; they wait for milliseconds
MAX_WAITING_EACH = 8  # the same for an address in debt, where each waits up to MAX_DELAY
MAX_WAITING = 64  # of all addresses in debt together
IPV6_PREFIX = 64  # what one IPv6 subscriber is given at least


class TooManyAttempts(Exception):
    """The attempt was not decided; *retry_after* is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts; try again in {retry_after} seconds.")
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class _Record:
    failures: int = 0
    last: float = 0.0  # when the last failure was
    next_at: float = 0.0  # when the next attempt may be decided
    undecided: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def in_debt(self) -> bool:
        return self.failures >= FREE

    @property
    def delay(self) -> float:
        return min(MAX_DELAY, FIRST * 2.0 ** min(self.failures - FREE, 16)) if self.in_debt else 0.0


class Throttle:
    """Counts failures by address. *sleep* and *now* (monotonic seconds) can be replaced."""

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep = sleep
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._waiting = 0

    def attempt(self, address: str, *, may_wait: bool = True) -> "Attempt":
        """A context in which one attempt of *address* is decided; entering it waits for its turn.

        *may_wait*: False for a caller that would hold much memory meanwhile, which is refused instead. Entering raises
        ``TooManyAttempts``.
        """
        return Attempt(self, address, may_wait)

    async def _enter(self, key: str, may_wait: bool) -> tuple[_Record, bool]:
        """Wait for the turn of an attempt; also whether it counts as waiting."""
        record = self._record(key)
        waiting = record.in_debt
        if waiting:
            self._check_room(record, record.undecided + 1, may_wait)
        elif record.undecided >= MAX_UNDECIDED:
            raise TooManyAttempts(_whole(MAX_DELAY))
        record.undecided += 1
        self._waiting += waiting
        try:
            await record.turn.acquire()
            try:
                if record.in_debt:
                    if not waiting:  # the debt came while this attempt was queued
                        self._check_room(record, record.undecided, may_wait)
                        waiting = True
                        self._waiting += 1
                    if (delay := record.next_at - self._now()) > 0:
                        await self._sleep(delay)
            except BaseException:
                record.turn.release()
                raise
        except BaseException:
            self._leave(key, record, waiting)
            raise
        return record, waiting

    def _check_room(self, record: _Record, undecided: int, may_wait: bool) -> None:
        if not may_wait or undecided > MAX_WAITING_EACH or self._waiting >= MAX_WAITING:
            raise TooManyAttempts(_whole(record.delay * min(undecided, MAX_WAITING_EACH)))

    def _decide(self, key: str, record: _Record, waiting: bool, failed: bool) -> None:
        if failed:
            record.failures += 1
            record.last = self._now()
        if record.failures:
            record.next_at = self._now() + record.delay
        record.turn.release()
        self._leave(key, record, waiting)

    def _leave(self, key: str, record: _Record, waiting: bool) -> None:
        record.undecided -= 1
        self._waiting -= waiting
        if record.undecided:
            return
        if not record.failures:
            self._records.pop(key, None)
        elif len(self._records) > ADDRESSES:
            oldest = next(name for name, one in self._records.items() if not one.undecided)
            del self._records[oldest]

    def _record(self, key: str) -> _Record:
        record = self._records.pop(key, None)
        if record is None:
            record = _Record()
        elif record.failures and not record.undecided and self._now() - record.last > FORGET:
            record.failures = 0
        self._records[key] = record
        return record


class Attempt:
    """One attempt to show a credential, open while it is compared. ``fail`` counts it as a wrong guess."""

    __slots__ = ("_entered", "_failed", "_key", "_may_wait", "_throttle")

    def __init__(self, throttle: Throttle, address: str, may_wait: bool) -> None:
        self._throttle = throttle
        self._key = network_of(address)
        self._may_wait = may_wait
        self._failed = False
        self._entered: tuple[_Record, bool] | None = None

    def fail(self) -> int:
        """Count a wrong guess, once for each attempt; the number of recent failures with this one."""
        self._failed = True
        assert self._entered is not None  # noqa: S101  only within the context
        return self._entered[0].failures + 1

    async def __aenter__(self) -> "Attempt":
        self._entered = await self._throttle._enter(self._key, self._may_wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._entered is not None  # noqa: S101  it was entered
        self._throttle._decide(self._key, *self._entered, self._failed)


@lru_cache(maxsize=ADDRESSES)
def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, IPV6_PREFIX), strict=False)) if not parsed.scope_id else str(parsed)[:64]


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
