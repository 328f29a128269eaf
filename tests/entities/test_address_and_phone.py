"""Address and Phone: primary ones, and what they share with Email (more-tables.md)."""

from typing import Any

import pytest

from tests.conftest import Ask
from tests.support.contacts import a_contact

ENTITIES = {"Address": "city", "Phone": "phone"}


@pytest.fixture(params=ENTITIES)
def entity(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def add(call: Ask, entity: str, contact_id: int, text: str, **more: Any) -> int:
    made = await call(entity, "create", {"contact_id": contact_id, ENTITIES[entity]: text, **more})
    assert made["is_error"] == 0, made
    return int(made["id"])


async def primary(call: Ask, entity: str, contact_id: int) -> list[str]:
    answer = await call(entity, "get", {"contact_id": contact_id, "is_primary": 1, "sequential": 1})
    return [row[ENTITIES[entity]] for row in answer["values"]]


async def test_the_first_is_primary_whatever_was_sent(call: Ask, entity: str) -> None:
    contact_id = await a_contact(call)
    await add(call, entity, contact_id, "1", is_primary=0)
    await add(call, entity, contact_id, "2")
    assert await primary(call, entity, contact_id) == ["1"]


async def test_a_new_primary_one_takes_the_place_of_the_old(call: Ask, entity: str) -> None:
    contact_id = await a_contact(call)
    first = await add(call, entity, contact_id, "1")
    await add(call, entity, contact_id, "2", is_primary=1)
    assert await primary(call, entity, contact_id) == ["2"]
    await call(entity, "create", {"id": first, "is_primary": 1})
    assert await primary(call, entity, contact_id) == ["1"]


async def test_deleting_the_primary_one_makes_another_primary(call: Ask, entity: str) -> None:
    contact_id = await a_contact(call)
    first = await add(call, entity, contact_id, "1")
    await add(call, entity, contact_id, "2")
    assert (await call(entity, "delete", {"id": first}))["is_error"] == 0
    assert await primary(call, entity, contact_id) == ["2"]


async def test_one_that_is_moved_leaves_each_contact_with_one_primary(call: Ask, entity: str) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    first = await add(call, entity, ada, "1")
    await add(call, entity, ada, "2")
    await add(call, entity, bea, "3")
    await call(entity, "create", {"id": first, "contact_id": bea})
    assert await primary(call, entity, ada) == ["2"]
    assert len(await primary(call, entity, bea)) == 1


async def test_one_without_a_location_type_gets_the_default(call: Ask, entity: str) -> None:
    row_id = await add(call, entity, await a_contact(call), "1")
    assert await call(entity, "getvalue", {"id": row_id, "return": "location_type_id"}) == "1"


async def test_a_phone_number_has_its_digits(call: Ask) -> None:
    row_id = await add(call, "Phone", await a_contact(call), "+49 (30) 12-3", phone_type_id="Mobile")
    row = await call("Phone", "getsingle", {"id": row_id})
    assert (row["phone_numeric"], row["phone_type_id"]) == ("4930123", "2")


async def test_a_country_is_given_by_id_name_or_code(call: Ask) -> None:
    contact_id = await a_contact(call)
    ids = [await add(call, "Address", contact_id, "x", country_id=one) for one in ("DE", "Germany", "germany")]
    rows = (await call("Address", "get", {"id": {"IN": ids}, "return": "country_id.iso_code", "sequential": 1}))[
        "values"
    ]
    assert len({(await call("Address", "getvalue", {"id": one, "return": "country_id"})) for one in ids}) == 1, rows
    refused = await call("Address", "create", {"contact_id": contact_id, "country_id": "Atlantis"})
    assert refused["error_message"] == "'Atlantis' is not a valid option for field country_id"
    choices = await call("Address", "getoptions", {"field": "country_id"})
    assert "Germany" in choices["values"].values()
