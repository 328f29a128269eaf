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

from civiapi.store.clock import SiteClock
from civiapi.store.databases import driver_errors
from civiapi.store.engine import Store
from tests.reliability.convergence.mariadb import MariaMemory
from tests.support.databases import raw_sqlite

P = ParamSpec("P")
T = TypeVar("T")


class Killed(BaseException):
    """The process is dead: nothing that it began is finished or cleaned up."""


class KillSwitch:
    """Counts commits and remote calls down and kills the process at zero.

    *after*: after the commit, or with the answer of the call lost; otherwise before. *only* ``commit`` or ``call``: the
    others do not count. `died_at` says which of both it was, and whether after.
    """

    def __init__(self, length: int | None = None, *, after: bool = False, only: str = "") -> None:
        self.left = length
        self.after = after
        self.only = only
        self.is_dead = False
        self.died_at: tuple[str, bool] | None = None

    def check(self) -> None:
        """Raise Killed if the process is dead."""
        if self.is_dead:
            raise Killed

    def count_down(self, where: str) -> bool:
        """Count a ``commit`` or a ``call``; True when the process dies at this one."""
        if self.left is None or self.is_dead or self.only not in ("", where):
            return False
        self.left -= 1
        return self.left <= 0

    def kill(self, where: str) -> None:
        """Die here."""
        self.is_dead = True
        self.died_at = where, self.after
        raise Killed


class Memory:
    """One SQLite database in memory, which begins anew with each history."""

    is_shared = False

    def __init__(self) -> None:
        self.raw = raw_sqlite(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.conn = create_engine("sqlite://", creator=lambda: self.raw, poolclass=StaticPool).connect()

    def copy(self) -> sqlite3.Connection:
        """What stands here now, to begin with another time."""
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        self.raw.backup(kept)
        return kept

    def restore(self, kept: sqlite3.Connection) -> None:
        """Put everything back to what *kept* holds."""
        kept.backup(self.raw)

    def script(self, statements: dict[str, list[str]]) -> None:
        """Run what is written for SQLite."""
        for one in statements["sqlite"]:
            self.raw.execute(one)

    def rows(self, *statements: str) -> list[list[tuple[Any, ...]]]:
        """What each statement reads."""
        return [self.raw.execute(one).fetchall() for one in statements]

    def close(self) -> None:
        """Nothing to end."""

    def unit(self, fn: Callable[..., T], *args: Any, reads: bool = False, **kwargs: Any) -> T:
        """Run *fn* in one transaction."""
        with self.conn.begin():
            self.raw.execute("BEGIN")  # an event of the engine's would make every statement look for listeners
            return fn(self.conn, *args, **kwargs)


class MemoryStore(Store):
    """What one process sees of a `Memory`, until its *fuse* is burnt."""

    def __init__(self, memory: "Memory | MariaMemory", clock: SiteClock, kill_switch: KillSwitch) -> None:
        super().__init__(clock)
        self.is_shared = memory.is_shared
        self._memory = memory
        self._kill_switch = kill_switch

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        return self._unit(fn, args, kwargs, reads=True)

    async def read_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        dies = self._kill_switch.count_down("commit")
        if dies and not self._kill_switch.after:
            self._kill_switch.kill("commit")
        result = self._unit(fn, args, kwargs)
        if dies:
            self._kill_switch.kill("commit")
        return result

    async def close(self) -> None:
        """Nothing to let go of: the memory outlives its processes."""

    async def _turn(self) -> None:
        """Let others come in between, as with any store."""
        self._kill_switch.check()
        await asyncio.sleep(0)
        self._kill_switch.check()

    def _unit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, reads: bool = False) -> T:
        try:
            return self._memory.unit(fn, *args, reads=reads, **kwargs)
        except SQLAlchemyError as error:
            raise driver_errors.translate(error) from error
