"""Each stage of a sync by what it leaves behind, and runs that are killed after any commit and go on.

The site below has one of everything the stages care for. Bits of work are made tiny, so that there are many places to
be killed at; Mailchimp's clock stands still, so that two runs can be compared to the second.
"""

import copy
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import stamina
import time_machine
from sqlalchemy import Connection, delete, select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.engine import Store, open_store
from civiapi.store.schema.tables import contact, email, entity_tag, group_contact, lease, subscription_history, tag
from sync.connections.config import read_config, write_config
from sync.context import SyncContext, UnitSizes
from sync.data import plugins as tags
from sync.emulator.model.records import Interest, InterestCategory
from sync.emulator.world import World
from sync.outbox.cancel import abort_sync
from sync.reconcile.requeue import include_contacts
from sync.runs.stages import STAGES
from sync.store.members.blobs import dump_data, load_data
from sync.store.members.member_codec import decode
from sync.store.runs import checkpoints
from sync.store.tables import cache
from tests.support.databases import KINDS, a_database, chosen, copy_of, database_at
from tests.support.emulators import in_process_emulator
from tests.support.linked_site import TREES_GROUP, Site, a_site, link, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
BEFORE, LATER = NOON - timedelta(days=1), NOON + timedelta(days=1)
TREES = "9143cf3bd1"


