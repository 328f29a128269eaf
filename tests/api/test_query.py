"""Filters, sort, limit and joins (contract sections 5.1 to 5.3), on Email, whose get has no rules of its own."""

from typing import Any

import pytest

from tests.conftest import Ask
from tests.support.contacts import a_contact, an_email

ADDRESSES = ("ada@example.org", "bea@example.org", "cy@example.net")


async def three_addresses(call: Ask) -> None:
    """Emails 1, 2, 3 of contacts 1, 2, 3: Ada and Bea Lovelace, Cy Twombly; 2 is on hold, contact 3 in the trash."""
    await an_email(call, await a_contact(call, "Ada"), ADDRESSES[0])
    await an_email(call, await a_contact(call, "Bea"), ADDRESSES[1], on_hold=1)
    await an_email(call, await a_contact(call, "Cy", "Twombly"), ADDRESSES[2], location_type_id="Work")
    await call("Contact", "delete", {"id": 3})


FOUND: dict[str, tuple[dict[str, Any], list[int]]] = {
    "equality, without regard to case": ({"email": "ADA@example.org"}, [1]),
    "=": ({"email": {"=": "ada@example.org"}}, [1]),
    "!=": ({"id": {"!=": 1}}, [2, 3]),
    "<>": ({"id": {"<>": 1}}, [2, 3]),
    "<": ({"id": {"<": 2}}, [1]),
    "<=": ({"id": {"<=": "2"}}, [1, 2]),
    ">": ({"id": {">": 2}}, [3]),
    ">=": ({"id": {">=": 2}}, [2, 3]),
    "LIKE": ({"email": {"LIKE": "%example.org"}}, [1, 2]),
    "an underscore in LIKE": ({"email": {"LIKE": "c_@%"}}, [3]),
    "NOT LIKE": ({"email": {"NOT LIKE": "%example.org"}}, [3]),
    "IN": ({"id": {"IN": [1, "3"]}}, [1, 3]),
    "an operator in small letters, and a comma text": ({"id": {"in": "1,3"}}, [1, 3]),
    "IN with a map, as forms send it": ({"id": {"IN": {"0": 1, "1": 3}}}, [1, 3]),
    "NOT IN": ({"id": {"NOT IN": [1, 3]}}, [2]),
    "a plain list as IN": ({"email": list(ADDRESSES[:2])}, [1, 2]),
    "BETWEEN": ({"id": {"BETWEEN": [2, 3]}}, [2, 3]),
    "NOT BETWEEN": ({"id": {"NOT BETWEEN": [2, 3]}}, [1]),
    "IS NULL": ({"hold_date": {"IS NULL": 1}}, [1, 3]),
    "IS NOT NULL": ({"hold_date": {"IS NOT NULL": 1}}, [2]),
    "a date": ({"hold_date": {">": "yesterday"}}, [2]),
    "an option by name": ({"location_type_id": "Work"}, [3]),
    "options by name": ({"location_type_id": {"IN": ["Work", "Main"]}}, [3]),
    "only the first operator": ({"id": {">": 1, "<": 3}}, [2, 3]),
    "filters together": ({"id": {">": 1}, "location_type_id": 1}, [2]),
    "no filter for null": ({"email": None}, [1, 2, 3]),
    "no filter for an empty number": ({"contact_id": ""}, [1, 2, 3]),
    "no filter for an unknown name": ({"emial": "x"}, [1, 2, 3]),
    "a field of the contact": ({"contact_id.last_name": "Lovelace"}, [1, 2]),
    "trash through the contact": ({"contact_id.is_deleted": "0"}, [1, 2]),
    "an operator on a joined field": ({"contact_id.last_name": {"LIKE": "Tw%"}}, [3]),
    "no filter for a dotted name that begins with no reference": ({"email.x": 2, "bogus.y": 1}, [1, 2, 3]),
    "a choice's name": ({"location_type_id.name": "Work"}, [3]),
    "or": ({"email": ADDRESSES[0], "id": 3, "options": {"or": [["email", "id"]]}}, [1, 3]),
    "or as a flat list": ({"email": ADDRESSES[0], "id": 3, "options": {"or": ["email", "id"]}}, [1, 3]),
    "or as text, beside another filter": (
        {"email": ADDRESSES[0], "id": 3, "on_hold": 0, "location_type_id": 1, "options": {"or": "email,id"}},
        [1],
    ),
    "limit": ({"options": {"limit": 2}}, [1, 2]),
    "limit and offset": ({"options": {"limit": 1, "offset": 1}}, [2]),
    "offset alone": ({"options": {"limit": 0, "offset": 2}}, [3]),
    "sort": ({"options": {"sort": "id DESC"}}, [3, 2, 1]),
    "sort by two, over a join": ({"options": {"sort": "contact_id.last_name desc, id DESC"}}, [3, 2, 1]),
    "sort by a number and a text": ({"options": {"sort": "location_type_id DESC, email"}}, [3, 1, 2]),
}


