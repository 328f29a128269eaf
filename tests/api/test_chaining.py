"""Chained calls: which parameters chain, what the child gets, what becomes of its errors (contract section 6)."""

from typing import Any

import pytest

from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from tests.conftest import Ask
from tests.support.contacts import a_contact, an_email


async def ada_with_two_addresses(call: Ask) -> None:
    await a_contact(call, email="a@example.org")
    await an_email(call, 1, "b@example.org")


async def chained(call: Ask, key: str, value: Any, **more: Any) -> Any:
    """What stands in the row of contact 1 under the chain's key."""
    answer = await call("Contact", "get", {"id": 1, "return": "id,first_name", "sequential": 1, key: value, **more})
    return answer["values"][0].get(key, "not chained") if answer["is_error"] == 0 else answer


@pytest.mark.parametrize("value", [{}, {"is_primary": [0, 1]}, [], 1, "1", True], ids=repr)
async def test_a_map_a_list_or_a_one_chains(call: Ask, value: Any) -> None:
    await ada_with_two_addresses(call)
    child = await chained(call, "api.Email.get", value)
    assert [row["email"] for row in child["values"]] == ["a@example.org", "b@example.org"]


@pytest.mark.parametrize("value", [0, "x", "0", None, 2, ""], ids=repr)
async def test_anything_else_does_not_chain(call: Ask, value: Any) -> None:
    await ada_with_two_addresses(call)
    assert await chained(call, "api.Email.get", value) == "not chained"


@pytest.mark.parametrize(
    "key", ["api.Email.get", "api.email.get", "api_Email_get", "api.Email.get.2", "api.Email", "api.email.GET.other"]
)
async def test_a_chain_s_answer_stands_under_the_key_as_sent(call: Ask, key: str) -> None:
    await ada_with_two_addresses(call)
    child = await chained(call, key, {"return": "email"})
    assert child["values"] == [{"id": "1", "email": "a@example.org"}, {"id": "2", "email": "b@example.org"}]


async def test_a_list_of_maps_makes_one_call_each(call: Ask) -> None:
    made = await call(
        "Contact",
        "create",
        {
            "contact_type": "Individual",
            "first_name": "Ada",
            "sequential": 1,
            "api.Email.create": [{"email": "a@example.org"}, {"email": "b@example.org", "is_primary": 1}],
        },
    )
    children = made["values"][0]["api.Email.create"]
    assert [(child["is_error"], child["values"][0]["email"]) for child in children] == [
        (0, "a@example.org"),
        (0, "b@example.org"),
    ]


async def test_a_scalar_answer_of_a_child_is_bare(call: Ask) -> None:
    await ada_with_two_addresses(call)
    assert await chained(call, "api.Email.getcount", {}) == 2
    assert await chained(call, "api.Email.getvalue", {"is_primary": 1, "return": "email"}) == "a@example.org"


async def test_a_child_of_the_same_entity_means_the_same_row(call: Ask) -> None:
    await ada_with_two_addresses(call)
    await a_contact(call, "Bea")
    assert (await chained(call, "api.Contact.get", {}))["id"] == 1


async def test_a_child_is_found_by_the_reference_in_the_parent_s_row(call: Ask) -> None:
    await a_contact(call, "Bea")
    email_id = await an_email(call, await a_contact(call), "a@example.org")
    answer = await call(
        "Email", "get", {"id": email_id, "sequential": 1, "api.Contact.getvalue": {"return": "first_name"}}
    )
    assert answer["values"][0]["api.Contact.getvalue"] == "Ada"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, 1), ({"contact_id_a": "$value.id"}, 1), ({"contact_id_b": "$value.id"}, 0), ({"contact_id_b": 2}, 1)],
    ids=str,
)
async def test_relationships_of_a_contact_are_narrowed_by_the_side_that_the_chain_names(
    call: Ask, given: dict[str, Any], found: int
) -> None:
    await a_contact(call)
    employer = await call("Contact", "create", {"contact_type": "Organization", "organization_name": "Acme"})
    await call("Contact", "create", {"id": 1, "employer_id": employer["id"]})
    assert await chained(call, "api.Relationship.getcount", given) == found


async def test_values_of_the_row_and_of_earlier_chains_can_be_named(call: Ask) -> None:
    await ada_with_two_addresses(call)
    await a_contact(call, "Ada", "Byron")
    assert await chained(call, "api.Contact.getcount", {"id": None, "first_name": "$value.first_name"}) == 2
    answer = await call(
        "Contact",
        "get",
        {
            "id": 1,
            "sequential": 1,
            "api.Email.get": {"is_primary": 0},
            "api.Email.getvalue": {"id": "$value.api.Email.get.values.0.id", "return": "email"},
            "api.Email.getcount": {"contact_id": None, "email": {"LIKE": "$value.email"}},
        },
    )
    row = answer["values"][0]
    assert (row["api.Email.getvalue"], row["api.Email.getcount"]) == ("b@example.org", 1)


