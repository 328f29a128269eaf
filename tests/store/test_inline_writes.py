"""Short writes on the event loop's own thread, and those that the writer's thread has to do after all."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from sqlite3 import connect

import pytest
from sqlalchemy import Connection, insert, select

import sync.store.tables  # noqa: F401  its steps belong to the schema
from civiapi.store.base import TookTooLong
from civiapi.store.databases.sqlite import MAX_SHORT_WRITES
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import StoreError
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import setting

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000) SELECT count(*) FROM n"


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:///{tmp_path}/site.sqlite")
    await migrate(opened)
    yield opened
    await opened.close()


def write(conn: Connection, name: str) -> str:
    conn.execute(insert(setting).values(name=name, value="x"))
    return threading.current_thread().name


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(setting.c.name)).scalars())


async def test_a_short_write_is_done_where_it_stands_and_seen_by_all(sqlite: Store) -> None:
    assert await sqlite.write_at_once(write, "a") == threading.current_thread().name
    assert "a" in await sqlite.read_inline(names)
    assert "a" in await sqlite.read(names)
    assert await sqlite.write(write, "b") != threading.current_thread().name
    assert {"a", "b"} <= await sqlite.read(names)


async def test_a_long_write_is_undone_before_it_is_repeated_in_a_thread(sqlite: Store) -> None:
    def long(conn: Connection) -> None:
        write(conn, "long")
        conn.exec_driver_sql(ENDLESS).scalar_one()

    with pytest.raises(TookTooLong):
        await sqlite.write_at_once(long)
    assert "long" not in await sqlite.read(names)
    await sqlite.write(long)
    assert "long" in await sqlite.read(names)


async def test_what_a_write_raises_undoes_it_and_leaves_the_next_one_alone(sqlite: Store) -> None:
    def broken(conn: Connection) -> None:
        write(conn, "broken")
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await sqlite.write_at_once(broken)
    with pytest.raises(StoreError):
        await sqlite.write_at_once(lambda conn: conn.exec_driver_sql("INSERT INTO nowhere VALUES (1)"))
    await sqlite.write_at_once(write, "next")
    assert "next" in await sqlite.read(names)
    assert "broken" not in await sqlite.read(names)


async def test_a_write_does_not_wait_on_the_loop_for_the_unit_in_the_thread(sqlite: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        write(conn, "slow")
        begun.set()
        go_on.wait(30)

    running = asyncio.ensure_future(sqlite.write(slow))
    await asyncio.to_thread(begun.wait, 30)
    with pytest.raises(TookTooLong):
        await sqlite.write_at_once(write, "beside")
    go_on.set()
    await running
    await sqlite.write_at_once(write, "after")
    assert {"slow", "after"} <= await sqlite.read(names)


async def test_a_write_is_done_on_the_loop_once_the_thread_has_done_its_unit(
    sqlite: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("civiapi.store.databases.sqlite.MOMENT_SECONDS", 60.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_conn: Connection) -> None:
        begun.set()
        go_on.wait(30)

    running = asyncio.ensure_future(sqlite.write(slow))
    await asyncio.to_thread(begun.wait, 30)
    writes = [asyncio.ensure_future(sqlite.write_at_once(write, name)) for name in "abc"]
    await asyncio.sleep(0.01)
    assert not any(one.done() for one in writes)
    go_on.set()
    await running
    assert await asyncio.gather(*writes) == [threading.current_thread().name] * 3


async def test_a_write_does_not_wait_on_the_loop_for_another_process(sqlite: Store, tmp_path: Path) -> None:
    other = connect(tmp_path / "site.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TookTooLong):
        await sqlite.write_at_once(write, "a")
    waiting = asyncio.ensure_future(sqlite.write(write, "b"))
    await asyncio.sleep(0.05)
    other.execute("ROLLBACK")
    other.close()
    assert await waiting != threading.current_thread().name
    assert "b" in await sqlite.read(names)


async def test_the_log_is_copied_into_the_file_by_the_thread_alone(sqlite: Store) -> None:
    def settings(conn: Connection) -> tuple[int, int]:
        return tuple(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS)  # type: ignore[return-value]

    PRAGMAS = ("wal_autocheckpoint", "busy_timeout")
    in_thread = await sqlite.write(settings)
    assert all(in_thread)
    for _ in range(MAX_SHORT_WRITES):
        assert await sqlite.write_at_once(settings) == (0, 0)
    with pytest.raises(TookTooLong):
        await sqlite.write_at_once(settings)
    assert await sqlite.write(settings) == in_thread
    assert await sqlite.write_at_once(settings) == (0, 0)