@pytest.mark.parametrize(("sent", "ids"), FOUND.values(), ids=FOUND)
async def test_get_understands(call: Ask, sent: dict[str, Any], ids: list[int]) -> None:
    await three_addresses(call)
    answer = await call("Email", "get", {"return": "id", "sequential": 1, **sent})
    assert [int(row["id"]) for row in answer["values"]] == ids
    if "limit" not in sent.get("options", {}):
        assert await call("Email", "getcount", sent) == len(ids)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an empty IN": ({"id": {"IN": []}}, "invalid criteria for IN"),
    "an empty NOT IN": ({"id": {"NOT IN": []}}, "invalid criteria for NOT IN"),
    "BETWEEN with one value": ({"id": {"BETWEEN": [1]}}, "invalid criteria for BETWEEN"),
    "a bad element of IN": ({"id": {"IN": [1, "x"]}}, "id is not a valid integer"),
    "an unknown field to sort by": (
        {"options": {"sort": "bogus"}},
        "Unknown field specified for sort. Cannot order by 'bogus'",
    ),
    "SQL to sort by": (
        {"options": {"sort": "id; drop table x"}},
        "Unknown field specified for sort. Cannot order by 'id; drop table x'",
    ),
    "a select to sort by": ({"options": {"sort": "(SELECT 1)"}}, "invalid string in sort options"),
    "or over what is no filter": (
        {"email": "x", "options": {"or": [["email", "id"]]}},
        "'id' specified in OR group but not added to params",
    ),
    "five joins": (
        {"contact_id.employer_id.employer_id.employer_id.employer_id.id": 1},
        "Maximum number of joins exceeded in parameter contact_id.employer_id.employer_id.employer_id.employer_id.id",
    ),
}


@pytest.mark.parametrize(("sent", "says"), REFUSED.values(), ids=REFUSED)
async def test_get_refuses(call: Ask, sent: dict[str, Any], says: str) -> None:
    answer = await call("Email", "get", sent)
    assert (answer["is_error"], answer["error_message"]) == (1, says)


async def test_return_limits_the_columns_and_follows_references(call: Ask) -> None:
    await three_addresses(call)
    asked = "contact_id.display_name, location_type_id.label, hold_date, bogus, contact_id.bogus"
    answer = await call("Email", "get", {"id": 1, "return": asked})
    assert answer["values"] == {
        "1": {"id": "1", "contact_id.display_name": "Ada Lovelace", "location_type_id.label": "Home"}
    }


async def test_four_joins_are_followed(call: Ask) -> None:
    boss = await a_contact(call, "Boss")
    for _ in range(3):
        boss = await a_contact(call, "Worker", employer_id=boss)
    await an_email(call, boss, "w@example.org")
    path = "contact_id.employer_id.employer_id.employer_id.first_name"
    answer = await call("Email", "get", {"sequential": 1, "return": path, path: "Boss"})
    assert answer["values"] == [{"id": "1", path: "Boss"}]


async def test_the_usual_limit_is_25_but_a_count_has_none(call: Ask) -> None:
    contact_id = await a_contact(call)
    for n in range(30):
        await an_email(call, contact_id, f"a{n}@example.org")
    assert (await call("Email", "get"))["count"] == 25
    assert await call("Email", "getcount", {"options": {"limit": 3}}) == 30
    assert (await call("Email", "getsingle"))["count"] == 25


async def test_the_same_question_with_other_values_gets_its_own_answer(call: Ask) -> None:
    """Selects are kept by their shape: values, limit and offset must not stick."""
    await three_addresses(call)
    for n in (1, 2, 3):
        answer = await call("Email", "get", {"id": {"IN": [n]}, "options": {"limit": n}})
        assert answer["id"] == n


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        ("Contact", "employer_id.x"),
        ("Contact", "employer_id.display_name"),
        ("Contact", "contact_id.id"),
        ("Email", "contact_id.bogus"),
        ("Email", "contact_id.employer_id.bogus"),
        ("Email", "location_type_id.bogus"),
        ("Group", "group_type.bogus"),
    ],
)
async def test_a_filter_over_a_reference_that_leads_nowhere_is_refused(call: Ask, entity: str, name: str) -> None:
    """Ignored, it would find everything."""
    for action in ("get", "getcount", "getsingle", "getlist"):
        params = {"params": {name: 1}} if action == "getlist" else {name: 1}
        answer = await call(entity, action, params)
        assert f"cannot be filtered by '{name}'" in answer["error_message"]


async def test_a_parameter_that_begins_like_a_chain_and_is_a_field_is_a_filter(call: Ask) -> None:
    one = await a_contact(call, api_key="the-key")
    await a_contact(call, "Bea")
    assert await call("Contact", "getcount", {"api_key": "the-key"}) == 1
    assert await call("Contact", "getvalue", {"api_key": "the-key", "return": "id"}) == str(one)
    assert await call("Job", "getcount", {"api_entity": "Nothing"}) == 0
    assert await call("Email", "getcount", {"api_key": {"x": 1}}) == 0
    assert (await call("Email", "get", {"api_key": 1}))["count"] == 0


async def test_a_list_of_values_is_compared_with_a_column_that_holds_several(call: Ask) -> None:
    """As equality is: with what is stored, exactly."""
    for title, kinds in (("One", ["1"]), ("Two", ["2"]), ("Both", ["1", "2"])):
        await call("Group", "create", {"title": title, "group_type": kinds})
    for operator, titles in (("IN", ["One", "Two"]), ("NOT IN", ["Both"]), ("BETWEEN", ["One", "Two", "Both"])):
        found = await call("Group", "get", {"group_type": {operator: ["Access Control", "2"]}, "sequential": 1})
        assert [row["title"] for row in found["values"]] == titles, operator