@pytest.fixture(autouse=True)
def clock() -> Iterator[Traveller]:
    """Both ends' clock, which stands still until it is shifted."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, auto_batches=False) as opened:
            yield opened


SMALL = UnitSizes(rows_per_unit=10, scanned_rows_per_unit=12, members_per_page=8, members_per_lookup=1)
"""A few members to a page, a few rows to a unit, so that every stage has several."""


async def sync_by_hand(site: Site, **request: Any) -> None:
    """A run, Mailchimp working off what it was sent, and the results of that."""
    await site.run(**request)
    await site.settle_with_batches()
    site.emulator.configure(auto_batches=False)


async def stop_before(site: Site, stage: str, **request: Any) -> None:
    """A run up to a stage."""
    outcome = await site.run(since=request.pop("since", "ever"), stop_on=stage, **request)
    assert outcome.outcome == "stopped"
    assert outcome.status["locks"]["fetchAndReconcile"] == stage


# ── Fetching ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_fetch_keeps_every_member_whatever_their_status(site: Site) -> None:
    site.joined("ada@example.org", "bob@example.org", "cy@example.org")
    site.emulator.person("unsubscribe", "bob@example.org")
    site.emulator.admin("archive", "cy@example.org")
    await stop_before(site, "readyToFixContactIds")
    assert {row.mailchimp_email: (row.mailchimp_status, row.sync_status) for row in await site.rows()} == {
        "ada@example.org": ("subscribed", "todo"),
        "bob@example.org": ("unsubscribed", "todo"),
        "cy@example.org": ("archived", "todo"),
    }


async def test_archived_members_that_a_plain_listing_shows_too_are_kept_once(site: Site) -> None:
    site.emulator.configure(listing_default_archived=True)
    site.joined("cy@example.org")
    site.emulator.admin("archive", "cy@example.org")
    await stop_before(site, "readyToFixContactIds")
    assert [row.mailchimp_status for row in await site.rows()] == ["archived"]


async def test_the_time_of_a_sync_is_mailchimps_when_the_fetch_began(site: Site) -> None:
    await stop_before(site, "readyToFixContactIds")
    checkpoint = await site.store.read(checkpoints.load, site.list_id)
    assert checkpoint.last_sync_time == "2026-01-09 12:00:00"


async def test_an_incremental_fetch_reads_from_the_last_sync_less_the_overlap(site: Site) -> None:
    await sync_by_hand(site, since="ever")
    site.emulator.clear_requests()
    await sync_by_hand(site)
    asked = [one.query.get("since_last_changed") for one in site.emulator.requests if one.path.endswith("/members")]
    assert asked == ["2026-01-09T10:00:00+00:00"] * 2  # the second pass is for archived members


async def test_a_page_in_which_nothing_changed_leaves_the_rows_untouched(site: Site) -> None:
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    before = await site.snapshot()
    await stop_before(site, "readyToFixContactIds", since=None)
    assert await site.snapshot() == before


async def test_a_change_that_the_sync_does_not_care_for_is_not_thought_about(site: Site, clock: Traveller) -> None:
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(60)
    site.emulator.person("open_mail_elsewhere", "ada@example.org")
    await stop_before(site, "readyToFixContactIds", since=None)
    [row] = await site.rows()
    assert (row.sync_status, row.mailchimp_updated) == ("ok", "2026-01-09 12:01:00")
    assert decode(row.mailchimp_data)["status@"] == "20260109120000"


async def test_someone_deleted_for_good_at_mailchimp_leaves_the_group_and_is_not_put_back(
    site: Site, clock: Traveller
) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(60)
    site.emulator.admin("delete_permanently", "ada@example.org")
    await sync_by_hand(site, since="ever")
    [row] = await site.rows()
    assert (row.mailchimp_status, row.sync_status) == ("archived", "ok")
    assert await site.standing(contact_id) == "Removed"
    await site.set_group(contact_id, "Added", at=LATER)
    await sync_by_hand(site)
    [row] = await site.rows()
    assert row.sync_status == "fail"
    assert site.at_mailchimp("ada@example.org") is None


async def test_what_mailchimp_refused_is_sent_again_only_when_a_person_asks_for_it(site: Site) -> None:
    site.emulator.configure(forgotten_emails=["ada@example.org"])
    contact_id = await site.person("ada@example.org")
    await sync_by_hand(site, since="ever")
    await sync_by_hand(site, since="ever")
    assert [(one.completed, "Forgotten" in one.error_response) for one in await site.updates()] == [(1, True)]
    [row] = await site.rows()
    assert row.sync_status == "fail"
    site.emulator.configure(forgotten_emails=[])
    await site.store.write(include_contacts, [contact_id])
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") == "subscribed"


async def test_an_address_changed_at_mailchimp_stays_one_person(site: Site, clock: Traveller) -> None:
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(60)
    site.emulator.person("change_email", "ada@example.org", new_email="byron@example.org")
    await sync_by_hand(site)
    [row] = await site.rows()
    [one] = await site.contacts()
    assert (row.mailchimp_email, row.sync_status) == ("byron@example.org", "ok")
    assert await site.addresses(one.id) == ["ada@example.org", "byron@example.org"]
    assert await site.standing(one.id) == "Added"


# ── Contacts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_only_members_in_the_audience_get_a_new_contact(site: Site) -> None:
    site.joined("ada@example.org", merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    site.joined("bob@example.org")
    site.emulator.person("unsubscribe", "bob@example.org")
    await stop_before(site, "readyToProcessEmailChanges")
    [made] = await site.contacts()
    assert (made.first_name, made.last_name, made.display_name) == ("Ada", "Byron", "Ada Byron")
    assert {row.mailchimp_email: row.civicrm_contact_id for row in await site.rows()} == {
        "ada@example.org": made.id,
        "bob@example.org": None,
    }


async def test_a_contact_in_the_trash_is_replaced(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    await trash(site, contact_id)
    await sync_by_hand(site)
    [row] = await site.rows()
    assert row.civicrm_contact_id not in (None, contact_id)


async def test_an_address_that_appears_in_civicrm_is_matched_by_the_next_incremental_sync(site: Site) -> None:
    site.joined("ada@example.org")
    site.emulator.person("unsubscribe", "ada@example.org")
    await sync_by_hand(site, since="ever")
    contact_id = await site.person("ada@example.org", status=None)
    await touch(site, contact_id)
    await sync_by_hand(site)
    assert [row.civicrm_contact_id for row in await site.rows()] == [contact_id]


# ── Addresses ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_address_in_civicrm_reaches_mailchimp(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    await replace_address(site, contact_id, "byron@example.org")
    await sync_by_hand(site)
    assert (site.at_mailchimp("ada@example.org"), site.at_mailchimp("byron@example.org")) == (None, "subscribed")
    await sync_by_hand(site)
    [row] = await site.rows()
    assert (row.mailchimp_email, row.sync_status) == ("byron@example.org", "ok")


async def test_a_second_address_that_the_contact_still_owns_is_left_alone(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    await site.store.write(
        lambda conn: (
            conn.execute(
                email.insert().values(contact_id=contact_id, email="byron@example.org", is_bulkmail=1)
            ).rowcount
        )
    )
    await touch(site, contact_id)
    await sync_by_hand(site)
    assert [row.mailchimp_email for row in await site.rows()] == ["ada@example.org"]
    assert await site.updates() == []


async def test_the_old_address_is_archived_where_the_new_one_is_a_member_already(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", "byron@example.org")
    await add_address(site, contact_id, "byron@example.org")
    await sync_by_hand(site, since="ever")
    await drop_address(site, contact_id, "ada@example.org")
    await sync_by_hand(site)
    await sync_by_hand(site)
    assert (site.at_mailchimp("ada@example.org"), site.at_mailchimp("byron@example.org")) == ("archived", "subscribed")
    assert await site.standing(contact_id) == "Added"
    assert {row.sync_status for row in await site.rows()} == {"ok"}


@pytest.mark.parametrize("since", [None, "ever"])
async def test_an_old_address_is_archived_although_the_same_run_looks_at_its_row_again(
    site: Site, since: str | None
) -> None:
    """Found by comparing plans with syncs: the look that followed dropped the archiving that was waiting."""
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", "byron@example.org")
    await add_address(site, contact_id, "byron@example.org")
    await sync_by_hand(site, since="ever")
    await drop_address(site, contact_id, "ada@example.org")
    await site.set_group(contact_id, "Added")
    await sync_by_hand(site, since=since)
    assert site.at_mailchimp("ada@example.org") == "archived"


async def test_someone_unsubscribed_who_is_added_again_under_a_new_address_starts_anew(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    site.emulator.person("unsubscribe", "ada@example.org")
    await sync_by_hand(site, since="ever")
    assert await site.standing(contact_id) == "Removed"
    await replace_address(site, contact_id, "byron@example.org")
    await site.set_group(contact_id, "Added", at=LATER)
    await sync_by_hand(site)
    assert site.at_mailchimp("byron@example.org") == "subscribed"
    assert site.at_mailchimp("ada@example.org") == "unsubscribed"
    assert await site.standing(contact_id) == "Added"


async def test_the_word_of_someone_unsubscribed_stands_though_their_address_changed(
    site: Site, clock: Traveller
) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(60)
    site.emulator.person("unsubscribe", "ada@example.org")
    await replace_address(site, contact_id, "byron@example.org")
    await sync_by_hand(site)
    assert await site.standing(contact_id) == "Removed"
    assert site.at_mailchimp("byron@example.org") is None


async def test_a_row_of_a_contact_that_turned_out_to_be_a_member_goes_with_its_updates_to_the_members(
    site: Site, clock: Traveller
) -> None:
    """Sent, carried out, fetched before its results came: the results still find their row."""
    await site.person("ada@example.org")
    await site.run(since="ever")
    clock.shift(60)
    site.emulator.run_batches()
    await site.run()
    [row] = await site.rows()
    assert (row.mailchimp_status, row.sync_status) == ("subscribed", "live")
    await site.settle()
    [row] = await site.rows()
    assert row.sync_status == "ok"


async def test_our_own_write_seen_by_a_fetch_never_outranks_a_later_word_of_civicrm(
    site: Site, clock: Traveller
) -> None:
    """Added, sent, removed, carried out by Mailchimp (later by its clock), fetched: the removal is the last word."""
    contact_id = await site.person("ada@example.org", at=NOON)
    await site.run(since="ever")
    await site.set_group(contact_id, "Removed", at=NOON + timedelta(minutes=5))
    clock.shift(3600)
    site.emulator.run_batches()
    await site.run()
    clock.shift(60)
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") == "unsubscribed"
    assert await site.standing(contact_id) == "Removed"


# ── Contacts that are no members ────────────────────────────────────────────────────────────────────────────────────


async def test_two_contacts_with_one_address_send_it_once(site: Site) -> None:
    first, second = await site.person("ada@example.org"), await site.person("ada@example.org")
    await sync_by_hand(site, since="ever")
    rows = {row.civicrm_contact_id: row for row in await site.rows()}
    assert (rows[first].sync_status, rows[second].sync_status) == ("ok", "fail")
    assert load_data(rows[second].civicrm_data)["fail"] == (
        f"The address ada@example.org is also that of contact {first}, which represents it in this audience."
    )
    assert len(await site.updates()) == 1


async def test_a_contact_added_later_takes_over_the_address_of_one_who_left(site: Site) -> None:
    first = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    await site.set_group(first, "Removed", at=LATER)
    await sync_by_hand(site)
    second = await site.person("ada@example.org", at=LATER + timedelta(days=1))
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    assert [row.civicrm_contact_id for row in await site.rows()] == [second]


async def test_someone_restored_from_the_trash_gets_a_row_again(site: Site) -> None:
    contact_id = await site.person("ada@example.org")
    await trash(site, contact_id)
    await sync_by_hand(site, since="ever")
    assert await site.rows() == []
    await trash(site, contact_id, is_deleted=0)
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") == "subscribed"


# ── Interests, data, trust ──────────────────────────────────────────────────────────────────────────────────────────


async def with_trees(site: Site) -> str:
    """Link an interest with the Trees group; returns its id."""
    offer_trees(site)
    await site.store.write(link, site.emulator.key, site.list_id, {TREES: str(TREES_GROUP)})
    return TREES


def offer_trees(site: Site) -> None:
    """Let the audience offer an interest."""
    category = InterestCategory("c" * 10, "Topics")
    category.interests[TREES] = Interest(TREES, category.id, "Trees")
    site.emulator.audience().categories[category.id] = category


async def test_a_newcomer_keeps_their_interest_groups(site: Site, clock: Traveller) -> None:
    trees = await with_trees(site)
    contact_id = await site.person("ada@example.org")
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=NOON)
    await sync_by_hand(site, since="ever")
    clock.shift(7200)
    await sync_by_hand(site, since="ever")
    assert await site.standing(contact_id, TREES_GROUP) == "Added"
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert trees in found.interests


async def test_interests_go_both_ways(site: Site) -> None:
    trees = await with_trees(site)
    there = await site.person("ada@example.org", at=BEFORE)
    here = await site.person("bob@example.org", at=BEFORE)
    site.joined("ada@example.org", interests={trees: True})
    site.joined("bob@example.org")
    await site.set_group(here, "Added", group_id=TREES_GROUP, at=LATER)
    await sync_by_hand(site, since="ever")
    assert await site.standing(there, TREES_GROUP) == "Added"
    found = site.emulator.member("bob@example.org")
    assert found is not None
    assert trees in found.interests


async def test_an_interest_linked_later_is_looked_at_for_everybody(site: Site) -> None:
    offer_trees(site)
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", interests={TREES: True})
    await sync_by_hand(site, since="ever")
    await site.store.write(link, site.emulator.key, site.list_id, {TREES: str(TREES_GROUP)})
    await sync_by_hand(site)
    assert await site.standing(contact_id, TREES_GROUP) == "Added"


async def test_trust_is_used_for_one_run_and_taken_out_of_the_configuration(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=LATER)
    site.joined("ada@example.org")
    site.emulator.person("unsubscribe", "ada@example.org")

    def trust(conn: Connection) -> None:
        raw: Any = deepcopy(dict(read_config(conn).raw))
        raw["lists"][site.list_id]["trustOverride"] = {"subscription": "Mailchimp"}
        write_config(conn, raw)

    await site.store.write(trust)
    await sync_by_hand(site, since="ever")
    assert await site.standing(contact_id) == "Removed"
    config = await site.store.read(read_config)
    assert config.links[site.list_id].trust_override == {}


async def test_tags_are_sent_once_removed_when_gone_and_nobody_elses_touched(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", tags=["Theirs"])
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever", with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs", "CiviCRM: Volunteer"}
    sent = len(await site.updates())
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == sent
    await site.store.write(lambda conn: conn.execute(delete(entity_tag)).rowcount)
    await sync_by_hand(site, with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs"}


async def test_a_tag_that_the_extension_sent_is_taken_off_when_it_is_gone_in_civicrm(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", tags=["Theirs", "CiviCRM: Volunteer", "CiviCRM: Donor"])
    await sync_by_hand(site, since="ever")
    await give_tag(site, contact_id, "Volunteer")
    await give_tag(site, contact_id, "Donor")
    donor = await site.store.read(lambda conn: conn.execute(select(tag.c.id).where(tag.c.name == "Donor")).scalar_one())
    await site.store.write(lambda conn: conn.execute(delete(entity_tag).where(entity_tag.c.tag_id == donor)).rowcount)
    await note_data(site, mcs_tags={"mailchimp_updates": {}, "tag_updates": {}, "previous": f"{donor - 1},{donor}"})
    await sync_by_hand(site, with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs", "CiviCRM: Volunteer"}
    assert load_data((await site.row("ada@example.org")).civicrm_data)["mcs_tags"]["previous"] == str(donor - 1)


async def test_a_tag_that_the_extension_took_off_since_is_sent_again_when_civicrm_has_it_again(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever", with_data=True)
    await note_data(site, mcs_tags={"mailchimp_updates": {}, "tag_updates": {}, "previous": ""})
    sent = len(await site.updates())
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == sent + 1


async def test_what_was_owed_for_a_contact_in_the_trash_stays_with_the_reason(site: Site) -> None:
    await site.owe_subscribing("ada@example.org")
    await site.store.write(lambda conn: conn.execute(change(contact).values(is_deleted=1)).rowcount)
    await sync_by_hand(site, since="ever")
    [owed] = await site.updates()
    assert (owed.completed, owed.mailchimpsync_batch_id) == (1, None)
    assert owed.error_response.startswith("Overtaken: ")
    [row] = await site.rows()
    assert (row.civicrm_contact_id, row.sync_status) == (None, "ok")


async def test_names_are_sent_where_mailchimp_has_others_and_an_empty_one_is_not(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE, first_name="Ada", last_name="")
    await site.person("bob@example.org", at=BEFORE, first_name="Bob", last_name="Bell")
    site.joined("ada@example.org", merge_fields={"FNAME": "Eda", "LNAME": "Byron"})
    site.joined("bob@example.org", merge_fields={"FNAME": "Bob", "LNAME": "Bell"})
    await sync_by_hand(site, since="ever", with_data=True)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert (found.merges["FNAME"], found.merges["LNAME"]) == ("Ada", "Byron")
    assert len(await site.updates()) == 1
    row = await site.row("ada@example.org")
    assert load_data(row.civicrm_data)["mcs_names"]["previous"] == {"first_name": "Ada"}
    assert (row.civicrm_contact_id, row.sync_status) == (contact_id, "ok")
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == 1


async def test_what_an_abort_called_off_is_thought_about_again_by_the_next_full_sync(site: Site) -> None:
    """Who is a member and in the group differs in nothing that a comparison sees; interests and tags were owed."""
    trees = await with_trees(site)
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=LATER)
    await give_tag(site, contact_id, "Volunteer")
    await stop_before(site, "readyToSubmitUpdates", with_data=True)
    await abort_sync(site.ctx, await site.audience())
    assert [row.sync_status for row in await site.rows()] == ["fail"]
    await sync_by_hand(site, since="ever", with_data=True)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert trees in found.interests
    assert [row.sync_status for row in await site.rows()] == ["ok"]


async def test_without_data_asked_for_no_tag_is_sent(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever")
    assert await site.updates() == []


async def test_a_plugin_says_what_else_to_send(site: Site) -> None:
    class Donors:
        @tags.hookimpl
        def contact_tags(self, conn: Connection, contact_ids: list[int]) -> dict[int, list[str]]:
            return {contact_id: ["Donors 2026"] for contact_id in contact_ids}

    site.ctx = replace(site.ctx, plugins=tags.data_plugins(Donors()))
    await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever", with_data=True)
    assert tags_at_mailchimp(site) == {"Donors 2026"}


# ── Killed and continued ────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The process is gone: nothing after this is carried out."""


