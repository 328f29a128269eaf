"""Who changes a row and sends back what they read of it changes nothing that they do not see."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from tests.support.databases import database_at
from tests.support.every_call import ME, Variant, plant

REGISTRY = catalogue()
HELD = ("access CiviCRM", "view all activities", "edit groups", "manage tags", "administer CiviCRM", "merge duplicates")
CALLERS = {
    "all but the trash": Caller(ME, frozenset({*HELD, "view all contacts", "edit all contacts"}), "editor"),
    "oneself": Caller(ME, frozenset({*HELD, "view my contact", "edit my contact"}), "self"),
}
ENTITIES = [one.name for one in REGISTRY.entities() if one.references and REGISTRY.actions(one).get("create")]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(database_at(tmp_path / "a.db"))
    try:
        await migrate(store)
        await store.write(plant, Variant())
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("name", ENTITIES)
async def test_references_and_their_copies_that_are_not_seen_stay(store: Store, name: str, caller: Caller) -> None:
    entity, api = REGISTRY.resolve(name, "get")[0], Api(store, REGISTRY)
    table = entity.table
    assert table is not None
    columns = [
        one.name
        for one in entity.fields
        if (one.fk or one.copied_from) and one.name in table.c and one.name != "modified_id"  # who changed it last
    ]

    def stored(conn: Connection) -> list[dict[str, Any]]:
        wanted = [table.c[one] for one in columns]
        return [dict(row) for row in conn.execute(select(table.c.id, *wanted).order_by(table.c.id)).mappings()]

    before = await store.read(stored)
    for row in before:
        asked = {"id": row["id"], "return": columns, "sequential": 1}
        for read in (await api.respond(Call(name, "get", asked, caller))).get("values") or []:
            sent = {"id": row["id"], **{one: read.get(one, "") for one in columns}}
            await api.respond(Call(name, "create", sent, caller))
    assert await store.read(stored) == before
