"""Whoever does not see everything is answered by the same indexes as somebody who does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.databases.compiled_query import CompiledQuery
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import migrate
from entities import catalogue

REGISTRY = catalogue()
REFERENCES = [
    (entity.name, one.name)
    for entity in REGISTRY.entities()
    for one in entity.references
    if entity.name != "MailchimpsyncCache"  # asks for an audience
    and (target := REGISTRY.find_entity(one.fk)) is not None
    and (target.contact_field or target.contact_link)
]
HELD = frozenset({"access CiviCRM", "view all contacts", "view all activities", "administer CiviCRM"})
CALLERS = Caller(1, frozenset({"*"}), "who sees all"), Caller(1, HELD, "who does not see the trash")
Ways = Callable[[str, str, dict[str, Any]], Awaitable[list[list[str]]]]


@pytest.fixture
async def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ways]:
    """How SQLite reads the table of the entity of a call, for each caller."""
    execute, plans = CompiledQuery.rows, list[str]()

    def explain(self: CompiledQuery, conn: Connection, values: Any, me: int | None = None) -> Any:
        plan = replace(self, text=f"EXPLAIN QUERY PLAN {self.text}")
        plans.extend(str(row[-1]) for row in execute(plan, conn, values, me))
        return execute(self, conn, values, me)

    async def ask(entity: str, action: str, params: dict[str, Any]) -> list[list[str]]:
        table, found = REGISTRY.resolve(entity, action)[0].table, []
        assert table is not None
        for caller in CALLERS:
            plans.clear()
            answer = await api.respond(Call(entity, action, params, caller))
            assert answer["is_error"] == 0, answer
            found.append([line for line in plans if line.split()[1] == table.name])
        return found

    monkeypatch.setattr(CompiledQuery, "rows", explain)
    store = await open_store(f"sqlite:///{tmp_path / 'a.db'}")
    api = Api(store, REGISTRY)
    try:
        await migrate(store)
        yield ask
    finally:
        await store.close()


@pytest.mark.parametrize(("entity", "name"), REFERENCES)
@pytest.mark.parametrize("value", [{"IN": [7, 8]}, {">": 7}], ids=["IN", ">"])
async def test_rows_that_refer_to_something_are_found_by_the_same_index(
    ways: Ways, entity: str, name: str, value: Any
) -> None:
    of_all, of_viewer = await ways(entity, "get", {name: value})
    assert of_viewer == of_all != []


async def test_the_first_contacts_are_read_in_the_order_of_their_ids(ways: Ways) -> None:
    of_all, of_viewer = await ways("Contact", "get", {})
    assert of_viewer == of_all == ["SCAN civicrm_contact"]
