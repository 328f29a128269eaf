"""Mailchimpsync's actions as callers send them, over a real sync service, the real client and the emulator."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
import stamina
import time_machine
from sqlalchemy import Connection, insert, select

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, email, group, group_contact, subscription_history
from entities import catalogue
from entities.mailchimpsync.shared import read_since
from sync.connections.config import read_config
from sync.emulator.server.running import Emulator
from sync.service import SyncService
from sync.store import tables
from sync.store.runs.checkpoints import STAGES
from tests.support.emulators import InProcessEmulator, in_process_emulator
from tests.support.linked_site import sync_settings

Ask = Callable[..., Awaitable[Any]]
GROUP = 12


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[InProcessEmulator]:
    async with in_process_emulator() as running:
        yield running


@pytest.fixture
async def sync(store: Store, emulator: InProcessEmulator) -> AsyncIterator[SyncService]:
    clients = emulator.clients()
    yield SyncService(store, clients, sync_settings(base_url="https://crm.example.org"))
    await clients.close()


@pytest.fixture
def call(store: Store, sync: SyncService) -> Ask:
    api = Api(store, catalogue(), sync)

    async def ask(entity: str, action: str, params: dict[str, Any] | None = None, caller: Caller = SYSTEM) -> Any:
        return await api.respond(Call(entity, action, params or {}, caller))

    return ask


@pytest.fixture
def list_id(emulator: Emulator) -> str:
    return emulator.audience().id


@pytest.fixture
async def linked(store: Store, call: Ask, emulator: Emulator, list_id: str) -> str:
    """A group linked with the emulator's audience, as the Config screen does it. The list id."""
    await store.write(lambda conn: conn.execute(insert(group).values(id=GROUP, name="n", title="News")) and None)
    account = (await call("Mailchimpsync", "fetchaccountinfo", {"api_key": emulator.key}))["values"]
    lists = {list_id: {"apiKey": emulator.key, "subscriptionGroup": str(GROUP), "interests": {}}}
    config = {"accounts": {emulator.key: account | {"apiKey": emulator.key}}, "lists": lists}
    answer = await call("Mailchimpsync", "updateconfig", {"config": config})
    assert answer["is_error"] == 0, answer
    return list_id


async def in_group(store: Store, address: str) -> int:
    """A contact with this address, added to the group in CiviCRM just now."""

    def add(conn: Connection) -> int:
        made = conn.execute(insert(contact).values(contact_type="Individual", display_name=address))
        contact_id = int(made.lastrowid)
        conn.execute(insert(email).values(contact_id=contact_id, email=address, is_primary=1))
        conn.execute(insert(group_contact).values(contact_id=contact_id, group_id=GROUP, status="Added"))
        word = {"date": store.clock.now(), "method": "API", "status": "Added"}
        conn.execute(insert(subscription_history).values(contact_id=contact_id, group_id=GROUP, **word))
        return contact_id

    return await store.write(add)


# fetchandreconcile


async def test_a_sync_brings_both_ends_into_step(
    store: Store, call: Ask, emulator: Emulator, sync: SyncService, linked: str
) -> None:
    emulator.admin("import", "theirs@example.org")
    await in_group(store, "ours@example.org")
    answer = await call("Mailchimpsync", "fetchandreconcile", {"since": "ever"})
    assert (answer["is_error"], answer["count"], answer["id"]) == (0, 1, 0), answer
    one = answer["values"][0]
    assert (one["list_id"], one["group_id"], list(one["status"])) == (
        linked,
        GROUP,
        ["lastSyncTime", "locks", "log", "fetch"],
    )
    assert one["status"]["locks"] == {"fetchAndReconcile": "readyToFetch"}
    emulator.run_batches()
    assert await sync.wait_until_idle(seconds=20)
    member = emulator.member("ours@example.org")
    assert member is not None
    assert member.status == "subscribed"
    status = (await call("Mailchimpsync", "getstatus"))["values"][linked]
    assert status["in_sync"] is True
    assert status["stats"]["subscribed_at_civicrm"] == status["stats"]["subscribed_at_mailchimp"] == 2


async def test_a_sync_can_be_asked_for_by_group_under_either_name(call: Ask, linked: str) -> None:
    for name in ("group_id", "id"):
        answer = await call("Mailchimpsync", "fetchandreconcile", {name: str(GROUP)})
        assert [one["list_id"] for one in answer["values"]] == [linked]


