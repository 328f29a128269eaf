"""What every store can do, whichever database it opens."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from civiapi.store.clock import SiteClock
from civiapi.store.deadline import Deadline
from civiapi.store.errors import CallTimedOut

P = ParamSpec("P")
T = TypeVar("T")

LOOP, READER, WRITER = "loop", "reader", "writer"
"""Where units run: the event loop's thread, a reader's thread, the writer's. On MariaDB any thread but the loop's is
``reader`` or ``writer`` by what the unit does."""

CALL_GRACE_S = 1.0
"""After its deadline, a call is answered within this time, also where an interrupted statement still goes on."""


class TookTooLong(Exception):
    """A unit takes longer than it may on the event loop's thread; it is to be run in another."""


class Store(ABC):
    """One open database. Made by ``open_store``, closed with ``close``."""

    is_shared = False
    """Whether other processes, also on other machines, may use the database at the same time."""

    def __init__(self, clock: SiteClock) -> None:
        self.clock = clock
        self.units: Counter[str] = Counter()
        """How many units ran where: ``LOOP``, ``READER`` or ``WRITER``."""
        self._abandoned: set[asyncio.Future[Any]] = set()

    def _abandon(self, task: asyncio.Future[Any]) -> None:
        """Let a unit end that nobody waits for: its caller has been answered, and a thread cannot be stopped."""
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else looks at it

    @abstractmethod
    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* on one consistent view of the database. Raises ``StoreError``."""

    async def read_inline(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``read`` for what is short for every caller, such as one row by its key. Raises ``StoreError``.

        It may run on the event loop's thread, so *fn* must do nothing whose cost a caller chooses: SQLite interrupts a
        read between its steps only, and one step may be a pattern matched against a long text.
        """
        try:
            return await self.read_at_once(fn, *args, **kwargs)
        except TookTooLong:
            return await self.read(fn, *args, **kwargs)

    async def read_single(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``read_inline`` for what asks one statement, as a rule: MariaDB is then asked for no end of a transaction.

        What asks another one after all is run again from the start, on one view. Raises ``StoreError``.
        """
        return await self.read_inline(fn, *args, **kwargs)

    @abstractmethod
    async def read_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``read_inline`` without another try. Raises ``TookTooLong`` besides, after a few milliseconds."""

    async def write_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``write`` for what is short for every caller, as ``read_at_once``. Raises ``TookTooLong`` besides; nothing is
        written then."""
        raise TookTooLong

    @abstractmethod
    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* in one transaction, committed when it returns, undone when it raises. Raises ``StoreError``."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""


class UnitInProgress:
    """A unit of a call, seen from its own thread and from the event loop.

    *deadline* None: no limit. Past the deadline nothing is committed, so a call may answer that nothing was written
    although its thread has not noticed yet; while it commits, its end must be waited for.
    """

    def __init__(self, deadline: Deadline | None) -> None:
        self.deadline = deadline
        self.commits = False
        self._is_abandoned = False

    @property
    def is_late(self) -> bool:
        """Whether it must end without a commit. A deadline ends with its call; an abandoned unit may outlive that."""
        return self._is_abandoned or (self.deadline is not None and self.deadline.has_passed)

    def abandon(self) -> bool:
        """Forbid the commit, because the call is to be answered; False when the unit commits at this moment."""
        self._is_abandoned = True  # first: a commit that begins now sees it, or is seen here
        return not self.commits

    def check(self) -> None:
        """Raise ``CallTimedOut`` past the deadline."""
        if self.is_late:
            raise timed_out(self.deadline)

    def begin_commit(self) -> None:
        """To be called before the commit. Raises ``CallTimedOut`` past the deadline."""
        self.commits = True  # first: another thread must always see one of the two
        try:
            self.check()
        except CallTimedOut:
            self.commits = False
            raise


def timed_out(deadline: Deadline | None) -> CallTimedOut:
    """The error of a unit interrupted at *deadline*."""
    seconds = "its limit" if deadline is None else f"{deadline.seconds:g} seconds"
    return CallTimedOut(f"the call took longer than {seconds}")
