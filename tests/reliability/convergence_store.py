"""A store in memory that begins anew in no time, and that can die between any two commits.

The engine's units run as they do on SQLite, one transaction each, but on the loop's own thread: no trip, no file. A
killed store lets nothing in any more, just as a process that got SIGKILL writes nothing from its `finally` blocks.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from civiapi.store import dialect
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store

P = ParamSpec("P")
T = TypeVar("T")


class Killed(BaseException):
    """The process is dead: nothing that it had begun is finished, tidied up or told."""


class Fuse:
    """Burns down by one at each commit and remote call; at nought the process dies there.

    At a commit it dies before or after, by *after*; around a remote call before it is sent or with its answer lost.
    *only* ``commit`` or ``call``: the others do not count. `died_at` tells which of both it was, and whether after.
    """

    def __init__(self, length: int | None = None, *, after: bool = False, only: str = "") -> None:
        self.left = length
        self.after = after
        self.only = only
        self.is_burnt = False
        self.died_at: tuple[str, bool] | None = None

    def check(self) -> None:
        """Raise Killed if the process is dead."""
        if self.is_burnt:
            raise Killed

    def burn(self, where: str) -> bool:
        """One step down, at a ``commit`` or a ``call``; True when the process dies at this one."""
        if self.left is None or self.is_burnt or self.only not in ("", where):
            return False
        self.left -= 1
        return self.left <= 0

    def blow(self, where: str) -> None:
        """Die here."""
        self.is_burnt = True
        self.died_at = where, self.after
        raise Killed


class Memory:
    """One SQLite database in memory, which begins anew with each history."""

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.conn = create_engine("sqlite://", creator=lambda: self.raw, poolclass=StaticPool).connect()

    def copy(self) -> sqlite3.Connection:
        """What stands here now, to begin with another time."""
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        self.raw.backup(kept)
        return kept

    def begin_with(self, kept: sqlite3.Connection) -> None:
        """Put everything back to what *kept* holds."""
        kept.backup(self.raw)

    def unit(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run *fn* in one transaction."""
        with self.conn.begin():
            self.raw.execute("BEGIN")  # an event of the engine's would make every statement look for listeners
            return fn(self.conn, *args, **kwargs)


class MemoryStore(Store):
    """What one process sees of a `Memory`, until its *fuse* is burnt."""

    def __init__(self, memory: Memory, clock: SiteClock, fuse: Fuse) -> None:
        super().__init__(clock)
        self._memory = memory
        self._fuse = fuse

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        return self._unit(fn, args, kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        dies = self._fuse.burn("commit")
        if dies and not self._fuse.after:
            self._fuse.blow("commit")
        result = self._unit(fn, args, kwargs)
        if dies:
            self._fuse.blow("commit")
        return result

    async def close(self) -> None:
        """Nothing to let go of: the memory outlives its processes."""

    async def _turn(self) -> None:
        """Let others come in between, as with any store."""
        self._fuse.check()
        await asyncio.sleep(0)
        self._fuse.check()

    def _unit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        try:
            return self._memory.unit(fn, *args, **kwargs)
        except SQLAlchemyError as error:
            raise dialect.translate(error) from error
