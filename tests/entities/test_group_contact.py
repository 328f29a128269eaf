"""GroupContact: counts instead of rows, history with every real change, two shapes of get."""

from typing import Any

import pytest

from civiapi.api.call import Caller
from tests.conftest import Ask

READER = Caller(None, frozenset({"access CiviCRM"}))


@pytest.fixture
async def people(call: Ask) -> Ask:
    """Contacts 1 to 3 and groups 1 (News) and 2 (Board)."""
    for name in ("Ada", "Bob", "Cyd"):
        await call("Contact", "create", {"contact_type": "Individual", "first_name": name})
    for title in ("News", "Board"):
        await call("Group", "create", {"title": title})
    return call


async def said(call: Ask, **filters: Any) -> list[tuple[str, str, str]]:
    """What the history holds: contact, status, method, oldest first."""
    found = await call("SubscriptionHistory", "get", {**filters, "sequential": 1, "options": {"limit": 0}})
    return [(row["contact_id"], row["status"], row["method"]) for row in found["values"]]


async def standing(call: Ask, contact_id: int, group_id: int = 1) -> str | None:
    every = {"IN": ["Added", "Removed", "Pending"]}
    found = await call("GroupContact", "get", {"group_id": group_id, "status": every, "sequential": 1})
    return {row["contact_id"]: row["status"] for row in found["values"]}.get(str(contact_id))


def counts(answer: dict[str, Any]) -> dict[str, int]:
    assert (answer["is_error"], answer["count"], answer["values"]) == (0, 1, 1)
    assert "id" not in answer
    return {key: value for key, value in answer.items() if key not in ("is_error", "version", "count", "values")}


SHAPES: dict[str, dict[str, Any]] = {
    "a scalar": {"contact_id": 1, "group_id": 1},
    "text": {"contact_id": "1", "group_id": "1"},
    "a group by its title": {"contact_id": 1, "group_id": "News"},
    "a list": {"contact_id": [1], "group_id": [1]},
    "a numbered key": {"contact_id.1": 1, "group_id.1": 1},
    "a numbered key as a form sends it": {"contact_id_1": 1, "group_id_1": 1},
    "somebody twice": {"contact_id": [1, "1"], "contact_id.2": 1, "group_id": 1},
}


@pytest.mark.parametrize("params", SHAPES.values(), ids=SHAPES.keys())
async def test_who_and_where_can_be_said_in_many_ways(people: Ask, params: dict[str, Any]) -> None:
    answer = await people("GroupContact", "create", params)
    assert counts(answer) == {"total_count": 1, "added": 1, "not_added": 0}
    assert await said(people) == [("1", "Added", "API")]


async def test_several_contacts_and_groups_are_counted_together(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 2})
    asked = {"contact_id.1": 1, "contact_id.2": 2, "group_id": [1, 2]}
    assert counts(await people("GroupContact", "create", asked)) == {"total_count": 4, "added": 3, "not_added": 1}


