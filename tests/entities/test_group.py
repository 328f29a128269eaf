"""Group: names made from titles, types as a list, deletion with everything that hangs on it."""

from typing import Any

import pytest

from civiapi.api.call import Caller
from tests.conftest import Ask

EDITOR = Caller(None, frozenset({"access CiviCRM"}))


async def a_group(call: Ask, title: str = "News", **more: Any) -> int:
    made = await call("Group", "create", {"title": title, **more})
    return int(made["id"])


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("My News", "My_News_1"),
        ("Ünsere -- Liste!", "_nsere_Liste__1"),
        ("A title that is longer than what fits", "A_title_that_is_longer_than_wha_1"),
    ],
)
async def test_a_group_without_a_name_is_named_after_its_title_and_id(call: Ask, title: str, name: str) -> None:
    made = await call("Group", "create", {"title": title})
    assert made["values"]["1"]["name"] == name
    assert await call("Group", "getvalue", {"id": 1, "return": "name"}) == name


async def test_a_name_that_is_given_is_kept(call: Ask) -> None:
    made = await call("Group", "create", {"title": "News", "name": "news"})
    assert made["values"]["1"]["name"] == "news"


@pytest.mark.parametrize("given", ["Mailing List", "2", 2, ["Mailing List"], {"2": 1}])
async def test_types_are_taken_as_names_or_values_and_given_back_as_a_list(call: Ask, given: Any) -> None:
    group_id = await a_group(call, group_type=given)
    assert (await call("Group", "getsingle", {"id": group_id}))["group_type"] == ["2"]


async def test_an_update_that_does_not_mention_the_types_keeps_them(call: Ask) -> None:
    group_id = await a_group(call, group_type=["1", "2"])
    await call("Group", "create", {"id": group_id, "description": "new"})
    found = await call("Group", "getsingle", {"id": group_id})
    assert (found["group_type"], found["description"]) == (["1", "2"], "new")


async def test_groups_are_found_by_a_type_among_several(call: Ask) -> None:
    await a_group(call, "A", group_type=["1", "2"])
    await a_group(call, "B", group_type="1")
    found = await call("Group", "get", {"group_type": {"LIKE": "%2%"}, "return": "title", "sequential": 1})
    assert [row["title"] for row in found["values"]] == ["A"]


@pytest.mark.parametrize("clash", [{"title": "News"}, {"title": "news"}, {"title": "Other", "name": "news"}])
async def test_a_title_or_a_name_that_is_taken_is_refused(call: Ask, clash: dict[str, str]) -> None:
    await a_group(call, "News", name="news")
    refused = await call("Group", "create", clash)
    assert refused["error_message"] == "DB Error: already exists"
    assert await call("Group", "getcount") == 1


async def test_a_title_is_required(call: Ask) -> None:
    refused = await call("Group", "create", {})
    assert (refused["error_code"], refused["fields"]) == ("mandatory_missing", ["title"])


async def test_the_member_count_is_of_those_added_and_not_in_the_trash(call: Ask) -> None:
    group_id = await a_group(call)
    for name in ("Ada", "Bob", "Cyd"):
        made = await call("Contact", "create", {"contact_type": "Individual", "first_name": name})
        await call("GroupContact", "create", {"contact_id": made["id"], "group_id": group_id})
    await call("GroupContact", "create", {"contact_id": 2, "group_id": group_id, "status": "Removed"})
    await call("Contact", "delete", {"id": 3})
    found = await call("Group", "get", {"return": ["title", "member_count"]})
    assert found["values"]["1"]["member_count"] == "1"
    assert "member_count" not in (await call("Group", "get"))["values"]["1"]


async def test_deleting_a_group_takes_its_memberships_and_history_along(call: Ask) -> None:
    group_id = await a_group(call)
    await call("Contact", "create", {"contact_type": "Individual", "first_name": "Ada"})
    await call("GroupContact", "create", {"contact_id": 1, "group_id": group_id})
    assert (await call("Group", "delete", {"id": group_id}))["values"] == 1
    assert await call("GroupContact", "getcount") == 0
    assert await call("SubscriptionHistory", "getcount") == 0


async def test_a_group_that_is_not_there_cannot_be_deleted(call: Ask) -> None:
    assert (await call("Group", "delete", {"id": 9}))["error_message"] == "Could not delete group 9"


async def test_counts_do_not_stop_at_twenty_five(call: Ask) -> None:
    for number in range(27):
        await a_group(call, f"G{number}")
    assert await call("Group", "getcount") == 27


async def test_writing_needs_a_permission_that_reading_does_not(call: Ask) -> None:
    assert (await call("Group", "get", {}, EDITOR))["is_error"] == 0
    refused = await call("Group", "create", {"title": "News"}, EDITOR)
    assert refused["error_message"].endswith("insufficient permission: require access CiviCRM and edit groups")


async def nesting_of(call: Ask, group_id: int) -> tuple[str, str]:
    row = await call("Group", "getsingle", {"id": group_id})
    return row.get("parents", ""), row.get("children", "")


@pytest.mark.parametrize("given", ["2,3", ["2", 3], "3, 2"])
async def test_a_group_is_put_into_its_parents_which_know_their_children(call: Ask, given: Any) -> None:
    child, first, second = [await a_group(call, title) for title in ("Child", "First", "Second")]
    assert (first, second) == (2, 3)
    made = await call("Group", "create", {"id": child, "parents": given})
    assert made["values"][str(child)]["parents"] == "2,3"
    assert [await nesting_of(call, one) for one in (child, first, second)] == [("2,3", ""), ("", "1"), ("", "1")]
    await call("Group", "create", {"id": child, "description": "Still inside."})
    assert await nesting_of(call, child) == ("2,3", "")
    await call("Group", "create", {"id": child, "parents": "3"})
    assert [await nesting_of(call, one) for one in (child, first, second)] == [("3", ""), ("", ""), ("", "1")]
    await call("Group", "delete", {"id": second})
    assert await nesting_of(call, child) == ("", "")


@pytest.mark.parametrize("given", ["99", "x", "1", "2"], ids=["no such group", "no number", "itself", "its own child"])
async def test_a_group_that_cannot_be_a_parent_is_refused(call: Ask, given: str) -> None:
    group_id = await a_group(call)
    await a_group(call, "Child", parents=str(group_id))
    answer = await call("Group", "create", {"id": group_id, "parents": given})
    assert answer["error_message"] == f"parents is not valid : {given}"
    assert await nesting_of(call, group_id) == ("", "2")
