"""Opening a database and running units of work on it.

A unit is an ordinary function ``fn(conn, *args)`` over a SQLAlchemy Core connection; it is one transaction. It must
keep no state outside the database, because it may be run again when another transaction stood in its way.
``store.read`` and ``store.write`` decide where it runs: on SQLite in one trip to the thread that aiosqlite owns, one
writer and a few readers; on MariaDB under ``AsyncConnection.run_sync`` over asyncmy. Every await on SQLite is a trip
to another thread (about 100 µs), which is why a unit is one trip and not one statement. ``store.glance`` is a read that
is over in a blink as a rule: SQLite answers it where it stands, and it takes the trip only if it turns out long.
"""

import asyncio
import math
import random
import re
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite
import structlog
from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from civiapi.store import dialect
from civiapi.store.clock import SiteClock, site_clock
from civiapi.store.courtesy import give_way
from civiapi.store.errors import StoreError, StoreUnusable

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READERS = 3
BUSY_TIMEOUT_MS = 15_000
WRITER_CACHE_KB, READER_CACHE_KB = 20_000, 6_000
STATEMENTS_KEPT = 1_000
CHECKPOINT_PAGES = 8_000
"""32 MB: at SQLite's own 4 MB a large sync copies the same pages of its indexes into the file at every commit."""

TRIES = 6
LOCK_WAIT_S = 15
IDLE_S = 20
"""Seconds that a transaction on MariaDB may rest between two statements; others wait for its locks longer than that."""
PATIENCE_S = 30.0
"""On MariaDB: how long a statement waits for somebody's lock, and after how long a unit is not begun again."""
GLANCE_S = 0.002
GLANCE_STEPS = 500
"""After how many steps of SQLite's machine a glance is asked how long it has been at it: some ten microseconds."""


class Store(ABC):
    """One open database. Made by ``open_store``, closed with ``close``."""

    is_shared = False
    """Whether other processes, on other machines too, are expected at work on it."""

    def __init__(self, clock: SiteClock) -> None:
        self.clock = clock

    @abstractmethod
    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* on one consistent view of the database. Raises ``StoreError``."""

    async def glance(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``read`` for what is short as a rule, such as one row by its key. Raises ``StoreError``."""
        return await self.read(fn, *args, **kwargs)

    @abstractmethod
    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* in one transaction, committed when it returns, undone when it raises. Raises ``StoreError``."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection."""


async def open_store(url: str, timezone: str = "UTC") -> Store:
    """Open ``sqlite:///path`` or ``mysql://user:password@host/name``; its schema is not looked at here.

    Raises ``StoreUnusable`` if it cannot be opened and ``ValueError`` for an address of another kind.
    """
    clock = site_clock(timezone)
    if url.startswith("sqlite:///"):
        return await SqliteStore.open(Path(url.removeprefix("sqlite:///")), clock)
    if match := re.fullmatch(r"(?:mysql|mariadb)(?:\+asyncmy)?://(.+)", url):
        return await MariaStore.open(f"mysql+asyncmy://{match[1]}", clock)
    raise ValueError("[database] url must begin with sqlite:/// or mysql://")


_handed = threading.local()
_CORE = create_engine(
    "sqlite://",
    creator=lambda: _handed.raw,
    poolclass=NullPool,
    isolation_level="AUTOCOMMIT",
    query_cache_size=STATEMENTS_KEPT,
)
"""One for all SQLite connections of the process, so that a statement which one of them has had compiled is there for
the others too. It opens none itself: each is handed to it (`_Link`)."""


@event.listens_for(_CORE, "before_cursor_execute")
def _give_way(*_: object) -> None:
    give_way()