async def test_without_links_a_sync_is_an_empty_list(call: Ask) -> None:
    answer = await call("Mailchimpsync", "fetchandreconcile")
    assert answer == {"is_error": 0, "version": 3, "count": 0, "values": []}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_sync_stops_before_the_stage_it_is_told(call: Ask, linked: str, stage: str) -> None:
    params = {"stop_on": stage, "with_data": 1, "since": "ever"}
    answer = await call("Mailchimpsync", "fetchandreconcile", params)
    assert answer["values"][0]["status"]["locks"] == {"fetchAndReconcile": stage}
    again = await call("Mailchimpsync", "fetchandreconcile", {"force_restart": 1})
    assert again["values"][0]["status"]["locks"] == {"fetchAndReconcile": "readyToFetch"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param({"stop_on": "bogus"}, f"stop_on param must be one of: {', '.join(STAGES)}", id="Unknown stage."),
        pytest.param({"since": "the other day"}, "Could not parse 'since' date.", id="No date."),
        pytest.param({"since": ["2020-01-01"]}, "Could not parse 'since' date.", id="A list is no date."),
        pytest.param({"group_id": 999}, "Unknown group ID `999`", id="A group that no audience is linked with."),
        pytest.param({"group_id": "x"}, "group_id is not a valid integer", id="No number."),
        pytest.param({"max_time": "soon"}, "max_time is not a valid integer", id="No number of seconds."),
    ],
)
async def test_a_question_that_makes_no_sense_starts_nothing(
    call: Ask, emulator: Emulator, linked: str, params: dict[str, Any], message: str
) -> None:
    emulator.clear_requests()
    answer = await call("Mailchimpsync", "fetchandreconcile", params)
    assert answer["error_message"] == message
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2026-01-05", datetime(2026, 1, 4, 14, tzinfo=UTC), id="A day begins at the site's midnight."),
        pytest.param("2026-01-05 10:30", datetime(2026, 1, 5, 0, 30, tzinfo=UTC), id="A time is the site's."),
        pytest.param("-1 hour", datetime(2026, 1, 9, 11, tzinfo=UTC), id="Words are understood."),
        pytest.param("Ever", "ever", id="Ever, in any case."),
        pytest.param("", None, id="Nothing: since the last sync."),
    ],
)
def test_since_is_read_in_the_sites_zone(text: str, moment: datetime | str | None) -> None:
    with time_machine.travel(datetime(2026, 1, 9, 12, tzinfo=UTC), tick=False):
        assert read_since(text, site_clock("Australia/Brisbane")) == moment


async def test_a_mailchimp_out_of_order_makes_the_call_an_error_and_the_next_goes_on(
    call: Ask, emulator: Emulator, linked: str
) -> None:
    emulator.add_fault("500", path="/members")
    answer = await call("Mailchimpsync", "fetchandreconcile", {"since": "ever"})
    assert answer["is_error"] == 1
    assert answer["error_message"].startswith(f"Audience {linked} stopped at readyToFetch: No usable answer")
    emulator.clear_faults()
    status = (await call("Mailchimpsync", "getstatus"))["values"][linked]
    assert status["locks"] == {"fetchAndReconcile": "readyToFetch"}
    assert (await call("Mailchimpsync", "fetchandreconcile"))["is_error"] == 0


async def test_one_audience_that_fails_keeps_no_other_from_its_turn(
    store: Store, call: Ask, emulator: Emulator, linked: str
) -> None:
    config = deepcopy(dict((await store.read(read_config)).raw))
    other = (await call("Group", "create", {"title": "Of an audience that is gone"}))["id"]
    config["lists"] = {"gone": {"apiKey": emulator.key, "subscriptionGroup": other}} | config["lists"]
    config["accounts"][emulator.key]["audiences"]["gone"] = {"name": "Deleted at Mailchimp"}
    await call("Mailchimpsync", "updateconfig", {"config": config})
    answer = await call("Mailchimpsync", "fetchandreconcile", {"since": "ever"})
    assert answer["error_message"].startswith("Audience gone stopped at readyToFetch")
    assert (await call("Mailchimpsync", "getstatus"))["values"][linked]["lastSyncTime"] is not None


# getstatus and abortsync


async def test_status_asks_mailchimp_about_batches_only_when_told_to(
    store: Store, call: Ask, emulator: Emulator, linked: str
) -> None:
    emulator.configure(batch_start_delay=3600)
    await in_group(store, "ours@example.org")
    await call("Mailchimpsync", "fetchandreconcile", {"since": "ever"})
    emulator.clear_requests()
    status = (await call("Mailchimpsync", "getstatus"))["values"][linked]
    assert "batches" not in status
    assert emulator.requests == []
    status = (await call("Mailchimpsync", "getstatus", {"batches": 1}))["values"][linked]
    (batch,) = status["batches"].values()
    assert (batch["status"], batch["mailchimp_list_id"], batch["response_processed"]) == ("preprocessing", linked, 0)
    assert status["stats"]["to_add_to_mailchimp"] == 1
    assert status["in_sync"] is False


