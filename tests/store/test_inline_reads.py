"""Reads that SQLite answers on the event loop's own thread, and those that take the trip to another after all."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from sqlite3 import connect

import pytest
from sqlalchemy import Connection, insert, select

import sync.store.tables  # noqa: F401  its steps belong to the schema
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import StoreError
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import setting
from tests.support.databases import KINDS, a_database

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {}) SELECT count(*) FROM n"


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with a_database(request.param, tmp_path) as url:
        opened = await open_store(url)
        await migrate(opened)
        yield opened
        await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:///{tmp_path}/site.sqlite")
    yield opened
    await opened.close()


def count(conn: Connection) -> int:
    return len(conn.execute(select(setting.c.id)).all())


def name_of_thread(conn: Connection, sql: str) -> tuple[int, str]:
    return conn.exec_driver_sql(sql).scalar_one(), threading.current_thread().name


async def test_a_short_read_is_answered_where_it_stands(sqlite: Store) -> None:
    assert await sqlite.read_inline(name_of_thread, "SELECT 7") == (7, threading.current_thread().name)


async def test_a_long_read_goes_to_a_thread_and_has_its_answer(sqlite: Store) -> None:
    count, thread = await sqlite.read_inline(name_of_thread, ENDLESS.format(2_000_000))
    assert count == 2_000_000
    assert thread != threading.current_thread().name


async def test_a_glance_after_a_long_one_is_short_again(sqlite: Store) -> None:
    await sqlite.read_inline(name_of_thread, ENDLESS.format(2_000_000))
    assert await sqlite.read_inline(name_of_thread, "SELECT 7") == (7, threading.current_thread().name)


async def test_any_number_of_long_ones_leave_no_transaction_open(
    sqlite: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("civiapi.store.databases.sqlite.INLINE_SECONDS", 0.0)
    for _ in range(400):  # SQLite counts a statement's steps over all its runs, that of ROLLBACK too
        assert (await sqlite.read_inline(name_of_thread, ENDLESS.format(1_000)))[0] == 1_000


async def test_a_glance_sees_what_was_written_before_it(store: Store) -> None:
    before = await store.read_inline(count)
    for number in range(1, 4):
        await store.write(lambda conn, n: conn.execute(insert(setting).values(name=f"s{n}", value="x")), number)
        assert await store.read_inline(count) == before + number


async def test_what_a_glance_raises_leaves_the_next_one_alone(store: Store) -> None:
    def broken(conn: Connection) -> None:
        conn.execute(select(setting.c.id)).all()
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await store.read_inline(broken)
    with pytest.raises(StoreError):
        await store.read_inline(lambda conn: conn.exec_driver_sql("SELECT nothing FROM nowhere"))
    assert await store.read_inline(lambda conn: conn.exec_driver_sql("SELECT 7").scalar_one()) == 7


async def test_one_view_lasts_as_long_as_a_glance(sqlite: Store, tmp_path: Path) -> None:
    await migrate(sqlite)

    def count_around_a_write_of_another(conn: Connection) -> tuple[int, int]:
        before = count(conn)
        with connect(tmp_path / "site.sqlite") as raw:
            raw.execute("INSERT INTO civicrm_setting (name, value) VALUES ('s', 'x')")
        return before, count(conn)

    before = await sqlite.read_inline(count)
    assert await sqlite.read_inline(count_around_a_write_of_another) == (before, before)
    assert await sqlite.read_inline(count) == before + 1
