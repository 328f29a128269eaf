"""Contact: names, side effects of create and delete, what get shows and to whom (contract 5.4, 8.1, 2.6)."""

from typing import Any

import pytest
import time_machine

from tests.conftest import Ask
from tests.support.contacts import a_caller, a_contact, an_email

NAMES: dict[str, tuple[dict[str, Any], str, str]] = {
    "first and last": ({"first_name": "Ada", "last_name": "Lovelace"}, "Ada Lovelace", "Lovelace, Ada"),
    "first alone": ({"first_name": "Ada"}, "Ada", "Ada"),
    "last alone": ({"last_name": "Lovelace"}, "Lovelace", "Lovelace"),
    "prefix and suffix": (
        {"prefix_id": "Dr.", "first_name": "Ada", "last_name": "Lovelace", "suffix_id": "Jr."},
        "Dr. Ada Lovelace Jr.",
        "Lovelace, Ada Jr.",
    ),
    "an address alone": ({"email": "Ada@example.org"}, "ada@example.org", "ada@example.org"),
    "a display name alone": ({"display_name": "The Countess"}, "The Countess", "The Countess"),
    "the name before the address": ({"first_name": "Ada", "email": "a@example.org"}, "Ada", "Ada"),
    "a household": (
        {"contact_type": "Household", "household_name": "The Lovelaces"},
        "The Lovelaces",
        "The Lovelaces",
    ),
    "an organization": (
        {"contact_type": "Organization", "organization_name": "Slate & Co"},
        "Slate & Co",
        "Slate & Co",
    ),
    "a nought, which is a name": ({"first_name": "0"}, "0", "0"),
}


@pytest.mark.parametrize(("sent", "display", "sort"), NAMES.values(), ids=NAMES)
async def test_a_contact_is_named_after(call: Ask, sent: dict[str, Any], display: str, sort: str) -> None:
    made = await call("Contact", "create", {"contact_type": "Individual", "sequential": 1, **sent})
    row = made["values"][0]
    assert (row["display_name"], row["sort_name"]) == (display, sort)


async def test_names_are_worked_out_anew_from_new_and_stored_parts(call: Ask) -> None:
    contact_id = await a_contact(call)
    changed = await call("Contact", "create", {"id": contact_id, "last_name": "King", "sequential": 1})
    assert changed["values"][0]["sort_name"] == "King, Ada"


MISSING = {
    "a type": ({}, "contact_type"),
    "a name of a person": (
        {"contact_type": "Individual"},
        "one of (first_name, last_name, email, display_name)",
    ),
    "a name of a household": ({"contact_type": "Household"}, "household_name"),
    "a name of an organization": ({"contact_type": "Organization"}, "organization_name"),
}


@pytest.mark.parametrize(("sent", "field"), MISSING.values(), ids=MISSING)
async def test_create_asks_for(call: Ask, sent: dict[str, Any], field: str) -> None:
    answer = await call("Contact", "create", sent)
    assert answer["error_code"] == "mandatory_missing"
    assert answer["fields"] == [field]


async def test_an_address_is_stored_with_a_new_contact_and_ignored_in_an_update(call: Ask) -> None:
    made = await call("Contact", "create", {"contact_type": "Individual", "email": "Ada@Example.org"})
    await call("Contact", "create", {"id": made["id"], "email": "other@example.org"})
    row = await call("Email", "getsingle", {"contact_id": made["id"]})
    assert (row["email"], row["is_primary"], row["location_type_id"]) == ("ada@example.org", "1", "1")


async def test_several_addresses_can_come_with_a_new_contact(call: Ask) -> None:
    blocks = [{"email": "A@example.org"}, {"email": "b@example.org", "is_primary": 1, "on_hold": 1}]
    made = await call("Contact", "create", {"contact_type": "Individual", "email": blocks, "sequential": 1})
    assert made["values"][0]["display_name"] == "b@example.org"
    rows = (await call("Email", "get", {"sequential": 1}))["values"]
    assert [(row["email"], row["is_primary"], "hold_date" in row) for row in rows] == [
        ("a@example.org", "0", False),
        ("b@example.org", "1", True),
    ]