async def test_abort_calls_off_what_is_under_way(store: Store, call: Ask, emulator: Emulator, linked: str) -> None:
    emulator.configure(batch_start_delay=3600)
    await in_group(store, "ours@example.org")
    await call("Mailchimpsync", "fetchandreconcile", {"since": "ever"})
    for _ in range(2):
        answer = await call("Mailchimpsync", "abortsync", {"group_id": GROUP})
        assert answer == {"is_error": 0, "version": 3, "count": 0, "values": []}
    status = (await call("Mailchimpsync", "getstatus", {"batches": 1}))["values"][linked]
    assert status["log"][-1]["message"] == "Abort!"
    assert "batches" not in status
    assert status["stats"]["cannot_subscribe"] == 1
    updates = await call("MailchimpsyncUpdate", "get", {"sequential": 1})
    assert [(one["completed"], one["error_response"]) for one in updates["values"]] == [("1", "Sync was aborted")]
    batches = await call("MailchimpsyncBatch", "get", {"sequential": 1})
    assert [one["status"] for one in batches["values"]] == ["aborted"]


async def test_abort_needs_a_group_that_is_linked(call: Ask, linked: str) -> None:
    assert (await call("Mailchimpsync", "abortsync", {"group_id": 9}))["error_message"] == "Unknown group ID `9`"


# Configuration


async def test_the_account_has_eleven_keys(call: Ask, emulator: Emulator) -> None:
    answer = await call("Mailchimpsync", "fetchaccountinfo", {"api_key": emulator.key})
    assert answer["count"] == 11


async def test_the_configuration_comes_back_cleaned(call: Ask, linked: str) -> None:
    text = '{"accounts":{"k-us1":{"audiences":{}}},"lists":{"zz":{"apiKey":"k-us1","subscriptionGroup":12}}}'
    answer = await call("Mailchimpsync", "updateconfig", {"config": text})
    expected = {"accounts": {"k-us1": {"audiences": {}}}, "lists": {}}
    assert answer == {"is_error": 0, "version": 3, "count": 1, "id": "config", "values": {"config": expected}}
    assert (await call("Mailchimpsync", "getstatus"))["values"] == []


async def test_a_configuration_that_somebody_changed_meanwhile_is_not_overwritten(call: Ask, linked: str) -> None:
    async def stored() -> str:
        return str(await call("Setting", "getvalue", {"name": "mailchimpsync_config"}))

    edited = await stored()
    mine = {"config": edited, "digest": hashlib.sha256(edited.encode()).hexdigest()}
    assert (await call("Mailchimpsync", "updateconfig", mine))["is_error"] == 0
    theirs = json.loads(edited) | {"brand_new": 1}
    assert (await call("Mailchimpsync", "updateconfig", {"config": theirs}))["is_error"] == 0
    answer = await call("Mailchimpsync", "updateconfig", mine)
    assert "was changed meanwhile" in answer["error_message"]
    assert "brand_new" in await stored()


async def test_a_first_configuration_may_ask_that_there_is_none(call: Ask) -> None:
    assert (await call("Mailchimpsync", "updateconfig", {"config": '{"accounts":[]}', "digest": ""}))["is_error"] == 0
    answer = await call("Mailchimpsync", "updateconfig", {"config": '{"accounts":[]}', "digest": ""})
    assert "was changed meanwhile" in answer["error_message"]


async def test_a_webhook_problem_is_told_as_an_error(call: Ask, emulator: Emulator, linked: str) -> None:
    params = {"process": "add_webhook", "api_key": emulator.key}
    assert (await call("Mailchimpsync", "updatewebhook", params))["error_message"] == "Missing list_id"


# includecontact


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("x", "At contact ID was not positive integer.", id="One that is none."),
        pytest.param(-1, "At contact ID was not positive integer.", id="A negative one."),
        pytest.param("1.5", "At contact ID was not positive integer.", id="Half of one."),
        pytest.param(["1", 0], "At least one contact ID was not positive integer.", id="One of several."),
        pytest.param([[1]], "At least one contact ID was not positive integer.", id="A list in a list."),
    ],
)
async def test_contact_ids_are_positive_integers(call: Ask, given: Any, message: str) -> None:
    assert (await call("Mailchimpsync", "includecontact", {"contact_id": given}))["error_message"] == message


