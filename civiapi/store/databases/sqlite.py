"""The store over a SQLite file: one writer, a few readers, each with its own thread, and short reads on the loop's."""

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import aiosqlite
from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from civiapi.runtime.loop_priority import yield_to_loop
from civiapi.runtime.private_files import create_private
from civiapi.store.base import CALL_GRACE_S, LOOP, READER, WRITER, Store, TookTooLong, UnitInProgress, timed_out
from civiapi.store.clock import SiteClock
from civiapi.store.databases import driver_errors
from civiapi.store.databases.statements import KEPT_BYTES, CompiledCache, note_statement
from civiapi.store.deadline import Deadline, current_deadline
from civiapi.store.errors import StoreUnusable
from civiapi.store.text import collation

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4
CALL_READERS = 3
"""Readers that calls may occupy together; one is left for everything else."""

BUSY_TIMEOUT_MS = 15_000
WRITER_CACHE_KB, READER_CACHE_KB = 20_000, 6_000
PREPARED_KEPT = 512
MAX_KEPT_BYTES = 8_000_000
"""Bytes of long prepared statements and values after which a connection is opened again, which frees them."""

CHECKPOINT_PAGES = 8_000
"""32 MB: at SQLite's own 4 MB a large sync copies the same pages of its indexes into the file at every commit."""

INLINE_SECONDS = 0.002
MOMENT_SECONDS = 0.02
"""How long a short write waits for the writer's thread before it is its turn there."""

MAX_SHORT_WRITES = 100
"""Units in a row that the loop's thread may write: none of them copies the log into the file."""

CHECK_STEPS = 500
"""Steps of SQLite's virtual machine between two checks of the time: some ten microseconds."""