class MortalStore(Store):
    """A store whose process dies right after its *lives*-th commit."""

    def __init__(self, store: Store, lives: int) -> None:
        super().__init__(store.clock)
        self.store, self.lives = store, lives

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return await self.store.read(fn, *args, **kwargs)

    async def read_at_once(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.read(fn, *args, **kwargs)

    async def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        result = await self.store.write(fn, *args, **kwargs)
        self.lives -= 1
        self._check()
        return result

    def _check(self) -> None:
        if self.lives <= 0:
            raise Killed

    async def close(self) -> None:
        raise AssertionError("whoever opened the store closes it")


@dataclass(frozen=True)
class Model:
    """A site as it stood: its database and its Mailchimp, to be copied for every run."""

    path: Path
    world: World

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[Site]:
        copied = self.path.with_name(f"{uuid4().hex}.sqlite")
        with stamina.set_testing(True, attempts=2), copy_of(self.path, copied) as url:
            store = await open_store(url)
            async with in_process_emulator(copy.deepcopy(self.world)) as emulator:
                clients = emulator.clients()
                ctx = SyncContext(store, clients, sync_settings(poll_seconds=0.05), holder="tests", sizes=SMALL)
                yield Site(store, emulator, clients, ctx, emulator.audience().id)
                await clients.close()
                await store.close()


@pytest.fixture
async def model(tmp_path: Path, clock: Traveller) -> Model:
    """One of everything: new here, new there, both, gone, moved, shared, in the trash, with interests and tags."""
    path = tmp_path / "model.sqlite"
    async with a_site(database_at(path), auto_batches=False) as site:
        await with_trees(site)
        for number in range(3):
            site.joined(f"there{number}@example.org", interests={TREES: number == 1})
            await site.person(f"both{number}@example.org", at=BEFORE if number % 2 else LATER)
            site.joined(f"both{number}@example.org")
            await site.person(f"here{number}@example.org", at=NOON)
        site.emulator.person("unsubscribe", "both1@example.org")
        site.emulator.admin("unsubscribe", "both2@example.org")
        site.joined("gone@example.org", "old@example.org")
        moved = await site.person("old@example.org", at=BEFORE)
        await site.person("here0@example.org", at=NOON)
        await site.person("gone@example.org", at=BEFORE)
        await trash(site, await site.person("there2@example.org", at=BEFORE))
        liked = await site.person("both9@example.org", at=BEFORE)
        site.joined("both9@example.org")
        await site.set_group(liked, "Added", group_id=TREES_GROUP, at=LATER)
        await give_tag(site, liked, "Volunteer")
        await sync_by_hand(site, since="ever", with_data=True)
        clock.shift(3600)
        site.emulator.admin("delete_permanently", "gone@example.org")
        site.emulator.person("unsubscribe", "there0@example.org")
        site.emulator.person("change_email", "there1@example.org", new_email="there11@example.org")
        site.joined("late@example.org", "later@example.org")
        await replace_address(site, moved, "new@example.org")
        await give_tag(site, moved, "Donor")
        await site.person("late-here@example.org", at=NOON)
        world = site.emulator.world
    return Model(path, copy.deepcopy(world))


async def ends_of(site: Site) -> dict[str, Any]:
    """Both ends and our rows, told by address, without what no two runs have in common (row numbers, present times)."""
    members = {
        one.email: (one.status, sorted(one.interests), sorted(tags_at_mailchimp(site, one.email)))
        for one in site.emulator.audience().members
    }
    rows = await site.store.read(
        lambda conn: conn.execute(
            select(cache, email.c.email)
            .outerjoin(email, (email.c.contact_id == cache.c.civicrm_contact_id) & (email.c.is_primary == 1))
            .order_by(cache.c.id)
        ).all()
    )
    groups = await site.store.read(
        lambda conn: conn.execute(
            select(email.c.email, group_contact.c.group_id, group_contact.c.status).join(
                email, (email.c.contact_id == group_contact.c.contact_id) & (email.c.is_primary == 1)
            )
        ).all()
    )
    history = await site.store.read(
        lambda conn: conn.execute(
            select(
                email.c.email,
                subscription_history.c.group_id,
                subscription_history.c.status,
                subscription_history.c.method,
            ).join(email, (email.c.contact_id == subscription_history.c.contact_id) & (email.c.is_primary == 1))
        ).all()
    )
    return {
        "members": members,
        "rows": sorted(
            (
                str(row.email),
                str(row.mailchimp_email),
                str(row.mailchimp_status),
                row.sync_status,
                re.sub(r";[\d :-]{19}", "", row.civicrm_groups or ""),
                str(sorted(decode(row.mailchimp_data).items())),
                str(sorted(load_data(row.civicrm_data).items())),
            )
            for row in rows
        ),
        "groups": sorted(tuple(map(str, row)) for row in groups),
        "history": sorted(tuple(map(str, row)) for row in history),
        "contacts": sorted(str(row.display_name) for row in await site.contacts()),
    }


async def lapse(site: Site) -> None:
    """Let the leases of killed processes expire."""
    await site.store.write(lambda conn: conn.execute(change(lease).values(expires_ms=0)).rowcount)


@pytest.mark.parametrize("since", ["ever", None], ids=["full", "incremental"])
async def test_a_run_killed_after_any_commit_and_continued_ends_as_an_uninterrupted_one(
    model: Model, since: str | None
) -> None:
    async with model.copy() as site:
        await finish(site, since)
        expected = await ends_of(site)
    died_at, lives, step = set(), 1, 1 if chosen() == "sqlite" else 9  # a second each on MariaDB
    while await killed_after(model, lives, since, expected, died_at):
        lives += step
    assert step > 1 or died_at >= {stage.name for stage in STAGES}


async def killed_after(model: Model, lives: int, since: str | None, expected: Any, died_at: set[str]) -> bool:
    """Kill a run after so many commits and let another one finish; False when it was finished before."""
    async with model.copy() as site:
        whole = site.ctx
        site.ctx = replace(whole, store=MortalStore(whole.store, lives))
        try:
            await site.run(since=since, with_data=True, max_time=0)
        except Killed:
            died_at.add((await site.store.read(checkpoints.load, site.list_id)).stage)
        else:
            return False
        site.ctx = whole
        await lapse(site)
        await finish(site, since)
        assert await ends_of(site) == expected, f"killed after commit {lives}"
    return True


async def test_a_run_that_stops_at_each_deadline_and_goes_on_ends_as_an_uninterrupted_one(model: Model) -> None:
    async with model.copy() as site:
        await finish(site, "ever")
        expected = await ends_of(site)
    async with model.copy() as site:
        runs = 0
        while (await site.run(since="ever", with_data=True, max_time=1e-9)).outcome == "paused":
            runs += 1
        assert runs > len(STAGES)
        await finish(site, None)
        assert await ends_of(site) == expected


async def finish(site: Site, since: str | None) -> None:
    """Run to the end, let Mailchimp work off its batches, and once more for what followed from that."""
    await sync_by_hand(site, since=since, with_data=True)
    await sync_by_hand(site, with_data=True)


# ── Changes in CiviCRM ──────────────────────────────────────────────────────────────────────────────────────────────


async def touch(site: Site, contact_id: int) -> None:
    """What CiviCRM does to a contact whose address or record changed."""
    at = site.store.clock.now()
    await site.store.write(
        lambda conn: conn.execute(change(contact).where(contact.c.id == contact_id).values(modified_date=at)).rowcount
    )


async def trash(site: Site, contact_id: int, is_deleted: int = 1) -> None:
    await site.store.write(
        lambda conn: (
            conn.execute(change(contact).where(contact.c.id == contact_id).values(is_deleted=is_deleted)).rowcount
        )
    )
    await touch(site, contact_id)


async def replace_address(site: Site, contact_id: int, address: str) -> None:
    await site.store.write(
        lambda conn: conn.execute(change(email).where(email.c.contact_id == contact_id).values(email=address)).rowcount
    )
    await touch(site, contact_id)


async def add_address(site: Site, contact_id: int, address: str) -> None:
    await site.store.write(
        lambda conn: conn.execute(email.insert().values(contact_id=contact_id, email=address)).rowcount
    )
    await touch(site, contact_id)


async def drop_address(site: Site, contact_id: int, address: str) -> None:
    mine = (email.c.contact_id == contact_id) & (email.c.email == address)
    await site.store.write(lambda conn: conn.execute(delete(email).where(mine)).rowcount)
    await touch(site, contact_id)


async def give_tag(site: Site, contact_id: int, name: str) -> None:
    def give(conn: Connection) -> None:
        found = conn.execute(select(tag.c.id).where(tag.c.name == name)).scalar()
        tag_id = found or conn.execute(tag.insert().values(name=name, label=name)).lastrowid
        conn.execute(entity_tag.insert().values(entity_table="civicrm_contact", entity_id=contact_id, tag_id=tag_id))

    await site.store.write(give)


async def note_data(site: Site, **sources: Any) -> None:
    """What the extension noted as sent for the only row."""
    [row] = await site.rows()
    noted = dump_data({**load_data(row.civicrm_data), **sources})
    await site.store.write(lambda conn: conn.execute(change(cache).values(civicrm_data=noted)).rowcount)


def tags_at_mailchimp(site: Site, address: str = "ada@example.org") -> set[str]:
    audience, found = site.emulator.audience(), site.emulator.member(address)
    names = {one.id: one.name for one in audience.tags.values()}
    return {names[one] for one in (found.tags if found else None) or ()}
