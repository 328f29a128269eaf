"""The actions every entity has: getsingle, getvalue, update, replace, getfields, getlist and kin (contract 4.4)."""

from typing import Any

import pytest

from civiapi.api import query
from entities import catalogue
from tests.conftest import Ask
from tests.support.contacts import a_caller, a_contact, an_email


async def test_getvalue_gives_one_field_of_one_record(call: Ask) -> None:
    await a_contact(call, is_opt_out=1)
    assert await call("Contact", "getvalue", {"id": 1, "return": "is_opt_out"}) == "1"
    assert await call("Contact", "getvalue", {"id": 1, "return": ["first_name"]}) == "Ada"


ONLY_ONE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "none": ("getsingle", {"id": 9}, {"count": 0, "error_message": "Expected one Contact but found 0"}),
    "several": ("getsingle", {}, {"count": 2, "error_message": "Expected one Contact but found 2"}),
    "none to take a value from": ("getvalue", {"id": 9, "return": "id"}, {"count": 0}),
    "no such value": (
        "getvalue",
        {"id": 1, "return": "bogus"},
        {"invalid_field": "bogus", "error_message": "field bogus unset or not existing"},
    ),
    "no value named": (
        "getvalue",
        {"id": 1},
        {
            "error_type": "mandatory_missing",
            "missing_param": "return",
            "error_message": "missing param return=field you want to read the value of",
        },
    ),
}


@pytest.mark.parametrize(("action", "sent", "says"), ONLY_ONE.values(), ids=ONLY_ONE)
async def test_one_record_is_wanted_and_there_is(call: Ask, action: str, sent: Any, says: dict[str, Any]) -> None:
    await a_contact(call)
    await a_contact(call, "Bea")
    assert (await call("Contact", action, sent)).items() >= {"is_error": 1, **says}.items()


async def test_create_with_match_updates_the_one_that_matches(call: Ask) -> None:
    await a_contact(call)
    sent = {"contact_type": "Individual", "first_name": "Ada", "nick_name": "x", "options": {"match": ["first_name"]}}
    assert (await call("Contact", "create", sent))["id"] == 1
    assert (await call("Contact", "create", {**sent, "first_name": "Bea", "options": {"match": "first_name"}}))[
        "id"
    ] == 2
    mandatory = {**sent, "first_name": "Cy", "options": {"match-mandatory": "first_name"}}
    assert (await call("Contact", "create", mandatory))["error_message"] == "Failed to match existing record"
    await a_contact(call)
    assert (await call("Contact", "create", sent))["error_message"] == "Ambiguous match criteria"


async def test_update_needs_a_row_that_is_there(call: Ask) -> None:
    await a_contact(call)
    assert (await call("Contact", "update", {"id": 1, "nick_name": "x"}))["values"]["1"]["nick_name"] == "x"
    assert (await call("Email", "update", {"id": 9}))["error_message"] == "No Email with id 9"
    assert (await call("Email", "update", {}))["error_message"] == "Mandatory parameter missing id"


SETVALUE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a field": ({"field": "nick_name", "value": "x"}, {"count": 2, "id": 1, "values": {"id": "1", "nick_name": "x"}}),
    "an unknown field": (
        {"field": "x", "value": 1},
        {"error_message": "Param 'field' (x) is invalid. must be an existing field", "error_code": "invalid_field"},
    ),
    "nothing in a required field": (
        {"field": "contact_type", "value": ""},
        {"error_message": "Contact Type is a required field.", "error_code": "required"},
    ),
    "a text in a number": (
        {"field": "employer_id", "value": "x"},
        {"error_message": "Current Employer ID must be a number.", "error_code": "NaN"},
    ),
}


@pytest.mark.parametrize(("sent", "says"), SETVALUE.values(), ids=SETVALUE)
async def test_setvalue_with(call: Ask, sent: dict[str, Any], says: dict[str, Any]) -> None:
    await a_contact(call)
    assert (await call("Contact", "setvalue", {"id": 1, **sent})).items() >= says.items()


