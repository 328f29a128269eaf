"""From parameters as sent to parameters as declared (contract 3.2 to 3.4)."""

from typing import Any

import pytest

from civiapi.api.parameters.options import read_options, read_return
from tests.conftest import Ask
from tests.support.contacts import a_caller, a_contact, an_email

RETURNS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a list": ({"return": ["id", "email"]}, ("id", "email")),
    "comma text with blanks": ({"return": "id, email"}, ("id", "email")),
    "Python list text": ({"return": "['id', 'email']"}, ("id", "email")),
    "JSON text": ({"return": '["id","email"]'}, ("id", "email")),
    "a map of ones, as forms send it": ({"return": {"id": "1", "email": "1"}}, ("id", "email")),
    "a map of names, as forms send a list": ({"return": {"0": "id", "1": "email"}}, ("id", "email")),
    "return.FIELD": ({"return.id": 1, "return.email": 1}, ("id", "email")),
    "the numbered copies that REST adds": ({"return": ["id"], "return.0": 1}, ("id",)),
    "broken list text": ({"return": "[id"}, ()),
    "nothing": ({}, ()),
}


@pytest.mark.parametrize(("sent", "asked"), RETURNS.values(), ids=RETURNS)
def test_the_return_list_may_be(sent: dict[str, Any], asked: tuple[str, ...]) -> None:
    assert read_return(sent) == asked


LIMITS: dict[str, tuple[dict[str, Any], int]] = {
    "25 by default": ({}, 25),
    "as options.limit says": ({"options": {"limit": 5}, "option_limit": 6, "rowCount": 7}, 5),
    "as option_limit says": ({"option_limit": "6", "option.limit": 8, "rowCount": 7}, 6),
    "as option.limit says": ({"option.limit": 8, "rowCount": 7}, 8),
    "as rowCount says": ({"rowCount": 7}, 7),
    "all for 0": ({"options": {"limit": 0}}, 0),
    "all for what is no number": ({"options": {"limit": "abc"}}, 0),
    "all for a negative number": ({"options": {"limit": "-1"}}, 0),
    "read from JSON text": ({"options": '{"limit":3}'}, 3),
    "25 where options is no map": ({"options": "notarray"}, 25),
    "25 where options is an empty list": ({"options": []}, 25),
}


@pytest.mark.parametrize(("sent", "limit"), LIMITS.values(), ids=LIMITS)
def test_the_limit_is(sent: dict[str, Any], limit: int) -> None:
    assert read_options(sent).limit == limit


SORTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "text": ({"options": {"sort": "id DESC"}}, ("id DESC",)),
    "comma text": ({"options": {"sort": "a, b DESC"}}, ("a", " b DESC")),
    "a list": ({"options": {"sort": ["a", "b DESC"]}}, ("a", "b DESC")),
    "the oldest spelling": ({"sort": "id"}, ("id",)),
}


@pytest.mark.parametrize(("sent", "parts"), SORTS.values(), ids=SORTS)
def test_the_order_may_be(sent: dict[str, Any], parts: tuple[str, ...]) -> None:
    assert read_options(sent).sort == parts


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a text where a number belongs": (
        {"contact_id": "abc"},
        {"error_message": "contact_id is not a valid integer", "error_code": 2001, "error_field": "contact_id"},
    ),
    "a number beyond all ids": (
        {"contact_id": 10**30},
        {"error_message": "contact_id is not a valid integer", "error_code": 2001},
    ),
    "an option that is none": (
        {"location_type_id": "Bogus"},
        {"error_message": "'Bogus' is not a valid option for field location_type_id", "error_code": 2001},
    ),
    "the number of an option that is none": (
        {"location_type_id": 99},
        {"error_message": "'99' is not a valid option for field location_type_id", "error_code": 2001},
    ),
    "a text that is too long": (
        {"email": "x" * 255},
        {
            "error_message": "Value for email is 255 characters  - This field has a maxlength of 254 characters.",
            "error_code": 2100,
            "field": "email",
        },
    ),
    "a date that is none": ({"reset_date": "banana"}, {"error_message": "reset_date is not a valid date: banana"}),
    "a boolean that is none": ({"is_bulkmail": "banana"}, {"error_message": "is_bulkmail is not a valid boolean"}),
    "a list where a text belongs": ({"email": ["a"]}, {"error_message": "email is not a valid string"}),
    "an unknown user": (
        {"contact_id": "@user:nobody"},
        {"error_message": '"contact_id" "@user:nobody" cannot be resolved to a contact ID', "error_code": 2002},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "says"), REFUSED.values(), ids=REFUSED)
