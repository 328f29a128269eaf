"""The timeline: whatever happens to a connection is in it, with who did it, and without any secret."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import Connection, delete, insert, update
from time_machine import Traveller

from civiapi.alerts import records
from civiapi.api.call import SYSTEM, Caller
from civiapi.store.civicrm.settings import write_setting
from civiapi.store.clock import site_clock
from civiapi.store.leases import now_ms
from civiapi.store.schema.tables import contact
from entities.site.job_runner import JOB_CALLER
from sync.connections.config import SETTING, read_config
from sync.connections.webhook_health import BATCH_HOOK, MEMBER_HOOK, note
from sync.errors import SyncBraked
from sync.reports.checks import Finding, Severity
from sync.reports.timeline import KINDS, TimelineFilter, read_timeline
from sync.store.tables import config_seen, event, run_log
from tests.support.api_caller import ApiCaller
from tests.support.contacts import a_caller
from tests.support.databases import KINDS as DATABASES
from tests.support.databases import a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
PEOPLE = [f"member{n}@example.org" for n in range(8)]
ADMIN = "administer CiviCRM"


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        settings = sync_settings(poll_seconds=0.05, brake_percent=25.0, brake_people=2)
        async with a_site(url, settings=settings) as opened:
            await opened.store.write(lambda conn: conn.execute(delete(event)) and None)  # of linking it
            yield opened


@pytest.fixture
def ask(site: Site) -> ApiCaller:
    return ApiCaller(site)


async def an_officer(site: Site) -> Caller:
    """Somebody with a contact who may configure the sync."""
    made = insert(contact).values(contact_type="Individual", display_name="Grace Hopper")
    key = await site.store.write(lambda conn: int(conn.execute(made).lastrowid))
    return a_caller(ADMIN, contact_id=key)


async def raw_config(site: Site) -> dict[str, Any]:
    config = await site.store.read(read_config)
    return deepcopy(dict(config.raw))


async def sentences(ask: ApiCaller, **params: Any) -> list[str]:
    """The timeline, oldest first."""
    found = await ask("gettimeline", group_id=GROUP, options={"limit": 0}, **params)
    return [one["sentence"] for one in reversed(found)]


# ── The configuration: every road, and who took it ──────────────────────────────────────────────────────────────────


async def by_updateconfig(ask: ApiCaller, caller: Caller, config: dict[str, Any]) -> None:
    answer = await ask.answer("updateconfig", caller=caller, config=json.dumps(config))
    assert not answer["is_error"], answer


async def by_setting(ask: ApiCaller, caller: Caller, config: dict[str, Any]) -> None:
    answer = await ask.answer("create", "Setting", caller=caller, **{SETTING: json.dumps(config)})
    assert not answer["is_error"], answer


Road = Callable[[ApiCaller, Caller, dict[str, Any]], Awaitable[None]]
ROADS = [by_updateconfig, by_setting]


@pytest.mark.parametrize("road", ROADS)
async def test_a_changed_link_names_what_changed_and_who_did_it(site: Site, ask: ApiCaller, road: Road) -> None:
    officer, config = await an_officer(site), await raw_config(site)
    link = config["lists"][site.list_id]
    link["subscriptionGroup"] = str(TREES_GROUP)
    link["brake"] = {"people": 50}
    await road(ask, officer, config)
    [entry] = await ask("gettimeline", kind="config")
    assert entry["sentence"] == (
        f"The group changed from {GROUP} to {TREES_GROUP}. The brake's limit “people” changed from the site's to 50."
    )
    assert (entry["by"], entry["contact_id"]) == ("Grace Hopper", officer.contact_id)
    assert (entry["list_id"], entry["group_id"], entry["at"]) == (site.list_id, TREES_GROUP, "2026-01-09 12:00:00")


@pytest.mark.parametrize("road", ROADS)
async def test_a_configuration_stored_again_changes_nothing(site: Site, ask: ApiCaller, road: Road) -> None:
    await road(ask, SYSTEM, await raw_config(site))
    assert await ask("gettimeline") == []


@pytest.mark.parametrize(
    ("caller", "by"), [(SYSTEM, "the command line"), (JOB_CALLER, "a scheduled job")], ids=["command", "job"]
)
async def test_who_is_no_contact_is_named_by_the_way_they_came(
    site: Site, ask: ApiCaller, caller: Caller, by: str
) -> None:
    config = await raw_config(site)
    config["lists"][site.list_id]["trustOverride"] = {"subscription": "CiviCRM"}
    await by_updateconfig(ask, caller, config)
    [entry] = await ask("gettimeline")
    assert (entry["by"], entry["sentence"]) == (by, "For the subscription, CiviCRM wins in the next run.")


async def test_rules_for_merge_fields_are_told_but_not_a_fixed_text(site: Site, ask: ApiCaller) -> None:
    config = await raw_config(site)
    link = config["lists"][site.list_id]
    link["mergeFields"] = {"JOB": {"source": "contact:job_title"}, "SRC": "text:QXZJKVWGHYQXZJ"}
    link["sendNames"] = 0
    await by_updateconfig(ask, SYSTEM, config)
    link["mergeFields"] = {"SRC": "text:another"}
    await by_updateconfig(ask, SYSTEM, config)
    assert [one["sentence"] for one in await ask("gettimeline")] == [
        "Merge field JOB is no longer filled.",
        "Merge field JOB is filled from contact:job_title. Merge field SRC is filled from a fixed text. "
        "First and last names are no longer sent to Mailchimp.",
    ]


async def test_facts_of_another_version_are_not_compared(site: Site, ask: ApiCaller) -> None:
    older = json.dumps({"facts": {"shape": 0, "lists": {}}, "unreadable": False})
    await site.store.write(lambda conn: conn.execute(update(config_seen).values(facts=older)) and None)
    await site.run()
    assert await ask("gettimeline", kind="config") == []
    config = await raw_config(site)
    config["lists"][site.list_id]["brake"] = {"people": 1}
    await by_updateconfig(ask, SYSTEM, config)
    assert len(await ask("gettimeline", kind="config")) == 1


async def test_a_reverted_setting_ends_the_connection_whose_timeline_stays(site: Site, ask: ApiCaller) -> None:
    officer = await an_officer(site)
    await ask.answer("revert", "Setting", caller=officer, name=SETTING)
    [entry] = await ask("gettimeline", list_id=site.list_id)
    assert f"is no longer linked with group {GROUP}" in entry["sentence"]
    assert (entry["by"], entry["group_id"]) == ("Grace Hopper", None)


async def test_what_another_program_changed_is_told_with_the_next_run(site: Site, ask: ApiCaller) -> None:
    config = await raw_config(site)
    config["lists"][site.list_id]["interests"] = {"9143cf3bd1": str(TREES_GROUP)}
    await site.store.write(write_setting, SETTING, json.dumps(config))
    await site.run()
    [entry] = await ask("gettimeline", kind="config")
    assert entry["by"] == "another program"
    assert entry["sentence"] == f"Interest “9143cf3bd1” was linked with group {TREES_GROUP}."
    await site.run()
    assert len(await ask("gettimeline", kind="config")) == 1


async def test_what_another_program_changed_is_not_laid_at_the_next_officers_door(site: Site, ask: ApiCaller) -> None:
    config = await raw_config(site)
    config["lists"][site.list_id]["subscriptionGroup"] = TREES_GROUP
    await site.store.write(write_setting, SETTING, json.dumps(config))
    config["lists"][site.list_id]["brake"] = {"percent": 5}
    await by_updateconfig(ask, await an_officer(site), config)
    newest, before = await ask("gettimeline")
    assert (before["by"], "group changed" in before["sentence"]) == ("another program", True)
    assert (newest["by"], "group changed" in newest["sentence"]) == ("Grace Hopper", False)


async def test_a_configuration_that_nobody_can_read_is_told_once(site: Site, ask: ApiCaller) -> None:
    whole = await raw_config(site)
    for _ in range(2):
        await ask("create", "Setting", **{SETTING: "not JSON"})
    await by_setting(ask, SYSTEM, whole | {"lists": {}})
    newest, before = [one["sentence"] for one in await ask("gettimeline")]
    assert before == "The stored configuration cannot be read any more, so nothing is synced."
    assert f"no longer linked with group {GROUP}" in newest


async def test_a_refused_change_is_not_in_the_timeline(site: Site, ask: ApiCaller) -> None:
    config = await raw_config(site)
    config["lists"][site.list_id]["subscriptionGroup"] = 999
    assert (await ask.answer("updateconfig", config=json.dumps(config)))["is_error"]
    assert await ask("gettimeline") == []


# ── No secret ───────────────────────────────────────────────────────────────────────────────────────────────────────


def with_secrets(config: dict[str, Any], list_id: str) -> tuple[dict[str, Any], list[str]]:
    """The configuration with another key, secret and unknown value wherever one can be, and these."""
    made: list[str] = []

    def secret() -> str:
        made.append("".join(random.choices("QXZJKVWGHY", k=32)))
        return made[-1]

    changed = deepcopy(config)
    [(_, account)] = changed["accounts"].items()
    key = f"{secret()}-us1"
    account |= {"apiKey": key, "batchWebhookSecret": secret(), "login_token": secret()}
    account["audiences"][list_id]["webhooks"] = [{"url": f"https://x.example.org/?secret={secret()}"}]
    changed["accounts"] = {key: account}
    link = changed["lists"][list_id]
    link |= {"apiKey": key, "password": secret(), "nested": {"api_key": secret()}}
    link["trustOverride"] = {"subscription": secret()}
    changed["site_key"] = secret()
    return changed, made


@pytest.mark.parametrize("road", ROADS)
async def test_no_more_than_four_characters_of_any_secret_are_told(site: Site, ask: ApiCaller, road: Road) -> None:
    first = await raw_config(site)
    [key] = first["accounts"]
    secrets, config = [key.partition("-")[0], first["accounts"][key]["batchWebhookSecret"]], first
    for _ in range(2):
        config, made = with_secrets(config, site.list_id)
        secrets += made
        await road(ask, SYSTEM, config)
    await road(ask, SYSTEM, config | {"accounts": {}, "lists": {}, "later": 1})
    await road(ask, SYSTEM, config)
    told = json.dumps(await ask("gettimeline", options={"limit": 0}), ensure_ascii=False)
    for one in secrets:
        assert not [one[at : at + 5] for at in range(len(one) - 4) if one[at : at + 5] in told]
    old, new = secrets[2], secrets[10]
    assert f"The account key changed from …{old[-4:]} to …{new[-4:]}." in told
    assert "Other settings of the connection changed: “password”, “nested”." in told or "“nested”" in told


async def test_two_keys_that_end_alike_are_told_apart(site: Site, ask: ApiCaller) -> None:
    config = await raw_config(site)
    [key] = config["accounts"]
    other = f"{'0' * 28}{key[-8:]}"
    config["accounts"] = {other: config["accounts"][key] | {"apiKey": other}}
    config["lists"][site.list_id]["apiKey"] = other
    await by_updateconfig(ask, SYSTEM, config)
    [entry] = await ask("gettimeline")
    assert "The account key changed" in entry["sentence"]


# ── Runs, brakes, confirmations, aborts, webhooks, alerts ───────────────────────────────────────────────────────────


async def test_a_braked_sync_that_an_officer_confirms(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    officer = await an_officer(site)
    site.joined(*PEOPLE)
    await site.sync(since="ever")
    for one in (await site.contacts())[-8:]:
        clock.shift(1)
        await site.set_group(one.id, "Removed")
    for _ in range(2):  # it meets the same brake again
        clock.shift(60)
        with pytest.raises(SyncBraked):
            await site.run()
    clock.shift(60)
    await ask.answer("fetchandreconcile", caller=officer, group_id=GROUP, confirm=1)
    found = await ask("gettimeline", group_id=GROUP)
    told = [(one["kind"], one["by"], one["outcome"]) for one in reversed(found)]
    assert told == [
        ("run", "the sync", "finished"),
        ("run", "the sync", "braked"),
        ("brake", "the sync", ""),
        ("run", "the sync", "braked"),
        ("run", "Grace Hopper", "finished"),
        ("confirm", "Grace Hopper", ""),
    ]
    [brake] = [one for one in found if one["kind"] == "brake"]
    assert "would remove 8 of 8 people" in brake["sentence"]


async def test_a_run_and_its_undo_name_who_asked_for_them(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    site.joined(*PEOPLE)
    officer = await an_officer(site)
    await ask.answer("fetchandreconcile", caller=JOB_CALLER, group_id=GROUP, since="ever", confirm=1)
    await site.settle()
    [run] = await ask("gettimeline", kind="run")
    clock.shift(60)
    undone = await ask.answer("undorun", caller=officer, run_id=run["run_id"])
    assert not undone["is_error"], undone
    newest, oldest = await ask("gettimeline", kind="run")
    assert (oldest["by"], oldest["sentence"].partition(" after")[0]) == ("a scheduled job", "The sync finished")
    said = f"The undo of run {run['run_id']} finished"
    assert (newest["by"], newest["sentence"].partition(" after")[0]) == ("Grace Hopper", said)


async def test_a_brake_that_ends_without_a_confirmation_says_so(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    site.joined(*PEOPLE)
    await site.sync(since="ever")
    people = [one.id for one in await site.contacts()][-8:]
    for status in ("Removed", "Added"):
        clock.shift(60)
        for one in people:
            await site.set_group(one, status)
        clock.shift(60)
        if status == "Removed":
            with pytest.raises(SyncBraked):
                await site.run()
    await site.run()
    brakes = [one["sentence"] for one in await ask("gettimeline", kind="brake")]
    assert brakes[0] == "The brake is off: the sync is within the limits again."
    assert len(brakes) == 2


async def test_an_abort_names_who_asked_for_it_and_what_it_cancelled(site: Site, ask: ApiCaller) -> None:
    await site.owe_subscribing("late@example.org", "later@example.org")
    await ask.answer("abortsync", caller=await an_officer(site), group_id=GROUP)
    [entry] = await ask("gettimeline", kind="abort")
    assert entry["sentence"] == "The sync was aborted. 2 updates were cancelled."
    assert entry["by"] == "Grace Hopper"


async def test_confirming_in_advance_is_told_of_people_but_not_of_the_schedule(site: Site, ask: ApiCaller) -> None:
    for caller in (SYSTEM, JOB_CALLER):
        await ask.answer("fetchandreconcile", caller=caller, group_id=GROUP, confirm=1)
    [entry] = await ask("gettimeline", kind="confirm")
    assert (entry["by"], entry["sentence"].partition(":")[0]) == ("the command line", "Confirmed in advance")


async def test_webhooks_that_go_and_come_back(site: Site, ask: ApiCaller) -> None:
    for hook in (MEMBER_HOOK, BATCH_HOOK):
        for found in (True, True, False, False, True):
            await site.store.write(note, site.list_id, hook, found=found, at_s=0)
    assert await sentences(ask) == [
        "The webhook of the audience is missing at Mailchimp.",
        "The webhook of the audience is at Mailchimp again.",
        "The account's batch webhook is missing at Mailchimp.",
        "The account's batch webhook is at Mailchimp again.",
    ]


async def test_alerts_of_this_connection_begin_and_are_mended(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    def finding(code: str) -> dict[str, Finding]:
        return {code: Finding(code, Severity.WARNING, f"{code} is wrong.", "Mend it.")}

    found = finding(f"mailchimpsyncLate:{site.list_id}") | finding(f"mailchimpsyncInterest:{site.list_id}:i1")
    found |= finding("mailchimpsyncLate:other") | finding("diskFull")
    await site.store.write(records.note_changes, found, now_ms())
    clock.shift(60)
    await site.store.write(records.note_changes, {}, now_ms())
    told = await sentences(ask)
    assert len(told) == 4
    assert not [one for one in told if "other" in one or "disk" in one]
    assert [one.startswith("Mended: ") for one in told] == [False, False, True, True]
    assert len(await ask("gettimeline", kind="alert", options={"limit": 0})) == 8


# ── Looking at some of it ───────────────────────────────────────────────────────────────────────────────────────────


async def a_long_time(site: Site, clock: Traveller, days: int = 30) -> None:
    """An event a day, of two connections in turn."""
    for day in range(days):
        row = {"list_id": (site.list_id, "gone")[day % 2], "kind": ("abort", "webhook")[day % 2], "author": "system"}
        moment = {"at_ms": now_ms(), "sentence": f"Day {day}."}
        await site.store.write(lambda conn, row=row | moment: conn.execute(insert(event).values(**row)) and None)
        clock.shift(timedelta(days=1))


async def test_pages_show_each_entry_once_newest_first(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await a_long_time(site, clock)
    pages = [await ask("gettimeline", options={"limit": 7, "offset": at}) for at in range(0, 40, 7)]
    assert [one["sentence"] for page in pages for one in page] == [f"Day {day}." for day in reversed(range(30))]
    assert len(await ask("gettimeline")) == 25  # as everywhere


@pytest.mark.parametrize(
    ("asked", "days"),
    [
        ({"kind": "abort"}, range(0, 30, 2)),
        ({"kind": ["webhook", "abort"]}, range(30)),
        ({"kind": {"IN": ["webhook"]}}, range(1, 30, 2)),
        ({"group_id": GROUP}, range(0, 30, 2)),
        ({"list_id": "gone"}, range(1, 30, 2)),
        ({"since": "2026-02-01"}, range(23, 30)),
        ({"since": "2026-02-01", "before": "2026-02-03 12:00:00"}, range(23, 25)),
        ({"before": "2026-01-10"}, range(1)),
        ({"kind": "run"}, range(0)),
    ],
)
async def test_kinds_dates_and_connections_narrow_it(
    site: Site, ask: ApiCaller, clock: Traveller, asked: dict[str, Any], days: range
) -> None:
    await a_long_time(site, clock)
    found = await ask("gettimeline", **asked, options={"limit": 0})
    assert [one["sentence"] for one in reversed(found)] == [f"Day {day}." for day in days]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"kind": "gossip"}, f"kind must be one of: {', '.join(KINDS)}"),
        ({"kind": [{}]}, f"kind must be one of: {', '.join(KINDS)}"),
        ({"since": "whenever"}, "Could not parse 'since' date."),
        ({"before": "x"}, "Could not parse 'before' date."),
        ({"group_id": 999}, "999"),
        ({"group_id": "x"}, "group_id is not a valid integer"),
    ],
)
async def test_what_cannot_be_asked_is_refused(ask: ApiCaller, asked: dict[str, Any], error: str) -> None:
    answer = await ask.answer("gettimeline", **asked)
    assert answer["is_error"]
    assert error in answer["error_message"]


async def test_who_may_not_see_connections_may_not_see_what_happened_to_them(ask: ApiCaller) -> None:
    curious = a_caller("access CiviCRM", "view all contacts", "edit all contacts")
    seen = [await ask.answer(action, caller=curious) for action in ("getstatus", "gettimeline")]
    assert [one["is_error"] for one in seen] == [1, 1]
    assert not (await ask.answer("gettimeline", caller=a_caller(ADMIN)))["is_error"]


async def test_an_author_whose_contact_is_gone_is_a_number(site: Site, ask: ApiCaller) -> None:
    await ask.answer("abortsync", caller=a_caller(ADMIN, contact_id=4711), group_id=GROUP)
    [entry] = await ask("gettimeline")
    assert entry["by"] == "contact 4711"


@pytest.mark.sqlite_only("counts the steps of SQLite's virtual machine")
async def test_a_page_costs_as_much_after_years_as_in_the_first_week(tmp_path: Path) -> None:
    with a_database("sqlite", tmp_path) as url:
        async with a_site(url, settings=sync_settings()) as site:
            steps = []
            for years in (range(100), range(100, 20_000)):
                await site.store.write(_events_and_runs, site.list_id, years)
                steps.append(await site.store.read(_steps_of_a_page, site.list_id))
    few, many = steps
    assert many < 2 * few, steps


def _events_and_runs(conn: Connection, list_id: str, hours: range) -> None:
    events, runs = [], []
    for hour in hours:
        for one in (list_id, "other"):
            row = {"list_id": one, "kind": "webhook", "author": "", "sentence": "Gone."}
            events.append(row | {"at_ms": hour * 3_600_000})
            runs.append({"list_id": one, "started_s": hour * 3600, "ended_s": hour * 3600 + 9, "outcome": "finished"})
    conn.execute(insert(event), events)
    conn.execute(insert(run_log), runs)


def _steps_of_a_page(conn: Connection, list_id: str) -> int:
    """How many hundreds of steps SQLite takes for a page of one connection, and for one of all."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    raw: Any = conn.connection.driver_connection
    raw.set_progress_handler(count, 100)
    for wanted in (TimelineFilter(list_id), TimelineFilter()):
        assert len(read_timeline(conn, {}, site_clock("UTC"), wanted)) == 25
    raw.set_progress_handler(None, 0)
    return taken
