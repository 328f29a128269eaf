"""Opening a database and running units of work on it.

A unit is an ordinary function ``fn(conn, *args)`` over a SQLAlchemy Core connection; it is one transaction. It must
keep no state outside the database, because it may be run again when another transaction stood in its way.
``store.read`` and ``store.write`` decide where it runs: on SQLite in one trip to the thread that aiosqlite owns, one
writer and a few readers; on MariaDB under ``AsyncConnection.run_sync`` over asyncmy. Every await on SQLite is a trip
to another thread (about 100 µs), which is why a unit is one trip and not one statement.
"""

import asyncio
import random
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from civiapi.store import dialect
from civiapi.store.clock import SiteClock, site_clock
from civiapi.store.errors import StoreError, StoreUnusable

P = ParamSpec("P")
T = TypeVar("T")

READERS = 3
BUSY_TIMEOUT_MS = 15_000
TRIES = 6


class Store(ABC):
    """One open database. Made by ``open_store``, closed with ``close``."""

    def __init__(self, clock: SiteClock) -> None:
        self.clock = clock

    @abstractmethod
    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *fn* on one consistent view of the database. Raises ``StoreError``."""

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


class _Thread:
    """One SQLite connection with the thread that owns it, and the Core connection over it."""

    def __init__(self, link: aiosqlite.Connection, engine: Engine, conn: Connection) -> None:
        self._link = link
        self._engine = engine
        self._conn = conn

    @classmethod
    async def open(cls, path: Path, *, writer: bool) -> "_Thread":
        connecting = aiosqlite.connect(path, isolation_level=None, cached_statements=512)
        try:
            link = await connecting
        except sqlite3.Error:
            await asyncio.to_thread(connecting._thread.join)  # it still has a word for our loop, which may soon be gone
            raise
        try:
            engine, conn = await _in_thread(link, _core_over, link, writer)
        except BaseException:
            await link.close()  # its thread would keep the process alive
            raise
        return cls(link, engine, conn)

    async def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await _in_thread(self._link, self._unit, fn, args, kwargs)

    def _unit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        try:
            with self._conn.begin():
                return fn(self._conn, *args, **kwargs)
        except SQLAlchemyError as error:
            raise dialect.translate(error) from error

    async def close(self) -> None:
        await _in_thread(self._link, self._conn.close)
        await _in_thread(self._link, self._engine.dispose)
        await self._link.close()


async def _in_thread(link: aiosqlite.Connection, fn: Callable[..., T], *args: Any) -> T:
    """Run *fn* in the thread that owns *link*.

    aiosqlite has no public way to run a function there; SQLAlchemy's own aiosqlite dialect reaches in likewise.
    """
    result: T = await link._execute(fn, *args)  # type: ignore[no-untyped-call]
    return result


def _core_over(link: aiosqlite.Connection, writer: bool) -> tuple[Engine, Connection]:
    raw: sqlite3.Connection = link._conn
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
        "cache_size = -32000",
        "temp_store = MEMORY",
    ):
        raw.execute(f"PRAGMA {pragma}")
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    start = "BEGIN IMMEDIATE" if writer else "BEGIN"

    @event.listens_for(engine, "begin")
    def _(conn: Connection) -> None:
        conn.exec_driver_sql(start)

    return engine, engine.connect()


class SqliteStore(Store):
    """A database file: one writer, a few readers, each with its own thread."""

    def __init__(self, writer: _Thread, readers: list[_Thread], clock: SiteClock) -> None:
        super().__init__(clock)
        self._writer = writer
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
        except (sqlite3.Error, SQLAlchemyError) as error:
            for thread in threads:
                await thread.close()
            raise StoreUnusable(f"The database {path} cannot be opened: {error}.") from error
        return cls(threads[0], threads[1:], clock)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        reader = await self._free.get()
        try:
            return await reader.run(fn, *args, **kwargs)
        finally:
            self._free.put_nowait(reader)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.run(fn, *args, **kwargs)

    async def close(self) -> None:
        for thread in [*self._all_readers, self._writer]:
            await thread.close()


class MariaStore(Store):
    """A MariaDB or MySQL database, shared with other processes."""

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
            cursor.execute(f"SET time_zone = '{_session_zone(clock)}'")
            cursor.close()

        store = cls(engine, clock)
        try:
            await store.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())
        except StoreError:
            await engine.dispose()
            raise
        return store

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._retried(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._retried(fn, *args, **kwargs)

    async def _retried(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, TRIES + 1):
            committing = False
            try:
                async with self._engine.connect() as conn:
                    transaction = await conn.begin()
                    result = await conn.run_sync(fn, *args, **kwargs)
                    committing = True
                    await transaction.commit()
                    return result
            except SQLAlchemyError as error:
                # A connection lost at commit leaves it open whether the unit was written: only a deadlock is certain.
                safe = dialect.is_busy(error) or (dialect.is_lost(error) and not committing)
                if not safe or attempt == TRIES:
                    raise dialect.translate(error) from error
                await asyncio.sleep(random.uniform(0.01, 0.05 * 2**attempt))  # noqa: S311  spreads rivals, no secret
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await self._engine.dispose()


def _session_zone(clock: SiteClock) -> str:
    """The session's zone as an offset: named zones need tables that many servers lack."""
    text = datetime.now(clock.zone).strftime("%z")
    return f"{text[:3]}:{text[3:5]}"
