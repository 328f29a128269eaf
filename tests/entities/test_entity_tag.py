"""Tags of contacts: several at once, by id or by name; what is no tag is said to be none."""

from typing import Any

import pytest

from civiapi.api.call import Caller
from tests.conftest import Ask
from tests.support.contacts import a_contact


async def tags_of(call: Ask, contact_id: int) -> set[str]:
    rows = await call("EntityTag", "get", {"contact_id": contact_id, "sequential": 1})
    return {row["tag_id"] for row in rows["values"]}


@pytest.fixture
async def tags(call: Ask) -> dict[str, str]:
    made = {name: await call("Tag", "create", {"name": name}) for name in ("Helper", "Major gift", "2024")}
    return {name: str(one["id"]) for name, one in made.items()}


async def test_a_tag_may_be_meant_by_its_name(call: Ask, tags: dict[str, str]) -> None:
    ada, bea = await a_contact(call), await a_contact(call)
    answer = await call("EntityTag", "create", {"contact_id": [ada, bea], "tag_id": ["helper", "Major gift"]})
    assert (answer["total_count"], answer["added"]) == (4, 4)
    assert await tags_of(call, ada) == await tags_of(call, bea) == {tags["Helper"], tags["Major gift"]}
    again = await call("EntityTag", "create", {"contact_id": ada, "tag_id": f"Helper,{tags['Helper']}"})
    assert (again["total_count"], again["not_added"]) == (1, 1)
    found = await call("EntityTag", "get", {"tag_id": "Helper", "sequential": 1})
    assert {row["entity_id"] for row in found["values"]} == {str(ada), str(bea)}
    gone = await call("EntityTag", "delete", {"contact_id": ada, "tag_id": "Helper"})
    assert gone["removed"] == 1
    assert await tags_of(call, ada) == {tags["Major gift"]}


@pytest.mark.parametrize(
    ("tag_id", "said"),
    [
        ("Nope", "'Nope' is not a valid option for field tag_id"),
        (["Helper", "Nope"], "'Nope' is not a valid option for field tag_id"),
        (4711, "tag_id is not valid : 4711"),
        ("", "Mandatory key(s) missing from params array: tag_id"),
        ([], "Mandatory key(s) missing from params array: tag_id"),
    ],
)
@pytest.mark.parametrize("action", ["create", "delete"])
async def test_what_is_no_tag_is_said_to_be_none(
    call: Ask, tags: dict[str, str], action: str, tag_id: Any, said: str
) -> None:
    ada = await a_contact(call)
    await call("EntityTag", "create", {"contact_id": ada, "tag_id": tags["Helper"]})
    answer = await call("EntityTag", action, {"contact_id": ada, "tag_id": tag_id})
    assert answer["error_message"] == said
    assert await tags_of(call, ada) == {tags["Helper"]}


async def test_an_activity_that_is_not_seen_is_tagged_no_more_than_one_that_is_not_there(
    call: Ask, tags: dict[str, str]
) -> None:
    ada, bea = await a_contact(call), await a_contact(call)
    made = {"activity_type_id": "Meeting", "source_contact_id": bea}
    seen, unseen = [(await call("Activity", "create", made | {"target_contact_id": one}))["id"] for one in (ada, bea)]
    await call("Contact", "delete", {"id": bea})
    editor = Caller(ada, frozenset({"access CiviCRM", "view all contacts", "edit all contacts"}), "editor")
    for caller in (editor, None):
        for one in (seen, unseen, 9999):
            asked = {"entity_table": "civicrm_activity", "entity_id": one, "tag_id": "Helper"}
            answer = await call("EntityTag", "create", asked, *([caller] if caller else []))
            if one == seen or (one == unseen and caller is None):
                assert answer["is_error"] == 0, answer
            else:
                assert answer["error_message"] == f"entity_id is not valid : {one}"
    assert (await call("EntityTag", "get", {"entity_table": "civicrm_activity"}, editor))["count"] == 1
    assert (await call("EntityTag", "get", {"entity_table": "civicrm_activity"}))["count"] == 2