async def test_create_answers_every_column_as_text(call: Ask) -> None:
    with time_machine.travel("2024-01-31 10:15:00+00:00", tick=False):
        made = await call(
            "Contact",
            "create",
            {"contact_type": "Individual", "first_name": "Ada", "birth_date": "20010203", "gender_id": "female"},
        )
    row = made["values"][str(made["id"])]
    assert all(isinstance(value, str) for value in row.values())
    shown = {"birth_date": "2001-02-03", "gender_id": "1", "nick_name": "", "do_not_email": "0", "api_key": ""}
    shown |= {"created_date": "2024-01-31 10:15:00", "modified_date": "2024-01-31 10:15:00"}
    assert row.items() >= shown.items()
    assert len(row["hash"]) == 32


async def test_a_date_a_number_or_a_word_in_place_of_nothing(call: Ask) -> None:
    contact_id = await a_contact(call, is_opt_out=1, birth_date="2001-02-03", nick_name="x")
    await call("Contact", "create", {"id": contact_id, "is_opt_out": "", "birth_date": "null", "nick_name": ""})
    row = await call("Contact", "getsingle", {"id": contact_id})
    assert (row["is_opt_out"], row["birth_date"], row["nick_name"]) == ("0", "", "")


async def test_a_contact_that_is_not_there_cannot_be_changed(call: Ask) -> None:
    answer = await call("Contact", "create", {"id": 99, "first_name": "x"})
    assert answer["error_message"] == "Contact id 99 not found."


async def test_an_update_moves_the_date_of_change_and_not_that_of_creation(call: Ask) -> None:
    with time_machine.travel("2024-01-01", tick=False):
        contact_id = await a_contact(call)
    with time_machine.travel("2024-01-02", tick=False):
        await call("Contact", "create", {"id": contact_id, "nick_name": "x", "created_date": "2000-01-01"})
    row = await call("Contact", "getsingle", {"id": contact_id, "return": ["created_date", "modified_date"]})
    assert (row["created_date"], row["modified_date"]) == ("2024-01-01 00:00:00", "2024-01-02 00:00:00")


async def test_a_duplicate_is_refused_when_asked_to(call: Ask) -> None:
    first = await a_contact(call, email="a@example.org")
    second = await a_contact(call, "Bea", email="a@example.org")
    answer = await call("Contact", "create", {"contact_type": "Individual", "email": "A@example.org", "dupe_check": 1})
    assert answer["error_message"] == f"Found matching contacts: {first},{second}"
    assert (answer["error_code"], answer["ids"]) == ("duplicate", [str(first), str(second)])
    await call("Contact", "delete", {"id": first})
    await call("Contact", "delete", {"id": second})
    made = await call("Contact", "create", {"contact_type": "Individual", "email": "a@example.org", "dupe_check": 1})
    assert made["is_error"] == 0


async def test_an_employer_is_a_relationship_and_its_new_name_reaches_its_employees(call: Ask) -> None:
    slate = await an_organization(call, "Slate")
    ada = await a_contact(call, employer_id=slate)

    async def related() -> list[tuple[str, str, str]]:
        asked = {"sequential": 1, "return": ["contact_id_a", "contact_id_b", "is_active"]}
        rows = (await call("Relationship", "get", asked))["values"]
        return [(row["contact_id_a"], row["contact_id_b"], row["is_active"]) for row in rows]

    assert await related() == [(str(ada), str(slate), "1")]
    await call("Contact", "create", {"id": ada, "nick_name": "A", "employer_id": slate})
    await call("Contact", "create", {"id": slate, "organization_name": "Slate & Rock"})
    assert await call("Contact", "getvalue", {"id": ada, "return": "organization_name"}) == "Slate & Rock"
    await call("Contact", "create", {"id": ada, "employer_id": ""})
    assert await related() == [(str(ada), str(slate), "0")]
    await call("Contact", "create", {"id": ada, "current_employer": "Slate & Rock"})
    assert await related() == [(str(ada), str(slate), "1")]


