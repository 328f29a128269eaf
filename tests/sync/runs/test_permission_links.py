"""Marketing permissions linked with groups: both ways, with dates, as interests; and never given by default."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from sync.errors import SyncBraked
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from sync.mailchimp.wire import PERMISSION
from sync.reports.checks import Severity, configuration
from sync.store.tables import run_log
from sync.undo.engine import undo_run
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, link

EMAIL, POST = "aaaa000001", "bbbb000002"
ADA, BEA = "ada@example.org", "bea@example.org"


def from_now(**time: float) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """The audience has two permissions; that for e-mail is linked with a group, that for post is not."""
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            opened.emulator.audience().marketing_permissions = [
                {"marketing_permission_id": EMAIL, "text": "Email"},
                {"marketing_permission_id": POST, "text": "Direct mail"},
            ]
            opened.emulator.configure(auto_batches=True)
            await link_permissions(opened, {EMAIL: str(TREES_GROUP)})
            yield opened


async def link_permissions(site: Site, permissions: dict[str, str], **more: Any) -> None:
    await site.store.write(link, site.emulator.key, site.list_id, permissions=permissions, **more)


def gives(site: Site, address: str, permission: str = EMAIL, *, enabled: bool = True) -> None:
    """A person gives a permission at Mailchimp, or takes it back."""
    named = [{"marketing_permission_id": permission, "enabled": enabled}]
    site.emulator.person("edit_profile", address, marketing_permissions=named)


def given(site: Site, address: str) -> list[str]:
    """The permissions that a member has given."""
    member = site.emulator.member(address)
    assert member is not None
    return list((member.extra or {}).get("marketing_permissions", ()))


async def bodies(site: Site) -> list[dict[str, Any]]:
    """What was sent of members, as it is sent: the emulator refuses what it does not know."""
    return [orjson.loads(one.data) for one in await site.updates() if one.mailchimpsync_batch_id]


async def test_who_gives_a_permission_at_mailchimp_joins_its_group_and_who_takes_it_back_leaves_it(site: Site) -> None:
    site.joined(ADA, BEA)
    gives(site, ADA)
    await site.sync(since="ever")
    ada, bea = [(await site.row(one)).civicrm_contact_id for one in (ADA, BEA)]
    assert [await site.standing(one, TREES_GROUP) for one in (ada, bea)] == ["Added", None]
    site.emulator.set_clock(from_now(seconds=3))
    gives(site, ADA, enabled=False)
    await site.sync()
    assert [await site.standing(one, TREES_GROUP) for one in (ada, bea)] == ["Removed", None]
    assert [await site.standing(one) for one in (ada, bea)] == ["Added", "Added"]
    assert await bodies(site) == []


async def test_who_is_put_into_the_group_has_given_the_permission_and_who_is_removed_has_not(site: Site) -> None:
    site.joined(ADA)
    gives(site, ADA, POST)
    await site.sync(since="ever")
    ada = (await site.row(ADA)).civicrm_contact_id
    await site.set_group(ada, "Added", group_id=TREES_GROUP, at=from_now(minutes=1))
    await site.sync()
    assert given(site, ADA) == [EMAIL, POST]
    await site.set_group(ada, "Removed", group_id=TREES_GROUP, at=from_now(minutes=2))
    await site.sync()
    assert given(site, ADA) == [POST]
    assert [one["marketing_permissions"] for one in await bodies(site)] == [
        [{"marketing_permission_id": EMAIL, "enabled": True}],
        [{"marketing_permission_id": EMAIL, "enabled": False}],
    ]
    assert all("interests" not in one and "status" not in one for one in await bodies(site))
    assert (await site.row(ADA)).sync_status == "ok"


async def test_the_later_change_of_a_permission_wins(site: Site) -> None:
    site.joined(ADA, BEA)
    await site.sync(since="ever")
    ada, bea = [(await site.row(one)).civicrm_contact_id for one in (ADA, BEA)]
    for address in (ADA, BEA):
        gives(site, address)
    await site.sync()
    at = from_now(seconds=4)
    site.emulator.set_clock(at)
    for contact_id, address, earlier in ((ada, ADA, -1), (bea, BEA, 60)):
        gives(site, address, enabled=False)
        for status, seconds in (("Removed", earlier - 1), ("Added", earlier)):
            moment = at + timedelta(seconds=seconds)
            await site.set_group(contact_id, status, group_id=TREES_GROUP, at=moment)
    await site.sync()
    assert [await site.standing(one, TREES_GROUP) for one in (ada, bea)] == ["Removed", "Added"]
    assert [given(site, one) for one in (ADA, BEA)] == [[], [EMAIL]]


async def test_a_newly_subscribed_member_is_given_a_permission_only_if_the_contact_is_in_its_group(site: Site) -> None:
    ada, bea = await site.person(ADA), await site.person(BEA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP)
    await site.sync(since="ever")
    assert [site.at_mailchimp(one) for one in (ADA, BEA)] == ["subscribed", "subscribed"]
    assert [given(site, one) for one in (ADA, BEA)] == [[EMAIL], []]
    sent = {one["email_address"]: one.get("marketing_permissions") for one in await bodies(site)}
    assert sent == {ADA: [{"marketing_permission_id": EMAIL, "enabled": True}], BEA: None}
    await site.sync(since="ever")
    await site.sync()
    assert len(await bodies(site)) == 2
    assert [await site.standing(one, TREES_GROUP) for one in (ada, bea)] == ["Added", None]
    assert [(await site.row(one)).sync_status for one in (ADA, BEA)] == ["ok", "ok"]


async def test_a_permission_that_is_linked_with_no_group_is_never_sent(site: Site) -> None:
    await link_permissions(site, {})
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP)
    site.joined(BEA)
    gives(site, BEA)
    await site.sync(since="ever")
    await site.sync(since="ever")
    assert given(site, ADA) == []
    assert await site.standing((await site.row(BEA)).civicrm_contact_id, TREES_GROUP) is None
    assert not any("marketing_permissions" in one for one in await bodies(site))


async def test_leaving_the_audience_changes_no_permission(site: Site) -> None:
    site.joined(ADA)
    gives(site, ADA)
    await site.sync(since="ever")
    ada = (await site.row(ADA)).civicrm_contact_id
    await site.set_group(ada, "Removed", at=from_now(minutes=1))
    await site.sync()
    assert (site.at_mailchimp(ADA), given(site, ADA)) == ("unsubscribed", [EMAIL])
    assert await site.standing(ada, TREES_GROUP) == "Added"
    assert all("marketing_permissions" not in one for one in await bodies(site))


async def test_a_single_member_is_synced_with_its_permissions(site: Site) -> None:
    site.joined(ADA)
    await site.sync(since="ever")
    ada = (await site.row(ADA)).civicrm_contact_id
    site.emulator.set_clock(from_now(seconds=3))
    gives(site, ADA)
    audience = await site.audience()
    async with hold_lease(site.ctx, site.list_id) as lease:
        assert lease is not None
        await sync_member(site.ctx, audience, lease, MemberRef("profile", ADA))
    assert await site.standing(ada, TREES_GROUP) == "Added"


async def test_a_linked_permission_is_an_interest_of_the_sync_but_none_to_the_extension(site: Site) -> None:
    site.joined(ADA)
    gives(site, ADA)
    await site.sync(since="ever")
    assert dict((await site.audience()).interests) == {PERMISSION + EMAIL: TREES_GROUP}
    data = bytes((await site.row(ADA)).mailchimp_data)
    assert f'"interest-permission:{EMAIL}";b:1;'.encode() in data
    assert b'"interests";' not in data
    ada = (await site.row(ADA)).civicrm_contact_id
    await site.set_group(ada, "Removed", group_id=TREES_GROUP, at=from_now(minutes=1))
    await site.sync()
    stored = orjson.loads((await site.updates())[-1].data)
    assert stored["marketing_permissions"] == [{"marketing_permission_id": EMAIL, "enabled": False}]
    assert "interests" not in stored


async def test_members_are_all_fetched_once_after_a_permission_was_linked(site: Site) -> None:
    await link_permissions(site, {})
    site.joined(ADA)
    await site.sync(since="ever")
    await link_permissions(site, {EMAIL: str(TREES_GROUP)})
    for expected in (True, False):
        await site.run(stop_on="readyToFixContactIds")
        asked = [one for one in site.emulator.requests if one.method == "GET" and one.path.endswith("/members")]
        assert ("since_last_changed" not in asked[-1].query) is expected
        await site.sync()


async def findings(site: Site) -> list[str]:
    found = await site.store.read(lambda conn: list(configuration(conn, site.store.clock)))
    return [one.sentence for one in found if one.severity is not Severity.OK]


@pytest.mark.parametrize("what", ["the permission is deleted", "the audience has no GDPR fields any more"])
async def test_a_permission_that_is_gone_is_marked_and_keeps_nobody_from_being_subscribed(
    site: Site, what: str
) -> None:
    site.joined(BEA)
    await site.sync(since="ever")
    assert await findings(site) == []
    kept = site.emulator.audience().marketing_permissions
    site.emulator.audience().marketing_permissions = kept[1:] if "deleted" in what else []
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP, at=from_now(minutes=5))
    await site.sync()
    assert (site.at_mailchimp(ADA), given(site, ADA)) == ("subscribed", [])
    [sentence] = await findings(site)
    assert f"Marketing permission {EMAIL}" in sentence
    assert "GDPR" in sentence
    assert (await site.audience()).interests == {}
    updates = len(await site.updates())
    await site.sync(since="ever")
    await site.sync(since="ever")
    assert len(await site.updates()) == updates
    assert (await site.row(ADA)).sync_status == "ok"
    assert [await site.standing(ada, one) for one in (GROUP, TREES_GROUP)] == ["Added", "Added"]

    site.emulator.audience().marketing_permissions = kept
    await site.sync(since="ever")
    assert await findings(site) == []
    await site.sync()
    assert given(site, ADA) == [EMAIL]


async def test_a_fetch_that_sees_the_permission_gone_sends_it_for_nobody(site: Site) -> None:
    site.emulator.audience().marketing_permissions = []
    site.joined(BEA)
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP)
    await site.sync(since="ever")
    assert site.at_mailchimp(ADA) == "subscribed"
    assert not any("marketing_permissions" in one for one in await bodies(site))
    assert len(await findings(site)) == 1


async def test_a_permission_that_was_deleted_after_the_sync_decided_is_left_out_of_what_is_sent(site: Site) -> None:
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP)
    await site.run(since="ever", stop_on="readyToSubmitUpdates")
    del site.emulator.audience().marketing_permissions[0]
    site.joined(BEA)
    for _ in range(2):  # refused, and sent again without it
        await site.submit()
        await site.settle()
    assert (site.at_mailchimp(ADA), given(site, ADA)) == ("subscribed", [])
    assert (await site.audience()).gone == {PERMISSION + EMAIL}


async def test_the_explanation_shows_a_linked_permission_with_its_group_and_says_what_changed(site: Site) -> None:
    site.joined(ADA)
    gives(site, ADA, POST)
    await site.sync(since="ever")
    ada = (await site.row(ADA)).civicrm_contact_id
    await site.set_group(ada, "Added", group_id=TREES_GROUP, at=from_now(minutes=1))
    shown = await site.explain(ada)
    assert shown["interests"] == []
    assert [(one["text"], one["granted"], one["group_id"]) for one in shown["permissions"]] == [
        ("Direct mail", True, None),
        ("Email", False, TREES_GROUP),
    ]
    assert shown["permissions"][1]["civicrm"]["status"] == "Added"
    assert (shown["kind"], shown["next_sync"]) == (
        "interests",
        "It will bring their interests and marketing permissions into step.",
    )
    assert "marketing permissions changed in CiviCRM" in shown["reason"]


async def test_the_explanation_of_somebody_who_is_no_member_grants_nothing(site: Site) -> None:
    site.joined(BEA)
    await site.sync(since="ever")
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP)
    [shown] = (await site.explain(ada))["permissions"]
    assert (shown["text"], shown["granted"], shown["group_id"]) == ("Email", None, TREES_GROUP)


async def test_a_run_that_gave_a_permission_is_undone_and_no_sync_gives_it_again(site: Site) -> None:
    site.joined(ADA)
    ada = await site.person(ADA)
    await site.set_group(ada, "Added", group_id=TREES_GROUP, at=from_now(minutes=1))
    await site.sync(since="ever")
    assert given(site, ADA) == [EMAIL]
    runs = await site.store.read(lambda conn: list(conn.execute(select(run_log.c.id).order_by(run_log.c.id)).scalars()))
    await undo_run(site.ctx, await site.audience(), runs[-1])
    await site.settle()
    assert given(site, ADA) == []
    for since in (None, "ever"):
        await site.sync(since=since)
    assert (given(site, ADA), await site.standing(ada, TREES_GROUP)) == ([], "Added")


async def test_a_sync_that_would_empty_the_group_of_a_permission_stops_first(site: Site) -> None:
    people = [f"p{number}@example.org" for number in range(4)]
    site.joined(*people)
    for one in people:
        gives(site, one)
    await link_permissions(site, {EMAIL: str(TREES_GROUP)}, brake={"percent": 50, "people": 2})
    await site.sync(since="ever")
    site.emulator.set_clock(from_now(seconds=3))
    for one in people:
        gives(site, one, enabled=False)
    with pytest.raises(SyncBraked, match=f"remove 4 of 4 people from the marketing permission group {TREES_GROUP}"):
        await site.run()
    await site.sync(confirm=True)
    contacts = [(await site.row(one)).civicrm_contact_id for one in people]
    assert [await site.standing(one, TREES_GROUP) for one in contacts] == ["Removed"] * 4


async def test_a_side_that_takes_precedence_does_so_about_a_permission_in_one_run(site: Site) -> None:
    site.joined(ADA)
    await site.sync(since="ever")
    ada = (await site.row(ADA)).civicrm_contact_id
    await link_permissions(site, {EMAIL: str(TREES_GROUP)}, trustOverride={PERMISSION + EMAIL: "Mailchimp"})
    await site.set_group(ada, "Added", group_id=TREES_GROUP, at=from_now(minutes=1))
    await site.sync(since="ever")
    assert (given(site, ADA), await site.standing(ada, TREES_GROUP)) == ([], "Removed")
    assert (await site.audience()).trust == {}
