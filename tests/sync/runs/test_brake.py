"""The brake: a sync that would take away too much stops before it does, says so everywhere, and goes on when told."""

from collections import Counter
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from time_machine import Traveller

from civiapi.api.dispatch import Api
from entities.site.job_runner import run_job
from sync.connections.config import read_config, write_config
from sync.emulator.model.records import Interest, InterestCategory
from sync.errors import SyncBraked, SyncError
from sync.runs import impact
from sync.runs.stages import reconcile_and_submit
from sync.store.runs import checkpoints
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, link, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
PEOPLE = [f"member{n}@example.org" for n in range(8)]
LIMITS = {"brake_percent": 25.0, "brake_people": 2}


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    """Eight people in step; a sync may remove two of them, or a quarter."""
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(poll_seconds=0.05, **LIMITS)) as opened:
            opened.joined(*PEOPLE)
            await opened.sync(since="ever")
            clock.shift(60)
            yield opened


@pytest.fixture
def ask(site: Site) -> ApiCaller:
    return ApiCaller(site)


async def empty_the_group(site: Site, count: int = 8) -> None:
    """Somebody takes people out of the group by mistake."""
    for one in (await site.contacts())[:count]:
        await site.set_group(one.id, "Removed")


async def status(site: Site, ask: ApiCaller) -> dict[str, Any]:
    return dict((await ask("getstatus", health=1))[site.list_id])


def inside(site: Site) -> int:
    return sum(site.at_mailchimp(address) == "subscribed" for address in PEOPLE)


# ── Stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sync_that_would_empty_the_audience_stops_before_it_does(site: Site, ask: ApiCaller) -> None:
    await empty_the_group(site)
    answer = await ask.answer("fetchandreconcile")
    sentence = (
        "The brake is on: this sync would remove 8 of 8 people from the audience at Mailchimp; the limit is 25 % and 2 "
        "people. Nobody was removed or added. Check Mailchimpsync.plan; to go ahead, call fetchandreconcile with "
        "confirm=1."
    )
    assert answer["error_message"] == f"Audience {site.list_id} stopped at readyToReconcileQueue: {sentence}"
    shown = await status(site, ask)
    assert shown["brake"] == {
        "kind": "audience",
        "removals_group": 0,
        "removals_audience": 8,
        "additions": 0,
        "group_size": 0,
        "audience_size": 8,
        "group_id": GROUP,
        "limits": {"percent": 25.0, "people": 2, "additions": 0},
        "sentence": sentence,
        "since": "2026-01-09 12:01:00",
    }
    assert shown["locks"] == {"fetchAndReconcile": "readyToReconcileQueue"}
    assert shown["log"][-1]["message"] == sentence
    assert (shown["crashed"], shown["in_sync"]) == (False, False)
    assert [one["outcome"] for one in await ask("getruns")][:1] == ["braked"]
    assert [row.mailchimpsync_batch_id for row in await site.updates()] == []
    assert inside(site) == 8


async def test_a_sync_that_would_empty_the_group_stops_before_it_does(site: Site, ask: ApiCaller) -> None:
    for address in PEOPLE:
        site.emulator.person("unsubscribe", address)
    assert "would remove 8 of 8 people from the group" in (await ask.answer("fetchandreconcile"))["error_message"]
    shown = (await status(site, ask))["brake"]
    assert (shown["kind"], shown["removals_group"], shown["group_size"]) == ("group", 8, 8)
    assert [await site.standing(one.id) for one in await site.contacts()] == ["Added"] * 8