async def test_an_organization_keeps_its_name_whoever_its_employer_is(call: Ask) -> None:
    slate = await an_organization(call, "Slate")
    branch = await an_organization(call, "Branch", employer_id=slate)
    shown = await call("Contact", "getsingle", {"id": branch, "return": ["display_name", "organization_name"]})
    assert (shown["display_name"], shown["organization_name"]) == ("Branch", "Branch")
    assert await call("Relationship", "getcount") == 0


async def an_organization(call: Ask, name: str, **more: Any) -> int:
    made = await call("Contact", "create", {"contact_type": "Organization", "organization_name": name, **more})
    return int(made["id"])


async def test_an_employer_is_found_or_made_by_name_and_its_name_kept(call: Ask) -> None:
    first = await a_contact(call, current_employer="Slate & Co")
    second = await a_contact(call, "Bea", current_employer="slate & co")
    asked = {"return": ["current_employer", "employer_id", "organization_name"], "sequential": 1}
    rows = (await call("Contact", "get", {"id": [first, second], **asked}))["values"]
    assert {(row["current_employer"], row["organization_name"]) for row in rows} == {("Slate & Co", "Slate & Co")}
    assert len({row["employer_id"] for row in rows}) == 1
    assert await call("Contact", "getcount", {"contact_type": "Organization"}) == 1


async def test_an_identifier_taken_is_refused_without_any_sql(call: Ask) -> None:
    await a_contact(call, external_identifier="x1")
    answer = await call(
        "Contact", "create", {"contact_type": "Individual", "first_name": "B", "external_identifier": "x1"}
    )
    assert answer["error_message"] == "DB Error: already exists"
    assert "civicrm_contact" not in str(answer)


async def test_the_trash_hides_a_contact_until_it_is_asked_for_or_restored(call: Ask) -> None:
    contact_id = await a_contact(call, email="a@example.org")
    await call("UFMatch", "create", {"uf_id": 1, "uf_name": "ada", "contact_id": contact_id})
    assert (await call("Contact", "delete", {"id": contact_id}))["values"] == 1
    assert await call("Contact", "getcount") == 0
    assert await call("Contact", "getcount", {"id": contact_id}) == 1
    assert await call("Contact", "getcount", {"is_deleted": 1}) == 1
    assert await call("Contact", "getcount", {"contact_is_deleted": 1}) == 1
    assert await call("Contact", "getcount", {"showAll": "trash"}) == 1
    assert await call("Contact", "getcount", {"showAll": "all"}) == 1
    assert await call("Contact", "getcount", {"showAll": "active"}) == 0
    assert await call("Email", "getcount") == 1
    assert await call("UFMatch", "getcount") == 0
    await call("Contact", "delete", {"id": contact_id, "restore": 1})
    assert await call("Contact", "getcount") == 1


async def test_deleted_for_good_means_with_addresses_groups_and_history(call: Ask) -> None:
    contact_id = await a_contact(call, email="a@example.org")
    group = await call("Group", "create", {"title": "News"})
    await call("GroupContact", "create", {"contact_id": contact_id, "group_id": group["id"]})
    await call("Contact", "delete", {"id": contact_id, "skip_undelete": 1})
    for entity in ("Contact", "Email", "GroupContact", "SubscriptionHistory"):
        assert await call(entity, "getcount") == 0


async def test_a_contact_that_is_not_there_or_is_one_s_own_cannot_be_deleted(call: Ask) -> None:
    contact_id = await a_contact(call)
    assert (await call("Contact", "delete", {"id": 99}))["error_message"] == "Could not delete contact"
    own = await call("Contact", "delete", {"id": contact_id}, a_caller("*", contact_id=contact_id))
    assert own["error_message"] == (
        "This contact record is linked to the currently logged in user account - and cannot be deleted."
    )


async def four_people(call: Ask) -> None:
    """1 Ada Lovelace with two addresses, 2 Bea Byron in group 1, 3 Cy Byron once in it, 4 Lovelace Ltd."""
    await a_contact(call, email="ada@example.org", birth_date="1815-12-10", gender_id=1)
    await an_email(call, 1, "second@example.org")
    await a_contact(call, "Bea", "Byron", email="bea@love.example")
    await a_contact(call, "Cy", "Byron", nick_name="C")
    await call("Contact", "create", {"contact_type": "Organization", "organization_name": "Lovelace Ltd"})
    await call("Group", "create", {"title": "Our News", "name": "our_news"})
    await call("GroupContact", "create", {"group_id": 1, "contact_id": [2, 3]})
    await call("GroupContact", "create", {"group_id": 1, "contact_id": 3, "status": "Removed"})