async def test_replace_updates_inserts_and_deletes_the_rest(call: Ask) -> None:
    await a_contact(call, email="keep@example.org")
    for n in range(30):
        await an_email(call, 1, f"x{n}@example.org")
    values = [{"id": 1, "email": "kept@example.org"}, {"email": "new@example.org"}]
    answer = await call("Email", "replace", {"contact_id": 1, "values": values})
    assert (answer["count"], answer["values"]["1"]["email"]) == (2, "kept@example.org")
    rows = (await call("Email", "get", {"sequential": 1}))["values"]
    assert [(row["email"], row["is_primary"]) for row in rows] == [("kept@example.org", "1"), ("new@example.org", "0")]


async def test_replace_is_all_or_nothing(call: Ask) -> None:
    await a_contact(call, email="keep@example.org")
    answer = await call("Email", "replace", {"contact_id": 1, "values": [{"email": "new@example.org"}, {"email": ""}]})
    assert (answer["is_error"], answer["fields"]) == (1, ["email"])
    assert await call("Email", "getvalue", {"contact_id": 1, "return": "email"}) == "keep@example.org"


async def test_replace_will_not_touch_everything(call: Ask) -> None:
    await a_contact(call, email="keep@example.org")
    for sent in ({"values": []}, {"values": [], "misspelt": 1}):
        assert (await call("Email", "replace", sent))["is_error"] == 1
    assert (await call("Email", "replace", {"contact_id": 1}))["fields"] == ["values"]
    assert await call("Email", "getcount") == 1


async def test_getfields_describes_the_fields_of_an_action(call: Ask) -> None:
    answer = await call("Email", "getfields", {"api_action": "create"})
    fields = answer["values"]
    assert answer["count"] == len(fields)
    assert (
        fields["email"].items()
        >= {"name": "email", "type": 2, "title": "Email", "maxlength": 254, "api.required": 1}.items()
    )
    assert fields["id"]["api.aliases"] == ["email_id"]
    assert fields["contact_id"]["FKApiName"] == "Contact"
    assert "api.required" not in (await call("Email", "getfields", {"action": "getsingle"}))["values"]["email"]
    assert (await call("Email", "getfields", {"api_action": "bogus"}))["values"] == []
    assert "id" in (await call("Email", "getfields", {"api_action": "delete"}))["values"]


async def test_getfields_lists_and_brings_options_when_asked(call: Ask) -> None:
    sent = {"sequential": 1, "options": {"get_options": "all"}}
    fields = {one["name"]: one for one in (await call("Email", "getfields", sent))["values"]}
    assert fields["on_hold"]["options"][1] == {"key": 1, "value": "On Hold Bounce"}
    one = await call("Email", "getfields", {"options": {"get_options": ["on_hold"]}})
    assert one["values"]["on_hold"]["options"] == ["No", "On Hold Bounce", "On Hold Opt Out"]
    assert "options" not in one["values"]["location_type_id"]


async def test_getfield_describes_one(call: Ask) -> None:
    assert (await call("Contact", "getfield", {"name": "gender", "action": "get"}))["values"]["name"] == "gender_id"
    assert (await call("Contact", "getfield", {"name": "x"}))["error_message"] == "The field 'x' doesn't exist."


GENDERS = [{"key": 1, "value": "Female"}, {"key": 2, "value": "Male"}, {"key": 3, "value": "Other"}]
OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "by value": ({"field": "gender_id"}, {"1": "Female", "2": "Male", "3": "Other"}),
    "by an alias": ({"field": "gender"}, {"1": "Female", "2": "Male", "3": "Other"}),
    "as pairs": ({"field": "gender_id", "sequential": 1}, GENDERS),
    "by name": ({"field": "communication_style_id", "context": "match"}, {"formal": "Formal", "familiar": "Familiar"}),
    "with names": ({"field": "communication_style_id", "context": "validate"}, {"1": "formal", "2": "familiar"}),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "values"), OPTIONS.values(), ids=OPTIONS)
async def test_getoptions_lists_choices(call: Ask, sent: dict[str, Any], values: Any) -> None:
    assert (await call("Contact", "getoptions", sent))["values"] == values


