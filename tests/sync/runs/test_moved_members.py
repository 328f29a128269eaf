"""Members whose address is changed at Mailchimp while an update of theirs is under way: no update makes a member of the
old address again, and each reaches the member at the new one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sync.inbox.sync_contact import sync_contact
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation
from sync.reconcile.matching import PersonQuery
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site, unsubscribing

ADA, NEW = "ada@example.org", "ada.byron@example.org"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def by_a_run(site: Site, _: int) -> None:
    await site.run()


async def alone(site: Site, contact_id: int) -> None:
    await sync_contact(site.ctx, await site.audience(), PersonQuery(contact_id))


async def a_leaver(site: Site) -> int:
    """A member in the group who leaves it; the contact."""
    contact_id = await site.person(ADA)
    await site.run(since="ever")
    await site.settle_with_batches()
    site.emulator.configure(auto_batches=False)
    site.emulator.advance(5)
    await site.set_group(contact_id, "Removed")
    return contact_id


Road = Callable[[Site, int], Awaitable[None]]
ROADS = pytest.mark.parametrize("road", [by_a_run, alone])


@ROADS
async def test_who_leaves_the_group_is_unsubscribed_at_the_new_address_and_no_member_is_made(
    site: Site, road: Road
) -> None:
    contact_id = await a_leaver(site)
    await road(site, contact_id)
    site.emulator.person("change_email", ADA, new_email=NEW)
    await site.settle_with_batches()
    assert (site.at_mailchimp(ADA), site.at_mailchimp(NEW)) == (None, "unsubscribed")
    await site.sync()
    row = await site.row(NEW)
    assert (row.mailchimp_status, row.sync_status) == ("unsubscribed", "ok")
    assert await site.standing(contact_id) == "Removed"
    assert len(await site.rows()) == 1


@ROADS
async def test_who_was_deleted_for_good_is_not_made_again_by_unsubscribing(site: Site, road: Road) -> None:
    contact_id = await a_leaver(site)
    await road(site, contact_id)
    site.emulator.admin("delete_permanently", ADA)
    await site.settle_with_batches()
    await site.sync()
    assert site.at_mailchimp(ADA) is None
    [row] = await site.rows()
    assert (row.mailchimp_status, row.sync_status) == ("archived", "ok")
    assert await site.standing(contact_id) == "Removed"
    assert [one.error_response for one in await site.updates()] == [None, None]


OF_ADA = f"members/{subscriber_hash(ADA)}"
OWED = {
    "unsubscribed": (lambda: unsubscribing(ADA), lambda one: one.status == "unsubscribed"),
    "archived": (lambda: MemberOperation("archive", "DELETE", OF_ADA), lambda one: one.status == "archived"),
    "renamed": (
        lambda: MemberOperation("names", "PATCH", OF_ADA, {"merge_fields": {"FNAME": "Augusta"}}),
        lambda one: one.merges["FNAME"] == "Augusta",
    ),
    "tagged": (
        lambda: MemberOperation("tags", "POST", f"{OF_ADA}/tags", {"tags": [{"name": "Donor", "status": "active"}]}),
        lambda one: bool(one.tags),
    ),
}
"""Updates of a member (each new: its cause is now), and what they make of one."""


@pytest.mark.parametrize("what", OWED)
async def test_an_update_under_way_reaches_a_member_at_the_new_address(site: Site, what: str) -> None:
    contact_id = await site.person(ADA)
    await site.run(since="ever")
    await site.settle_with_batches()
    site.emulator.configure(auto_batches=False)
    owed, is_done = OWED[what]
    site.emulator.advance(5)  # it is owed later than the member joined
    await site.owe((await site.row(ADA)).id, owed())
    await site.submit()
    site.emulator.person("change_email", ADA, new_email=NEW)
    await site.settle_with_batches()
    member = site.emulator.member(NEW)
    assert member is not None
    assert is_done(member)
    assert site.at_mailchimp(ADA) is None
    [row] = await site.rows()
    assert (row.mailchimp_email, row.civicrm_contact_id) == (NEW, contact_id)
    assert [one.error_response for one in await site.updates()] == [None, None]
