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
    "friends": ("ContactReference", "Autocomplete-Select", "varchar(255)", [1, 2], ["1", "2"], [3]),
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
        row |= {"data_type": one[0], "html_type": one[1], "serialize": int(isinstance(one[3], list))}
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
    if not isinstance(sent, list):
        assert await count(call, **{custom: {"IN": [sent, other]}}) == 2
        assert await count(call, **{custom: {"!=": other}}) == 1
    await call("Contact", "create", {"id": ada, custom: ""})
    assert await count(call, **{custom: {"IS NOT NULL": 1}}) == 1


async def test_one_of_several_values_is_enough(call: Ask) -> None:
    ada = await a_contact(call, custom_9=["Red", "Blue"])
    for wanted, expected in (("Blue", 1), (["Green", "Red"], 1), ("Green", 0), ({"IN": ["Blue"]}, 1)):
        assert await count(call, custom_9=wanted) == expected, wanted
    assert await call("Contact", "getvalue", {"id": ada, "return": "custom_9"}) == ["1", "2"]


async def test_one_value_is_compared_as_a_list_of_it_is(call: Ask) -> None:
    await a_contact(call, custom_9=["Red", "Blue"])
    await a_contact(call, "Bea", custom_9="Green")
    for wanted in ("Green", ["Green"], {"1": "Green"}):
        for operator, expected in (("!=", 1), ("<>", 1), (">=", 1), ("<", 1)):
            assert await count(call, custom_9={operator: wanted}) == expected, (operator, wanted)


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


@pytest.mark.parametrize("access", ["view my contact", "view all contacts"])
async def test_a_list_of_contacts_has_those_who_are_seen(call: Ask, access: str) -> None:
    ada, bea, cy = [await a_contact(call, one) for one in ("Ada", "Bea", "Cy")]
    await call("Contact", "create", {"id": ada, "custom_11": [bea, cy]})
    await call("Contact", "delete", {"id": cy})
    caller = Caller(ada, frozenset({"access CiviCRM", access, "access all custom data"}), "herself")
    seen = [str(bea)] if access == "view all contacts" else ""
    assert (await call("Contact", "getsingle", {"id": ada, "return": "custom_11"}, caller))["custom_11"] == seen
    for wanted, expected in ((cy, 0), ({"IN": [cy, bea]}, int(bool(seen))), ([cy], 0), ("x", 0)):
        assert await call("Contact", "getcount", {"custom_11": wanted}, caller) == expected, wanted
    for wanted in ({"LIKE": f"%{cy}%"}, {"IS NOT NULL": 1}, {"!=": cy}, {">": cy}, {"NOT IN": [cy]}):
        refused = await call("Contact", "getcount", {"custom_11": wanted}, caller)
        assert refused["error_message"] == "Contact cannot be filtered by 'custom_11'", wanted
    refused = await call("Contact", "get", {"options": {"sort": "custom_11"}}, caller)
    assert "Cannot order by 'custom_11'" in refused["error_message"]
    assert await call("Contact", "getcount", {"custom_11": {"LIKE": f"%{cy}%"}}) == 1


@pytest.mark.parametrize(("name", "several"), [("custom_10", False), ("custom_11", True)])
async def test_no_contact_is_written_who_is_not_seen_or_not_there(call: Ask, name: str, several: bool) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    held = {"access CiviCRM", "view my contact", "edit my contact", "access all custom data"}
    herself = Caller(ada, frozenset(held), "herself")
    for one, caller in ((bea, herself), (999, herself), (999, None)):
        asked = {"id": ada, name: [one] if several else one}
        refused = await (call("Contact", "create", asked, caller) if caller else call("Contact", "create", asked))
        assert refused["error_message"] == f"{name} is not valid : {one}"
    written = await call("Contact", "create", {"id": ada, name: [ada] if several else ada}, herself)
    assert written["is_error"] == 0
    refused = await call("Contact", "create", {"id": ada, name: ["Bea"] if several else "Bea"})
    assert refused["error_message"] == f"{name} is not a valid integer"