async def test_getoptions_that_count_from_0_are_a_list(call: Ask) -> None:
    assert (await call("Email", "getoptions", {"field": "on_hold"}))["values"] == [
        "No",
        "On Hold Bounce",
        "On Hold Opt Out",
    ]


NO_OPTIONS = {
    "The field 'x' doesn't exist.": {"field": "x"},
    "The field 'first_name' has no associated option list.": {"field": "first_name"},
    "'x' is not a valid context for buildOptions.": {"field": "gender_id", "context": "x"},
    "Mandatory key(s) missing from params array: field": {},
}


@pytest.mark.parametrize(("says", "sent"), NO_OPTIONS.items(), ids=NO_OPTIONS)
async def test_getoptions_says(call: Ask, says: str, sent: dict[str, Any]) -> None:
    assert (await call("Contact", "getoptions", sent))["error_message"] == says


async def test_getlist_shows_a_page_of_ten_and_whether_there_are_more(call: Ask) -> None:
    for n in range(12):
        await a_contact(call, f"A{n:02}", email=f"a{n}@example.org")
    first = await call("Contact", "getlist", {"input": "lovelace"})
    assert (first["count"], first["page_num"], first["more_results"]) == (10, 1, True)
    assert first["values"][0] == {"id": "1", "label": "Lovelace, A00", "description": ["a0@example.org"]}
    second = await call("Contact", "getlist", {"input": "lovelace", "page_num": 2, "extra": ["email"]})
    assert ([row["id"] for row in second["values"]], second["more_results"]) == (["11", "12"], False)
    assert second["values"][0]["extra"] == {"email": "a10@example.org"}


async def test_getlist_takes_a_number_for_an_id_first(call: Ask) -> None:
    await a_contact(call, "Ada", "Lovelace 2")
    await a_contact(call, "Bea")
    first = await call("Contact", "getlist", {"input": "2"})
    assert ([row["id"] for row in first["values"]], first["more_results"]) == (["2"], True)
    second = await call("Contact", "getlist", {"input": "2", "page_num": 2})
    assert [row["id"] for row in second["values"]] == ["1"]


@pytest.mark.parametrize("ids", [[1, 2], "1,2", ["1", "2"]], ids=repr)
async def test_getlist_by_id_has_no_pages(call: Ask, ids: Any) -> None:
    await a_contact(call)
    await a_contact(call, "Bea")
    answer = await call("Contact", "getlist", {"id": ids})
    assert (answer["count"], "more_results" in answer) == (2, False)


async def test_getactions_names_what_there_is_even_for_nobody(call: Ask) -> None:
    answer = await call("Entity", "getactions", {}, a_caller())
    assert answer["values"] == sorted(answer["values"])
    assert {"get", "getactions", "getfields"} <= set(answer["values"])
    assert "create" not in answer["values"]
    assert (await call("Bogus", "getactions", {}, a_caller()))["values"] == []
    assert answer["deprecated"]["update"] == 'The "update" action is deprecated. Use "create" with an id instead.'


async def test_entity_get_names_the_catalogue(call: Ask) -> None:
    names = (await call("Entity", "get", {}, a_caller()))["values"]
    assert names == sorted(names)
    assert {"Contact", "Email", "Entity"} <= set(names)
    assert (await call("Entity", "create"))["error_code"] == "not-found"


