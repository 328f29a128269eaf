"""The store over MariaDB or MySQL, shared with other processes."""

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from civiapi.store.author import current_author
from civiapi.store.base import CALL_GRACE_S, LOOP, READER, WRITER, Store, UnitInProgress, timed_out
from civiapi.store.clock import SiteClock
from civiapi.store.databases import bulk_binding, dialect, driver_errors, expressions, languages
from civiapi.store.databases.statements import BEFORE, CompiledCache, begin_statement
from civiapi.store.deadline import Deadline, current_deadline
from civiapi.store.errors import StoreError, StoreUnusable

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 6
LOCK_WAIT_S = 15
IDLE_S = 20
"""Seconds that a transaction may be idle; less than others wait for its locks."""
CALL_THREADS = 4
KILL_EVERY_S = 0.2
AUTHOR, DOMAIN, ISOLATION, AUTOCOMMIT = "author", "domain", "isolation", "autocommit"
ONE_VIEW, OWN_VIEWS = "REPEATABLE READ", "READ COMMITTED"
"""One view for all statements of a unit that reads; a writer sees what others have committed."""
RETRY_UNTIL_S = 30.0
"""After how long a unit is not repeated any more."""


class CallThread:
    """A thread with an event loop and one connection, for units of calls: what they do with rows would stop ours."""

    def __init__(self, url: str, clock: SiteClock) -> None:
        self._url = url
        self._clock = clock
        self._engine: AsyncEngine | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
        """Run *work* with this thread's engine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._with_engine(work), self._loop))

    async def _with_engine(self, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
        if self._engine is None:
            self._engine = _engine(self._url, self._clock, pool_size=1, max_overflow=0)
        return await work(self._engine)

    async def close(self) -> None:
        if self._engine is not None:
            await self.run(lambda engine: engine.dispose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


def _check_certificates(url: URL) -> None:
    """Raises ``StoreUnusable`` where the driver could not use the files that the address names."""
    files = {name: str(url.query[name]) for name in ("ssl_ca", "ssl_key", "ssl_cert") if name in url.query}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in files.items():
        try:
            Path(path).read_bytes()
            if name == "ssl_ca":
                context.load_verify_locations(path)
            elif name == "ssl_cert":
                context.load_cert_chain(path, files.get("ssl_key"), password="")
        except OSError as error:
            why = "cannot be used as such" if isinstance(error, ssl.SSLError) else error.strerror
            raise StoreUnusable(f"The database cannot be used: {name} in its address, {path}: {why}.") from error


def _engine(url: str, clock: SiteClock, *, pool_size: int, max_overflow: int) -> AsyncEngine:
    password = make_url(url).password
    engine = create_async_engine(
        url,
        connect_args={"password": str(password).encode()} if password else {},  # the driver would encode as latin1
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_recycle=1800,
        pool_use_lifo=True,
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        execution_options={"compiled_cache": CompiledCache()},
    )

    asked: list[bool] = []

    # Before SQLAlchemy asks a first connection how the server quotes: a server may have ANSI_QUOTES by default.
    @event.listens_for(engine.sync_engine, "connect", insert=True)
    def _(raw: Any, _record: Any) -> None:
        cursor = raw.cursor()
        for statement in dialect.session_statements(clock.zone, LOCK_WAIT_S, IDLE_S):
            cursor.execute(statement)
        if not asked:  # once an engine: a site's tables are converted by hand, if ever
            asked.append(True)
            if dialect.has_narrow_column(cursor):
                dialect.note_narrow(engine.sync_engine.dialect)
                event.listen(engine.sync_engine, "before_cursor_execute", _cut_to_narrow_text, retval=True)
            cursor.execute(expressions.ADDRESS_COLUMNS)
            expressions.note_collations(engine.sync_engine.dialect, cursor.fetchall())
        cursor.close()

    @event.listens_for(engine.sync_engine, "connect")  # after SQLAlchemy has asked how the server quotes
    def _(raw: Any, _record: Any) -> None:
        languages.use_views(engine.sync_engine.dialect, raw)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _(conn: Connection, *_args: Any) -> None:
        begin_statement(conn)

    event.listen(engine.sync_engine, "do_executemany", bulk_binding.execute)
    return engine


def _cut_to_narrow_text(
    _conn: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """Write what fits rather than fail: a site upgraded from before CiviCRM 5.x has tables in utf8mb3."""
    return statement, dialect.narrowed(statement, parameters)


def _transaction(
    engine: Engine, reads: bool, unit: UnitInProgress, execution: "_Execution", work: Callable[[Connection], T]
) -> T:
    """Run the unit's function in one transaction. Runs in a greenlet: each step of its own would cost a task.

    Nothing asks the server whether a connection is alive, and none is rolled back after its commit: a round trip each.
    A connection that is lost shows at the first statement, and the unit is run again.
    """
    with engine.connect() as conn:
        transaction = conn.begin()
        _commit_alone(conn, False)
        _isolate(conn, ONE_VIEW if reads else OWN_VIEWS)
        if not reads:
            _sign(conn)
        info = conn.info  # a connection that is lost meanwhile has none
        if unit.deadline is not None:
            execution.connection_id = dialect.connection_id(conn)
            info[BEFORE] = unit.check  # a unit of short statements is hardly ever killed in one
        try:
            result = work(conn)
        finally:
            info.pop(BEFORE, None)
        unit.begin_commit()
        execution.commits = True
        transaction.commit()
        return result


def _single(engine: Engine, unit: UnitInProgress, execution: "_Execution", work: Callable[[Connection], T]) -> T:
    """Run the one statement of a unit that reads, which is a transaction by itself. Raises ``_AnotherStatement``."""
    with engine.connect() as conn:
        _commit_alone(conn, True)
        info = conn.info
        if unit.deadline is not None:
            execution.connection_id = dialect.connection_id(conn)
        info[BEFORE] = _OneStatement(unit)
        try:
            return work(conn)
        finally:
            info.pop(BEFORE, None)


class _AnotherStatement(Exception):
    """A unit that was to ask one statement asks another: it has to see both on one view."""


class _OneStatement:
    """Called before each statement of a unit, lets the first one pass."""

    def __init__(self, unit: UnitInProgress) -> None:
        self._unit = unit
        self._is_begun = False

    def __call__(self) -> None:
        if self._is_begun:
            raise _AnotherStatement
        self._is_begun = True
        self._unit.check()


def _commit_alone(conn: Connection, wanted: bool) -> None:
    """Let each statement of the session be a transaction, or not; only where the connection did otherwise."""
    if conn.info.get(AUTOCOMMIT, False) != wanted:
        conn.exec_driver_sql(f"SET autocommit = {int(wanted)}")
        conn.info[AUTOCOMMIT] = wanted


def _isolate(conn: Connection, level: str) -> None:
    """Set the isolation of the session; only where the connection had the other."""
    if conn.info.get(ISOLATION) != level:
        conn.exec_driver_sql(dialect.ISOLATE.format(level))
        conn.info[ISOLATION] = level


def _sign(conn: Connection) -> None:
    """Tell the triggers of CiviCRM's detailed logging who writes; only where the connection said somebody else."""
    author = current_author().contact_id or DOMAIN
    if conn.info.get(AUTHOR) == author:
        return
    try:
        conn.exec_driver_sql(dialect.sign(dialect.DOMAINS_CONTACT if author == DOMAIN else str(int(author))))
    except ProgrammingError:  # a new database, which has no domain yet
        return
    conn.info[AUTHOR] = author


