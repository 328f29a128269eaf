"""Custom fields of contacts: filtered by, returned, written; each type, and who may (beside-civicrm.md, 11)."""

from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from civiapi.api.call import Caller
from civiapi.store.engine import Store
from civiapi.store.schema import tables
from tests.conftest import Ask
from tests.support.contacts import a_contact

# name: data type, html type, SQL type, what is sent, what is answered, another value
FIELDS: dict[str, tuple[str, str, str, Any, Any, Any]] = {
    "word": ("String", "Text", "varchar(255)", "I <3 U", "I <3 U", "x"),
    "number": ("Int", "Text", "int", 7, "7", 8),
    "share": ("Float", "Text", "double", 1.5, "1.5", 2.5),
    "fee": ("Money", "Text", "decimal(20,2)", "12.25", "12.25", 3),
    "memo": ("Memo", "TextArea", "text", "long > text", "long > text", "x"),
    "day": ("Date", "Select Date", "datetime", "2026-03-01", "2026-03-01 00:00:00", "2025-01-01"),
    "yes": ("Boolean", "Radio", "tinyint", 1, "1", 0),
    "colour": ("String", "Select", "varchar(255)", "Red", "1", "Blue"),
    "colours": ("String", "CheckBox", "varchar(255)", ["Red", "Blue"], ["1", "2"], ["Green"]),
    "friend": ("ContactReference", "Autocomplete-Select", "int", 1, "1", 2),
}
NAMES = {name: f"custom_{number}" for number, name in enumerate(FIELDS, 1)}
SEES = frozenset({"access CiviCRM", "view all contacts", "edit all contacts", "add contacts"})


def add_fields(conn: Connection) -> None:
    columns = ", ".join(f"{name}_col {one[2]}" for name, one in FIELDS.items())
    key = "INTEGER PRIMARY KEY AUTOINCREMENT" if conn.dialect.name == "sqlite" else "INT PRIMARY KEY AUTO_INCREMENT"
    conn.execute(text("DROP TABLE IF EXISTS civicrm_value_more_1"))
    conn.execute(
        text(f"CREATE TABLE civicrm_value_more_1 (id {key}, entity_id INT UNSIGNED NOT NULL UNIQUE, {columns})")
    )
    group = {"id": 1, "name": "more", "title": "More", "extends": "Individual", "table_name": "civicrm_value_more_1"}
    conn.execute(insert(tables.custom_group).values(group))
    conn.execute(insert(tables.option_group).values(id=900, name="colours", title="Colours"))
    for value, label in enumerate(("Red", "Blue", "Green"), 1):
        choice = {"option_group_id": 900, "value": str(value), "name": label, "label": label, "weight": value}
        conn.execute(insert(tables.option_value).values(choice))
    for number, (name, one) in enumerate(FIELDS.items(), 1):
        row = {"id": number, "custom_group_id": 1, "name": name, "label": name.title(), "column_name": f"{name}_col"}
        row |= {"data_type": one[0], "html_type": one[1], "serialize": int(one[1] == "CheckBox")}
        row |= {"option_group_id": 900} if name.startswith("colour") else {}
        conn.execute(insert(tables.custom_field).values(row))


@pytest.fixture(autouse=True)
async def fields(store: Store) -> None:
    await store.write(add_fields)


async def count(call: Ask, **filters: Any) -> Any:
    return await call("Contact", "getcount", filters)


@pytest.mark.parametrize("name", FIELDS)
async def test_a_field_is_written_returned_ordered_and_filtered_by(call: Ask, name: str) -> None:
    custom, (*_, sent, answered, other) = NAMES[name], FIELDS[name]
    ada, bea, cy = [await a_contact(call, one) for one in ("Ada", "Bea", "Cy")]
    for contact_id, value in ((ada, sent), (bea, other)):
        made = await call("Contact", "create", {"id": contact_id, custom: value})
        assert made["is_error"] == 0, made
    asked = {"return": ["first_name", custom], "sequential": 1}
    rows = (await call("Contact", "get", {**asked, "options": {"sort": f"{custom} DESC, id"}}))["values"]
    assert {row["id"]: row[custom] for row in rows}[str(ada)] == answered
    assert {row["id"]: row[custom] for row in rows}[str(cy)] == ""
    assert await call("Contact", "getvalue", {"id": ada, "return": custom}) == answered
    [found] = (await call("Contact", "get", {custom: sent, "sequential": 1}))["values"]
    assert found["id"] == str(ada)
    assert await count(call, **{custom: {"IS NULL": 1}}) == 1
    assert await count(call, **{custom: {"IS NOT NULL": 1}}) == 2
    if name != "colours":
        assert await count(call, **{custom: {"IN": [sent, other]}}) == 2
        assert await count(call, **{custom: {"!=": other}}) == 1
    await call("Contact", "create", {"id": ada, custom: ""})
    assert await count(call, **{custom: {"IS NOT NULL": 1}}) == 1