async def test_a_sync_that_would_empty_the_group_of_an_interest_stops_too(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    trees = "9143cf3bd1"
    category = InterestCategory("c" * 10, "Topics")
    category.interests[trees] = Interest(trees, category.id, "Trees")
    site.emulator.audience().categories[category.id] = category
    await site.store.write(link, site.emulator.key, site.list_id, {trees: str(TREES_GROUP)})
    for address in PEOPLE:
        site.emulator.person("edit_profile", address, interests={trees: True})
    await site.sync()
    assert [await site.standing(one.id, TREES_GROUP) for one in await site.contacts()] == ["Added"] * 8
    clock.shift(60)
    for address in PEOPLE:
        site.emulator.person("edit_profile", address, interests={trees: False})
    answer = await ask.answer("fetchandreconcile")
    assert f"would remove 8 of 8 people from the interest group {TREES_GROUP}" in answer["error_message"]
    assert (await status(site, ask))["brake"]["group_id"] == TREES_GROUP
    await ask("fetchandreconcile", confirm=1)
    assert [await site.standing(one.id, TREES_GROUP) for one in await site.contacts()] == ["Removed"] * 8


async def test_a_braked_sync_is_not_called_crashed_however_long_it_waits(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")
    clock.shift(7200)
    assert (await status(site, ask))["crashed"] is False


async def test_a_brake_that_is_off_is_shown_as_false(site: Site, ask: ApiCaller) -> None:
    assert (await status(site, ask))["brake"] is False


async def test_the_scheduled_sync_writes_the_brake_into_the_job_log(site: Site, ask: ApiCaller) -> None:
    await empty_the_group(site)
    made = await ask("create", "Job", name="Sync", run_frequency="Hourly", api_entity="Mailchimpsync",
                     api_action="fetchandreconcile", is_active=1)  # fmt: skip
    await run_job(Api(site.store, ask.api.registry, ask.sync), int(next(iter(made))), forced=True)
    found = await ask("get", "JobLog", sequential=1, options={"limit": 0})
    assert any("Failure, Error message: " in one["description"] and "The brake is on" in one["description"]
               for one in found), found  # fmt: skip


async def test_other_audiences_are_synced_all_the_same(site: Site, ask: ApiCaller) -> None:
    [account] = site.emulator.world.accounts.values()
    second = site.emulator.world.add_audience("Second", account=account).id
    await ask("create", "Group", id=TREES_GROUP, title="Trees")
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["accounts"][site.emulator.key]["audiences"][second] = {"name": "Second"}
    raw["lists"][second] = {"apiKey": site.emulator.key, "subscriptionGroup": TREES_GROUP}
    await ask("updateconfig", config=raw)
    await empty_the_group(site)
    assert (await ask.answer("fetchandreconcile"))["error_message"].startswith(f"Audience {site.list_id} stopped")
    shown = await ask("getstatus", health=1)
    assert shown[second]["lastSyncTime"] is not None
    assert (bool(shown[site.list_id]["brake"]), shown[second]["brake"]) == (True, False)


# ── Limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_few_people_or_a_small_share_go_without_asking(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await empty_the_group(site, 2)
    await site.sync()
    assert inside(site) == 6


async def test_a_first_sync_that_removes_nobody_is_not_stopped(tmp_path: Path) -> None:
    settings = sync_settings(poll_seconds=0.05, brake_percent=0.1, brake_people=0)
    async with a_site(f"sqlite:///{tmp_path / 'new.sqlite'}", settings=settings) as fresh:
        fresh.joined(*PEOPLE)
        await fresh.person("other@example.org")
        await fresh.sync(since="ever")
        assert fresh.at_mailchimp("other@example.org") == "subscribed"


@pytest.mark.parametrize(
    ("own", "stops"),
    [
        pytest.param({}, True, id="The limits of all connections."),
        pytest.param({"percent": 0}, False, id="Switched off for this one."),
        pytest.param({"people": 8}, False, id="More people for this one."),
        pytest.param({"percent": "100"}, False, id="Text as PHP writes it; all of them are not more than all."),
        pytest.param({"percent": "lots", "later": 1}, True, id="What is no number says nothing."),
    ],
)
async def test_a_connection_may_have_limits_of_its_own(
    site: Site, ask: ApiCaller, own: dict[str, Any], stops: bool
) -> None:
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["lists"][site.list_id]["brake"] = own
    await site.store.write(write_config, raw)
    await empty_the_group(site)
    assert (await ask.answer("fetchandreconcile"))["is_error"] == stops


async def test_the_limits_of_a_connection_are_kept_by_updateconfig_and_checked(site: Site, ask: ApiCaller) -> None:
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["lists"][site.list_id]["brake"] = {"percent": 50, "later": {"kept": True}}
    config = (await ask("updateconfig", config=raw))["config"]
    assert config["lists"][site.list_id]["brake"] == {"percent": 50, "later": {"kept": True}}
    raw["lists"][site.list_id]["brake"] = {"people": "many"}
    answer = await ask.answer("updateconfig", config=raw)
    assert answer["error_message"].endswith("the brake's people must be a number, 0 for no limit.")


async def test_additions_are_limited_once_somebody_says_so(site: Site, ask: ApiCaller) -> None:
    for n in range(3):
        await site.person(f"new{n}@example.org")
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["lists"][site.list_id]["brake"] = {"additions": 2}
    await site.store.write(write_config, raw)
    answer = await ask.answer("fetchandreconcile")
    assert "would add 3 people at Mailchimp; the limit is 2" in answer["error_message"]
    assert (await status(site, ask))["brake"]["kind"] == "additions"
    await ask("fetchandreconcile", confirm=1)
    await site.settle()
    assert site.at_mailchimp("new2@example.org") == "subscribed"


async def test_one_member_at_a_time_is_never_braked(site: Site, ask: ApiCaller) -> None:
    await empty_the_group(site)
    for address in PEOPLE:
        await ask("syncmember", group_id=GROUP, email=address)
    await site.settle()
    assert inside(site) == 0


# ── Going on ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_goes_on_where_it_stopped_when_confirmed(site: Site, ask: ApiCaller) -> None:
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")
    site.emulator.clear_requests()
    await ask("fetchandreconcile", confirm=1)
    assert not any(one.path.endswith("/members") for one in site.emulator.requests)
    await site.settle()
    shown = await status(site, ask)
    assert (inside(site), shown["brake"], shown["in_sync"]) == (0, False, True)


async def test_a_yes_that_comes_first_is_good_for_that_sync_only(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await empty_the_group(site)
    await ask("fetchandreconcile", confirm=1)
    await site.settle()
    clock.shift(60)
    for one in await site.contacts():
        await site.set_group(one.id, "Added")
    await site.sync()
    clock.shift(60)
    await empty_the_group(site)
    assert (await ask.answer("fetchandreconcile"))["is_error"] == 1


async def test_a_confirmed_sync_that_is_killed_goes_on_without_asking_again(
    site: Site, ask: ApiCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(reconcile_and_submit, "reconcile_rows", killed)
        with pytest.raises(SyncError, match="unexpected error"):
            await site.run(confirm=True)
    checkpoint = await site.store.read(checkpoints.load, site.list_id)
    assert (checkpoint.stage, checkpoint.parameters and checkpoint.parameters.confirmed) == (
        "readyToReconcileQueue",
        True,
    )
    await site.sync()
    assert inside(site) == 0


async def test_run_again_without_a_yes_it_looks_at_both_ends_anew(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")
    clock.shift(60)
    for one in (await site.contacts())[2:]:
        await site.set_group(one.id, "Added")
    site.joined("late@example.org")
    await site.sync()
    shown = await status(site, ask)
    assert (inside(site), shown["brake"], shown["in_sync"]) == (6, False, True)
    assert await site.row("late@example.org")


async def test_the_brake_stays_since_when_it_was_first_pulled(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await empty_the_group(site)
    for _ in range(2):
        assert (await ask.answer("fetchandreconcile"))["is_error"] == 1
        clock.shift(3600)
    assert (await status(site, ask))["brake"]["since"] == "2026-01-09 12:01:00"


async def test_contacts_changed_while_the_brake_was_on_are_not_missed(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    [first, *_] = await site.contacts()
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")
    clock.shift(7200)
    await ask("create", "Email", contact_id=first.id, email="moved@example.org", is_primary=1)
    await ask("delete", "Email", id=(await ask("get", "Email", email=PEOPLE[0], sequential=1))[0]["id"])
    clock.shift(7200)
    for one in await site.contacts():
        await site.set_group(one.id, "Added")
    await site.sync()
    assert site.at_mailchimp("moved@example.org") == "subscribed"


async def test_an_abort_takes_the_brake_off(site: Site, ask: ApiCaller) -> None:
    await empty_the_group(site)
    await ask.answer("fetchandreconcile")
    await ask("abortsync", group_id=GROUP)
    shown = await status(site, ask)
    assert (shown["brake"], shown["locks"]) == (False, {"fetchAndReconcile": "readyToFetch"})


# ── What it counts ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_the_brake_counts_is_what_the_sync_then_does(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    """People of every sort, some of whom look like removals and are none: two addresses, refused, cleaned, waiting."""
    people = await site.contacts()
    await site.set_group(people[0].id, "Removed")
    await site.set_group(people[1].id, "Removed")
    for address in PEOPLE[2:5]:
        site.emulator.person("unsubscribe", address)
    await ask("create", "Email", contact_id=people[2].id, email=PEOPLE[7])  # two addresses, one of them inside
    for n in range(3):
        await site.person(f"new{n}@example.org")
    await site.person("held@example.org", status="Added")
    await ask("create", "Contact", id=(await site.contacts())[-1].id, is_opt_out=1)
    site.ctx = replace(site.ctx, settings=sync_settings(brake_percent=0.1, brake_people=0, brake_additions=1))
    with pytest.raises(SyncBraked):
        await site.run()
    checkpoint = await site.store.read(checkpoints.load, site.list_id)
    told = checkpoint.brake or {}
    outcome = await site.run(confirm=True, stop_on="readyToSubmitUpdates")
    asked = Counter("unsubscribed" if '"unsubscribed","status":"unsubscribed"' in one.data else "subscribed"
                    for one in await site.updates() if not one.completed)  # fmt: skip
    assert told["removals_group"] == outcome.counts["readyToReconcileQueue"]["left"] > 0
    assert told["removals_audience"] == asked["unsubscribed"] == 2
    assert told["additions"] == asked["subscribed"] == 3


async def test_where_little_changed_nobody_is_judged_twice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("rows were judged for the brake although few can be removed")

    monkeypatch.setattr(impact, "plan_rows", never)
    await empty_the_group(site, 2)
    await site.sync()
    assert inside(site) == 6
