"""Units of work on MariaDB when something comes between: deadlocks, locks held too long, connections that go away.

A unit that was not committed is run again, each time from its start; one whose commit may have worked is not.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy import update as change

from civiapi.importer.import_folder import import_folder
from civiapi.store.databases import mariadb
from civiapi.store.databases.compiled_query import CompiledQuery
from civiapi.store.databases.mariadb import MariaStore
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import StoreBusy, StoreError
from civiapi.store.schema.tables import contact, group
from tests.support.databases import MARIADB, a_database, sql


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    with a_database("mariadb", tmp_path) as url:
        opened = await open_store(url)
        await opened.write(
            lambda conn: conn.execute(contact.insert(), [{"id": one, "first_name": ""} for one in (1, 2)]).rowcount
        )
        yield opened
        await opened.close()


def connection_id(conn: Connection) -> int:
    return int(conn.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())


def database_of(conn: Connection) -> str:
    return str(conn.exec_driver_sql("SELECT DATABASE()").scalar_one())


def add_a_letter(conn: Connection, contact_id: int) -> None:
    conn.execute(change(contact).where(contact.c.id == contact_id).values(first_name=contact.c.first_name + "x"))


async def names(store: Store) -> list[str]:
    return await store.read(
        lambda conn: list(conn.execute(select(contact.c.first_name).order_by(contact.c.id)).scalars())
    )


@pytest.mark.parametrize("kill", ["KILL CONNECTION", "KILL QUERY"])
async def test_a_connection_killed_in_the_middle_of_a_unit_costs_nothing(store: Store, kill: str) -> None:
    tries = 0

    def unit(conn: Connection) -> None:
        nonlocal tries
        tries += 1
        add_a_letter(conn, 1)
        if tries == 1:
            killer = f"{kill} {connection_id(conn)}"
            subprocess.Popen([*MARIADB, f"SELECT SLEEP(0.2); {killer}"])
            conn.exec_driver_sql("SELECT COUNT(*) FROM seq_1_to_100000 a JOIN seq_1_to_100000 b").scalar()
        add_a_letter(conn, 2)

    await store.write(unit)
    assert tries == 2
    assert await names(store) == ["x", "x"]


async def test_connections_that_died_while_nobody_used_them_are_not_noticed(store: Store) -> None:
    [one] = {await store.read(connection_id)}
    sql(f"KILL {one}")
    assert await store.read(connection_id) != one


async def test_a_query_of_the_api_finds_dead_connections_as_any_other_statement_does(store: Store) -> None:
    query = CompiledQuery("SELECT CONNECTION_ID()", (), (), ("id",), (), ())
    together = asyncio.Barrier(8)

    async def one_of_many() -> None:
        await together.wait()
        await store.read(lambda conn: conn.exec_driver_sql("SELECT SLEEP(0.1)"))

    await asyncio.gather(*(one_of_many() for _ in range(8)))  # as many connections
    wanted = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"
    alive = await store.read(lambda conn: list(conn.exec_driver_sql(wanted).scalars()))
    assert len(alive) == 8
    for each in alive:
        sql(f"KILL {each}")
    [[fresh]] = await store.read(lambda conn: query.rows(conn, ()))
    assert fresh not in alive


async def test_a_connection_is_not_used_again_while_an_answer_is_still_to_come(store: Store) -> None:
    query = CompiledQuery("SELECT SLEEP(5), 'old'", (), (), ("id",), (), ())
    waiting = asyncio.create_task(store.read(lambda conn: query.rows(conn, ())))
    asked = (
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(5)%old%' AND ID != CONNECTION_ID()"
    )
    async with asyncio.timeout(10):
        await asyncio.to_thread(lambda: next(one for one in iter(partial(sql, asked), None) if one != [["0"]]))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await store.read(lambda conn: conn.exec_driver_sql("SELECT 'new'").scalar()) == "new"


async def test_a_unit_whose_commit_may_have_worked_is_not_run_again(store: Store) -> None:
    tries = 0

    def unit(conn: Connection) -> None:
        nonlocal tries
        tries += 1
        add_a_letter(conn, 1)
        sql(f"KILL {connection_id(conn)}")

    with pytest.raises(StoreError):
        await store.write(unit)
    assert tries == 1
    assert await names(store) == ["", ""]


async def test_two_units_that_lock_the_same_rows_in_opposite_order_are_both_carried_out(store: Store) -> None:
    tries = 0

    def unit(conn: Connection, first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        begins_together = tries <= 2
        add_a_letter(conn, first)
        while begins_together and tries < 2:  # the other one has its first row before either asks for its second
            conn.exec_driver_sql("SELECT SLEEP(0.05)")
        if begins_together:
            conn.exec_driver_sql("SELECT SLEEP(0.2)")
        add_a_letter(conn, second)

    await asyncio.gather(store.write(unit, 1, 2), store.write(unit, 2, 1))
    assert tries > 2
    assert await names(store) == ["xx", "xx"]


@contextmanager
def somebody_locks_contact_1(database: str) -> Iterator[subprocess.Popen[str]]:
    """Another program holds the row until it is told to end."""
    words = [*MARIADB[:-2], "-N", "--unbuffered", database]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("BEGIN; SELECT id FROM civicrm_contact WHERE id = 1 FOR UPDATE;\n")
        other.stdin.flush()
        assert other.stdout.readline().strip() == "1"
        try:
            yield other
        finally:
            other.kill()


def impatient(conn: Connection) -> None:
    conn.exec_driver_sql("SET innodb_lock_wait_timeout = 1")


async def test_a_lock_held_too_long_is_waited_for_once_more(store: Store) -> None:
    tries = 0
    with somebody_locks_contact_1(await store.read(database_of)) as other:

        def unit(conn: Connection) -> None:
            nonlocal tries
            tries += 1
            impatient(conn)
            if tries == 2:
                other.kill()
                other.wait()
            add_a_letter(conn, 2)
            add_a_letter(conn, 1)

        await store.write(unit)
    assert tries == 2
    assert await names(store) == ["x", "x"]


async def test_a_lock_that_outlasts_every_try_is_said_in_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mariadb, "TRIES", 2)

    def unit(conn: Connection) -> None:
        impatient(conn)
        add_a_letter(conn, 1)

    with somebody_locks_contact_1(await store.read(database_of)), pytest.raises(StoreBusy, match="try again"):
        await store.write(unit)
    assert await names(store) == ["", ""]


async def test_a_read_sees_one_moment_however_many_statements_it_has(store: Store) -> None:
    def twice(conn: Connection) -> list[int]:
        count = text("SELECT COUNT(*) FROM civicrm_contact")
        first = int(conn.execute(count).scalar_one())
        sql("INSERT INTO civicrm_contact (first_name) VALUES ('new')", database=database_of(conn))
        return [first, int(conn.execute(count).scalar_one())]

    assert await store.read(twice) == [2, 2]
    assert await store.read(twice) == [3, 3]


async def test_a_text_that_is_too_long_is_refused_whatever_the_server_allows(store: Store) -> None:
    """MariaDB set to be lenient would cut it and say nothing."""
    with pytest.raises(StoreError):
        await store.write(lambda conn: conn.execute(contact.insert().values(first_name="x" * 65)).rowcount)


async def test_an_import_beside_somebody_who_makes_the_same_rows_succeeds(store: Store, tmp_path: Path) -> None:
    """It once failed as a whole with "already exists"."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "groups.csv").write_text("id,name,title\n1,News,News\n", "utf-8")
    assert isinstance(store, MariaStore)
    rival = await open_store(store._engine.url.render_as_string(hide_password=False).replace("+asyncmy", ""))
    try:
        reports = await asyncio.gather(*(import_folder(one, folder) for one in (store, rival, store, rival)))
    finally:
        await rival.close()
    assert len(reports) == 4
    assert await store.read(lambda conn: list(conn.execute(select(group.c.name)).scalars())) == ["News"]
