"""One person, explained and synced now; many included in the next sync; what removing a connection costs."""

from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.schema.tables import email
from sync.connections.config import read_config
from sync.context import UnitSizes
from sync.leases import hold_lease
from sync.store.tables import cache, update
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


@pytest.fixture
def ask(site: Site) -> ApiCaller:
    return ApiCaller(site)


async def one_of(ask: ApiCaller, **whom: Any) -> dict[str, Any]:
    [one] = await ask("explain", **whom)
    return dict(one)


# ── Explain ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("left_before", "does"),
    [
        (False, "It will tell Mailchimp their new address."),
        (True, "It will separate the contact from the address that it gave up, and start over with its present one."),
    ],
)
async def test_another_address_in_civicrm_is_said_to_be_due_as_the_next_sync_sees_to_it(
    site: Site, ask: ApiCaller, clock: Traveller, left_before: bool, does: str
) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    [ada] = await site.contacts()
    if left_before:
        site.emulator.person("unsubscribe", "ada@example.org")
    clock.shift(60)
    await site.sync()
    assert (await one_of(ask, contact_id=ada.id))["due"] is False
    await site.store.write(lambda conn: conn.execute(change(email).values(email="new@example.org")) and None)
    one = await one_of(ask, contact_id=ada.id)
    assert (one["due"], one["next_sync"]) == (True, does)
    await site.sync()
    assert (await one_of(ask, contact_id=ada.id))["kind"] == "in_step"


