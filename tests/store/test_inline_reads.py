"""Reads that SQLite answers on the event loop's own thread, and those that take the trip to another after all."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from sqlite3 import connect

import pytest
from sqlalchemy import Connection, insert, select

import sync.store.tables  # noqa: F401  its steps belong to the schema
from civiapi.store.databases.dialect import connection_id
from civiapi.store.deadline import call_deadline
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import CallTimedOut, StoreError
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import setting
from tests.support.databases import KINDS, a_database, sql

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {}) SELECT count(*) FROM n"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_database(request.param, tmp_path) as one:
        yield one


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await open_store(url)
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def mariadb(tmp_path: Path) -> AsyncIterator[Store]:
    with a_database("mariadb", tmp_path) as url:
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


def commits(conn: Connection) -> int:
    """How often this session of MariaDB was told to commit."""
    return int(conn.exec_driver_sql("SHOW SESSION STATUS LIKE 'Com_commit'").one()[1])


async def test_a_single_statement_sees_what_was_written_before_it(store: Store) -> None:
    before = await store.read_single(count)
    for number in range(1, 4):
        await store.write(lambda conn, n: conn.execute(insert(setting).values(name=f"s{n}", value="x")), number)
        assert await store.read_single(count) == before + number


async def test_what_asks_two_statements_after_all_sees_both_on_one_view(store: Store, url: str) -> None:
    seen: list[list[int]] = []
    written, other = threading.Event(), threading.Event()

    def look_twice(conn: Connection) -> list[int]:
        seen.append([])
        seen[-1].append(count(conn))
        if len(seen) == 2 or not store.is_shared:
            other.set()
            written.wait(10)
        seen[-1].append(count(conn))
        return seen[-1]

    def write_meanwhile() -> None:
        async def work() -> None:
            another = await open_store(url)
            await another.write(lambda conn: conn.execute(insert(setting).values(name="s", value="x")))
            await another.close()

        other.wait(10)
        asyncio.run(work())
        written.set()

    writer = threading.Thread(target=write_meanwhile)
    writer.start()
    before, after = await store.read_single(look_twice)
    writer.join()
    assert before == after
    assert len(seen) == (2 if store.is_shared else 1)
    assert await store.read_single(count) == before + 1


async def test_a_single_statement_of_mariadb_is_no_transaction_and_the_next_unit_is_one(mariadb: Store) -> None:
    assert await mariadb.read_single(commits) == await mariadb.read_single(commits)
    before = await mariadb.read_single(count)

    def broken(conn: Connection) -> None:
        conn.execute(insert(setting).values(name="s", value="x"))
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await mariadb.write(broken)
    assert await mariadb.read_single(count) == before


async def test_a_single_statement_that_takes_too_long_is_killed(mariadb: Store) -> None:
    with call_deadline(0.2), pytest.raises(CallTimedOut):
        await mariadb.read_single(lambda conn: conn.exec_driver_sql("SELECT SLEEP(300)").scalar())
    assert await mariadb.read_single(lambda conn: conn.exec_driver_sql("SELECT 7").scalar()) == 7


async def test_a_connection_lost_before_a_single_statement_costs_nothing(mariadb: Store) -> None:
    sql(f"KILL {await mariadb.read_single(connection_id)}")
    assert await mariadb.read_single(lambda conn: conn.exec_driver_sql("SELECT 7").scalar()) == 7
