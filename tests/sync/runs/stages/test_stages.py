"""The stages of a sync by what they leave behind: members fetched, contacts made, addresses, rows of contacts."""

from datetime import timedelta

import pytest
from sqlalchemy import ColumnElement, Table
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.schema.tables import contact, email
from sync.reconcile.requeue import include_contacts
from sync.store.members.blobs import load_data
from sync.store.members.member_codec import decode
from sync.store.runs import checkpoints
from tests.support.linked_site import TREES_GROUP, Site
from tests.support.small_changes import (
    add_address,
    drop_address,
    replace_address,
    touch,
    trash,
    with_trees,
)
from tests.sync.runs.stages.by_hand import BEFORE, LATER, NOON, stop_before, sync_by_hand

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


async def test_after_a_sync_that_is_dated_in_the_future_everybody_is_fetched(site: Site, clock: Traveller) -> None:
    """A wrong clock had dated it: what changes until then would never be seen."""
    await sync_by_hand(site, since="ever")
    clock.shift(-14 * 24 * 3600)
    site.emulator.clear_requests()
    await sync_by_hand(site)
    asked = [one.query.get("since_last_changed") for one in site.emulator.requests if one.path.endswith("/members")]
    assert asked == [None] * 2


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


@pytest.mark.parametrize(
    ("stage", "minutes"),
    [("readyToCheckForGroupChanges", 0), ("readyToReconcileQueue", 0), ("readyToSubmitUpdates", 60)],
)
async def test_a_contact_that_goes_to_the_trash_while_a_run_is_stopped_is_not_subscribed(
    site: Site, clock: Traveller, stage: str, minutes: int
) -> None:
    """It was: the member then had no contact, so that the next sync made another one in place of it."""
    contact_id = await site.person("ada@example.org")
    await stop_before(site, stage)
    clock.shift(minutes * 60)
    await trash(site, contact_id)
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") is None
    await sync_by_hand(site)
    assert (await site.contacts(), site.at_mailchimp("ada@example.org")) == ([], None)


@pytest.mark.parametrize("change", ["opts out", "leaves", "is on hold"])
async def test_who_is_not_to_be_subscribed_any_more_when_a_stopped_run_goes_on_long_after_is_not(
    site: Site, clock: Traveller, change: str
) -> None:
    contact_id = await site.person("ada@example.org")
    await site.person("bob@example.org")
    await stop_before(site, "readyToSubmitUpdates")
    clock.shift(3600)
    if change == "opts out":
        await set_column(site, contact, contact.c.id == contact_id, is_opt_out=1)
    elif change == "is on hold":
        await set_column(site, email, email.c.contact_id == contact_id, on_hold=1)
    else:
        await site.set_group(contact_id, "Removed")
    await touch(site, contact_id)
    await sync_by_hand(site)
    await sync_by_hand(site)
    assert (site.at_mailchimp("ada@example.org"), site.at_mailchimp("bob@example.org")) == (None, "subscribed")
    assert [one.sync_status for one in await site.rows() if one.civicrm_contact_id == contact_id] == [
        "ok" if change == "leaves" else "fail"
    ]


async def set_column(site: Site, table: Table, which: ColumnElement[bool], **values: int) -> None:
    await site.store.write(lambda conn: conn.execute(change(table).where(which).values(**values)).rowcount)


# ── An address that changes while an update is in flight ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seen", ["before it is carried out", "before its results are read"])
async def test_a_newcomer_whose_address_changes_while_it_is_being_subscribed_stays_one_person(
    site: Site, clock: Traveller, seen: str
) -> None:
    """Both addresses were subscribed, and a second contact was made for the old one."""
    contact_id = await site.person("ada@example.org")
    await site.run(since="ever")
    await replace_address(site, contact_id, "byron@example.org")
    clock.shift(60)
    if seen == "before its results are read":
        site.emulator.run_batches()
    await site.run()
    for _ in range(3):
        clock.shift(60)
        await sync_by_hand(site)
    assert (site.at_mailchimp("ada@example.org"), site.at_mailchimp("byron@example.org")) == (None, "subscribed")
    [row] = await site.rows()
    assert (row.civicrm_contact_id, row.sync_status) == (contact_id, "ok")
    assert [one.id for one in await site.contacts()] == [contact_id]


