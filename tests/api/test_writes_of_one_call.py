"""One call writes a limited number of records, however it names them: refused in words, with nothing written."""

from typing import Any

import pytest

from civiapi.api.context import MAX_WRITES_PER_CALL
from civiapi.api.declaration.spec import Entity
from civiapi.store.civicrm import locations
from entities import catalogue
from tests.conftest import Ask
from tests.support.contacts import a_contact

REGISTRY = catalogue()
REPLACED = [one for one in REGISTRY.entities() if "replace" in REGISTRY.actions(one) and one.table is not None]
NESTED = [
    (entity, one)
    for entity in REGISTRY.entities()
    for one in entity.fields
    if one.accepts_nested and one.only != {"get"}
]
TOO_MANY = MAX_WRITES_PER_CALL + 1


async def is_refused(call: Ask, entity: str, action: str, sent: dict[str, Any]) -> None:
    answer = await call(entity, action, sent)
    assert answer["is_error"] == 1
    assert answer["error_code"] == "too_much", answer
    assert f"at most {MAX_WRITES_PER_CALL} records" in answer["error_message"]


async def counts(call: Ask) -> dict[str, int]:
    return {one.name: await call(one.name, "getcount", {}) for one in REPLACED}


@pytest.mark.parametrize("entity", REPLACED, ids=lambda one: one.name)
async def test_replace_refuses_too_many_values_of_every_entity_and_writes_none(call: Ask, entity: Entity) -> None:
    await a_contact(call)
    before = await counts(call)
    await is_refused(call, entity.name, "replace", {"id": 1, "values": [{}] * TOO_MANY})
    assert await counts(call) == before


def test_the_entities_with_replace_were_found() -> None:
    assert {"Contact", "Email", "Group", "Tag"} <= {one.name for one in REPLACED}
    assert ("Contact", "email") in [(entity.name, one.name) for entity, one in NESTED]


async def test_replace_with_nothing_refuses_to_remove_too_many(call: Ask) -> None:
    await a_contact(call)
    for start in (0, MAX_WRITES_PER_CALL - 1):
        rows = [{"contact_id": 1, "email": f"a{start + n}@example.org"} for n in range(MAX_WRITES_PER_CALL - 1)]
        await call("Contact", "get", {"id": 1, "api.Email.create": rows})
    before = await call("Email", "getcount", {"contact_id": 1})
    assert before > MAX_WRITES_PER_CALL
    await is_refused(call, "Email", "replace", {"contact_id": 1, "values": []})
    assert await call("Email", "getcount", {"contact_id": 1}) == before


async def test_too_many_addresses_of_a_new_contact_are_refused_with_the_contact(call: Ask) -> None:
    blocks = [{"email": f"a{n}@example.org"} for n in range(TOO_MANY)]
    await is_refused(call, "Contact", "create", {"contact_type": "Individual", "email": blocks})
    assert await call("Contact", "getcount", {"first_name": ""}) == 0
    assert await call("Email", "getcount", {}) == 0


async def test_too_many_chained_writes_are_refused_with_what_they_are_chained_to(call: Ask) -> None:
    chained = [{"email": f"a{n}@example.org"} for n in range(TOO_MANY)]
    sent = {"contact_type": "Individual", "first_name": "Ada", "api.Email.create": chained}
    await is_refused(call, "Contact", "create", sent)
    assert await call("Contact", "getcount", {"first_name": "Ada"}) == 0
    assert await call("Email", "getcount", {}) == 0


async def test_chained_replaces_share_the_writes_of_the_call(call: Ask) -> None:
    await a_contact(call)
    half = [{"email": f"a{n}@example.org"} for n in range(MAX_WRITES_PER_CALL // 2 + 1)]
    before = await call("Email", "getcount", {})
    await is_refused(call, "Contact", "get", {"id": 1, "api.Email.replace": [{"values": half}, {"values": half}]})
    assert await call("Email", "getcount", {}) == before


async def test_as_many_as_are_allowed_are_written(call: Ask) -> None:
    await a_contact(call)
    values = [{"email": f"a{n}@example.org"} for n in range(MAX_WRITES_PER_CALL - 1)]
    assert (await call("Email", "replace", {"contact_id": 1, "values": values}))["is_error"] == 0
    assert await call("Email", "getcount", {"contact_id": 1}) == MAX_WRITES_PER_CALL - 1


async def test_an_address_among_many_is_stored_without_reading_all_of_them(call: Ask, monkeypatch: Any) -> None:
    """The cost of ``replace`` grew with the square of the addresses: each new one read all those before it."""
    await a_contact(call)
    read: list[int] = []
    plain = locations.promote_primary

    class Counting:
        def __init__(self, conn: Any) -> None:
            self.conn = conn

        def execute(self, statement: Any) -> Any:
            if not statement.is_select:
                return self.conn.execute(statement)
            again = self.conn.execute(statement).freeze()
            read.append(len(again().all()))
            return again()

    def counted(conn: Any, table: Any, contact_id: int, **given: Any) -> None:
        plain(Counting(conn), table, contact_id, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(locations, "promote_primary", counted)
    values = [{"email": f"a{n}@example.org"} for n in range(20)]
    assert (await call("Email", "replace", {"contact_id": 1, "values": values}))["is_error"] == 0
    assert read
    assert max(read) <= 2