FOUND: dict[str, tuple[dict[str, Any], list[int]]] = {
    "the primary address": ({"email": "ADA@example.org"}, [1]),
    "not another address": ({"email": "second@example.org"}, []),
    "a pattern of addresses": ({"email": {"LIKE": "%example%"}}, [1, 2]),
    "a plain text with a percent sign": ({"email": "ada%"}, [1]),
    "addresses in a list": ({"email": ["ada@example.org", "bea@love.example"]}, [1, 2]),
    "no address": ({"email": {"IS NULL": 1}}, [3, 4]),
    "part of a sort name, or of the primary address": ({"sort_name": "love"}, [1, 2, 4]),
    "part of a display name": ({"display_name": "Cy B"}, [3]),
    "exactly a sort name": ({"sort_name": {"=": "Byron, Bea"}}, [2]),
    "a first name whole": ({"first_name": "Be"}, []),
    "a first name's beginning": ({"first_name": "Be%"}, [2]),
    "types": ({"contact_type": ["Organization", "Household"]}, [4]),
    "a type that is none": ({"contact_type": "Martian"}, []),
    "a group by id": ({"group": 1}, [2]),
    "a group by title": ({"group": "Our News"}, [2]),
    "a group by name": ({"group": "our_news"}, [2]),
    "a group by IN": ({"group": {"IN": ["1", "our_news"]}}, [2]),
    "a group in the old form": ({"group": {"1": 1}}, [2]),
    "a group as a filter": ({"filter.group_id": "1,7"}, [2]),
    "a group that is none": ({"group": "nope"}, []),
    "born in a span": ({"birth_date_low": "1800-01-01", "birth_date_high": "1816-01-01"}, [1]),
    "born later": ({"birth_date": {">": "1900-01-01"}}, []),
    "a gender by name": ({"gender_id": "Female"}, [1]),
    "or is not for contacts": (
        {"first_name": "Ada", "last_name": "Byron", "options": {"or": [["first_name", "last_name"]]}},
        [],
    ),
    "sorted by address": ({"id": [1, 2], "options": {"sort": "email DESC"}}, [2, 1]),
    "sorted by two": ({"id": [1, 2, 3], "options": {"sort": "last_name, first_name DESC"}}, [3, 2, 1]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "ids"), FOUND.values(), ids=FOUND)
async def test_get_finds_by(call: Ask, sent: dict[str, Any], ids: list[int]) -> None:
    await four_people(call)
    answer = await call("Contact", "get", {"return": "id", "sequential": 1, **sent})
    assert [int(row["id"]) for row in answer["values"]] == ids
    assert await call("Contact", "getcount", sent) == len(ids)


async def test_get_shows_every_usual_column_empty_or_not(call: Ask) -> None:
    await four_people(call)
    row = await call("Contact", "getsingle", {"id": 1})
    shown = {
        "contact_id": "1",
        "id": "1",
        "email": "ada@example.org",
        "email_id": "1",
        "on_hold": "0",
        "gender": "Female",
    }
    assert row.items() >= shown.items()
    assert (
        row.items()
        >= {"nick_name": "", "phone": "", "city": "", "current_employer": "", "contact_is_deleted": "0"}.items()
    )
    assert not {"created_date", "api_key", "hash", "is_deleted", "source"} & row.keys()


COLUMNS: dict[str, tuple[Any, dict[str, str]]] = {
    "one": ("display_name", {"display_name": "Ada Lovelace"}),
    "an address with its id": ("email", {"email": "ada@example.org", "email_id": "1"}),
    "a telephone, which nobody has": ("phone", {"phone": "", "phone_id": "", "phone_type_id": ""}),
    "a coded column in words": ("gender", {"gender": "Female"}),
    "a coded column and its words": (["gender_id", "gender"], {"gender_id": "1", "gender": "Female"}),
    "a column of two names under both": ("is_deleted", {"is_deleted": "0", "contact_is_deleted": "0"}),
    "none that exists": ("bogus", {}),
    "a birth date": ("birth_date", {"birth_date": "1815-12-10"}),
}