async def test_someone_who_stands_there_already_is_left_alone(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    answer = await people("GroupContact", "create", {"contact_id": 1, "group_id": 1, "method": "Web"})
    assert counts(answer) == {"total_count": 1, "added": 0, "not_added": 1}
    assert await said(people) == [("1", "Added", "API")]


async def test_a_change_without_tracking_has_an_empty_one_as_civicrm_writes_it(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    assert await people("SubscriptionHistory", "getcount", {"tracking": {"IS NULL": 1}}) == 0
    assert await people("SubscriptionHistory", "getcount", {"tracking": ""}) == 1


async def test_method_and_tracking_go_into_the_history(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1, "method": "MCsync", "tracking": "batch 7"})
    row = await people("SubscriptionHistory", "getsingle", {"contact_id": 1})
    assert (row["method"], row["tracking"]) == ("MCsync", "batch 7")


async def test_a_removal_is_always_written_down(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    for _ in range(2):
        answer = await people("GroupContact", "create", {"contact_id": 1, "group_id": 1, "status": "Removed"})
        assert counts(answer) == {"total_count": 1, "removed": 1, "not_removed": 0}
    assert [status for _, status, _ in await said(people)] == ["Added", "Removed", "Removed"]
    assert await standing(people, 1) == "Removed"


async def test_removing_someone_who_never_was_there_makes_the_row(people: Ask) -> None:
    answer = await people("GroupContact", "create", {"contact_id": 2, "group_id": 1, "status": "Removed"})
    assert counts(answer) == {"total_count": 1, "removed": 0, "not_removed": 1}
    assert await standing(people, 2) == "Removed"


async def test_a_row_is_changed_by_its_id(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 2, "group_id": 1})
    row = await people("GroupContact", "getsingle", {"contact_id": 2, "group_id": 1})
    answer = await people("GroupContact", "create", {"id": row["id"], "status": "Pending"})
    assert counts(answer) == {"total_count": 1, "added": 1, "not_added": 0}
    assert await standing(people, 2) == "Pending"


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "neither": ({}, {"error_code": "mandatory_missing", "fields": ["group_id", "contact_id"]}),
    "no group": ({"contact_id": 1}, {"fields": ["group_id"]}),
    "an empty list": ({"contact_id": [], "group_id": 1}, {"fields": ["contact_id"]}),
    "a group that is not there": (
        {"contact_id": 1, "group_id": 99},
        {"error_code": 2001, "error_message": "'99' is not a valid option for field group_id"},
    ),
    "a group of no such name": (
        {"contact_id": 1, "group_id": "nix"},
        {"error_message": "'nix' is not a valid option for field group_id"},
    ),
    "a contact that is not there": (
        {"contact_id": [1, 99], "group_id": 1},
        {"error_message": "contact_id is not valid : 99"},
    ),
    "a contact that is no number": (
        {"contact_id": "x", "group_id": 1},
        {"error_code": 2001, "error_message": "contact_id is not a valid integer"},
    ),
    "a status that is none": (
        {"contact_id": 1, "group_id": 1, "status": "Bogus"},
        {"error_code": 2001, "error_message": "'Bogus' is not a valid option for field status"},
    ),
    "a row that is not there": ({"id": 99, "status": "Added"}, {"error_message": "No GroupContact with id 99"}),
}