async def test_create_refuses(call: Ask, sent: dict[str, Any], says: dict[str, Any]) -> None:
    contact_id = await a_contact(call)
    answer = await call("Email", "create", {"contact_id": contact_id, "email": "a@example.org", **sent})
    assert answer.items() >= {"is_error": 1, **says}.items()
    assert await call("Email", "getcount") == 0


TAKEN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "an option by its name in any case": ({"location_type_id": "wORK"}, {"location_type_id": "2"}),
    "an option by its number as text": ({"location_type_id": "2"}, {"location_type_id": "2"}),
    "a fixed option by its label": ({"on_hold": "On Hold Opt Out"}, {"on_hold": "2"}),
    "a boolean as Python writes it": ({"is_bulkmail": "True"}, {"is_bulkmail": "1"}),
    "a boolean as JSON writes it": ({"is_bulkmail": True}, {"is_bulkmail": "1"}),
    "a date in another form": ({"reset_date": "11 Dec 2019"}, {"reset_date": "20191211000000"}),
    "an empty date as none": ({"reset_date": ""}, {"reset_date": ""}),
    "0 as no date": ({"reset_date": 0}, {"reset_date": ""}),
    "markup as it is": ({"signature_text": "<b>&amp;"}, {"signature_text": "<b>&amp;"}),
}


@pytest.mark.parametrize(("sent", "stored"), TAKEN.values(), ids=TAKEN)
async def test_create_takes(call: Ask, sent: dict[str, Any], stored: dict[str, str]) -> None:
    contact_id = await a_contact(call)
    made = await call("Email", "create", {"contact_id": contact_id, "email": "a@example.org", "sequential": 1, **sent})
    assert made["values"][0].items() >= stored.items()


async def test_an_alias_stands_for_its_field_and_gives_way_to_it(call: Ask) -> None:
    first = await an_email(call, await a_contact(call), "a@example.org")
    second = await an_email(call, await a_contact(call), "b@example.org")
    assert (await call("Email", "get", {"email_id": first}))["id"] == first
    assert (await call("Email", "get", {"email_id": first, "id": second}))["id"] == second


async def test_mandatory_keys_are_not_asked_for_where_an_id_is_given(call: Ask) -> None:
    email_id = await an_email(call, await a_contact(call), "a@example.org")
    assert (await call("Email", "create", {"id": email_id, "is_bulkmail": 1}))["is_error"] == 0


async def test_null_leaves_a_column_alone_and_the_word_null_empties_it(call: Ask) -> None:
    contact_id = await a_contact(call, nick_name="Countess")
    await call("Contact", "create", {"id": contact_id, "nick_name": None})
    assert await call("Contact", "getvalue", {"id": contact_id, "return": "nick_name"}) == "Countess"
    await call("Contact", "create", {"id": contact_id, "nick_name": "null"})
    assert await call("Contact", "getvalue", {"id": contact_id, "return": "nick_name"}) == ""


async def test_user_contact_id_is_the_caller(call: Ask) -> None:
    contact_id = await a_contact(call)
    caller = a_caller("*", contact_id=contact_id)
    assert (await call("Contact", "get", {"id": "user_contact_id"}, caller))["id"] == contact_id


async def test_debug_names_what_nobody_declared(call: Ask) -> None:
    answer = await call("Email", "get", {"debug": 1, "misspelt": 1, "emial": "x", "contact_id.last_name": "y"})
    assert answer["undefined_fields"] == ["misspelt", "emial"]
    assert "undefined_fields" not in await call("Email", "get", {"misspelt": 1})


@pytest.mark.parametrize("version", [2, "4", 99, "x"])
async def test_another_version_is_refused(call: Ask, version: Any) -> None:
    answer = await call("Contact", "get", {"version": version})
    assert (answer["is_error"], answer["error_code"]) == (1, "not-found")
