"""A call's units are interrupted at its deadline, on both databases, and leave the store as it was."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from civiapi.store.base import LOOP, READER, WRITER
from civiapi.store.databases.sqlite import CALL_READERS, READERS
from civiapi.store.deadline import call_deadline, no_deadline
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import CallTimedOut
from civiapi.store.schema.tables import setting
from tests.support.databases import KINDS, a_database, a_store, sql

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
SLEEPING = "SELECT SLEEP(300)"


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


def never_ends(conn: Connection) -> Any:
    return conn.exec_driver_sql(ENDLESS if conn.dialect.name == "sqlite" else SLEEPING).scalar()


def writes_and_never_ends(conn: Connection) -> Any:
    conn.execute(insert(setting).values(name="half", value="x"))
    return never_ends(conn)


def settings_named_half(conn: Connection) -> int:
    return len(conn.execute(select(setting.c.id).where(setting.c.name == "half")).all())


def thread_name(_conn: Connection) -> str:
    return threading.current_thread().name


async def test_a_read_is_interrupted_at_the_deadline_and_the_store_goes_on(store: Store) -> None:
    with call_deadline(0.2), pytest.raises(CallTimedOut, match=r"longer than 0\.2 seconds"):
        await store.read(never_ends)
    assert await store.read(settings_named_half) == 0


async def test_a_write_is_interrupted_at_the_deadline_and_rolled_back(store: Store) -> None:
    with call_deadline(0.2), pytest.raises(CallTimedOut):
        await store.write(writes_and_never_ends)
    assert await store.read(settings_named_half) == 0
    await store.write(lambda conn: conn.execute(insert(setting).values(name="half", value="x")))
    assert await store.read(settings_named_half) == 1


async def test_a_write_that_is_late_before_its_commit_is_rolled_back(store: Store) -> None:
    with call_deadline(60) as deadline:

        def late(conn: Connection) -> None:
            conn.execute(insert(setting).values(name="half", value="x"))
            assert deadline is not None
            deadline.at = 0.0

        with pytest.raises(CallTimedOut):
            await store.write(late)
    assert await store.read(settings_named_half) == 0


async def test_a_write_between_two_statements_is_not_gone_on_with_after_its_call_was_answered(store: Store) -> None:
    answered, ended = threading.Event(), threading.Event()

    def slow_between_statements(conn: Connection) -> None:
        try:
            conn.execute(insert(setting).values(name="half", value="x"))
            answered.wait(60)
            conn.execute(insert(setting).values(name="half", value="y", domain_id=1))
        finally:
            ended.set()

    with call_deadline(0.2), pytest.raises(CallTimedOut):
        await store.write(slow_between_statements)
    answered.set()
    await asyncio.to_thread(ended.wait, 60)
    assert await store.read(settings_named_half) == 0
    await store.write(lambda conn: conn.execute(insert(setting).values(name="half", value="x")))  # no lock is left
    assert await store.read(settings_named_half) == 1


async def test_no_statement_of_an_interrupted_call_goes_on_at_mariadb(tmp_path: Path) -> None:
    with a_database("mariadb", tmp_path) as url:
        store = await open_store(url)
        name = url.rpartition("/")[2]
        with call_deadline(0.2), pytest.raises(CallTimedOut):
            await store.read(never_ends)
        running = sql(f"SELECT info FROM information_schema.processlist WHERE db = '{name}' AND command = 'Query'")
        assert running == []
        await store.close()


async def test_calls_leave_a_reader_to_everything_else(tmp_path: Path) -> None:
    with a_database("sqlite", tmp_path) as url:
        store = await open_store(url)
        stuck = threading.Event()

        async def blocked() -> None:
            with call_deadline(60):
                await store.read(lambda _conn: stuck.wait(30))

        calls = [asyncio.ensure_future(blocked()) for _ in range(READERS + 2)]
        await asyncio.sleep(0)
        assert await store.read(settings_named_half) == 0
        assert store.units[READER] == CALL_READERS + 1
        stuck.set()
        await asyncio.gather(*calls)
        await store.close()


async def test_a_call_that_waits_for_a_thread_until_its_deadline_is_told_so(store: Store) -> None:
    stuck = threading.Event()

    async def blocked() -> None:
        with call_deadline(60):
            await store.read(lambda _conn: stuck.wait(30))

    calls = [asyncio.ensure_future(blocked()) for _ in range(READERS)]
    await asyncio.sleep(0)
    with call_deadline(0.1), pytest.raises(CallTimedOut):
        await store.read(settings_named_half)
    stuck.set()
    await asyncio.gather(*calls)


async def test_an_interrupted_step_that_goes_on_keeps_nobody_waiting(tmp_path: Path) -> None:
    """SQLite interrupts between its steps only; the caller is answered, and the thread comes back when it is done."""
    with a_database("sqlite", tmp_path) as url:
        store = await open_store(url)
        stuck = threading.Event()
        with call_deadline(0.1), pytest.raises(CallTimedOut):
            await store.read(lambda _conn: stuck.wait(30))
        assert await store.read(settings_named_half) == 0
        stuck.set()
        await store.close()


async def test_units_of_calls_run_in_threads_on_both_databases(store: Store) -> None:
    here = threading.current_thread().name
    store.units.clear()
    with call_deadline(60):
        assert await store.read(thread_name) != here
        assert await store.write(thread_name) != here
        assert await store.read_inline(thread_name) == here
    assert (store.units[LOOP], store.units[READER], store.units[WRITER]) == (1, 1, 1)


async def test_a_sync_and_the_calls_it_makes_have_no_deadline(store: Store) -> None:
    with call_deadline(0.0), no_deadline(), call_deadline(0.0):
        assert await store.read(settings_named_half) == 0


async def test_a_task_that_outlives_its_call_has_no_deadline(store: Store) -> None:
    begin = asyncio.Event()

    async def later() -> int:
        await begin.wait()
        return await store.read(settings_named_half)

    with call_deadline(0.0):
        task = asyncio.ensure_future(later())
        await asyncio.sleep(0)
    begin.set()
    assert await task == 0