@pytest.mark.parametrize(("asked", "columns"), COLUMNS.values(), ids=COLUMNS)
async def test_return_gives(call: Ask, asked: Any, columns: dict[str, str]) -> None:
    await four_people(call)
    answer = await call("Contact", "get", {"id": 1, "return": asked})
    assert answer["values"]["1"] == {"id": "1", "contact_id": "1", **columns}


async def test_several_values_in_a_column_come_out_as_a_list(call: Ask) -> None:
    contact_id = await a_contact(call, preferred_communication_method=["Email", "1"])
    row = await call("Contact", "getsingle", {"id": contact_id})
    assert row["preferred_communication_method"] == ["2", "1"]


async def test_an_api_key_is_shown_only_to_those_who_may_edit_it(call: Ask) -> None:
    contact_id = await a_contact(call, api_key="secret-key")
    asked = {"id": contact_id, "return": ["api_key"]}
    nosy = a_caller("view all contacts")
    own = a_caller("view my contact", "edit own api keys", contact_id=contact_id)
    assert "api_key" not in await call("Contact", "getsingle", asked, nosy)
    assert "secret-key" not in str(await call("Contact", "get", {"id": contact_id}, nosy))
    for caller in (own, a_caller("view all contacts", "edit api keys"), a_caller("*")):
        assert (await call("Contact", "getsingle", asked, caller))["api_key"] == "secret-key"


async def test_a_change_does_not_give_an_api_key_away(call: Ask) -> None:
    contact_id = await a_contact(call, api_key="secret-key")
    changed = await call("Contact", "create", {"id": contact_id, "nick_name": "x"}, a_caller("edit all contacts"))
    assert changed["is_error"] == 0
    assert "secret-key" not in str(changed)


async def test_a_caller_sees_no_contact_but_those_they_may(call: Ask) -> None:
    await four_people(call)
    own = a_caller("access CiviCRM", "view my contact", contact_id=2)
    assert (await call("Contact", "get", {}, own))["id"] == 2
    assert await call("Contact", "getcount", {}, own) == 1
    assert (await call("Contact", "get", {"id": 1}, own))["values"] == []
    assert (await call("Contact", "get", {}, a_caller("access CiviCRM")))["values"] == []
    assert (await call("Contact", "get", {}, a_caller("view all contacts")))["count"] == 4
    assert (await call("Contact", "get", {"check_permissions": 0}, own))["count"] == 1


async def test_callers_with_like_questions_get_their_own_answers(call: Ask) -> None:
    """Selects are kept by shape: what one caller may see must not stick to another."""
    await four_people(call)
    for contact_id in (1, 2, 3):
        caller = a_caller("view my contact", contact_id=contact_id)
        assert (await call("Contact", "get", {"return": "id"}, caller))["id"] == contact_id


DENIED: dict[str, tuple[str, dict[str, Any], str]] = {
    "making": (
        "create",
        {"contact_type": "Individual", "first_name": "L"},
        "API permission check failed for Contact/create call; insufficient permission: "
        "require access CiviCRM and add contacts",
    ),
    "changing": ("create", {"id": 1, "first_name": "L"}, "Permission denied to modify contact record"),
    "deleting": (
        "delete",
        {"id": 1},
        "API permission check failed for Contact/delete call; insufficient permission: "
        "require access CiviCRM and delete contacts",
    ),
}


@pytest.mark.parametrize(("action", "sent", "says"), DENIED.values(), ids=DENIED)
async def test_a_caller_without_permission_is_kept_from(
    call: Ask, action: str, sent: dict[str, Any], says: str
) -> None:
    await a_contact(call)
    answer = await call("Contact", action, sent, a_caller("access CiviCRM", "view my contact"))
    assert (answer["error_code"], answer["error_message"]) == ("unauthorized", says)
    assert await call("Contact", "getcount") == 1
