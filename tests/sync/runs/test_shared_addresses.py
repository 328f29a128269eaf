"""Several contacts with one address: who represents it, and when it is unsubscribed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

ADDRESS = "family@example.org"
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
            yield opened


async def sync(site: Site, **request: object) -> None:
    await site.run(**{"since": "ever", **request})
    await site.settle()


async def test_the_address_stays_subscribed_until_the_last_of_them_leaves_the_group(site: Site) -> None:
    ann = await site.person(ADDRESS, first_name="Ann")
    bob = await site.person(ADDRESS, first_name="Bob")
    await sync(site)
    assert site.at_mailchimp(ADDRESS) == "subscribed"
    now = datetime.now(UTC)
    await site.set_group(ann, "Removed", at=now + MINUTE)
    [explained] = await ApiCaller(site)("explain", contact_id=ann)
    assert (explained["kind"], f"contact {bob}" in explained["reason"]) == ("hand_over", True)
    summary = (await ApiCaller(site)("plan", group_id=GROUP))["summary"]
    assert "unsubscribe" not in {one["kind"] for one in summary}
    await sync(site, since=None)
    assert site.at_mailchimp(ADDRESS) == "subscribed"
    rows = [(one.civicrm_contact_id, one.sync_status) for one in await site.rows()]
    assert rows == [(bob, "ok")]
    assert (await site.standing(ann), await site.standing(bob)) == ("Removed", "Added")
    await sync(site)
    assert len(await site.rows()) == 1
    await site.set_group(bob, "Removed", at=now + 2 * MINUTE)
    await sync(site, since=None)
    assert site.at_mailchimp(ADDRESS) == "unsubscribed"


async def test_the_one_who_comes_back_stands_behind_the_one_who_stayed(site: Site) -> None:
    ann = await site.person(ADDRESS, first_name="Ann")
    bob = await site.person(ADDRESS, first_name="Bob")
    await sync(site)
    now = datetime.now(UTC)
    await site.set_group(ann, "Removed", at=now + MINUTE)
    await sync(site)
    await site.set_group(ann, "Added", at=now + 2 * MINUTE)
    await sync(site)
    found = {one.civicrm_contact_id: one.sync_status for one in await site.rows()}
    assert found == {bob: "ok", ann: "fail"}
    assert site.at_mailchimp(ADDRESS) == "subscribed"


async def test_of_a_family_the_one_with_the_members_first_name_is_matched(site: Site) -> None:
    people = [await site.person(ADDRESS, status=None, first_name=one) for one in ("Ann", "Bob", "Cid")]
    site.joined(ADDRESS, merge_fields={"FNAME": "bob"})
    await sync(site)
    [row] = await site.rows()
    assert row.civicrm_contact_id == people[1]
    assert [await site.standing(one) for one in people] == [None, "Added", None]


async def test_of_several_namesakes_the_one_in_the_group_is_matched_else_the_lowest_id(site: Site) -> None:
    anns = [await site.person(ADDRESS, status=None, first_name="Ann") for _ in range(3)]
    await site.set_group(anns[2], "Added", at=datetime.now(UTC) - 2 * MINUTE)
    other = "other@example.org"
    await site.person(other, status=None, first_name="Zoe")
    bobs = [await site.person(other, status=None, first_name="Bob") for _ in range(2)]
    site.joined(ADDRESS, merge_fields={"FNAME": "Ann"})
    site.joined(other, merge_fields={"FNAME": "Bob"})
    await sync(site)
    rows = {one.mailchimp_email: one.civicrm_contact_id for one in await site.rows() if one.mailchimp_email}
    assert rows == {ADDRESS: anns[2], other: bobs[0]}


async def test_plan_and_explain_say_which_of_a_family_represents_the_address_and_why(site: Site) -> None:
    ann, bob, cid = [await site.person(ADDRESS, status=None, first_name=one) for one in ("Ann", "Bob", "Cid")]
    site.joined(ADDRESS, merge_fields={"FNAME": "bob"})
    said = (
        f"Contact {bob} represents this address, which contacts {ann}, {cid} have too: its first name is the member's."
    )
    planned = (await ApiCaller(site)("plan", group_id=GROUP, since="ever"))["people"]
    assert [one["reason"].endswith(said) for one in planned] == [True]
    await sync(site)
    explained = await ApiCaller(site)("explain", email=ADDRESS)
    assert any(one["contact_id"] == bob and one["reason"].endswith(said) for one in explained)


async def test_of_a_family_without_that_name_the_lowest_id_is_matched(site: Site) -> None:
    people = [await site.person(ADDRESS, status=None, first_name=one) for one in ("Ann", "Bob")]
    site.joined(ADDRESS, merge_fields={"FNAME": "Zoe"})
    await sync(site)
    [row] = await site.rows()
    assert row.civicrm_contact_id == people[0]