class _Link:
    """One SQLite connection and the Core connection over it, of the thread it was made in.

    Transactions are begun and ended on SQLite's own connection: through Core that costs as much as a short unit.
    """

    def __init__(self, raw: sqlite3.Connection, *, writer: bool) -> None:
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            f"cache_size = -{WRITER_CACHE_KB if writer else READER_CACHE_KB}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        ):
            raw.execute(f"PRAGMA {pragma}")
        self.raw = raw
        self._begin = "BEGIN IMMEDIATE" if writer else "BEGIN"
        _handed.raw = raw
        self._conn = _CORE.connect()
        del _handed.raw

    def unit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run *fn* in a transaction. Raises what *fn* raises, and ``sqlite3.Error`` for the transaction itself."""
        self.raw.execute(self._begin)
        try:
            result = fn(self._conn, *args, **kwargs)
            self.raw.execute("COMMIT")
        except BaseException:
            if self.raw.in_transaction:  # a full disk, for one, has ended it already
                self.raw.execute("ROLLBACK")
            raise
        return result

    def close(self) -> None:
        """Close the connection; to be called in its thread."""
        self._conn.close()


class _Thread:
    """A link with the thread that owns it."""

    def __init__(self, owner: aiosqlite.Connection, link: _Link) -> None:
        self._owner = owner
        self._link = link

    @classmethod
    async def open(cls, path: Path, *, writer: bool) -> "_Thread":
        connecting = aiosqlite.connect(path, isolation_level=None, cached_statements=512)
        try:
            owner = await connecting
        except sqlite3.Error:
            await asyncio.to_thread(connecting._thread.join)  # it still has a word for our loop, which may soon be gone
            raise
        try:
            link = await _in_thread(owner, lambda: _Link(owner._conn, writer=writer))
        except BaseException:
            await owner.close()  # its thread would keep the process alive
            raise
        return cls(owner, link)

    async def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await _in_thread(self._owner, self._unit, fn, args, kwargs)

    def _unit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        try:
            return self._link.unit(fn, args, kwargs)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise dialect.translate(error) from error

    async def pragmas(self, *words: str) -> None:
        """Say these to SQLite, outside of any transaction."""
        for one in words:
            await _in_thread(self._owner, self._link.raw.execute, f"PRAGMA {one}")

    async def close(self) -> None:
        await _in_thread(self._owner, self._link.close)
        await self._owner.close()


async def _in_thread(owner: aiosqlite.Connection, fn: Callable[..., T], *args: Any) -> T:
    """Run *fn* in the thread of *owner*.

    aiosqlite has no public way to run a function there; SQLAlchemy's own aiosqlite dialect reaches in likewise.
    """
    result: T = await owner._execute(fn, *args)  # type: ignore[no-untyped-call]
    return result


class _TooLong(Exception):
    """A glance took longer than the loop can wait; it is to be done in a thread."""


class _Glance:
    """A link of the event loop's own thread, for reads that are over before a trip to another would have begun.

    SQLite is asked now and then how long a unit has been at it, and made to give up one that goes on: it has changed
    nothing, and is read again in a thread. Rows already read are few by then, so what Python does with them is short.
    """

    def __init__(self, path: Path) -> None:
        self._until = math.inf
        self._overran = False
        self._link = _Link(sqlite3.connect(path, isolation_level=None, cached_statements=512), writer=False)
        self._link.raw.execute("PRAGMA busy_timeout = 0")
        self._link.raw.set_progress_handler(self._is_late, GLANCE_STEPS)

    def _is_late(self) -> bool:
        if time.perf_counter() > self._until:
            self._overran = True
        return self._overran and self._until < math.inf

    def _timed(self, conn: Connection, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        self._until = time.perf_counter() + GLANCE_S
        try:
            return fn(conn, *args, **kwargs)
        finally:
            self._until = math.inf  # the transaction is to end, however late it is

    def run(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run the unit here and now. Raises ``_TooLong`` if it has to be run elsewhere."""
        self._overran = False
        try:
            result: T = self._link.unit(self._timed, (fn, args, kwargs), {})
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self._overran or dialect.is_busy(error):
                raise _TooLong from error
            raise dialect.translate(error) from error
        return result

    def close(self) -> None:
        self._link.close()