async def test_one_of_several_values_is_enough(call: Ask) -> None:
    ada = await a_contact(call, custom_9=["Red", "Blue"])
    for wanted, expected in (("Blue", 1), (["Green", "Red"], 1), ("Green", 0), ({"IN": ["Blue"]}, 1)):
        assert await count(call, custom_9=wanted) == expected, wanted
    assert await call("Contact", "getvalue", {"id": ada, "return": "custom_9"}) == ["1", "2"]


@pytest.mark.parametrize("name", [*NAMES.values(), "custom_99", "custom_x", "custom_1_-1"])
async def test_a_field_that_is_not_there_for_the_caller_is_refused_and_never_ignored(call: Ask, name: str) -> None:
    ada = await a_contact(call, custom_1="x")
    caller = Caller(ada, SEES, "without custom data")
    for entity in ("Contact", "Email", "Group"):
        refused = await call(entity, "getcount", {name: 1}, caller)
        assert name in refused["error_message"], refused
    refused = await call("Contact", "create", {"id": ada, name: 1}, caller)
    assert refused["error_code"] == "unauthorized"
    row = await call("Contact", "getsingle", {"id": ada, "return": [name, "first_name"]}, caller)
    assert name not in row


async def test_a_field_of_individuals_is_none_of_an_organization(call: Ask) -> None:
    made = await call("Contact", "create", {"contact_type": "Organization", "organization_name": "A", "custom_1": "x"})
    assert made["error_message"] == "custom_1 is a field of contacts of type Individual"
    assert await count(call) == 0


async def test_a_reference_to_a_contact_who_is_not_seen_is_empty(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    await call("Contact", "create", {"id": ada, "custom_10": bea})
    caller = Caller(ada, frozenset({"access CiviCRM", "view my contact", "access all custom data"}), "herself")
    asked = {"id": ada, "return": "custom_10"}
    assert (await call("Contact", "getsingle", asked, caller))["custom_10"] == ""
    assert (await call("Contact", "getsingle", asked))["custom_10"] == str(bea)
    assert await call("Contact", "getcount", {"custom_10": bea}, caller) == 0


async def test_a_wrong_value_writes_nothing(call: Ask) -> None:
    for name, value in (("custom_2", "seven"), ("custom_6", "soon"), ("custom_8", "Pink"), ("custom_1", "x" * 256)):
        made = await call("Contact", "create", {"contact_type": "Individual", "first_name": "A", name: value})
        assert made["is_error"] == 1, made
        assert name in made["error_message"]
    assert await count(call) == 0


async def test_getfields_and_getoptions_know_them(call: Ask) -> None:
    known = (await call("Contact", "getfields", {"api_action": "create"}))["values"]
    assert {name: known[name]["title"] for name in NAMES.values()} == {c: n.title() for n, c in NAMES.items()}
    assert (await call("Contact", "getfield", {"name": "custom_8", "action": "get"}))["values"]["title"] == "Colour"
    choices = await call("Contact", "getoptions", {"field": "custom_8"})
    assert choices["values"] == {"1": "Red", "2": "Blue", "3": "Green"}
    caller = Caller(None, SEES, "without custom data")
    assert "custom_1" not in (await call("Contact", "getfields", {}, caller))["values"]


async def test_they_are_described_by_custom_group_and_custom_field(call: Ask) -> None:
    row = await call(
        "CustomField", "getsingle", {"label": "Word", "return": ["custom_group_id.table_name", "data_type"]}
    )
    assert (row["custom_group_id.table_name"], row["data_type"]) == ("civicrm_value_more_1", "String")