async def test_a_value_that_is_not_there_drops_the_parameter(call: Ask) -> None:
    await ada_with_two_addresses(call)
    assert await chained(call, "api.Email.getcount", {"email": "$value.bogus"}) == 2
    assert await chained(call, "api.Email.getcount", {"email": {"LIKE": "$value.bogus"}}) == 0


async def test_nested_chains_see_their_own_parent(call: Ask) -> None:
    await ada_with_two_addresses(call)
    child = await chained(
        call, "api.Email.get", {"return": "id,email", "api.Email.getvalue": {"id": "$value.id", "return": "email"}}
    )
    assert [row["api.Email.getvalue"] for row in child["values"]] == ["a@example.org", "b@example.org"]


async def test_getsingle_runs_its_chains_and_getvalue_and_getcount_none(call: Ask) -> None:
    await ada_with_two_addresses(call)
    chain: dict[str, Any] = {"id": 1, "api.Email.create": {}}
    assert (await call("Contact", "getsingle", {"id": 1, "api.Email.getcount": {}}))["api.Email.getcount"] == 2
    assert await call("Contact", "getcount", chain) == 1
    assert await call("Contact", "getvalue", {**chain, "return": "first_name"}) == "Ada"
    assert (await call("Contact", "getoptions", {"field": "gender_id", "api.Email.create": {}}))["is_error"] == 0


async def test_fields_that_look_like_chains_are_fields(call: Ask) -> None:
    made = await call(
        "Job",
        "create",
        {"name": "J", "run_frequency": "Daily", "api_entity": "System", "api_action": "flush", "sequential": 1},
    )
    assert (made["values"][0]["api_entity"], made["values"][0]["api_action"]) == ("System", "flush")


THROWN: dict[str, tuple[str, dict[str, Any], str, Any]] = {
    "a missing key": (
        "api.Email.create",
        {},
        "Error in call to Email_create : Mandatory key(s) missing from params array: email",
        "mandatory_missing",
    ),
    "an unknown entity": (
        "api.Bogus.get",
        {},
        "Error in call to Bogus_get : API (Bogus, get) does not exist (join the API team and implement it!)",
        "not-found",
    ),
    "a wrong type": ("api.Email.get", {"id": "x"}, "Error in call to Email_get : id is not a valid integer", 2001),
    "an error without a code": (
        "api.Email.delete",
        {"id": 99},
        "Error in call to Email_delete : Could not delete entity id 99",
        "chained_api_failed",
    ),
    "a broken reference": (
        "api.Email.create",
        {"contact_id": 99, "email": "a@example.org"},
        "Error in call to Email_create : contact_id is not valid : 99",
        "constraint violation",
    ),
}


@pytest.mark.parametrize(("key", "given", "says", "code"), THROWN.values(), ids=THROWN)
async def test_what_a_child_throws_ends_the_whole_call_and_nothing_is_written(
    call: Ask, key: str, given: dict[str, Any], says: str, code: Any
) -> None:
    sent = {"contact_type": "Individual", "first_name": "Ada", "api.Email.create.first": {"email": "x@example.org"}}
    answer = await call("Contact", "create", {**sent, key: given})
    assert (answer["error_message"], answer["error_code"]) == (says, code)
    assert (answer["entity"], answer["action"]) == ("Contact", "create")
    assert await call("Contact", "getcount") == 0
    assert await call("Email", "getcount") == 0


RETURNED: dict[str, tuple[str, dict[str, Any], str]] = {
    "getsingle": ("api.Email.getsingle", {}, "Expected one Email but found 2"),
    "getvalue": ("api.Email.getvalue", {"return": "email"}, "Expected one Email but found 2"),
    "getoptions": ("api.Email.getoptions", {"field": "x"}, "The field 'x' doesn't exist."),
    "setvalue": (
        "api.Email.setvalue",
        {"id": 1, "field": "x", "value": 1},
        "Param 'field' (x) is invalid. must be an existing field",
    ),
}


@pytest.mark.parametrize(("key", "given", "says"), RETURNED.values(), ids=RETURNED)
async def test_what_a_child_returns_as_an_error_stands_in_the_row(
    call: Ask, key: str, given: dict[str, Any], says: str
) -> None:
    await ada_with_two_addresses(call)
    child = await chained(call, key, given)
    assert (child["is_error"], child["error_message"]) == (1, says)


async def test_no_rows_mean_no_calls_not_even_to_what_does_not_exist(call: Ask) -> None:
    answer = await call("Contact", "get", {"id": 99, "api.Bogus.get": {}})
    assert answer == {"is_error": 0, "version": 3, "count": 0, "values": []}


async def test_a_call_and_its_chains_are_one_trip_to_the_store(api: Api, call: Ask) -> None:
    await ada_with_two_addresses(call)
    before = api.store.units.total()
    await api.answer(Call("Contact", "getsingle", {"id": 1, "api.Email.get": {"api.Contact.getsingle": {}}}))
    assert api.store.units.total() == before + 1
