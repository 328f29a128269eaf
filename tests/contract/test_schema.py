"""The schema has a version: an older database is brought up to date, a newer one is left alone."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, select, text, update

from civiapi.store.engine import Store, open_store
from civiapi.store.errors import SchemaTooNew
from civiapi.store.migrate import STEPS, migrate, schema
from civiapi.store.tables import contact
from sync import tables
from tests.contract.databases import an_empty_database, chosen


async def at_version(store: Store, version: int) -> None:
    await store.write(lambda conn: conn.execute(update(schema).values(version=version)))


async def table_names(store: Store) -> set[str]:
    return set(await store.read(lambda conn: inspect(conn).get_table_names()))


async def test_a_new_database_gets_every_table_and_the_first_rows(store: Store) -> None:
    assert {"civicrm_contact", tables.cache.name, tables.claim.name} <= await table_names(store)
    assert await store.read(lambda conn: conn.execute(text("SELECT name FROM civicrm_domain")).scalar())


async def test_a_database_of_this_version_is_left_as_it_is(store: Store) -> None:
    assert await migrate(store) == []


async def test_an_older_database_keeps_its_rows_and_gets_what_came_since(store: Store) -> None:
    def grow_old(conn: Connection) -> None:
        conn.execute(contact.insert().values(contact_type="Individual", display_name="Ada"))
        conn.execute(text(f"DROP TABLE {tables.claim.name}"))
        next(one for one in tables.cache.indexes if one.name == "civiapi_cache_list").drop(conn)
        conn.execute(update(schema).values(version=2))

    await store.write(grow_old)
    assert len(await migrate(store)) == len(STEPS) - 2
    assert tables.claim.name in await table_names(store)
    assert await store.read(lambda conn: conn.execute(select(contact.c.display_name)).scalars().all()) == ["Ada"]
    indexes = await store.read(lambda conn: {i["name"] for i in inspect(conn).get_indexes(tables.cache.name)})
    assert "civiapi_cache_list" in indexes


async def test_a_newer_database_is_refused_in_a_sentence_and_not_touched(store: Store) -> None:
    await at_version(store, len(STEPS) + 1)
    with pytest.raises(SchemaTooNew, match=f"schema version {len(STEPS) + 1}; this civiapi knows up to {len(STEPS)}"):
        await migrate(store)
    assert await store.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(STEPS) + 1


@pytest.mark.sqlite_only("MariaDB commits each change of a table; its steps can be repeated")
async def test_an_upgrade_that_fails_half_way_leaves_the_older_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE half_done (id INTEGER)"))
        raise RuntimeError("out of luck")

    broken = (*STEPS[:-1], type(STEPS[-1])("a step that fails", fail))
    monkeypatch.setattr("civiapi.store.migrate.STEPS", broken)
    await at_version(store, len(STEPS) - 1)
    with pytest.raises(RuntimeError):
        await migrate(store)
    assert "half_done" not in await table_names(store)
    assert await store.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(STEPS) - 1


async def test_tables_that_another_program_made_are_kept_and_only_the_missing_are_added(tmp_path: Path) -> None:
    with an_empty_database(chosen(), tmp_path) as url:
        opened = await open_store(url)
        made = text("CREATE TABLE civicrm_entity_tag (id INTEGER PRIMARY KEY, theirs TEXT)")
        await opened.write(lambda conn: conn.execute(made).rowcount)
        await migrate(opened)
        columns = await opened.read(lambda conn: {c["name"] for c in inspect(conn).get_columns("civicrm_entity_tag")})
        assert columns == {"id", "theirs"}
        await opened.close()