NO_TYPE = {
    "contact_type": {
        "message": "Mandatory key(s) missing from params array: contact_type",
        "code": "mandatory_missing",
    }
}
VALIDATED: dict[str, tuple[dict[str, Any], Any]] = {
    "nothing wrong": ({"contact_type": "Individual"}, []),
    "a key missing": (
        {},
        NO_TYPE,
    ),
    "a wrong value": (
        {"contact_type": "Individual", "birth_date": "xx"},
        {"birth_date": {"message": "birth_date is not a valid date: xx", "code": "incorrect_value"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "problems"), VALIDATED.values(), ids=VALIDATED)
async def test_validate_reports_and_does_nothing(call: Ask, sent: dict[str, Any], problems: Any) -> None:
    answer = await call("Contact", "validate", {"action": "create", **sent})
    assert (answer["count"], answer["id"], answer["values"]) == (1, 0, [problems])
    assert await call("Contact", "getcount") == 0


async def test_unique_keys_and_references_are_told(call: Ask) -> None:
    await a_contact(call, email="a@example.org")
    assert (await call("Contact", "getunique"))["values"] == {"UI_external_identifier": ["external_identifier"]}
    assert (await call("GroupContact", "getunique"))["values"] == {"UI_contact_group": ["contact_id", "group_id"]}
    assert (await call("Group", "getunique"))["values"] == {"UI_name": ["name"], "UI_title": ["title"]}
    counted = (await call("Contact", "getrefcount", {"id": 1}))["values"]
    assert counted == [
        {
            "name": "sql:civicrm_email:contact_id",
            "type": "Email",
            "table": "civicrm_email",
            "key": "contact_id",
            "count": 1,
        }
    ]
    assert (await call("Entity", "getrefcount", {"id": 1}))["error_code"] == "getrefcount_unsupported"


async def test_format_reduces_the_answer(call: Ask) -> None:
    await a_contact(call)
    assert await call("Contact", "get", {"id": 1, "format.only_id": 1}) == 1
    assert await call("Contact", "get", {"id": 1, "format.is_success": 1}) == 1
    assert await call("Contact", "create", {"format.is_success": 1}) == 0


@pytest.mark.parametrize("how", ["format.is_success", "format.only_id"])
async def test_an_action_that_makes_calls_reads_their_envelopes_however_its_own_answer_is_wanted(
    call: Ask, how: str
) -> None:
    await a_contact(call)
    await call("Group", "create", {"title": "News"})
    await call("MailchimpsyncCache", "create", {"mailchimp_list_id": "abc", "mailchimp_email": "ada@example.org"})
    registry = catalogue()
    makes_calls = [
        (entity.name, name)
        for entity in registry.entities()
        for name, action in registry.actions(entity).items()
        if action.delegates_to is not None or (name == "update" and action.run_async is not None)
    ]
    assert {("Contact", "getlist"), ("MailchimpsyncCache", "update"), ("Email", "replace")} <= set(makes_calls)
    sent = {"id": 1, "return": "id", "field": "id", "value": 1, "params": {how: 1}, "values": [{"id": 1, how: 1}]}
    faults = [one for one in makes_calls if "Unknown error." in str(await call(*one, {**sent, how: 1}))]
    assert faults == []


async def test_metadata_describes_the_fields_beside_the_rows(call: Ask) -> None:
    answer = await call("Email", "get", {"options": {"metadata": ["fields"]}})
    assert answer["metadata"]["fields"]["email"]["type"] == 2


async def test_describing_actions_need_access_and_others_what_they_act_with(call: Ask) -> None:
    refused = await call("Contact", "getfields", {}, a_caller())
    assert refused["error_message"] == (
        "API permission check failed for Contact/getfields call; insufficient permission: require access CiviCRM"
    )
    assert (await call("Job", "getcount", {}, a_caller("access CiviCRM")))["error_message"] == (
        "API permission check failed for Job/getcount call; insufficient permission: require administer CiviCRM"
    )


async def test_a_fault_of_ours_says_nothing_of_itself(call: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "compiled_query", lambda *_: 1 / 0)
    assert await call("Email", "get") == {"is_error": 1, "error_message": "Unknown error."}


@pytest.mark.parametrize("extra", [{"x": ["y"]}, [["email"]], [{}], 5, True])
async def test_getlist_leaves_out_names_that_are_none(call: Ask, extra: Any) -> None:
    await call("Contact", "create", {"contact_type": "Individual", "first_name": "Ada", "last_name": "Lovelace"})
    answer = await call("Contact", "getlist", {"input": "lovelace", "extra": extra, "description_field": extra})
    assert [row["label"] for row in answer["values"]] == ["Lovelace, Ada"]


async def test_getlist_of_what_has_only_names_lists_them(call: Ask) -> None:
    answer = await call("Entity", "getlist", {})
    assert {"id": "Contact", "label": "Contact", "description": []} in answer["values"]
