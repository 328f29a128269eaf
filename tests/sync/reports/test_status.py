"""What getstatus says of an audience, from rows as a sync, a batch or the extension leaves them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import phpserialize
import pytest
from sqlalchemy import Connection, func, insert, select, update

from civiapi.store import leases
from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, group, group_contact
from sync.connections.config import write_config
from sync.connections.webhook_health import NO_ADDRESS
from sync.mailchimp.client import MailchimpClient
from sync.model import BatchRow
from sync.reports.status import (
    WAITING,
    ask_about_batches,
    batches_of_run,
    find_crash,
    in_words,
    read_statuses,
    with_batches,
    with_durations,
)
from sync.store import tables
from sync.store.batches import unfinished
from sync.store.runs.checkpoints import Checkpoint, save
from tests.support.emulators import InProcessEmulator, in_process_emulator
from tests.support.member_calls import put_member_operation

UTC_CLOCK = site_clock("UTC")
NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
LIST = "abc123"
GROUP = 12


@pytest.fixture
async def site(store: Store) -> Store:
    """A site with one linked audience that was never synced."""
    await store.write(_link)
    return store


def _link(conn: Connection) -> None:
    conn.execute(insert(group).values(id=GROUP, name="news", title="News"))
    write_config(conn, {"accounts": {}, "lists": {LIST: {"apiKey": "k-us1", "subscriptionGroup": GROUP}}})


async def status_of(store: Store, now: datetime = NOON) -> dict[str, Any]:
    return (await store.read(read_statuses, UTC_CLOCK, now))[LIST]


async def people(store: Store, *standings: tuple[str, str | None, str | None]) -> None:
    """A cache row for each (sync status, status at Mailchimp, status in the group); None: not there."""

    def fill(conn: Connection) -> None:
        for sync_status, member, group_status in standings:
            made = conn.execute(insert(contact).values(contact_type="Individual")).inserted_primary_key
            contact_id = made[0] if made else None
            conn.execute(
                insert(tables.cache).values(
                    mailchimp_list_id=LIST,
                    sync_status=sync_status,
                    mailchimp_status=member,
                    civicrm_contact_id=contact_id,
                )
            )
            if group_status:
                conn.execute(insert(group_contact).values(group_id=GROUP, contact_id=contact_id, status=group_status))

    await store.write(fill)


async def positioned(store: Store, stage: str, *messages: tuple[str, str], last: str | None = None) -> None:
    data = {
        "lastSyncTime": last,
        "locks": {"fetchAndReconcile": stage},
        "log": [{"time": time, "message": message} for time, message in messages],
        "fetch": {},
    }
    row = insert(tables.status).values(list_id=LIST, data=phpserialize.dumps(data))
    await store.write(lambda conn: conn.execute(row) and None)


async def test_without_a_configuration_there_is_nothing_to_say(store: Store) -> None:
    assert await store.read(read_statuses, UTC_CLOCK, NOON) == {}


async def test_a_list_never_synced_has_every_key(site: Store) -> None:
    assert await status_of(site) == {
        "lastSyncTime": None,
        "locks": {"fetchAndReconcile": "readyToFetch"},
        "log": [],
        "fetch": {},
        "stats": {
            "failed": 0,
            "subscribed_at_mailchimp": 0,
            "subscribed_at_civicrm": 0,
            "to_add_to_mailchimp": 0,
            "cannot_subscribe": 0,
            "to_remove_from_mailchimp": 0,
            "todo": 0,
            "other_fails": 0,
            "weird": [],
            "mailchimp_updates_pending": 0,
            "mailchimp_updates_unsubmitted": 0,
        },
        "in_sync": False,
        "lastSyncTimeHuman": "never",
        "crashed": False,
        "brake": False,
        "waiting": WAITING,
        "cannot_be_mailed": [],
        "last_finished": "",
        "stopped": "",
        "interests_gone": [],
        "refused_for_now": False,
        "without_address": False,
        "not_to_be_mailed": False,
        "late": "",
        "one_way": False,
        "data": {"names": True, "merge_fields": 0, "last": ""},
        "merge_fields_gone": [],
        "merge_sources_gone": [],
        "campaigns": False,
        "webhooks": {"ok": False, "why": NO_ADDRESS, "asked": ""},
        "health": {"state": "needs you", "why": WAITING},
    }


@pytest.mark.parametrize(
    ("standing", "counted"),
    [
        pytest.param(("ok", "subscribed", "Added"), {}, id="In on both sides: only counted as such."),
        pytest.param(("ok", "pending", "Added"), {}, id="Pending counts as in the audience."),
        pytest.param(("ok", "unsubscribed", "Removed"), {}, id="Out on both sides: not counted at all."),
        pytest.param(("ok", "unsubscribed", "Added"), {"to_add_to_mailchimp": 1}, id="In the group only: to add."),
        pytest.param(("live", None, "Added"), {"to_add_to_mailchimp": 1}, id="On the way there: still to add."),
        pytest.param(("live", "subscribed", "Removed"), {"to_remove_from_mailchimp": 1}, id="Left the group."),
        pytest.param(("ok", "subscribed", None), {"to_remove_from_mailchimp": 1}, id="Never in the group: the same."),
        pytest.param(("ok", "subscribed", "Pending"), {"to_remove_from_mailchimp": 1}, id="Pending in a group is out."),
        pytest.param(("fail", "cleaned", "Added"), {"cannot_subscribe": 1}, id="Failed, wanted in: cannot subscribe."),
        pytest.param(("fail", "subscribed", "Added"), {"other_fails": 1}, id="Failed although in on both sides."),
        pytest.param(("fail", None, None), {"other_fails": 1}, id="Failed and out of both."),
        pytest.param(("todo", "subscribed", None), {"todo": 1}, id="To do: nothing else is said of it yet."),
        pytest.param(
            ("redo", None, None),
            {"weird": [{"sync_status": "redo", "mailchimp_status": "missing", "civicrm_status": "missing", "c": 1}]},
            id="Anything else is weird, and said in full.",
        ),
    ],
)
async def test_each_standing_is_counted_where_it_belongs(
    site: Store, standing: tuple[str, str | None, str | None], counted: dict[str, Any]
) -> None:
    await people(site, standing)
    stats = (await status_of(site))["stats"]
    expected = {
        "subscribed_at_mailchimp": int(standing[1] in ("subscribed", "pending")),
        "subscribed_at_civicrm": int(standing[2] == "Added"),
    } | counted
    assert {key: value for key, value in stats.items() if value} == {k: v for k, v in expected.items() if v}


async def test_a_member_without_a_contact_is_in_no_group(site: Store) -> None:
    row = insert(tables.cache).values(mailchimp_list_id=LIST, mailchimp_status="subscribed", sync_status="ok")
    await site.write(lambda conn: conn.execute(row) and None)
    assert (await status_of(site))["stats"]["to_remove_from_mailchimp"] == 1


async def test_counts_follow_every_change_though_they_are_kept(site: Store) -> None:
    await people(site, ("ok", "subscribed", "Added"))
    assert (await status_of(site))["stats"]["subscribed_at_civicrm"] == 1
    assert (await status_of(site))["stats"]["subscribed_at_civicrm"] == 1
    await site.write(lambda conn: conn.execute(update(group_contact).values(status="Removed")) and None)
    assert (await status_of(site))["stats"]["subscribed_at_civicrm"] == 0


async def test_counts_are_right_inside_the_unit_that_changes_them(site: Store) -> None:
    await people(site, ("ok", "subscribed", "Added"))

    def unit(conn: Connection) -> list[int]:
        seen = [read_statuses(conn, UTC_CLOCK, NOON)[LIST]["stats"]["subscribed_at_civicrm"]]
        conn.execute(update(group_contact).values(status="Removed"))
        return [*seen, read_statuses(conn, UTC_CLOCK, NOON)[LIST]["stats"]["subscribed_at_civicrm"]]

    assert await site.write(unit) == [1, 0]


async def test_updates_owed_are_counted_sent_or_not(site: Store) -> None:
    await people(site, ("live", None, "Added"))

    def owe(conn: Connection) -> None:
        conn.execute(insert(tables.batch).values(id=1, mailchimp_list_id=LIST))
        for batch_id, completed in ((1, 1), (1, 0), (None, 0), (None, 0)):
            conn.execute(
                insert(tables.update).values(
                    mailchimpsync_cache_id=1, mailchimpsync_batch_id=batch_id, completed=completed, data="{}"
                )
            )

    await site.write(owe)
    stats = (await status_of(site))["stats"]
    assert (stats["mailchimp_updates_pending"], stats["mailchimp_updates_unsubmitted"]) == (3, 2)


async def test_in_sync_when_at_rest_after_a_sync(site: Store) -> None:
    await people(site, ("ok", "subscribed", "Added"), ("fail", "cleaned", "Added"))
    await positioned(site, "readyToFetch", last="2026-01-09 10:00:00")
    status = await status_of(site)
    assert status["in_sync"] is True
    assert status["lastSyncTimeHuman"] == "10:00:00 09 Jan 2026"


@pytest.mark.parametrize(
    ("stage", "last", "standing"),
    [
        pytest.param("readyToFetch", None, ("ok", "subscribed", "Added"), id="Never synced."),
        pytest.param("readyToReconcileQueue", "2026-01-09 10:00:00", ("ok", "subscribed", "Added"), id="Half-way."),
        pytest.param("readyToFetch", "2026-01-09 10:00:00", ("live", None, "Added"), id="Somebody is to be added."),
        pytest.param("readyToFetch", "2026-01-09 10:00:00", ("ok", "subscribed", None), id="Somebody is to go."),
    ],
)
async def test_not_in_sync(site: Store, stage: str, last: str | None, standing: tuple[str, str, str]) -> None:
    await people(site, standing)
    await positioned(site, stage, ("2026-01-09 11:59:00", "working"), last=last)
    assert (await status_of(site))["in_sync"] is False


async def test_busy_is_shown_while_a_run_holds_the_claim_and_no_longer(site: Store) -> None:
    await positioned(site, "readyToReconcileQueue", ("2026-01-09 11:59:30", "working"))
    at = int(NOON.timestamp() * 1000)
    await site.write(leases.acquire, LIST, "somebody", 120, at)
    assert (await status_of(site))["locks"] == {"fetchAndReconcile": "busy"}
    assert (await status_of(site, NOON + timedelta(seconds=121)))["locks"] == {
        "fetchAndReconcile": "readyToReconcileQueue"
    }


async def test_a_busy_of_the_extensions_is_shown_and_is_no_crash_while_it_logs(site: Store) -> None:
    await positioned(site, "busy", ("2026-01-09 11:59:30", "working"), last="2026-01-09 11:00:00")
    status = await status_of(site)
    assert status["locks"] == {"fetchAndReconcile": "busy"}
    assert (status["in_sync"], status["crashed"]) == (False, False)


async def test_a_busy_that_the_extension_left_behind_is_a_crash_and_says_what_remains(site: Store) -> None:
    await people(site, ("todo", "subscribed", "Added"))
    await positioned(site, "busy", ("2026-01-09 10:00:00", "working"), last="2026-01-09 10:00:00")
    status = await status_of(site)
    assert (status["in_sync"], status["locks"]) == (False, {"fetchAndReconcile": "busy"})
    assert status["crashed"].startswith("The logs have not been updated for about 2 hours")
    assert "1 rows to reconcile, 0 updates not completed" in status["crashed"]


async def test_a_fetch_that_stopped_at_an_offset_is_not_in_sync(site: Store) -> None:
    await people(site, ("ok", "subscribed", "Added"))
    data = {"lastSyncTime": "2026-01-09 11:00:00", "locks": {"fetchAndReconcile": "readyToFetch"}, "log": [],
            "fetch": {"since": "", "offset": 1000}}  # fmt: skip
    row = insert(tables.status).values(list_id=LIST, data=phpserialize.dumps(data))
    await site.write(lambda conn: conn.execute(row) and None)
    assert (await status_of(site))["in_sync"] is False


async def test_a_status_row_that_cannot_be_read_is_a_list_never_synced(site: Store) -> None:
    await site.write(lambda conn: conn.execute(insert(tables.status).values(list_id=LIST, data=b"rubbish")) and None)
    assert (await status_of(site))["lastSyncTimeHuman"] == "never"


# The log


def entries(*times: tuple[str, str]) -> list[dict[str, str]]:
    return [{"time": f"2026-01-09 {time}", "message": message} for time, message in times]


@pytest.mark.parametrize(
    ("duration", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "60 s"), (61, "1 mins"), (119, "1 mins"), (3600, "60 mins"), (3601, "1 hours"),
     (7300, "2 hours"), (-5, "0 s")],
)  # fmt: skip
def test_durations_are_whole_numbers_of_the_unit_that_fits(duration: int, words: str) -> None:
    assert in_words(timedelta(seconds=duration)) == words


def test_each_entry_took_until_the_next_that_tells_of_work() -> None:
    log = entries(
        ("10:00:00", "fetching"),
        ("10:00:02", "Called but locks say process already busy. Will not do anything."),
        ("10:00:05", "matching"),
        ("10:03:00", "done"),
        ("10:04:00", "Called but locks say process already busy."),
    )
    assert [entry["took"] for entry in with_durations(log, UTC_CLOCK)] == ["5 s", "", "2 mins", "", ""]


def test_an_entry_without_a_readable_time_stops_nothing() -> None:
    log = [{"time": "soon", "message": "a"}, *entries(("10:00:00", "b"), ("10:00:01", "c"))]
    assert [entry["took"] for entry in with_durations(log, UTC_CLOCK)] == ["", "1 s", ""]


def test_no_log_is_no_trouble() -> None:
    assert with_durations([], UTC_CLOCK) == []


@pytest.mark.parametrize(
    ("stage", "log", "crashed"),
    [
        pytest.param("readyToFetch", entries(("01:00:00", "x")), False, id="At rest nobody expects news."),
        pytest.param("readyToFetch", [], False, id="Nor from one never run."),
        pytest.param(
            "readyToSubmitUpdates", [], "Possibly crashed? no logs but not in ready state.", id="Under way, no log."
        ),
        pytest.param("busy", entries(("11:30:01", "x")), False, id="29 minutes of silence are all right."),
        pytest.param(
            "busy",
            entries(("11:30:00", "x")),
            "The logs have not been updated for about 30 mins - this is an unusually long time.",
            id="30 minutes are not.",
        ),
        pytest.param(
            "readyToReconcileQueue",
            entries(("09:30:00", "x"), ("11:59:00", "Called but locks say process already busy.")),
            "The logs have not been updated for about 2 hours - this is an unusually long time.",
            id="A call that found others at work is no news.",
        ),
    ],
)
def test_a_sync_under_way_that_went_silent_is_said_so(
    stage: str, log: list[dict[str, str]], crashed: str | bool
) -> None:
    assert find_crash(stage, log, UTC_CLOCK, NOON) == crashed


def test_silence_is_measured_in_the_sites_own_zone() -> None:
    clock = site_clock("Australia/Brisbane")
    log = [{"time": "2026-01-09 21:45:00", "message": "fetching"}]
    assert find_crash("busy", log, clock, NOON) is False


# Batches


@pytest.fixture
async def emulator() -> AsyncIterator[InProcessEmulator]:
    async with in_process_emulator(batch_start_delay=3600) as running:
        yield running


async def test_batches_are_shown_as_mailchimp_tells_them_now(site: Store, emulator: InProcessEmulator) -> None:
    body = {"email_address": "a@example.org", "status_if_new": "subscribed"}
    async with MailchimpClient(emulator.key, base_url=emulator.root_url, transport=emulator.transport) as client:
        sent = await client.submit_batch([put_member_operation(emulator.audience().id, "a@example.org", body, "1")])
        rows = [
            {"id": 1, "mailchimp_list_id": LIST, "mailchimp_batch_id": sent.id, "status": "pending"},
            {"id": 2, "mailchimp_list_id": LIST, "mailchimp_batch_id": "0000000000", "status": "started"},
            {"id": 3, "mailchimp_list_id": LIST, "mailchimp_batch_id": "x", "status": "aborted"},
            {"id": 4, "mailchimp_list_id": LIST, "mailchimp_batch_id": "y", "response_processed": 2},
            {"id": 5, "mailchimp_list_id": LIST, "status": "submitting"},
        ]
        await site.write(lambda conn: [conn.execute(insert(tables.batch).values(row)) for row in rows] and None)
        emulator.run_batches()
        told = await ask_about_batches(client, await site.read(unfinished, [LIST]))
    assert [(one.id, one.status, one.finished, one.total) for one in told] == [
        (1, "finished", 1, 1),
        (2, "started", 0, 0),
    ]


async def test_batches_are_those_of_the_run_and_older_unfinished_ones(site: Store) -> None:
    rows = [
        {"mailchimp_batch_id": "old", "submitted_at": "2026-01-09 10:59:59", "response_processed": 2},
        {"mailchimp_batch_id": "late", "submitted_at": "2026-01-09 10:00:00", "response_processed": 0},
        {"mailchimp_batch_id": "done", "submitted_at": "2026-01-09 11:00:00", "response_processed": 2},
        {"mailchimp_batch_id": "sent", "submitted_at": "2026-01-09 11:30:00", "response_processed": 0},
        {"mailchimp_batch_id": "gone", "submitted_at": "2026-01-09 11:30:00", "status": "aborted"},
    ]

    def fill(conn: Connection) -> None:
        for row in rows:
            conn.execute(insert(tables.batch).values(mailchimp_list_id=LIST, **row))
        checkpoint = Checkpoint(LIST, last_started=int(datetime(2026, 1, 9, 11, tzinfo=UTC).timestamp()))
        save(conn, checkpoint)

    await site.write(fill)
    found = await site.read(batches_of_run, LIST, UTC_CLOCK)
    assert [(one.batch_id, one.submitted_at) for one in found] == [
        ("late", "2026-01-09 10:00:00"),
        ("done", "2026-01-09 11:00:00"),
        ("sent", "2026-01-09 11:30:00"),
    ]


@pytest.mark.parametrize(
    ("first", "second", "counted"),
    [
        (("ok", "subscribed"), ("fail", "unsubscribed"), 0),
        (("live", "unsubscribed"), ("fail", "unsubscribed"), 0),
        (("ok", "subscribed"), ("ok", "unsubscribed"), 0),
        (("fail", "cleaned"), ("fail", "unsubscribed"), 2),
    ],
)
async def test_a_second_address_of_somebody_who_joins_by_the_first_is_not_counted(
    site: Store, first: tuple[str, str], second: tuple[str, str], counted: int
) -> None:
    await people(site, (*first, "Added"), (*second, None))

    def same_contact(conn: Connection) -> None:
        one = select(func.min(tables.cache.c.civicrm_contact_id)).scalar_subquery()
        owner = conn.execute(select(one)).scalar_one()
        conn.execute(update(tables.cache).values(civicrm_contact_id=owner))

    await site.write(same_contact)
    stats = (await status_of(site))["stats"]
    is_joining = first == ("live", "unsubscribed")
    assert (stats["cannot_subscribe"], stats["to_add_to_mailchimp"]) == (counted, int(is_joining))


def test_sums_are_over_the_batches_that_are_shown() -> None:
    shown = with_batches(
        {"stats": {"todo": 0}},
        [
            BatchRow(3, LIST, "a", "started", 0, 4, 1, 10, "2026-01-09 10:00:00"),
            BatchRow(4, LIST, "b", "pending", 0, 0, 0, 5),
        ],
    )
    assert shown["stats"] == {
        "todo": 0,
        "batch_errored_operations": 1,
        "batch_finished_operations": 4,
        "batch_total_operations": 15,
        "batch_pending_operations": 11,
    }
    assert shown["batches"]["a"] == {
        "id": 3,
        "mailchimp_list_id": LIST,
        "mailchimp_batch_id": "a",
        "status": "started",
        "submitted_at": "2026-01-09 10:00:00",
        "completed_at": "",
        "finished_operations": 4,
        "errored_operations": 1,
        "total_operations": 10,
        "response_processed": 0,
    }


def test_without_batches_nothing_is_added() -> None:
    assert with_batches({"stats": {}}, []) == {"stats": {}}
