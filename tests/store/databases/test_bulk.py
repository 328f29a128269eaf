"""Many rows at once, on each kind of database: every value arrives as it was, in one question to MariaDB."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, Table, func, select

from civiapi.store.databases.bulk import AT_ONCE, MAX_VALUES, insert_after, insert_rows, update_rows
from civiapi.store.databases.bulk_binding import MAX_BYTES, MIN_ROWS
from civiapi.store.databases.expressions import in_list
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import NotUnique
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import contact
from sync.store.tables import cache, run_change
from tests.support.databases import HOST, KINDS, a_store

COUNT = AT_ONCE + 7


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


async def test_rows_are_changed_each_to_its_own_values(store: Store) -> None:
    odd = ["plain", None, "it's %s and \\ and ł", "", "100%"]

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(number, "a") for number in range(1, COUNT + 1)])
        rows = [(odd[n % 5], (odd[n % 5] or "").encode(), n) for n in range(1, COUNT + 1)]
        update_rows(conn, cache, ["civicrm_groups", "mailchimp_data"], rows)

    await store.write(work)
    rows = await store.read(lambda conn: conn.execute(select(cache).order_by(cache.c.id)).all())
    assert [(row.civicrm_groups, row.mailchimp_data) for row in rows] == [
        (odd[n % 5], (odd[n % 5] or "").encode()) for n in range(1, COUNT + 1)
    ]


@pytest.mark.parametrize("count", [1, MIN_ROWS - 1, MIN_ROWS, COUNT])
async def test_columns_that_become_null_in_all_rows_are_set_too(store: Store, count: int) -> None:
    def work(conn: Connection) -> None:
        rows = [(number, "a", "ok", b"x") for number in range(1, count + 1)]
        insert_rows(conn, cache, ["id", "mailchimp_list_id", "sync_status", "mailchimp_data"], rows)
        wanted = ["mailchimp_data", "civicrm_contact_id", "sync_status"]
        update_rows(conn, cache, wanted, [(None, None, "live", number) for number in range(1, count + 1)])
        update_rows(conn, cache, ["mailchimp_email"], [(None, number) for number in range(1, count + 1)])

    await store.write(work)
    rows = await store.read(lambda conn: conn.execute(select(cache)).all())
    assert [(row.mailchimp_data, row.civicrm_contact_id, row.sync_status) for row in rows] == count * [
        (None, None, "live")
    ]


@pytest.mark.parametrize("count", [MIN_ROWS - 1, 2 * MIN_ROWS])
async def test_rows_that_are_larger_than_a_packet_are_changed_in_several(store: Store, count: int) -> None:
    """Their statement was above what the server accepts, which closed the connection, each time it was repeated."""
    rows = [(b'"' * MAX_BYTES, number) for number in range(1, count + 1)]

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["mailchimp_list_id", "id"], [("a", number) for _, number in rows])
        update_rows(conn, cache, ["mailchimp_data"], rows)

    await store.write(work)
    columns = (cache.c.mailchimp_data, cache.c.id)
    assert await store.read(lambda conn: conn.execute(select(*columns).order_by(cache.c.id)).all()) == rows


@pytest.mark.parametrize("count", [1, MIN_ROWS, MAX_VALUES // 4 - 1, MAX_VALUES // 4, COUNT])
@pytest.mark.parametrize("table", [run_change, cache], ids=["appended to", "in places of their own"])
async def test_inserted_rows_arrive_as_they_were_and_in_order(store: Store, table: Table, count: int) -> None:
    odd = ["plain", None, "it's %s and \\ and ł", "", "100% ?", "a\x00b", "\U0001f600"]
    numbers = range(1, count + 1)
    names, rows = (
        (("id", "mailchimp_list_id", "civicrm_groups", "mailchimp_data"),
         [(n, f"list {n % 3}", odd[n % 7], (odd[n % 7] or "").encode()) for n in numbers])
        if table is cache
        else (("id", "run_id", "kind", "replaced"), [(n, n % 3, f"kind {n % 3}", odd[n % 7]) for n in numbers])
    )  # fmt: skip

    def work(conn: Connection) -> None:
        insert_rows(conn, table, names, rows)

    await store.write(work)
    columns = [table.c[name] for name in names]
    assert await store.read(lambda conn: conn.execute(select(*columns).order_by(table.c.id)).all()) == rows


async def test_what_is_written_to_disk_for_many_rows_is_the_log_alone(tmp_path: Path) -> None:
    """SQLite copies pages to a temporary file before a statement of several rows changes them: 2 of 3 GB of a sync."""

    def insert(conn: Connection, begin: int) -> None:
        people = [(f"{n * 7919 % 99991:05} name", "Individual") for n in range(begin, begin + 1000)]
        insert_rows(conn, contact, ["sort_name", "contact_type"], people)

    store = await open_store(f"sqlite:///{tmp_path / 'a.sqlite'}")
    await migrate(store)
    for begin in range(0, 10_000, 1000):
        await store.write(insert, begin)
    log = tmp_path / "a.sqlite-wal"
    before, size = _written(), log.stat().st_size
    await store.write(insert, 10_000)
    written, grown = _written() - before, log.stat().st_size - size
    await store.close()
    assert 0 < written < 1.5 * grown


def _written() -> int:
    """Bytes that this process has written so far."""
    return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


async def test_a_column_that_is_null_in_all_rows_or_has_values_of_several_types_is_inserted(store: Store) -> None:
    rows = [("a", None, n if n % 2 else str(n)) for n in range(COUNT)]

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["mailchimp_list_id", "mailchimp_email", "civicrm_groups"], rows)

    await store.write(work)
    found = await store.read(lambda conn: conn.execute(select(cache).order_by(cache.c.id)).all())
    assert [(row.mailchimp_email, row.civicrm_groups) for row in found] == [(None, str(n)) for n in range(COUNT)]


async def test_rows_that_are_larger_than_a_packet_are_inserted_in_several(store: Store) -> None:
    rows = [("a", bytes([n]) * (MAX_BYTES // 10 if n % 9 else 2 * MAX_BYTES)) for n in range(MIN_ROWS + 1)]

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["mailchimp_list_id", "mailchimp_data"], rows)

    await store.write(work)
    columns = (cache.c.mailchimp_list_id, cache.c.mailchimp_data)
    assert await store.read(lambda conn: conn.execute(select(*columns).order_by(cache.c.id)).all()) == rows


@pytest.mark.parametrize("adjacent", [True, False])
async def test_the_ids_of_inserted_rows_are_known_and_leave_out_none_where_that_is_asked(
    store: Store, adjacent: bool
) -> None:
    made: list[range] = []

    def work(conn: Connection) -> None:
        for begin in (0, COUNT):
            rows = [("a", str(n)) for n in range(begin, begin + COUNT)]
            made.append(insert_after(conn, cache, ["mailchimp_list_id", "civicrm_groups"], rows, adjacent=adjacent)[1])

    await store.write(work)
    ids = await store.read(lambda conn: conn.execute(select(cache.c.civicrm_groups, cache.c.id)).all())
    assert dict(ids) == {str(n): cache_id for n, cache_id in enumerate([*made[0], *made[1]])}
    assert made[1][0] == made[0][-1] + 1 or not adjacent


async def test_a_key_given_twice_among_many_rows_is_an_error_and_nothing_is_written(store: Store) -> None:
    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(min(n, COUNT - 1), "a") for n in range(1, COUNT + 1)])

    with pytest.raises(NotUnique):
        await store.write(work)
    assert await store.read(lambda conn: conn.execute(select(func.count()).select_from(cache)).scalar()) == 0


async def test_a_list_finds_the_rows_that_it_names_whatever_its_length(store: Store) -> None:
    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(number, f"'{number}") for number in range(1, 4)])

    def named(conn: Connection, column: ColumnElement[Any], values: list[Any], *, negated: bool = False) -> list[int]:
        inside = in_list(column, values)
        return list(conn.execute(select(cache.c.id).where(~inside if negated else inside)).scalars())

    await store.write(work)
    for _ in range(2):  # the second time with the statement that is kept
        assert await store.read(named, cache.c.id, [3, 1, 9]) == [1, 3]
        assert await store.read(named, cache.c.id, [2], negated=True) == [1, 3]
        assert await store.read(named, cache.c.id, []) == []
        assert await store.read(named, cache.c.id, [], negated=True) == [1, 2, 3]
        assert await store.read(named, cache.c.mailchimp_list_id, ["'2", "4"]) == [2]
        assert await store.read(named, cache.c.id, list(range(2, 6000))) == [2, 3]


@pytest.mark.parametrize(
    "values", [("b",), (None,), ("b", None), ("several types",)], ids=["a text", "null", "one of two", "several types"]
)
async def test_mariadb_is_not_asked_once_for_each_row(store: Store, values: tuple[str | None, ...]) -> None:
    """Each was a trip to the server: two thirds of a first sync. Packets take no column with values of two types."""
    columns = ["civicrm_groups", "mailchimp_email"][: len(values)]
    rows = [(*values, n) if n % 2 or values[0] != "several types" else (n, n) for n in range(1, COUNT + 1)]

    def questions(conn: Connection) -> int:
        return int(conn.exec_driver_sql("SHOW SESSION STATUS LIKE 'Questions'").one()[1]) if store.is_shared else 0

    def work(conn: Connection) -> int:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(number, "a") for number in range(1, COUNT + 1)])
        before = questions(conn)
        update_rows(conn, cache, columns, rows)
        return questions(conn) - before

    assert await store.write(work) < 10
    stored = select(*(cache.c[name] for name in columns), cache.c.id).order_by(cache.c.id)
    found = await store.read(lambda conn: conn.execute(stored).all())
    assert [tuple(row) for row in found] == [tuple(map(_as_text, row[:-1])) + row[-1:] for row in rows]


async def test_what_a_narrow_table_cannot_hold_is_cut_however_the_rows_are_sent(store: Store, tmp_path: Path) -> None:
    if not store.is_shared:
        pytest.skip("SQLite holds every character")

    def narrow(conn: Connection) -> str:
        conn.exec_driver_sql(f"ALTER TABLE {cache.name} MODIFY civicrm_groups LONGTEXT CHARACTER SET utf8mb3")
        return str(conn.exec_driver_sql("SELECT DATABASE()").scalar())

    name = await store.write(narrow)
    opened = await open_store(f"{HOST}/{name}")

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(number, "a") for number in range(1, COUNT + 1)])
        update_rows(conn, cache, ["civicrm_groups"], [("a\U0001f600", n) for n in range(1, COUNT)])
        update_rows(conn, cache, ["civicrm_groups"], [("b\U0001f600" if n % 2 else n, n) for n in range(1, COUNT)])

    try:
        await opened.write(work)
        found = await opened.read(lambda conn: conn.execute(select(cache.c.civicrm_groups).limit(2)).scalars().all())
    finally:
        await opened.close()
    assert found == ["b", "2"]


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)