class _Execution:
    """Of a unit that runs: the server's number of its connection, 0 before it has one; whether it began to commit."""

    def __init__(self, *, is_single: bool = False) -> None:
        self.is_single = is_single
        self.connection_id = 0
        self.commits = False


class MariaStore(Store):
    """A MariaDB or MySQL database, shared with other processes."""

    is_shared = True

    def __init__(self, url: str, clock: SiteClock) -> None:
        super().__init__(clock)
        self._url = url
        self._engine = _engine(url, clock, pool_size=8, max_overflow=8)
        self._threads: list[CallThread] = []
        self._free: asyncio.LifoQueue[CallThread] = asyncio.LifoQueue()

    @classmethod
    async def open(cls, url: str, clock: SiteClock) -> "MariaStore":
        """Connect once, to check that the database exists. Raises ``StoreUnusable``."""
        _check_certificates(make_url(url))
        store = cls(url, clock)
        try:
            await store.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())
        except StoreError:
            await store.close()
            raise
        return store

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if (deadline := current_deadline()) is not None:
            return await self._for_call(True, deadline, fn, *args, **kwargs)
        self.units[READER] += 1
        return await self._retried(self._engine, True, UnitInProgress(None), _Execution(), fn, *args, **kwargs)

    async def read_at_once(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.units[LOOP] += 1
        unit, execution = UnitInProgress(current_deadline()), _Execution()
        return await self._until_late(
            unit, execution, self._retried(self._engine, True, unit, execution, fn, *args, **kwargs)
        )

    async def read_single(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        unit, execution = UnitInProgress(current_deadline()), _Execution(is_single=True)
        try:
            found = await self._until_late(
                unit, execution, self._retried(self._engine, True, unit, execution, fn, *args, **kwargs)
            )
        except _AnotherStatement:
            return await self.read_at_once(fn, *args, **kwargs)
        self.units[LOOP] += 1
        return found

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if (deadline := current_deadline()) is not None:
            return await self._for_call(False, deadline, fn, *args, **kwargs)
        self.units[WRITER] += 1
        return await self._retried(self._engine, False, UnitInProgress(None), _Execution(), fn, *args, **kwargs)

    async def _for_call(self, reads: bool, deadline: Deadline, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a call's unit in a thread of its own."""
        unit, execution = UnitInProgress(deadline), _Execution()
        thread = await self._free_thread(deadline)
        self.units[READER if reads else WRITER] += 1

        async def run() -> T:
            try:
                return await thread.run(
                    lambda engine: self._retried(engine, reads, unit, execution, fn, *args, **kwargs)
                )
            finally:
                self._free.put_nowait(thread)

        return await self._until_late(unit, execution, run())

    async def _free_thread(self, deadline: Deadline) -> CallThread:
        if self._free.empty() and len(self._threads) < CALL_THREADS:
            self._threads.append(CallThread(self._url, self.clock))
            return self._threads[-1]
        try:
            async with asyncio.timeout(deadline.left):
                return await self._free.get()
        except TimeoutError:
            raise timed_out(deadline) from None

    async def _until_late(self, unit: UnitInProgress, execution: _Execution, running: Coroutine[Any, Any, T]) -> T:
        """The result of a unit. Past its deadline its statement is killed, and the unit rolls back."""
        if unit.deadline is None:
            return await running
        task = asyncio.ensure_future(running)
        try:
            await asyncio.wait((task,), timeout=unit.deadline.left)
            until = time.monotonic() + CALL_GRACE_S
            while not task.done() and (time.monotonic() < until or not unit.abandon()):
                await self._kill(unit, execution)
                await asyncio.wait((task,), timeout=KILL_EVERY_S)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                self._abandon(task)
        raise timed_out(unit.deadline)

    async def _kill(self, unit: UnitInProgress, execution: _Execution) -> None:
        if unit.commits or not execution.connection_id:
            return
        try:
            async with self._engine.connect() as conn:
                await conn.exec_driver_sql(f"KILL QUERY {execution.connection_id}")
        except SQLAlchemyError as error:  # it has ended meanwhile, or there is no connection to say so
            log.info("a statement could not be killed", reason=type(error).__name__)

    async def _retried(
        self,
        engine: AsyncEngine,
        reads: bool,
        unit: UnitInProgress,
        execution: _Execution,
        fn: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        def work(conn: Connection) -> T:
            return fn(conn, *args, **kwargs)

        until = time.monotonic() + RETRY_UNTIL_S
        for attempt in range(1, TRIES + 1):
            execution.commits = False
            try:
                unit.check()
                if execution.is_single:
                    return await greenlet_spawn(_single, engine.sync_engine, unit, execution, work)
                return await greenlet_spawn(_transaction, engine.sync_engine, reads, unit, execution, work)
            except SQLAlchemyError as error:
                if unit.is_late and not execution.commits:
                    raise timed_out(unit.deadline) from error
                # If the connection is lost at commit, the unit may have been written; after a deadlock it was not.
                safe = driver_errors.is_busy(error) or (
                    driver_errors.is_lost(error) and not (execution.commits and not reads)
                )
                if not safe or attempt == TRIES or time.monotonic() >= until:
                    raise driver_errors.translate(error) from error
                log.info("a unit of work is run again", attempt=attempt, reason=type(error).__name__)
                await asyncio.sleep(random.uniform(0.01, 0.05 * 2**attempt))  # noqa: S311  jitter, no secret
            finally:
                execution.connection_id = 0  # the next user of the connection must not be killed
                unit.commits = False
        raise AssertionError("unreachable")

    async def close(self) -> None:
        for thread in self._threads:
            await thread.close()
        await self._engine.dispose()
