"""Activity and ActivityContact: who took part, who sees it, and the filters by contact."""

from typing import Any

import pytest
import time_machine

from civiapi.api.call import Caller
from tests.conftest import Ask
from tests.support.contacts import a_contact

SEES = frozenset({"access CiviCRM", "view all activities", "view all contacts", "edit all contacts"})
OWN = frozenset({"access CiviCRM", "view all activities", "view my contact", "edit my contact"})


async def a_meeting(call: Ask, **given: Any) -> str:
    made = await call("Activity", "create", {"activity_type_id": "Meeting", "subject": "Tea", **given})
    return str(made["id"])


async def test_an_activity_has_a_source_targets_and_assignees(call: Ask) -> None:
    ada, bea, cy = [await a_contact(call, name) for name in ("Ada", "Bea", "Cy")]
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        made = await a_meeting(call, source_contact_id=ada, target_contact_id=[bea, cy], assignee_contact_id=str(cy))
    wanted = ["subject", "activity_date_time", "status_id", "activity_type_id", "source_contact_id"]
    wanted += ["target_contact_id", "assignee_contact_id"]
    row = await call("Activity", "getsingle", {"id": made, "return": wanted})
    assert (row["subject"], row["activity_date_time"]) == ("Tea", "2026-03-01 12:00:00")
    assert (row["status_id"], row["activity_type_id"]) == ("1", "1")
    assert (row["source_contact_id"], row["assignee_contact_id"]) == (str(ada), [str(cy)])
    assert row["target_contact_id"] == [str(bea), str(cy)]


async def test_a_changed_target_list_replaces_the_old_one(call: Ask) -> None:
    ada, bea, cy = [await a_contact(call, name) for name in ("Ada", "Bea", "Cy")]
    made = await a_meeting(call, source_contact_id=ada, target_contact_id=bea)
    await call("Activity", "create", {"id": made, "target_contact_id": [cy]})
    links = await call("ActivityContact", "get", {"activity_id": made, "sequential": 1})
    assert {(row["contact_id"], row["record_type_id"]) for row in links["values"]} == {(str(ada), "2"), (str(cy), "3")}


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"target_contact_id": "BEA"}, 1),
        ({"source_contact_id": "BEA"}, 0),
        ({"contact_id": "ADA"}, 2),
        ({"contact_id": "ADA", "target_contact_id": "BEA"}, 1),
        ({"target_contact_id": {"IN": ["BEA", "CY"]}}, 2),
        ({"contact_id": "CY", "subject": "Call"}, 1),
    ],
)
async def test_activities_are_found_by_their_contacts(call: Ask, given: dict[str, Any], count: int) -> None:
    ids = {name.upper(): await a_contact(call, name) for name in ("Ada", "Bea", "Cy")}
    await a_meeting(call, source_contact_id=ids["ADA"], target_contact_id=ids["BEA"])
    await a_meeting(call, source_contact_id=ids["ADA"], target_contact_id=ids["CY"], subject="Call")
    asked = {
        name: {"IN": [ids[one] for one in value["IN"]]} if isinstance(value, dict) else ids.get(value, value)
        for name, value in given.items()
    }
    assert await call("Activity", "getcount", asked) == count


async def test_a_filter_by_contact_with_another_operator_is_refused(call: Ask) -> None:
    refused = await call("Activity", "get", {"target_contact_id": {">": 3}})
    assert refused["is_error"] == 1
    assert "target_contact_id" in refused["error_message"]


