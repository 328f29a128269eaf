"""Subscribed members whose contact opts out, dies or goes to the trash: said, counted, and unsubscribed if so set."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.errors import SyncBraked
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

ADA, BOB, CID, DEE = (f"{name}@example.org" for name in ("ada", "bob", "cid", "dee"))
FLAGS = {"is_opt_out": "opted_out", "is_deceased": "deceased", "do_not_email": "do_not_email"}


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with a_database(request.param, tmp_path) as found:
        yield found


@pytest.fixture
async def keeps(url: str) -> AsyncIterator[Site]:
    async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
        yield opened


@pytest.fixture
async def unsubscribes(url: str) -> AsyncIterator[Site]:
    async with a_site(url, settings=sync_settings(brake_percent=0, on_opt_out="unsubscribe")) as opened:
        yield opened


async def subscribed(site: Site, *addresses: str) -> dict[str, int]:
    people = {one: await site.person(one) for one in addresses}
    await site.sync(since="ever")
    assert {site.at_mailchimp(one) for one in addresses} == {"subscribed"}
    return people


async def status_of(site: Site, **params: Any) -> Any:
    return (await ApiCaller(site)("getstatus", **params))[site.list_id]


async def test_who_objects_stays_subscribed_by_default_and_is_counted_and_named(keeps: Site) -> None:
    people = await subscribed(keeps, ADA, BOB, CID, DEE)
    ask = ApiCaller(keeps)
    assert "not_to_be_mailed" not in await status_of(keeps)
    for address, flag in zip((ADA, BOB, CID), FLAGS, strict=True):
        await ask("create", "Contact", id=people[address], **{flag: 1})
    await keeps.sync()
    await keeps.sync(since="ever")
    assert {keeps.at_mailchimp(one) for one in people} == {"subscribed"}
    found = (await status_of(keeps))["not_to_be_mailed"]
    counted = {"count": 3, "opted_out": 1, "deceased": 1, "do_not_email": 1, "in_trash": 0, "on_opt_out": "keep"}
    assert found == counted
    assert (await status_of(keeps))["in_sync"] is True
    rows = await ask("get", "MailchimpsyncCache", mailchimp_list_id=keeps.list_id, not_to_be_mailed=1, troubleshoot=1)
    assert [(one["mailchimp_email"], one["sync_status"]) for one in rows] == [(ADA, "ok"), (BOB, "ok"), (CID, "ok")]
    for row, fact in zip(rows, ("opted out of bulk mail", "the contact is deceased", "do not email"), strict=True):
        assert f"is not to be mailed ({fact}), but stays subscribed" in row["errors"]
    [explained] = await ask("explain", contact_id=people[ADA])
    assert explained["reason"] == rows[0]["errors"]


async def test_who_objects_is_unsubscribed_by_the_next_sync_where_the_settings_say_so(unsubscribes: Site) -> None:
    site, ask = unsubscribes, ApiCaller(unsubscribes)
    people = await subscribed(site, ADA, BOB, CID, DEE)
    for address, flag in zip((ADA, BOB, CID), FLAGS, strict=True):
        await ask("create", "Contact", id=people[address], **{flag: 1})
    assert (await status_of(site))["not_to_be_mailed"]["count"] == 3
    [explained] = await ask("explain", contact_id=people[ADA])
    assert (explained["kind"], "opted out of bulk mail" in explained["reason"]) == ("unsubscribe", True)
    plan = await ask("plan", group_id=GROUP)
    assert [(one["kind"], one["count"]) for one in plan["summary"] if one["kind"] == "unsubscribe"] == [
        ("unsubscribe", 3)
    ]
    await site.sync()
    assert [site.at_mailchimp(one) for one in people] == ["unsubscribed"] * 3 + ["subscribed"]
    await site.sync()
    shown = await status_of(site)
    assert ("not_to_be_mailed" in shown, shown["in_sync"], shown["stats"]["cannot_subscribe"]) == (False, True, 3)
    assert {await site.standing(one) for one in people.values()} == {"Added"}
    rows = await ask("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, sync_status="fail", troubleshoot=1)
    assert ["is not to be mailed (" in one["errors"] for one in rows] == [True] * 3
    before = await site.snapshot()
    await site.sync(since="ever")
    assert await site.snapshot() == before


async def test_who_opts_in_again_is_subscribed_again(unsubscribes: Site) -> None:
    site, ask = unsubscribes, ApiCaller(unsubscribes)
    people = await subscribed(site, ADA)
    await ask("create", "Contact", id=people[ADA], is_opt_out=1)
    await site.sync()
    await site.sync()
    assert site.at_mailchimp(ADA) == "unsubscribed"
    await ask("create", "Contact", id=people[ADA], is_opt_out=0)
    await site.sync()
    assert (site.at_mailchimp(ADA), await site.standing(people[ADA])) == ("subscribed", "Added")


async def test_who_objects_and_signs_up_at_mailchimp_is_unsubscribed_again(unsubscribes: Site) -> None:
    site = unsubscribes
    contact_id = await site.person(ADA, status=None)
    await ApiCaller(site)("create", "Contact", id=contact_id, is_opt_out=1)
    site.joined(ADA)
    await site.sync(since="ever")
    assert (site.at_mailchimp(ADA), await site.standing(contact_id)) == ("unsubscribed", None)


async def test_a_webhook_unsubscribes_who_objects_as_well(unsubscribes: Site) -> None:
    site = unsubscribes
    people = await subscribed(site, ADA)
    await ApiCaller(site)("create", "Contact", id=people[ADA], is_opt_out=1)
    async with hold_lease(site.ctx, site.list_id) as lease:
        assert lease is not None
        await sync_member(site.ctx, await site.audience(), lease, MemberRef("profile", ADA))
    await site.settle()
    assert site.at_mailchimp(ADA) == "unsubscribed"


async def test_a_new_setting_counts_for_those_who_objected_before(keeps: Site) -> None:
    people = await subscribed(keeps, ADA, BOB)
    await ApiCaller(keeps)("create", "Contact", id=people[ADA], is_opt_out=1)
    await keeps.sync()
    await keeps.sync()
    keeps.ctx = replace(keeps.ctx, settings=sync_settings(brake_percent=0, on_opt_out="unsubscribe"))
    await keeps.sync()
    assert (keeps.at_mailchimp(ADA), keeps.at_mailchimp(BOB)) == ("unsubscribed", "subscribed")


async def test_the_brake_holds_unsubscriptions_of_those_who_object(url: str) -> None:
    settings = sync_settings(brake_percent=10, brake_people=1, on_opt_out="unsubscribe")
    async with a_site(url, settings=settings) as site:
        people = await subscribed(site, ADA, BOB, CID)
        for address in (ADA, BOB):
            await ApiCaller(site)("create", "Contact", id=people[address], is_deceased=1)
        with pytest.raises(SyncBraked):
            await site.run()
        assert (await status_of(site))["brake"]["removals_audience"] == 2
        assert {site.at_mailchimp(one) for one in people} == {"subscribed"}
        await site.sync(confirm=True)
        assert [site.at_mailchimp(one) for one in people] == ["unsubscribed", "unsubscribed", "subscribed"]


async def test_of_a_shared_address_another_contact_takes_over_from_the_one_who_objects(unsubscribes: Site) -> None:
    site = unsubscribes
    ann, bob = [await site.person(ADA, first_name=one) for one in ("Ann", "Bob")]
    await site.sync(since="ever")
    await ApiCaller(site)("create", "Contact", id=ann, is_opt_out=1)
    await site.sync()
    await site.sync()
    assert site.at_mailchimp(ADA) == "subscribed"
    assert {one.civicrm_contact_id: one.sync_status for one in await site.rows()} == {bob: "ok", ann: "fail"}
    await ApiCaller(site)("create", "Contact", id=bob, is_opt_out=1)
    await site.sync()
    assert site.at_mailchimp(ADA) == "unsubscribed"
    await site.sync()
    before = await site.snapshot()
    await site.sync(since="ever")
    assert await site.snapshot() == before


@pytest.mark.parametrize("since", [None, "ever"], ids=["incremental", "full"])
async def test_a_member_whose_contact_is_in_the_trash_stays_subscribed_and_the_row_says_so(
    unsubscribes: Site, since: str | None
) -> None:
    site, ask = unsubscribes, ApiCaller(unsubscribes)
    people = await subscribed(site, ADA, BOB)
    await ask("delete", "Contact", id=people[ADA])
    await site.sync(since=since)
    assert site.at_mailchimp(ADA) == "subscribed"
    counted = (await status_of(site))["not_to_be_mailed"]
    assert (counted["count"], counted["in_trash"]) == (1, 1)
    [row] = await ask("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, not_to_be_mailed=1, troubleshoot=1)
    assert f"Contact {people[ADA]}, which has this address, is in the trash" in row["errors"]
    await ask("create", "Contact", id=people[ADA], is_deleted=0)
    assert "not_to_be_mailed" not in await status_of(site)