@pytest.mark.parametrize(("params", "expected"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_said_and_nothing_is_written(
    people: Ask, params: dict[str, Any], expected: dict[str, Any]
) -> None:
    answer = await people("GroupContact", "create", params)
    assert answer["is_error"] == 1
    assert {key: answer[key] for key in expected} == expected
    assert await said(people) == []


async def test_delete_means_removed(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    answer = await people("GroupContact", "delete", {"contact_id": 1, "group_id": 1})
    assert counts(answer) == {"total_count": 1, "removed": 1, "not_removed": 0}
    assert await standing(people, 1) == "Removed"


async def test_delete_for_good_takes_the_row_away_and_counts_nothing(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    row = await people("GroupContact", "getsingle", {"contact_id": 1})
    answer = await people("GroupContact", "delete", {"id": row["id"], "skip_undelete": 1})
    assert counts(answer) == {"total_count": 1, "removed": 0, "not_removed": 0}
    assert await standing(people, 1) is None
    assert [status for _, status, _ in await said(people)] == ["Added", "Deleted"]


@pytest.mark.parametrize("params", [{}, {"group_id": 1}, {"id": 99}, {"contact_id": 1, "group_id": 1}])
async def test_where_nothing_is_there_nothing_can_be_deleted(people: Ask, params: dict[str, Any]) -> None:
    answer = await people("GroupContact", "delete", params)
    assert answer["error_message"] == "Cannot Delete GroupContact"
    assert await said(people) == []


async def test_a_group_lists_those_added_unless_asked_for_others(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": [1, 2], "group_id": 1})
    await people("GroupContact", "create", {"contact_id": 2, "group_id": 1, "status": "Removed"})
    added = await people("GroupContact", "get", {"group_id": 1, "sequential": 1})
    assert added["values"] == [{"id": "1", "group_id": "1", "contact_id": "1", "status": "Added"}]
    both = {"group_id": 1, "status": {"IN": ["Added", "Removed"]}}
    assert await people("GroupContact", "getcount", both) == 2


async def test_a_contact_lists_groups_with_when_and_how_they_were_joined(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1, "method": "Web"})
    row = await people("GroupContact", "getsingle", {"contact_id": 1})
    assert {**row, "in_date": len(row["in_date"])} == {
        "id": "1",
        "group_id": "1",
        "contact_id": "1",
        "status": "Added",
        "title": "News",
        "visibility": "User and User Admin Only",
        "is_hidden": "0",
        "in_date": 19,
        "in_method": "Web",
    }


async def test_groups_that_were_left_tell_both_dates(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    await people("GroupContact", "delete", {"contact_id": 1, "group_id": 1})
    row = await people("GroupContact", "getsingle", {"contact_id": 1, "status": "Removed"})
    assert {"out_date", "out_method", "date_added"} <= set(row)
    assert await people("GroupContact", "getcount", {"contact_id": 1}) == 0


@pytest.mark.parametrize("change", [{"is_active": 0}, {"is_hidden": 1}, {"saved_search_id": 5}])
async def test_inactive_hidden_and_smart_groups_are_not_listed_for_a_contact(
    people: Ask, change: dict[str, int]
) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": [1, 2]})
    await people("Group", "create", {"id": 2, **change})
    found = await people("GroupContact", "get", {"contact_id": 1, "sequential": 1})
    assert [row["title"] for row in found["values"]] == ["News"]


async def test_a_group_made_a_moment_ago_can_be_named(people: Ask) -> None:
    """The list of groups was once kept for half a minute, and a new group was "not a valid option"."""
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    await people("Group", "create", {"title": "Newest"})
    answer = await people("GroupContact", "create", {"contact_id": 1, "group_id": "Newest"})
    assert counts(answer)["added"] == 1


async def test_who_may_not_see_a_contact_does_not_see_the_groups(people: Ask) -> None:
    await people("GroupContact", "create", {"contact_id": 1, "group_id": 1})
    assert (await people("GroupContact", "get", {"contact_id": 1}, READER))["count"] == 0
    assert (await people("GroupContact", "get", {"group_id": 1}, READER))["count"] == 0


async def test_a_chained_membership_is_undone_with_the_contact(people: Ask) -> None:
    answer = await people(
        "Contact",
        "create",
        {"contact_type": "Individual", "first_name": "Dot", "api.GroupContact.create": {"group_id": 99}},
    )
    assert answer["error_message"].startswith("Error in call to GroupContact_create : ")
    assert await people("Contact", "getcount") == 3


async def test_history_is_read_only(call: Ask) -> None:
    assert (await call("SubscriptionHistory", "create", {}))["error_code"] == "not-found"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["1", "2"]),
        ({"location_id": 99}, []),
        ({"email_id": {"IS NOT NULL": 1}}, []),
        ({"group_id": {"!=": 1}}, ["2"]),
        ({"id": {">": 1}}, ["2"]),
        ({"group_id": 2, "email_id": {"IS NULL": 1}}, ["2"]),
    ],
)
async def test_every_filter_is_applied_to_the_groups_of_a_contact(
    people: Ask, more: dict[str, Any], expected: list[str]
) -> None:
    for group_id in (1, 2):
        await people("GroupContact", "create", {"contact_id": 1, "group_id": group_id})
    found = await people("GroupContact", "get", {"contact_id": 1, **more, "sequential": 1})
    assert [row["group_id"] for row in found["values"]] == expected