async def test_who_sees_oneself_alone_sees_one_s_own_activities_and_of_their_contacts_oneself(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    mine = await a_meeting(call, source_contact_id=bea, target_contact_id=[ada, bea])
    await a_meeting(call, source_contact_id=bea)
    me = Caller(ada, OWN, "Ada")
    seen = await call("Activity", "get", {"return": "target_contact_id,source_contact_id", "sequential": 1}, me)
    assert [(row["id"], row["target_contact_id"]) for row in seen["values"]] == [(mine, [str(ada)])]
    assert "source_contact_id" not in seen["values"][0]
    assert await call("ActivityContact", "getcount", {}, me) == 1


async def test_nobody_joins_an_activity_that_they_do_not_see(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    theirs = await a_meeting(call, source_contact_id=bea)
    link = {"activity_id": theirs, "contact_id": ada, "record_type_id": 3}
    refused = await call("ActivityContact", "create", link, Caller(ada, OWN, "Ada"))
    assert refused["is_error"] == 1
    assert (await call("ActivityContact", "create", link, Caller(ada, SEES, "Ada")))["is_error"] == 0


async def test_an_activity_that_the_caller_does_not_see_is_no_parent_as_if_it_did_not_exist(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    theirs = await a_meeting(call, source_contact_id=bea)
    mine = {"activity_type_id": "Meeting", "source_contact_id": ada}
    for parent in (theirs, "9999"):
        refused = await call("Activity", "create", {**mine, "parent_id": parent}, Caller(ada, OWN, "Ada"))
        assert refused["error_message"] == f"parent_id is not valid : {parent}"
    assert (await call("Activity", "create", {**mine, "parent_id": theirs}, Caller(ada, SEES, "Ada")))["is_error"] == 0


@pytest.mark.parametrize("has_source", [True, False])
async def test_nobody_makes_themselves_the_source_of_what_they_may_not_change(call: Ask, has_source: bool) -> None:
    """The source may change an activity: who took part in it, such as in a campaign without a source, does not."""
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    made = await a_meeting(call, source_contact_id=bea if has_source else "", target_contact_id=ada)
    own = await a_meeting(call, source_contact_id=ada)
    caller = Caller(int(ada), OWN, "Ada")
    of_ada = {"contact_id": ada, "return": "id"}
    target = await call("ActivityContact", "getvalue", {"activity_id": made, **of_ada})
    source = await call("ActivityContact", "getvalue", {"activity_id": own, **of_ada})
    for given in (
        {"activity_id": made, "contact_id": ada, "record_type_id": 2},
        {"id": target, "record_type_id": 2},
        {"id": source, "activity_id": made},
    ):
        refused = await call("ActivityContact", "create", given, caller)
        assert refused["error_message"] == "Permission denied to modify contact record", given
    refused = await call("Activity", "create", {"id": made, "subject": "Mine"}, caller)
    assert refused["error_code"] == "unauthorized"
    assert (await call("Activity", "create", {"id": own, "subject": "Mine"}, caller))["is_error"] == 0
    assert (await call("ActivityContact", "create", {"id": target, "record_type_id": 1}, caller))["is_error"] == 0


async def test_a_changed_target_list_keeps_contacts_that_the_caller_does_not_see(call: Ask) -> None:
    ada, bea, cy = [await a_contact(call, name) for name in ("Ada", "Bea", "Cy")]
    made = await a_meeting(call, source_contact_id=ada, target_contact_id=[bea])
    await call("Contact", "delete", {"id": bea})
    await call("Activity", "create", {"id": made, "target_contact_id": [cy]}, Caller(ada, SEES, "Ada"))
    row = await call("Activity", "getsingle", {"id": made, "return": "target_contact_id"})
    assert row["target_contact_id"] == [str(bea), str(cy)]


async def test_deleting_for_good_takes_the_permission_to_delete(call: Ask) -> None:
    ada = await a_contact(call)
    made = await a_meeting(call, source_contact_id=ada)
    assert (await call("Activity", "delete", {"id": made}, Caller(ada, SEES, "Ada")))["is_error"] == 1
    may = Caller(ada, SEES | {"delete activities"}, "Ada")
    assert (await call("Activity", "delete", {"id": made}, may))["is_error"] == 0
    assert await call("ActivityContact", "getcount", {}) == 0