@pytest.mark.parametrize(("name", "several"), [("custom_10", False), ("custom_11", True)])
async def test_who_sends_back_what_they_read_of_a_reference_keeps_those_they_do_not_see(
    call: Ask, name: str, several: bool
) -> None:
    ada, bea, cy = [await a_contact(call, one) for one in ("Ada", "Bea", "Cy")]
    await call("Contact", "create", {"id": ada, name: [bea, cy] if several else cy})
    await call("Contact", "delete", {"id": cy})
    viewer = Caller(ada, frozenset({*SEES, "access all custom data"}), "does not see the trash")
    herself = Caller(ada, frozenset({"view my contact", "edit my contact", "access all custom data"}), "herself")
    for caller in (viewer, herself):
        read = await call("Contact", "getvalue", {"id": ada, "return": name}, caller)
        assert (await call("Contact", "create", {"id": ada, name: read}, caller))["is_error"] == 0
        stored = await call("Contact", "getvalue", {"id": ada, "return": name})
        assert set(stored if several else [stored]) == ({str(bea), str(cy)} if several else {str(cy)})
        refused = await call("Contact", "create", {"id": ada, name: [cy] if several else cy}, caller)
        assert refused["error_message"] == f"{name} is not valid : {cy}"
    assert (await call("Contact", "create", {"id": ada, name: [] if several else bea}, viewer))["is_error"] == 0
    assert await call("Contact", "getvalue", {"id": ada, "return": name}) == ([str(cy)] if several else str(bea))


async def test_a_list_with_a_contact_that_was_deleted_for_good_can_be_sent_back(call: Ask) -> None:
    ada, bea, cy = [await a_contact(call, one) for one in ("Ada", "Bea", "Cy")]
    await call("Contact", "create", {"id": ada, "custom_11": [bea, cy]})
    await call("Contact", "delete", {"id": cy, "skip_undelete": 1})
    read = await call("Contact", "getvalue", {"id": ada, "return": "custom_11"})
    assert (await call("Contact", "create", {"id": ada, "custom_11": read}))["is_error"] == 0
    assert await call("Contact", "getvalue", {"id": ada, "return": "custom_11"}) == read
    assert (await call("Contact", "create", {"id": bea, "custom_11": read}))["is_error"] == 1
    assert (await call("Contact", "create", {"id": ada, "custom_11": ""}))["is_error"] == 0
    assert await call("Contact", "getvalue", {"id": ada, "return": "custom_11"}) == ""


async def test_a_wrong_value_writes_nothing(call: Ask) -> None:
    amounts = [("custom_4", "1,5"), ("custom_4", "1.234,56"), ("custom_4", "1" + "0" * 18), ("custom_3", "nan")]
    numbers = [("custom_2", "99999999999999"), ("custom_2", "seven"), *amounts]
    for name, value in (*numbers, ("custom_6", "soon"), ("custom_8", "Pink"), ("custom_1", "x" * 256)):
        made = await call("Contact", "create", {"contact_type": "Individual", "first_name": "A", name: value})
        assert made["is_error"] == 1, made
        assert name in made["error_message"]
    assert await count(call) == 0


async def test_an_amount_may_be_in_the_notation_of_the_site(call: Ask) -> None:
    ada = await a_contact(call)
    await call("Setting", "create", {"monetaryDecimalPoint": ",", "monetaryThousandSeparator": "."})
    for sent, kept in (("1.234,56", "1234.56"), ("1,5", "1.50"), ("12.25", "12.25"), (3, "3.00")):
        assert (await call("Contact", "create", {"id": ada, "custom_4": sent}))["is_error"] == 0
        kept_as = await call("Contact", "getvalue", {"id": ada, "return": "custom_4"})
        assert float(kept_as) == float(kept)
        assert await count(call, custom_4=sent) == 1


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