async def test_people_are_included_in_every_audience(store: Store, call: Ask) -> None:
    def fill(conn: Connection) -> None:
        for number in (1, 2, 3):
            conn.execute(insert(contact).values(id=number, contact_type="Individual"))
        for list_name, contact_id in (("a", 1), ("b", 1), ("a", 2), ("a", 3)):
            row = {"mailchimp_list_id": list_name, "civicrm_contact_id": contact_id, "sync_status": "ok"}
            conn.execute(insert(tables.cache).values(row))

    await store.write(fill)
    answer = await call("Mailchimpsync", "includecontact", {"contact_id": [1, "1", "2", 99]})
    assert answer == {"is_error": 0, "version": 3, "count": 2, "values": {"inputCount": 3, "affected": 3}}
    todo = select(tables.cache.c.civicrm_contact_id).where(tables.cache.c.sync_status == "todo")
    assert await store.read(lambda conn: conn.execute(todo.order_by(tables.cache.c.id)).scalars().all()) == [1, 1, 2]


# submitbatches and processcompleted


async def test_waiting_updates_are_sent_and_their_results_applied_by_hand(
    store: Store, call: Ask, emulator: Emulator, linked: str
) -> None:
    await in_group(store, "ours@example.org")
    await call("Mailchimpsync", "fetchandreconcile", {"since": "ever", "stop_on": "readyToSubmitUpdates"})
    emulator.configure(batch_start_delay=3600)
    assert (await call("Mailchimpsync", "submitbatches"))["values"] == {linked: 1}
    assert (await call("Mailchimpsync", "submitbatches"))["values"] == []
    batch = await call("MailchimpsyncBatch", "getsingle")
    asked = {"id": batch["id"]}
    early = await call("MailchimpsyncBatch", "processcompleted", asked)
    assert early["error_message"] == f"Batch {batch['mailchimp_batch_id']} has not finished. Got status: preprocessing"
    emulator.run_batches()
    done = await call("MailchimpsyncBatch", "processcompleted", asked)
    assert (done["count"], done["values"][batch["id"]]["response_processed"]) == (1, "2")
    row = await call("MailchimpsyncCache", "getsingle", {"mailchimp_list_id": linked})
    assert (row["mailchimp_status"], row["sync_status"]) == ("subscribed", "ok")
    again = await call("MailchimpsyncBatch", "processcompleted", asked)
    assert again["error_message"] == (
        f"Batch {batch['id']} ({batch['mailchimp_batch_id']}) already processed. "
        "Use the force parameter if you want to reprocess this."
    )
    assert (await call("MailchimpsyncBatch", "processcompleted", asked | {"force": 1}))["is_error"] == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "MailchimpsyncBatch.processCompleted requires id parameter"),
        ({"id": 999}, "MailchimpsyncBatch.processCompleted given id not found"),
    ],
)
async def test_a_batch_must_be_named_and_known(call: Ask, params: dict[str, Any], message: str) -> None:
    answer = await call("MailchimpsyncBatch", "processcompleted", params)
    assert answer["error_message"] == message


# What the API says of itself, and who may


async def test_every_action_needs_administer_civicrm(call: Ask) -> None:
    limited = Caller(contact_id=1, permissions=frozenset({"access CiviCRM", "access AJAX API"}))
    for entity, action in [
        ("Mailchimpsync", "fetchandreconcile"),
        ("Mailchimpsync", "getstatus"),
        ("MailchimpsyncCache", "get"),
        ("MailchimpsyncBatch", "processcompleted"),
        ("MailchimpsyncUpdate", "create"),
    ]:
        answer = await call(entity, action, {"check_permissions": True}, limited)
        assert answer["error_code"] == "unauthorized", (entity, action, answer)


async def test_all_actions_and_their_parameters_are_told(call: Ask) -> None:
    actions = (await call("Mailchimpsync", "getactions"))["values"]
    own = {"abortsync", "fetchaccountinfo", "fetchandreconcile", "getstatus", "includecontact", "submitbatches"}
    assert own | {"updateconfig", "updatewebhook"} <= set(actions)
    fields = (await call("Mailchimpsync", "getfields", {"api_action": "fetchandreconcile"}))["values"]
    assert set(fields) == {"group_id", "max_time", "since", "stop_on", "force_restart", "with_data", "confirm"}
    assert all(one["title"] and one["description"] for one in fields.values())
