"""A run is opened and undone by calls: what it did to whom, for those who may see them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_caller import ApiCaller
from tests.support.contacts import a_caller
from tests.support.databases import KINDS as DATABASES
from tests.support.databases import a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

ADMIN = "administer CiviCRM"


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(poll_seconds=0.01)) as opened:
            yield opened


@pytest.fixture
async def ask(site: Site) -> ApiCaller:
    """The API of a site whose first sync made a contact, added one and subscribed two, of whom one is refused."""
    site.joined("new@example.org", "known@example.org")
    await site.person("known@example.org", status=None)
    await site.person("here@example.org")
    await site.person("refused@example.org")
    account = site.emulator.world.default_account
    account.options.configure({"forgotten_emails": ["refused@example.org"]})
    await site.sync()
    return ApiCaller(site)


async def newest(ask: ApiCaller) -> int:
    return int((await ask("getruns", group_id=GROUP))[0]["id"])


async def test_a_run_tells_what_it_did_to_whom_and_what_mailchimp_answered(ask: ApiCaller) -> None:
    run = await ask("getrun", run_id=await newest(ask))
    assert {one["kind"]: one["count"] for one in run["summary"]} == {"new_contact": 1, "join_group": 2, "subscribe": 2}
    told = {(one["email"], one["kind"]): (one["reason"], one["answer"]) for one in run["people"]}
    assert told["new@example.org", "new_contact"][0].endswith("a contact was made.")
    assert told["known@example.org", "join_group"][0].endswith("added to the group.")
    assert told["here@example.org", "subscribe"][0].startswith("Joined the group on ")
    assert told["here@example.org", "subscribe"][1] == "Carried out."
    assert "Forgotten Email" in told["refused@example.org", "subscribe"][1]
    assert [one["total"] for one in run["batches"]] == [2]
    assert any("created for members" in line["message"] for line in run["log"])
    assert (run["outcome"], run["can_undo"], run["undoes"], run["undone_by"]) == ("finished", True, None, None)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"kind": "join_group"}, ["known@example.org", "new@example.org"]),
        ({"kind": ["subscribe", "new_contact"]}, ["here@example.org", "new@example.org", "refused@example.org"]),
        ({"search": "refus"}, ["refused@example.org"]),
        ({"search": "BYRON", "kind": "join_group"}, ["known@example.org"]),
        ({"search": "100%"}, []),
    ],
)
async def test_it_is_searched_by_kind_name_and_address(
    ask: ApiCaller, asked: dict[str, Any], expected: list[str]
) -> None:
    run = await ask("getrun", run_id=await newest(ask), **asked)
    assert sorted(one["email"] for one in run["people"]) == expected
    assert run["count"] == len(expected)


async def test_pages_of_it_hold_everybody_once(ask: ApiCaller) -> None:
    run_id = await newest(ask)
    pages = [await ask("getrun", run_id=run_id, options={"limit": 2, "offset": offset}) for offset in (0, 2, 4)]
    people = [(one["email"], one["kind"]) for page in pages for one in page["people"]]
    assert len(people) == len(set(people)) == pages[0]["count"] == 5


async def test_who_may_not_see_contacts_sees_none_in_it(ask: ApiCaller) -> None:
    run_id = await newest(ask)
    for action in ("getrun", "planundo"):
        blind = (await ask.answer(action, caller=a_caller(ADMIN), run_id=run_id))["values"]
        assert (blind["summary"], blind["people"], blind["count"]) == ([], [], 0)
        seeing = (await ask.answer(action, caller=a_caller(ADMIN, "view all contacts"), run_id=run_id))["values"]
        assert seeing["count"] > 3
    refused = await ask.answer("undorun", caller=a_caller("view all contacts"), run_id=run_id)
    assert "permission" in refused["error_message"]


async def test_the_plan_of_an_undo_is_what_the_undo_does(site: Site, ask: ApiCaller) -> None:
    run_id = await newest(ask)
    plan = await ask("planundo", run_id=run_id)
    assert {one["kind"]: one["count"] for one in plan["summary"]} == {
        "group_out": 2,
        "trash_contact": 1,
        "unsubscribe_again": 1,
    }
    assert all(one["reason"] for one in plan["people"])
    assert await newest(ask) == run_id, "a plan is no run"
    assert len(await site.contacts()) == 4
    done = await ask("undorun", run_id=run_id)
    assert (done["summary"], done["undoes"], done["sent"]) == (plan["summary"], run_id, 1)
    assert len(await site.contacts()) == 3
    opened = await ask("getrun", run_id=done["run_id"])
    assert (opened["undoes"], opened["outcome"], opened["can_undo"]) == (run_id, "finished", False)
    assert [one["kind"] for one in opened["summary"]] == [one["kind"] for one in plan["summary"]]
    assert (await ask("getrun", run_id=run_id))["undone_by"] == done["run_id"]
    for action in ("undorun", "planundo"):
        assert "was undone already" in (await ask.answer(action, run_id=run_id))["error_message"]
        assert "an undo cannot be undone" in (await ask.answer(action, run_id=done["run_id"]))["error_message"]


@pytest.mark.parametrize("run_id", [0, -1, "x", 4711, 2**40])
@pytest.mark.parametrize("action", ["getrun", "planundo", "undorun"])
async def test_a_run_that_is_not_there_is_an_error(ask: ApiCaller, action: str, run_id: Any) -> None:
    answer = await ask.answer(action, run_id=run_id)
    assert answer["is_error"] == 1
    assert "run" in answer["error_message"]


async def test_an_undone_person_is_explained_and_not_planned(site: Site, ask: ApiCaller) -> None:
    await ask("undorun", run_id=await newest(ask))
    await site.settle()
    [one] = await ask("explain", email="known@example.org")
    assert "Taken back" in str(one)
    plan = await ask("plan", group_id=GROUP, since="ever")
    assert {one["kind"] for one in plan["summary"]} <= {"taken_back", "in_step", "cannot"}