class SqliteStore(Store):
    """A database file: one writer, a few readers, each with its own thread."""

    def __init__(self, writer: _Thread, readers: list[_Thread], glance: _Glance, clock: SiteClock) -> None:
        super().__init__(clock)
        self._writer = writer
        self._glance = glance
        self._all_readers = readers
        self._free: asyncio.LifoQueue[_Thread] = asyncio.LifoQueue()
        for reader in readers:
            self._free.put_nowait(reader)

    @classmethod
    async def open(cls, path: Path, clock: SiteClock) -> "SqliteStore":
        """Open *path*, making the file but never its folder."""
        threads: list[_Thread] = []
        try:
            for writer in (True, *[False] * READERS):
                threads.append(await _Thread.open(path, writer=writer))
            glance = _Glance(path)
        except (sqlite3.Error, SQLAlchemyError) as error:
            for thread in threads:
                await thread.close()
            raise StoreUnusable(f"The database {path} cannot be opened: {_why_not_opened(path, error)}.") from error
        return cls(threads[0], threads[1:], glance, clock)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        reader = await self._free.get()
        try:
            return await reader.run(fn, *args, **kwargs)
        finally:
            self._free.put_nowait(reader)

    async def glance(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._glance.run(fn, args, kwargs)
        except _TooLong:
            return await self.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.run(fn, *args, **kwargs)

    async def relax(self) -> None:
        """Hold to no reference between tables, and wait for no disk: for a copy that is thrown away soon."""
        await self._writer.pragmas("foreign_keys = OFF", "synchronous = OFF")

    async def close(self) -> None:
        self._glance.close()
        for thread in [*self._all_readers, self._writer]:
            await thread.close()


def _why_not_opened(path: Path, error: Exception) -> str:
    try:
        if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist"
        return "it is a folder" if path.is_dir() else dialect.why_unusable(error) or str(error)
    except PermissionError:
        return f"the folder {path.parent} may not be looked into"


class MariaStore(Store):
    """A MariaDB or MySQL database, shared with other processes."""

    is_shared = True

    def __init__(self, engine: AsyncEngine, clock: SiteClock) -> None:
        super().__init__(clock)
        self._engine = engine

    @classmethod
    async def open(cls, url: str, clock: SiteClock) -> "MariaStore":
        """Connect once to see that the database is there."""
        engine = create_async_engine(
            url, pool_size=8, max_overflow=8, pool_pre_ping=True, pool_recycle=1800, isolation_level="READ COMMITTED"
        )

        @event.listens_for(engine.sync_engine, "connect")
        def _(raw: Any, _record: Any) -> None:
            cursor = raw.cursor()
            for statement in dialect.session_statements(clock.zone, LOCK_WAIT_S, IDLE_S):
                cursor.execute(statement)
            cursor.close()

        store = cls(engine, clock)
        try:
            await store.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())
        except StoreError:
            await engine.dispose()
            raise
        return store

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._retried(True, fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._retried(False, fn, *args, **kwargs)

    async def _retried(
        self, reads: bool, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        until = time.monotonic() + PATIENCE_S
        for attempt in range(1, TRIES + 1):
            committing = False
            try:
                async with self._engine.connect() as conn:
                    transaction = await conn.begin()
                    if reads:  # one view for all its statements; a writer sees what others committed meanwhile
                        await conn.exec_driver_sql(dialect.ONE_VIEW)
                    result = await conn.run_sync(fn, *args, **kwargs)
                    committing = True
                    await transaction.commit()
                    return result
            except SQLAlchemyError as error:
                # A connection lost at commit leaves it open whether the unit was written: only a deadlock is certain.
                safe = dialect.is_busy(error) or (dialect.is_lost(error) and not (committing and not reads))
                if not safe or attempt == TRIES or time.monotonic() >= until:
                    raise dialect.translate(error) from error
                log.info("a unit of work is run again", attempt=attempt, reason=type(error).__name__)
                await asyncio.sleep(random.uniform(0.01, 0.05 * 2**attempt))  # noqa: S311  spreads rivals, no secret
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await self._engine.dispose()
