"""Many rows at once, on each kind of database: every value arrives as it was, in one question to MariaDB."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.engine import Engine

from civiapi.store.databases.bulk import AT_ONCE, insert_rows, update_rows
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from sync.store.tables import cache
from tests.support.databases import KINDS, a_database

COUNT = AT_ONCE + 7


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with a_database(request.param, tmp_path) as url:
        opened = await open_store(url)
        await migrate(opened)
        yield opened
        await opened.close()


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


async def test_mariadb_is_not_asked_once_for_each_row(store: Store) -> None:
    """Each was a trip to the server: two thirds of a first sync."""
    asked: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, parameters: object, _context: object, many: bool) -> None:
        asked.extend([statement] * (len(parameters) if many and isinstance(parameters, list) else 1))

    def work(conn: Connection) -> None:
        insert_rows(conn, cache, ["id", "mailchimp_list_id"], [(number, "a") for number in range(1, COUNT + 1)])
        event.listen(Engine, "before_cursor_execute", note)
        try:
            update_rows(conn, cache, ["civicrm_groups"], [("b", number) for number in range(1, COUNT + 1)])
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    await store.write(work)
    assert len(asked) == (2 if store.is_shared else COUNT)
