"""The schema has a version: an older database is brought up to date, a newer one is left alone."""

from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection, inspect, select, text, update

from civiapi.store.databases.text_keys import index_names
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import SchemaTooNew
from civiapi.store.schema.migrations import MIGRATIONS, migrate, schema
from civiapi.store.schema.tables import METADATA, contact, lease
from sync.store import tables
from tests.support.databases import an_empty_database, chosen


async def at_version(store: Store, version: int) -> None:
    await store.write(lambda conn: conn.execute(update(schema).values(version=version)))


async def table_names(store: Store) -> set[str]:
    return set(await store.read(lambda conn: inspect(conn).get_table_names()))


async def test_a_new_database_gets_every_table_and_the_first_rows(store: Store) -> None:
    assert {"civicrm_contact", tables.cache.name, lease.name} <= await table_names(store)
    assert await store.read(lambda conn: conn.execute(text("SELECT name FROM civicrm_domain")).scalar())


async def test_a_database_of_this_version_is_left_as_it_is(store: Store) -> None:
    assert await migrate(store) == []


async def test_an_older_database_keeps_its_rows_and_gets_what_came_since(store: Store) -> None:
    def grow_old(conn: Connection) -> None:
        conn.execute(contact.insert().values(contact_type="Individual", display_name="Ada"))
        conn.execute(text(f"DROP TABLE {lease.name}"))
        next(one for one in tables.cache.indexes if one.name == "civiapi_cache_list").drop(conn)
        conn.execute(update(schema).values(version=2))

    await store.write(grow_old)
    assert len(await migrate(store)) == len(MIGRATIONS) - 2
    assert lease.name in await table_names(store)
    assert await store.read(lambda conn: conn.execute(select(contact.c.display_name)).scalars().all()) == ["Ada"]
    indexes = await store.read(lambda conn: index_names(conn, tables.cache.name))
    assert "civiapi_cache_list" in indexes


async def test_a_newer_database_is_refused_in_a_sentence_and_not_touched(store: Store) -> None:
    await at_version(store, len(MIGRATIONS) + 1)
    with pytest.raises(
        SchemaTooNew, match=f"schema version {len(MIGRATIONS) + 1}; this civiapi knows up to {len(MIGRATIONS)}"
    ):
        await migrate(store)
    assert await store.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(MIGRATIONS) + 1


@pytest.mark.sqlite_only("MariaDB commits each change of a table; its steps can be repeated")
async def test_an_upgrade_that_fails_half_way_leaves_the_older_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE half_done (id INTEGER)"))
        raise RuntimeError("out of luck")

    broken = (*MIGRATIONS[:-1], type(MIGRATIONS[-1])("a step that fails", fail))
    monkeypatch.setattr("civiapi.store.schema.migrations.MIGRATIONS", broken)
    await at_version(store, len(MIGRATIONS) - 1)
    with pytest.raises(RuntimeError):
        await migrate(store)
    assert "half_done" not in await table_names(store)
    assert await store.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(MIGRATIONS) - 1


async def test_tables_that_another_program_made_are_kept_and_only_the_missing_are_added(tmp_path: Path) -> None:
    with an_empty_database(chosen(), tmp_path) as url:
        opened = await open_store(url)
        made = text("CREATE TABLE civicrm_entity_tag (id INTEGER PRIMARY KEY, theirs TEXT)")
        await opened.write(lambda conn: conn.execute(made).rowcount)
        await migrate(opened)
        columns = await opened.read(lambda conn: {c["name"] for c in inspect(conn).get_columns("civicrm_entity_tag")})
        assert columns == {"id", "theirs"}
        await opened.close()


async def test_stored_webhook_events_lose_the_fields_that_are_not_used(store: Store) -> None:
    event = tables.webhook_event
    data = {"email": "ada@example.org", "list_id": "abc", "merges": {"FNAME": "Ada"}, "ip_opt": "192.0.2.7"}
    bodies = {"used": orjson.dumps({"type": "subscribe", "data": data, "more": "x"}).decode(), "broken": "{"}

    def fill(conn: Connection) -> None:
        for name, body in bodies.items():
            conn.execute(event.insert().values(kind="audience", fingerprint=name, body=body, received_s=1))

    await store.write(fill)
    await at_version(store, [one.what for one in MIGRATIONS].index("webhook events without unused fields"))
    await migrate(store)
    rows = await store.read(lambda conn: dict(conn.execute(select(event.c.fingerprint, event.c.body)).tuples().all()))
    assert orjson.loads(rows["used"]) == {
        "type": "subscribe",
        "data": {"email": "ada@example.org", "list_id": "abc"},
    }
    assert rows["broken"] == "{"


ENCODING = [one.what for one in MIGRATIONS].index("text stored as CiviCRM stores it")
RAW = "UPDATE civicrm_contact SET first_name = 'I <3 U', last_name = '<<<<<<<<<<<<<<<<<<<<', nick_name = 'a &lt; b'"


async def raw_names(store: Store) -> list[tuple[str, ...]]:
    wanted = text("SELECT first_name, last_name, nick_name FROM civicrm_contact")
    return await store.read(lambda conn: [tuple(row) for row in conn.execute(wanted)])


async def test_text_stored_by_an_earlier_version_is_encoded_once_and_fits(store: Store) -> None:
    def fill(conn: Connection) -> None:
        conn.execute(contact.insert().values(id=1, contact_type="Individual"))
        conn.execute(text(RAW))
        conn.execute(text("INSERT INTO civicrm_email (contact_id, email, signature_html) VALUES (1, 'a@b.org', '<p>')"))
        for name in ("a<b", "c<d"):
            conn.execute(text("INSERT INTO civicrm_tag (name) VALUES (:name)"), {"name": name})
        conn.execute(text("INSERT INTO civicrm_tag (name) VALUES ('a&lt;b')"))

    await store.write(fill)
    for _ in range(2):
        await at_version(store, ENCODING)
        await migrate(store)
        assert await raw_names(store) == [("I &lt;3 U", "&lt;" * 16, "a &lt; b")]
    assert (
        await store.read(lambda conn: conn.execute(text("SELECT signature_html FROM civicrm_email")).scalar()) == "<p>"
    )
    names = await store.read(
        lambda conn: conn.execute(text("SELECT name FROM civicrm_tag ORDER BY id")).scalars().all()
    )
    assert names == ["a<b", "c&lt;d", "a&lt;b"], "what would be there twice stays"


async def test_text_in_a_database_that_civicrm_made_is_not_touched(store: Store) -> None:
    def fill(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE civicrm_contribution (id INTEGER)"))
        conn.execute(contact.insert().values(id=1, contact_type="Individual"))
        conn.execute(text(RAW))

    await store.write(fill)
    try:
        before = await raw_names(store)
        await at_version(store, ENCODING)
        await migrate(store)
        assert await raw_names(store) == before
    finally:
        await store.write(lambda conn: conn.execute(text("DROP TABLE civicrm_contribution")))


async def test_text_in_a_database_that_is_being_adopted_is_not_touched(tmp_path: Path) -> None:
    with an_empty_database(chosen(), tmp_path) as url:
        opened = await open_store(url)
        await opened.write(lambda conn: METADATA.create_all(conn, tables=[contact]))

        def fill(conn: Connection) -> None:
            conn.execute(contact.insert().values(id=1, contact_type="Individual"))
            conn.execute(text(RAW))

        await opened.write(fill)
        before = await raw_names(opened)
        await migrate(opened, adopt=True)
        assert await raw_names(opened) == before
        await opened.close()
