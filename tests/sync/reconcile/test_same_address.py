"""Addresses that CiviCRM's collation holds to be equal are those of two people; only upper and lower case are one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sync.reconcile.matching import PersonQuery, contacts_of
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site, sync_settings


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
            yield opened


PAIRS = [
    pytest.param("jose@example.org", "josé@example.org", id="an accent"),
    pytest.param("strasse@example.org", "straße@example.org", id="a sharp s"),
    pytest.param("oe@example.org", "œ@example.org", id="a ligature"),
    pytest.param("anna@example.org", "anna\u200b@example.org", id="a space of no width"),
]


@pytest.mark.parametrize(("member", "owned"), PAIRS)
async def test_a_member_is_not_the_contact_whose_address_only_looks_equal(site: Site, member: str, owned: str) -> None:
    site.joined(member)
    other = await site.person(owned, status=None)
    await site.run(since="ever")
    await site.settle()
    assert await site.standing(other) is None
    [row] = [one for one in await site.rows() if one.mailchimp_email == member]
    assert row.civicrm_contact_id not in (None, other)
    assert await site.store.read(contacts_of, PersonQuery(address=member)) == [row.civicrm_contact_id]


@pytest.mark.parametrize(("member", "owned"), PAIRS)
async def test_both_are_synced_as_two_people(site: Site, member: str, owned: str) -> None:
    site.joined(member)
    other = await site.person(owned)
    for _ in range(2):
        await site.run(since="ever")
        await site.settle()
    assert site.at_mailchimp(member) == site.at_mailchimp(owned) == "subscribed"
    rows = {one.mailchimp_email: one.civicrm_contact_id for one in await site.rows()}
    assert rows[owned] == other
    assert len(rows) == len(set(rows.values())) == 2


CASES = [
    pytest.param("Jose@Example.org", "JOSE@example.ORG", id="ASCII"),
    pytest.param("josé@example.org", "JOSÉ@Example.org", id="an accent"),
    pytest.param("ΜΑΡΊΑ@example.org", "μαρία@example.org", id="Greek"),
    pytest.param("иван@example.org", "ИВАН@example.org", id="Cyrillic"),
]


@pytest.mark.parametrize(("member", "owned"), CASES)
async def test_upper_and_lower_case_are_one_address(site: Site, member: str, owned: str) -> None:
    site.joined(member)
    jose = await site.person(owned)
    await site.run(since="ever")
    [row] = await site.rows()
    assert row.civicrm_contact_id == jose