async def test_both_ends_are_shown_side_by_side_with_who_spoke_last(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    clock.shift(60)
    [made] = await site.contacts()
    await site.set_group(made.id, "Removed")
    one = await one_of(ask, contact_id=made.id)
    assert (one["list_id"], one["list_name"], one["group_id"], one["group_title"]) == (
        site.list_id,
        "Newsletter",
        GROUP,
        "News",
    )
    assert one["civicrm"] == {"status": "Removed", "since": "2026-01-09 12:01:00", "source": "Admin"}
    assert one["mailchimp"]["status"] == "subscribed"
    assert one["mailchimp"]["since"] == "2026-01-09 12:00:00"
    assert one["mailchimp"]["source"] == "Mailchimp"
    assert (one["spoke_last"], one["decision"], one["kind"]) == ("CiviCRM", "unsubscribe", "unsubscribe")
    assert one["reason"] == (
        "Left the group on 9 January 2026 at 12:01:00, after subscribing at Mailchimp on 9 January at 12:00:00: "
        "unsubscribed at Mailchimp."
    )
    assert (one["due"], one["next_sync"]) == (True, "It will unsubscribe them at Mailchimp.")


async def test_what_is_explained_is_what_the_next_sync_does(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    contact_id = await site.person("ada@example.org")
    assert (await one_of(ask, contact_id=contact_id))["kind"] == "subscribe"
    clock.shift(1200)  # a sync reads history of the last ten minutes again
    await site.sync()
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    one = await one_of(ask, contact_id=contact_id)
    assert (one["kind"], one["reason"], one["due"]) == (
        "in_step",
        "Both sides agree: joined the group on 9 January 2026, subscribed at Mailchimp on 9 January 2026.",
        False,
    )
    assert one["mailchimp"]["source"] == "sync"
    assert [(each["status"], each["error"]) for each in one["updates"]] == [("ok", "")]


async def test_what_our_own_sync_did_is_told_apart_from_a_persons_word(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    one = await one_of(ask, email="ada@example.org")
    assert one["civicrm"] == {"status": "Added", "since": "2026-01-09 12:00:00", "source": "sync"}
    assert (one["spoke_last"], one["kind"]) == ("Mailchimp", "in_step")
    assert [(word["status"], word["source"]) for word in one["history"]] == [("Added", "sync")]


async def test_a_refusal_is_shown_with_mailchimps_words(site: Site, ask: ApiCaller) -> None:
    site.emulator.configure(forgotten_emails=["ada@example.org"])
    contact_id = await site.person("ada@example.org", at=NOON - timedelta(hours=1))
    await site.sync(since="ever")
    one = await one_of(ask, contact_id=contact_id)
    assert one["kind"] == "cannot"
    assert "Forgotten" in one["reason"]
    assert "Forgotten" in one["updates"][0]["error"]
    assert one["next_sync"].startswith("It cannot change anything. It is not queued")


async def test_a_person_whom_nobody_knows_is_explained_too(ask: ApiCaller) -> None:
    one = await one_of(ask, email="nobody@example.org")
    assert (one["contact_id"], one["cache"], one["kind"], one["due"]) == (None, None, "in_step", False)
    assert one["reason"].startswith("Not in the group")


async def test_a_member_without_a_contact_would_get_one(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org")
    await site.run(since="ever", stop_on="readyToFixContactIds")
    one = await one_of(ask, email="ada@example.org")
    assert (one["kind"], one["contact_id"]) == ("new_contact", None)
    assert one["reason"] == (
        "Subscribed at Mailchimp on 9 January 2026 and unknown to CiviCRM: a contact is created first."
    )


async def test_an_address_given_up_in_civicrm_is_explained(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    contact_id = await site.person("ada@example.org")
    await site.sync(since="ever")
    clock.shift(60)
    await ask("create", "Email", contact_id=contact_id, email="byron@example.org", is_primary=1)
    old = (await ask("get", "Email", email="ada@example.org", sequential=1))[0]["id"]
    await ask("delete", "Email", id=old)
    one = await one_of(ask, contact_id=contact_id)
    assert (one["kind"], one["reason"]) == (
        "change_address",
        "The contact's address in CiviCRM is now byron@example.org, no longer ada@example.org: changed at Mailchimp.",
    )


async def test_explaining_writes_nothing(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org")
    contact_id = await site.person("bob@example.org")
    await site.run(since="ever", stop_on="readyToFixContactIds")
    site.emulator.clear_requests()
    before = await site.snapshot()
    await ask("explain", contact_id=contact_id)
    await ask("explain", email="ada@example.org")
    assert await site.snapshot() == before
    assert site.emulator.requests == []


@pytest.mark.parametrize("action", ["explain", "syncmember"])
async def test_somebody_must_be_named(ask: ApiCaller, action: str) -> None:
    answer = await ask.answer(action, group_id=GROUP)
    assert answer["error_message"] == "Mandatory key(s) missing from params array: one of (contact_id, email)"


# ── One person now ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_member_is_synced_now_and_explained(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    site.joined("ada@example.org", "bob@example.org")
    await site.sync(since="ever")
    clock.shift(60)
    for name in ("ada", "bob"):
        site.emulator.person("unsubscribe", f"{name}@example.org")
    [one] = await ask("syncmember", group_id=GROUP, email="ada@example.org")
    assert (one["kind"], one["civicrm"]["status"], one["mailchimp"]["status"]) == ("in_step", "Removed", "unsubscribed")
    bob = await one_of(ask, email="bob@example.org")
    assert bob["civicrm"]["status"] == "Added"


async def test_a_contact_whom_mailchimp_does_not_know_is_subscribed_now(site: Site, ask: ApiCaller) -> None:
    contact_id = await site.person("ada@example.org")
    [one] = await ask("syncmember", group_id=GROUP, contact_id=contact_id)
    assert (one["kind"], one["cache"]["sync_status"]) == ("under_way", "live")
    await site.settle()
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    assert (await one_of(ask, contact_id=contact_id))["kind"] == "in_step"


async def test_while_a_run_is_under_way_nobody_is_synced_alone(site: Site, ask: ApiCaller) -> None:
    async with hold_lease(site.ctx, site.list_id):
        answer = await ask.answer("syncmember", group_id=GROUP, email="ada@example.org")
    assert answer["error_message"].startswith("A sync of this audience is running")


async def test_a_contact_without_an_address_cannot_be_looked_for(site: Site, ask: ApiCaller) -> None:
    made = await ask("create", "Contact", contact_type="Individual", first_name="Ada")
    answer = await ask.answer("syncmember", group_id=GROUP, contact_id=next(iter(made)))
    assert answer["error_message"].startswith("No member to sync")


async def test_a_mailchimp_out_of_order_is_told(site: Site, ask: ApiCaller) -> None:
    site.emulator.add_fault("500", path="/members/")
    answer = await ask.answer("syncmember", group_id=GROUP, email="ada@example.org")
    assert answer["error_message"].startswith(f"Audience {site.list_id}: ")


# ── All that match ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_all_that_match_are_included_in_the_next_sync(site: Site) -> None:
    site.ctx = replace(site.ctx, sizes=UnitSizes(scanned_rows_per_unit=2))
    ask = ApiCaller(site)
    site.joined(*(f"member{n}@example.org" for n in range(5)), "other@example.net")
    await site.sync(since="ever")
    sought = {"mailchimp_email": {"LIKE": "%@example.org"}}
    assert await ask("includematching", group_id=GROUP, **sought) == {"matched": 5, "affected": 5}
    assert await ask("includematching", mailchimp_list_id=site.list_id, **sought) == {"matched": 5, "affected": 0}
    waiting = {row.mailchimp_email for row in await site.rows() if row.sync_status == "todo"}
    assert waiting == {f"member{n}@example.org" for n in range(5)}


async def test_only_the_rows_that_are_named_are_included(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org", "bob@example.org", "cyd@example.org")
    await site.sync(since="ever")
    ids = [row.id for row in await site.rows()]
    assert await ask("includematching", group_id=GROUP, cache_id={"IN": ids[:2]}) == {"matched": 2, "affected": 2}
    assert await ask("includematching", group_id=GROUP, cache_id=ids[2]) == {"matched": 1, "affected": 1}


async def test_those_who_failed_are_asked_for_again_once_included(site: Site, ask: ApiCaller) -> None:
    site.emulator.configure(forgotten_emails=["ada@example.org"])
    await site.person("ada@example.org")
    await site.sync(since="ever")
    site.emulator.configure(forgotten_emails=[])
    assert (await ask("includematching", group_id=GROUP, sync_status="fail"))["affected"] == 1
    await site.sync()
    assert site.at_mailchimp("ada@example.org") == "subscribed"


async def test_including_takes_the_filters_of_the_cache(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org", "bob@example.org")
    site.emulator.person("unsubscribe", "bob@example.org")
    await site.sync(since="ever")
    for sought in ({"civicrm_status": "Added"}, {"mailchimp_status": "subscribed"}, {"sync_status": {"IN": ["ok"]}}):
        found = await ask("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, **sought)
        included = await ask("includematching", group_id=GROUP, **sought)
        assert included["matched"] == len(found), sought
        await site.sync()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param({}, "must provide mailchimp_list_id", id="No connection named."),
        pytest.param({"group_id": 999}, "Unknown group ID `999`", id="A group that is not linked."),
        pytest.param({"group_id": "x"}, "group_id is not a valid integer", id="No number."),
        pytest.param({"mailchimp_list_id": "nope"}, "Invalid list id", id="An audience that is not linked."),
    ],
)
async def test_a_connection_must_be_named(ask: ApiCaller, params: dict[str, Any], message: str) -> None:
    assert (await ask.answer("includematching", **params))["error_message"] == message


# ── Removing a connection ───────────────────────────────────────────────────────────────────────────────────────────


async def test_what_would_go_is_counted_before_it_does(site: Site, ask: ApiCaller) -> None:
    for name in ("ada", "bob"):
        await site.person(f"{name}@example.org")
    await site.sync(since="ever")
    counted = await ask("countremoval", group_id=GROUP)
    assert counted == {"people": 2, "updates": 2, "pending": 0, "batches": 1, "days": 1}
    raw = deepcopy(dict((await site.store.read(read_config)).raw)) | {"lists": {}}
    await ask("updateconfig", config=raw)
    left = await site.store.read(
        lambda conn: [len(conn.execute(select(table.c.id)).all()) for table in (cache, update)]
    )
    assert left == [0, 0]


def test_every_kind_has_something_that_the_next_sync_does() -> None:
    from sync.reconcile import categories
    from sync.reports.people import explain

    of_data = {categories.DATA, categories.DATA_LEFT_OUT}  # a plan of its own, with its own sentence
    assert set(explain._DOES) | categories.QUIET | {categories.CANNOT} == set(categories.KINDS) - of_data


def test_people_are_counted_in_good_english() -> None:
    from sync.reconcile.categories import summarize

    assert [one["sentence"] for one in summarize({"in_step": 3, "unsubscribe": 1})] == [
        "1 person: they left the group (or are not to be mailed) and are unsubscribed at Mailchimp.",
        "3 people: they are in step: both sides agree.",
    ]
