"""One member, now: what a webhook hints at is looked up at Mailchimp, and both ends agree about it afterwards."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import insert, select
from sqlalchemy import update as change

from civiapi.store.leases import LeaseLost, revoke
from civiapi.store.schema.tables import contact, email, group
from sync.emulator.model.records import Interest, InterestCategory
from sync.errors import SyncError
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from sync.mailchimp.errors import MailchimpError
from sync.mailchimp.wire import subscriber_hash
from sync.store.tables import cache
from tests.support.databases import database_at
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, link, subscribing

ADA, BOB, CY = "ada@example.org", "bob@example.org", "cy@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        yield opened


async def look(site: Site, kind: str, address: str, old: str = "") -> None:
    """Sync one member, as a webhook of this kind makes us."""
    async with hold_lease(site.ctx, site.list_id, brief=True) as lease:
        assert lease is not None
        await sync_member(site.ctx, await site.audience(), lease, MemberRef(kind, address, old))


async def in_step(site: Site, *addresses: str, **more: Any) -> list[int]:
    """People in the group and in the audience, synced a while ago; their contact ids."""
    site.joined(*addresses, **more)
    ids = [await site.person(one) for one in addresses]
    await site.sync(since="ever")
    site.emulator.advance(5)
    site.emulator.clear_requests()
    return ids


async def test_someone_new_who_subscribed_becomes_a_contact_in_the_group(site: Site) -> None:
    site.emulator.person("sign_up", ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    await look(site, "subscribe", ADA)
    found = (await site.contacts())[-1]
    assert (found.first_name, found.last_name, await site.standing(found.id)) == ("Ada", "Byron", "Added")
    assert await site.history(found.id) == [("Added", "MCsync")]
    assert (await site.row(ADA)).sync_status == "ok"


async def test_someone_known_who_subscribed_is_matched_and_joins(site: Site) -> None:
    contact_id = await site.person(ADA, status=None)
    site.emulator.person("sign_up", ADA)
    await look(site, "subscribe", ADA)
    assert (await site.row(ADA)).civicrm_contact_id == contact_id
    assert await site.standing(contact_id) == "Added"


@pytest.mark.parametrize(
    ("who", "what", "kind", "status"),
    [
        pytest.param("person", "unsubscribe", "unsubscribe", "unsubscribed", id="left by the link"),
        pytest.param("person", "complain", "unsubscribe", "unsubscribed", id="complained"),
        pytest.param("person", "hard_bounce", "cleaned", "cleaned", id="bounced"),
        pytest.param("admin", "archive", "unsubscribe", "archived", id="was archived, told as an unsubscribe"),
    ],
)
async def test_someone_who_is_out_at_mailchimp_leaves_the_group(
    site: Site, who: str, what: str, kind: str, status: str
) -> None:
    [contact_id] = await in_step(site, ADA)
    getattr(site.emulator, who)(what, ADA)
    await look(site, kind, ADA)
    row = await site.row(ADA)
    assert (row.mailchimp_status, await site.standing(contact_id)) == (status, "Removed")
    assert (await site.history(contact_id))[-1] == ("Removed", "MCsync")
    assert site.posted_batches() == 0


async def test_someone_deleted_for_good_leaves_the_group(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.admin("delete_permanently", ADA)
    await look(site, "unsubscribe", ADA)
    assert await site.standing(contact_id) == "Removed"


async def test_someone_whom_neither_end_knows_changes_nothing(site: Site) -> None:
    await look(site, "unsubscribe", "nobody@example.org")
    assert await site.rows() == []


async def test_what_the_webhook_says_is_never_believed(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    await look(site, "unsubscribe", ADA)  # but Mailchimp says subscribed
    assert await site.standing(contact_id) == "Added"


async def test_a_later_word_in_civicrm_wins_and_is_sent_at_once(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    await site.set_group(contact_id, "Removed", at=datetime.now(UTC) + timedelta(minutes=5))
    await look(site, "profile", ADA)
    await site.settle()
    assert site.at_mailchimp(ADA) == "unsubscribed"


async def test_only_this_member_s_updates_are_sent(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.configure(auto_batches=False)
    await site.owe_subscribing(BOB)
    await site.run(stop_on="readyToSubmitUpdates")
    await site.set_group(contact_id, "Removed", at=datetime.now(UTC) + timedelta(minutes=5))
    await look(site, "profile", ADA)
    [one] = site.emulator.world.default_account.batches.values()
    assert [subscriber_hash(ADA) in op["path"] for op in one.todo] == [True]


async def test_a_new_address_follows_into_civicrm(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.person("change_email", ADA, new_email=BOB)
    await look(site, "upemail", BOB, ADA)
    [row] = await site.rows()
    assert (row.mailchimp_email, row.civicrm_contact_id) == (BOB, contact_id)
    assert await site.addresses(contact_id) == [ADA, BOB]
    assert await bulk_addresses(site, contact_id) == [BOB]
    await site.sync()
    assert (site.at_mailchimp(BOB), site.at_mailchimp(ADA)) == ("subscribed", None)
    assert site.posted_batches() == 0
    [row] = await site.rows()
    assert (row.mailchimp_email, await site.addresses(contact_id)) == (BOB, [ADA, BOB])


async def test_a_new_address_that_the_contact_has_already_is_not_added_again(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    await site.store.write(lambda c: c.execute(insert(email).values(contact_id=contact_id, email=BOB)) and None)
    site.emulator.person("change_email", ADA, new_email=BOB)
    await look(site, "upemail", BOB, ADA)
    await site.sync()
    assert (await site.addresses(contact_id), await bulk_addresses(site, contact_id)) == ([ADA, BOB], [BOB])
    assert (site.at_mailchimp(BOB), site.posted_batches()) == ("subscribed", 0)


async def test_a_new_address_that_another_contact_has_is_left_to_it(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    other = await site.person(BOB, status=None)
    site.emulator.person("change_email", ADA, new_email=BOB)
    await look(site, "upemail", BOB, ADA)
    assert [await site.addresses(one) for one in (contact_id, other)] == [[ADA], [BOB]]


async def bulk_addresses(site: Site, contact_id: int) -> list[str]:
    mine = select(email.c.email).where(email.c.contact_id == contact_id, email.c.is_bulkmail == 1)
    return await site.store.read(lambda conn: list(conn.execute(mine).scalars()))


class TestABouncedAddress:
    """A `cleaned` event: the address is put on hold, on that contact only."""

    async def held(self, site: Site) -> dict[str, tuple[int, bool]]:
        columns = (email.c.contact_id, email.c.email, email.c.on_hold, email.c.hold_date)
        rows = await site.store.read(lambda conn: conn.execute(select(*columns)).all())
        return {f"{row.contact_id} {row.email}": (row.on_hold, row.hold_date is not None) for row in rows}

    async def test_is_put_on_hold_with_the_date_and_no_other(self, site: Site) -> None:
        [contact_id] = await in_step(site, ADA)
        await site.store.write(lambda c: c.execute(insert(email).values(contact_id=contact_id, email=BOB)) and None)
        other = await site.person(ADA, status=None)
        site.emulator.person("hard_bounce", ADA)
        await look(site, "cleaned", ADA)
        assert await self.held(site) == {
            f"{contact_id} {ADA}": (1, True),
            f"{contact_id} {BOB}": (0, False),
            f"{other} {ADA}": (0, False),
        }
        assert await site.standing(contact_id) == "Removed"

    async def test_told_twice_keeps_the_first_date(self, site: Site) -> None:
        await in_step(site, ADA)
        site.emulator.person("hard_bounce", ADA)
        dates = []
        for day in (2, 3):
            with time_machine.travel(datetime(2026, 12, day, tzinfo=UTC)):
                await look(site, "cleaned", ADA)
            dates.append(await site.store.read(lambda conn: conn.execute(select(email.c.hold_date)).scalar()))
        assert dates[0] == dates[1]

    async def test_is_not_put_on_hold_because_somebody_says_so(self, site: Site) -> None:
        [contact_id] = await in_step(site, ADA)
        await look(site, "cleaned", ADA)  # but Mailchimp says subscribed
        assert await self.held(site) == {f"{contact_id} {ADA}": (0, False)}


async def test_an_update_that_waits_is_completed_with_the_reason_when_the_person_leaves(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    row = await site.row(ADA)
    waiting = await site.owe(row.id, subscribing(ADA))
    site.emulator.person("unsubscribe", ADA)
    await look(site, "unsubscribe", ADA)
    [one] = [one for one in await site.updates() if one.id == waiting]
    assert (one.completed, one.error_response.startswith("Overtaken: ")) == (1, True)
    assert (await site.standing(contact_id), site.at_mailchimp(ADA)) == ("Removed", "unsubscribed")


async def test_a_new_address_told_twice_is_taken_once(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.person("change_email", ADA, new_email=BOB)
    for _ in range(2):
        await look(site, "upemail", BOB, ADA)
    assert [await site.addresses(contact_id), len(await site.rows())] == [[ADA, BOB], 1]


async def test_a_new_address_told_before_we_knew_the_old_one_makes_one_contact(site: Site) -> None:
    site.joined(ADA)
    site.emulator.person("change_email", ADA, new_email=BOB)
    await look(site, "upemail", BOB, ADA)
    await look(site, "profile", BOB)
    assert len(await site.rows()) == 1


async def test_new_names_reach_the_contact_and_empty_ones_do_not(site: Site) -> None:
    [contact_id] = await in_step(site, ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    site.emulator.person("edit_profile", ADA, merge_fields={"FNAME": "Augusta", "LNAME": ""})
    await look(site, "profile", ADA)
    found = next(one for one in await site.contacts() if one.id == contact_id)
    assert (found.first_name, found.last_name) == ("Augusta", "Byron")
    assert (found.display_name, found.sort_name) == ("Augusta Byron", "Byron, Augusta")


async def test_a_name_changed_at_mailchimp_waits_for_its_event_and_is_not_sent_back(site: Site) -> None:
    [contact_id] = await in_step(site, ADA, merge_fields={"FNAME": "Eda", "LNAME": "Byron"})
    await site.sync(with_data=True)
    site.emulator.person("edit_profile", ADA, merge_fields={"FNAME": "Augusta", "LNAME": "King"})
    await look(site, "subscribe", ADA)  # not their profile: it has no name to bring in
    await site.settle()
    assert names_at_mailchimp(site) == ("Augusta", "King")
    await look(site, "profile", ADA)
    await site.settle()
    found = next(one for one in await site.contacts() if one.id == contact_id)
    assert (found.first_name, found.last_name) == names_at_mailchimp(site) == ("Augusta", "King")


async def test_a_name_that_civicrm_changed_is_sent_for_a_single_member_too(site: Site) -> None:
    [contact_id] = await in_step(site, ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    await site.sync(with_data=True)
    renamed = change(contact).where(contact.c.id == contact_id).values(last_name="Lovelace")
    await site.store.write(lambda conn: conn.execute(renamed) and None)
    await look(site, "subscribe", ADA)
    await site.settle()
    assert names_at_mailchimp(site) == ("Ada", "Lovelace")


def names_at_mailchimp(site: Site) -> tuple[str, str]:
    found = site.emulator.member(ADA)
    assert found is not None
    return found.merges["FNAME"], found.merges["LNAME"]


async def test_names_that_did_not_change_at_mailchimp_leave_civicrm_s_alone(site: Site) -> None:
    [contact_id] = await in_step(site, ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    renamed = change(contact).where(contact.c.id == contact_id).values(last_name="Lovelace")
    await site.store.write(lambda conn: conn.execute(renamed) and None)
    site.emulator.person("edit_profile", ADA, merge_fields={"FNAME": "Augusta"})
    await look(site, "profile", ADA)
    found = next(one for one in await site.contacts() if one.id == contact_id)
    assert (found.first_name, found.last_name) == ("Augusta", "Lovelace")


async def test_an_interest_chosen_at_mailchimp_puts_the_contact_into_its_group(site: Site) -> None:
    [interest] = await an_interest(site)
    [contact_id] = await in_step(site, ADA)
    site.emulator.person("edit_profile", ADA, interests={interest: True})
    await look(site, "profile", ADA)
    assert await site.standing(contact_id, TREES_GROUP) == "Added"


async def an_interest(site: Site) -> list[str]:
    """An interest at Mailchimp, linked with the group Trees."""
    category = InterestCategory("c" * 10, "Topics")
    category.interests["a" * 10] = Interest("a" * 10, category.id, "Trees", 1)
    site.emulator.audience().categories[category.id] = category
    await site.store.write(link, site.emulator.key, site.list_id, {"a" * 10: str(TREES_GROUP)})
    return ["a" * 10]


async def test_a_contact_s_row_without_a_member_is_taken_into_the_member_s(site: Site) -> None:
    await site.new_row(ADA)
    site.emulator.person("sign_up", ADA)
    await look(site, "subscribe", ADA)
    [row] = await site.rows()
    assert (row.mailchimp_status, row.civicrm_contact_id is not None) == ("subscribed", True)


async def test_a_very_old_member_is_looked_up_by_the_id_we_know(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    await site.store.write(lambda conn: conn.execute(change(cache).values(mailchimp_member_id="f" * 32)) and None)
    await look(site, "profile", ADA)
    assert await site.standing(contact_id) == "Added"


async def test_doing_it_twice_changes_nothing_more(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.person("unsubscribe", ADA)
    await look(site, "unsubscribe", ADA)
    before = await site.snapshot(), await site.history(contact_id)
    await look(site, "unsubscribe", ADA)
    assert (await site.snapshot(), await site.history(contact_id)) == before


async def test_without_mailchimp_nothing_changes(site: Site) -> None:
    [contact_id] = await in_step(site, ADA)
    site.emulator.person("unsubscribe", ADA)
    site.emulator.add_fault("502_html")
    with pytest.raises(MailchimpError):
        await look(site, "unsubscribe", ADA)
    assert await site.standing(contact_id) == "Added"


async def test_without_its_group_an_audience_says_so(site: Site) -> None:
    await site.store.write(lambda conn: conn.execute(group.delete().where(group.c.id == GROUP)) and None)
    with pytest.raises(SyncError, match="which does not exist"):
        await look(site, "subscribe", ADA)


async def test_whoever_lost_the_lease_writes_nothing(site: Site) -> None:
    site.emulator.person("sign_up", ADA)
    async with hold_lease(site.ctx, site.list_id, brief=True) as lease:
        assert lease is not None
        await site.store.write(revoke, site.list_id)
        with pytest.raises(LeaseLost):
            await sync_member(site.ctx, await site.audience(), lease, MemberRef("subscribe", ADA))
    assert await site.rows() == []
    assert await site.store.read(lambda conn: conn.execute(select(cache.c.id)).all()) == []
