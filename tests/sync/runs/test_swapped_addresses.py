"""Contacts that take over each other's addresses: each stays in the group, in the audience at the new address."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from civiapi.store.schema.tables import email
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site, sync_settings

ADA, BEA, CY, DEE = "ada@example.org", "bea@example.org", "cy@example.org", "dee@example.org"

MOVES = {"swapped": ([ADA, BEA], [BEA, ADA]), "in a circle": ([ADA, BEA, CY], [BEA, CY, ADA])}
MOVES["passed on"] = ([ADA, BEA, CY], [BEA, CY, DEE])
"""The addresses of contacts before and after."""


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
            opened.emulator.configure(auto_batches=True)
            yield opened


async def take_over(site: Site, before: list[str], after: list[str]) -> list[int]:
    """Give the contacts with these addresses those ones; returns the contacts."""
    contacts = [(await site.row(one)).civicrm_contact_id for one in before]
    for contact_id, address in zip(contacts, after, strict=True):
        moved = update(email).where(email.c.contact_id == contact_id).values(email=address)
        await site.store.write(lambda conn, moved=moved: conn.execute(moved) and None)
    return contacts


async def sync_twice(site: Site) -> None:
    """The first takes the old addresses out of the audience, where the new ones are members."""
    for _ in range(2):
        site.emulator.advance(5)
        await site.sync(since="ever")


async def owners(site: Site) -> dict[str, int]:
    return {one.mailchimp_email: one.civicrm_contact_id for one in await site.rows() if one.civicrm_contact_id}


@pytest.mark.parametrize("joined", ["in CiviCRM", "at Mailchimp"])
@pytest.mark.parametrize("moves", MOVES)
async def test_who_takes_over_the_address_of_a_member_is_subscribed_at_it(site: Site, moves: str, joined: str) -> None:
    before, after = MOVES[moves]
    for one in before:
        if joined == "in CiviCRM":
            await site.person(one)
        else:
            site.joined(one)
    await site.sync(since="ever")
    contacts = await take_over(site, before, after)
    await sync_twice(site)
    assert {one: site.at_mailchimp(one) for one in after} == dict.fromkeys(after, "subscribed")
    assert await owners(site) == dict(zip(after, contacts, strict=True))
    assert {await site.standing(one) for one in contacts} == {"Added"}


async def test_members_who_have_not_confirmed_go_to_who_has_their_address_too(site: Site) -> None:
    before, after = MOVES["swapped"]
    site.joined(*before, status="pending")
    await site.sync(since="ever")
    contacts = await take_over(site, before, after)
    await sync_twice(site)
    assert await owners(site) == dict(zip(after, contacts, strict=True))
    assert {await site.standing(one) for one in contacts} == {"Added"}


async def test_who_unsubscribes_before_the_old_address_is_archived_is_not_asked_to_subscribe_again(site: Site) -> None:
    before, after = MOVES["swapped"]
    site.joined(*before)
    await site.sync(since="ever")
    contacts = await take_over(site, before, after)
    site.emulator.configure(auto_batches=False)
    await site.run(since="ever")
    site.emulator.advance(5)
    site.emulator.person("unsubscribe", ADA)
    await site.run(since="ever")
    await site.settle_with_batches()
    await sync_twice(site)
    await sync_twice(site)
    assert (site.at_mailchimp(ADA), await site.standing(contacts[1])) == ("archived", "Removed")