async def test_a_newcomer_with_a_second_address_who_chooses_an_interest_while_being_subscribed_gets_it(
    site: Site, clock: Traveller
) -> None:
    """The second subscribing was dropped with the interest in it, and no later sync looked for that."""
    trees = await with_trees(site)
    contact_id = await site.person("ada@example.org")
    await site.run(since="ever")
    await add_address(site, contact_id, "byron@example.org")
    await set_column(site, email, email.c.email == "byron@example.org", is_bulkmail=1)
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP)
    for _ in range(3):
        clock.shift(3 * 3600)
        await site.run()
    await sync_by_hand(site)
    await sync_by_hand(site)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert (found.status, found.interests) == ("subscribed", {trees})
    assert site.at_mailchimp("byron@example.org") is None


async def test_a_newcomer_whose_first_address_is_refused_is_subscribed_under_the_corrected_one(
    site: Site, clock: Traveller
) -> None:
    site.emulator.configure(reject_domains=["example.og"])
    contact_id = await site.person("ada@example.og")
    await site.run(since="ever")
    await replace_address(site, contact_id, "ada@example.org")
    clock.shift(60)
    await site.run()
    await sync_by_hand(site)
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    assert [one.sync_status for one in await site.rows()] == ["ok"]


@pytest.mark.parametrize("seen", ["by its results", "by a fetch"])
async def test_an_address_that_is_changed_back_while_it_is_being_changed_at_mailchimp_is_changed_back_there(
    site: Site, clock: Traveller, seen: str
) -> None:
    """A slip of the pen: the contact was given it again, as if the member had chosen it at Mailchimp."""
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(3600)
    await replace_address(site, contact_id, "aad@example.org")
    await site.run()
    site.emulator.run_batches()
    await replace_address(site, contact_id, "ada@example.org")
    if seen == "by its results":
        await site.settle()
    for _ in range(3):
        clock.shift(60)
        await sync_by_hand(site)
    assert await site.addresses(contact_id) == ["ada@example.org"]
    assert (site.at_mailchimp("aad@example.org"), site.at_mailchimp("ada@example.org")) == (None, "subscribed")
    assert [one.sync_status for one in await site.rows()] == ["ok"]


# ── Who asks to be forgotten ────────────────────────────────────────────────────────────────────────────────────────


async def taken_out_and_trashed(site: Site, clock: Traveller) -> int:
    """A contact whom both sides had, and CiviCRM has taken out of the group and put in the trash since."""
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever")
    clock.shift(3600)
    await site.set_group(contact_id, "Removed")
    await trash(site, contact_id)
    return contact_id


@pytest.mark.parametrize("since", [None, "ever"])
async def test_who_is_taken_out_of_the_group_and_then_put_in_the_trash_is_unsubscribed(
    site: Site, clock: Traveller, since: str | None
) -> None:
    """The contact was replaced by a new one, which joined the group: nobody's wish."""
    await taken_out_and_trashed(site, clock)
    await sync_by_hand(site, since=since)
    await sync_by_hand(site, since=since)
    assert site.at_mailchimp("ada@example.org") == "unsubscribed"
    assert await site.contacts() == []
    assert [(one.civicrm_contact_id, one.sync_status) for one in await site.rows()] == [(None, "ok")]


async def test_who_subscribes_again_after_that_gets_a_new_contact(site: Site, clock: Traveller) -> None:
    contact_id = await taken_out_and_trashed(site, clock)
    clock.shift(3600)
    site.emulator.person("unsubscribe", "ada@example.org")
    site.emulator.person("sign_up", "ada@example.org")
    await sync_by_hand(site)
    [made] = await site.contacts()
    assert (made.id != contact_id, await site.standing(made.id)) == (True, "Added")
    assert site.at_mailchimp("ada@example.org") == "subscribed"