_PATIENT = (f"busy_timeout = {BUSY_TIMEOUT_MS}", f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
_IMPATIENT = ("busy_timeout = 0", "wal_autocheckpoint = 0")

_here = threading.local()
_CORE = create_engine(
    "sqlite://",
    creator=lambda: _here.raw,
    poolclass=NullPool,
    isolation_level="AUTOCOMMIT",
    execution_options={"compiled_cache": CompiledCache()},
)
"""Shared by all SQLite connections of the process, so that they share compiled statements. It opens no connection
itself: ``SqliteConnection`` passes each one in."""


@event.listens_for(_CORE, "before_cursor_execute")
def _before_statement(conn: Connection, _cursor: object, text: str, parameters: Any, *_: object) -> None:
    note_statement(conn, text, parameters)
    unit: UnitInProgress | None = getattr(_here, "unit", None)
    if unit is not None:
        unit.check()
    yield_to_loop()


class SqliteConnection:
    """One SQLite connection with a Core connection over it, for one thread at a time.

    Transactions begin and end on SQLite's own connection: through Core that costs as much as a short unit.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, writer: bool) -> None:
        self._connect = connect
        self._begin = "BEGIN IMMEDIATE" if writer else "BEGIN"
        self._pragmas = [
            *_PATIENT,
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            f"cache_size = -{WRITER_CACHE_KB if writer else READER_CACHE_KB}",
        ]
        self._open()

    def _open(self) -> None:
        raw = self._connect()
        try:
            for pragma in self._pragmas:
                raw.execute(f"PRAGMA {pragma}")
            collation.register(raw)
            _here.raw = raw
            self._conn = _CORE.connect()
        except BaseException:
            raw.close()
            raise
        finally:
            _here.raw = None
        self.raw = raw
        self._is_patient = True
        self._info = self._conn.info

    def be_patient(self, patient: bool) -> None:
        """Whether units may wait: for other processes that write, and for commits that copy the log into the file."""
        if patient is not self._is_patient:
            for pragma in _PATIENT if patient else _IMPATIENT:
                self.raw.execute(f"PRAGMA {pragma}")
            self._is_patient = patient

    def set_pragmas(self, *pragmas: str) -> None:
        """Set pragmas, outside of any transaction."""
        self._pragmas += pragmas
        for one in pragmas:
            self.raw.execute(f"PRAGMA {one}")

    def unit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], unit: UnitInProgress | None = None
    ) -> T:
        """Run *fn* in a transaction. Raises what *fn* raises, and ``sqlite3.Error`` for the transaction itself."""
        self.raw.execute(self._begin)
        try:
            result = fn(self._conn, *args, **kwargs)
            if unit is not None:
                unit.begin_commit()
            self.raw.execute("COMMIT")
        except BaseException:
            if self.raw.in_transaction:  # for example a full disk has ended it already
                self.raw.execute("ROLLBACK")
            raise
        return result

    def free_statements(self) -> bool:
        """Open the connection again if it keeps much of long statements and values; whether it did. Not in a unit."""
        old = self._conn
        if self._info.get(KEPT_BYTES, 0) <= MAX_KEPT_BYTES:
            return False
        try:
            self._open()
        except (SQLAlchemyError, sqlite3.Error):  # such as too many open files: the old one does it for longer
            self._info[KEPT_BYTES] = 0
            return False
        old.close()
        return True

    def close(self) -> None:
        """Close the connection; call this in its thread."""
        self._conn.close()


class ShortUnits:
    """Short units on the event loop's own thread, where switching to another would take longer than the unit.

    A unit that takes over ``INLINE_SECONDS`` is interrupted, to be repeated in another thread. Few rows have been read
    by then, so the Python code that uses them is short too.
    """

    def __init__(self, sqlite: SqliteConnection) -> None:
        self._until = math.inf
        self._overran = False
        self._sqlite = sqlite

    def _is_late(self) -> bool:
        if time.perf_counter() > self._until:
            self._overran = True
        return self._overran and self._until < math.inf

    def _timed(self, conn: Connection, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        self._until = time.perf_counter() + INLINE_SECONDS
        try:
            return fn(conn, *args, **kwargs)
        finally:
            self._until = math.inf  # so that the transaction can end

    def run(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run the unit on this thread. Raises ``TookTooLong`` if it has to run in another."""
        self._overran = False
        try:
            self._sqlite.be_patient(False)
            self._sqlite.raw.set_progress_handler(self._is_late, CHECK_STEPS)
            result: T = self._sqlite.unit(self._timed, (fn, args, kwargs), {})
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self._overran or driver_errors.is_busy(error):
                raise TookTooLong from error
            raise driver_errors.translate(error) from error
        finally:
            self._sqlite.raw.set_progress_handler(None, CHECK_STEPS)
            self._sqlite.free_statements()
        return result


class _Job(Generic[T]):
    """A unit on its way through a thread. The thread keeps its last job, so what was done is emptied."""

    def __init__(self, run: Callable[..., T], *args: Any) -> None:
        self._run: Callable[..., T] | None = run
        self._args = args
        self._result: list[T] = []

    def __call__(self) -> None:
        run, args = self._run, self._args
        self._run, self._args = None, ()
        assert run is not None  # noqa: S101  a job is done once
        self._result.append(run(*args))

    def take_result(self) -> T:
        return self._result.pop()


class ConnectionThread:
    """A SQLite connection with the aiosqlite thread that owns it."""

    def __init__(self, owner: aiosqlite.Connection, sqlite: SqliteConnection) -> None:
        self._owner = owner
        self._sqlite = sqlite
        self._short = ShortUnits(sqlite)
        self._short_left = MAX_SHORT_WRITES
        self._at_work = threading.Lock()
        self._watchers: list[asyncio.Future[None]] = []

    @classmethod
    async def open(cls, path: Path, *, writer: bool) -> "ConnectionThread":
        owner = aiosqlite.connect(":memory:", isolation_level=None)  # it is used for its thread
        await owner

        try:
            sqlite = await _in_thread(owner, lambda: SqliteConnection(_connector(path), writer=writer))
        except BaseException:
            await owner.close()  # its thread would keep the process alive
            raise
        return cls(owner, sqlite)

    async def run(self, unit: UnitInProgress, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return await _in_thread(self._owner, self._unit, unit, fn, args, kwargs)
        finally:
            watchers, self._watchers = self._watchers, []
            for one in watchers:
                if not one.done():
                    one.set_result(None)

    async def run_at_once(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run a short unit on the caller's thread, while this one has no work. Raises ``TookTooLong`` otherwise.

        It waits a moment for the work in progress: with callers enough, each would find that of another for ever. One
        unit of many has to run here, because these alone copy the log into the file, which takes long.
        """
        if not self._short_left:
            self._short_left = MAX_SHORT_WRITES
            raise TookTooLong
        self._short_left -= 1
        loop = asyncio.get_running_loop()
        until = loop.time() + MOMENT_SECONDS
        while not self._at_work.acquire(blocking=False):
            if (left := until - loop.time()) <= 0:
                raise TookTooLong
            done = loop.create_future()
            self._watchers.append(done)
            await asyncio.wait((done,), timeout=left)
        try:
            return self._short.run(fn, args, kwargs)
        finally:
            self._at_work.release()

    def _unit(self, unit: UnitInProgress, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        with self._at_work:
            return self._unit_alone(unit, fn, args, kwargs)

    def _unit_alone(
        self, unit: UnitInProgress, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> T:
        unit.check()  # it may have waited for the unit before it
        self._sqlite.be_patient(True)
        limited = unit.deadline is not None
        if limited:
            _here.unit = unit
            self._sqlite.raw.set_progress_handler(lambda: unit.is_late and not unit.commits, CHECK_STEPS)
        try:
            return self._sqlite.unit(fn, args, kwargs, unit)
        except (SQLAlchemyError, sqlite3.Error) as error:
            if unit.is_late:
                raise timed_out(unit.deadline) from error
            raise driver_errors.translate(error) from error
        finally:
            if limited:
                _here.unit = None
                self._sqlite.raw.set_progress_handler(None, CHECK_STEPS)
            self._sqlite.free_statements()

    async def set_pragmas(self, *pragmas: str) -> None:
        """Set pragmas, outside of any transaction."""
        await _in_thread(self._owner, self._sqlite.set_pragmas, *pragmas)

    async def close(self) -> None:
        await _in_thread(self._owner, self._sqlite.close)
        await self._owner.close()


def _connector(path: Path) -> Callable[[], sqlite3.Connection]:
    """What opens *path*; the connections belong to no thread."""
    return lambda: sqlite3.connect(path, isolation_level=None, cached_statements=PREPARED_KEPT, check_same_thread=False)


async def _in_thread(owner: aiosqlite.Connection, fn: Callable[..., T], *args: Any) -> T:
    """Run *fn* in the thread of *owner*.

    aiosqlite has no public function for this; SQLAlchemy's aiosqlite dialect uses the same private one.
    """
    job = _Job(fn, *args)
    await owner._execute(job)  # type: ignore[no-untyped-call]
    return job.take_result()


class InlineReader:
    """A connection for short reads on the event loop's own thread."""

    def __init__(self, path: Path) -> None:
        self._sqlite = SqliteConnection(_connector(path), writer=False)
        self._short = ShortUnits(self._sqlite)

    def run(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run the unit on this thread. Raises ``TookTooLong`` if it has to run in another."""
        return self._short.run(fn, args, kwargs)

    def close(self) -> None:
        self._sqlite.close()


class SqliteStore(Store):
    """A database file: one writer, a few readers, each with its own thread."""

    def __init__(
        self, writer: ConnectionThread, readers: list[ConnectionThread], inline: InlineReader, clock: SiteClock
    ) -> None:
        super().__init__(clock)
        self._writer = writer
        self._inline = inline
        self._all_readers = readers
        self._free: asyncio.LifoQueue[ConnectionThread] = asyncio.LifoQueue()
        self._free_for_calls = asyncio.Semaphore(CALL_READERS)
        for reader in readers:
            self._free.put_nowait(reader)

    @classmethod
    async def open(cls, path: Path, clock: SiteClock) -> "SqliteStore":
        """Open *path*; creates the file, readable by its owner only, but not its folder."""
        threads: list[ConnectionThread] = []
        try:
            with suppress(OSError):  # what is wrong is said by SQLite, in our words
                create_private(path)
            for writer in (True, *[False] * READERS):
                threads.append(await ConnectionThread.open(path, writer=writer))
            inline = InlineReader(path)
        except (sqlite3.Error, SQLAlchemyError) as error:
            for thread in threads:
                await thread.close()
            raise StoreUnusable(f"The database {path} cannot be opened: {_why_not_opened(path, error)}.") from error
        return cls(threads[0], threads[1:], inline, clock)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = current_deadline()
        if deadline is not None:
            return await self._read_for_call(deadline, fn, *args, **kwargs)
        reader = await self._free.get()
        self.units[READER] += 1
        try:
            return await reader.run(UnitInProgress(None), fn, *args, **kwargs)
        finally:
            self._free.put_nowait(reader)

    async def read_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.units[LOOP] += 1
        try:
            return self._inline.run(fn, args, kwargs)
        except TookTooLong:
            self.units[LOOP] -= 1
            raise

    async def write_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._writer.run_at_once(fn, args, kwargs)
        self.units[LOOP] += 1
        return result

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.units[WRITER] += 1
        unit = UnitInProgress(current_deadline())
        return await self._until_late(unit, self._writer.run(unit, fn, *args, **kwargs))

    async def _read_for_call(self, deadline: Deadline, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        unit = UnitInProgress(deadline)
        try:
            async with asyncio.timeout(deadline.left):
                await self._free_for_calls.acquire()
        except TimeoutError:
            raise timed_out(deadline) from None

        async def run() -> T:
            try:
                reader = await self._free.get()
                self.units[READER] += 1
                try:
                    return await reader.run(unit, fn, *args, **kwargs)
                finally:
                    self._free.put_nowait(reader)
            finally:
                self._free_for_calls.release()

        return await self._until_late(unit, run())

    async def _until_late(self, unit: UnitInProgress, running: Coroutine[Any, Any, T]) -> T:
        """The result of a unit. Past its deadline nobody waits for its thread: it is interrupted at its next step."""
        if unit.deadline is None:
            return await running
        task = asyncio.ensure_future(running)
        try:
            await asyncio.wait((task,), timeout=unit.deadline.left + CALL_GRACE_S)
            while not task.done() and not unit.abandon():
                await asyncio.wait((task,), timeout=CALL_GRACE_S)
            if task.done():
                return task.result()
        finally:
            if not task.done():  # the caller has left too; a thread cannot be cancelled
                self._abandon(task)
        raise timed_out(unit.deadline)

    async def disable_durability(self) -> None:
        """Check no references and do not wait for the disk: for a temporary copy."""
        await self._writer.set_pragmas("foreign_keys = OFF", "synchronous = OFF")

    async def close(self) -> None:
        self._inline.close()
        for thread in [*self._all_readers, self._writer]:
            await thread.close()


def _why_not_opened(path: Path, error: Exception) -> str:
    try:
        if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist"
        return "it is a folder" if path.is_dir() else driver_errors.why_unusable(error) or str(error)
    except PermissionError:
        return f"the folder {path.parent} may not be read"
