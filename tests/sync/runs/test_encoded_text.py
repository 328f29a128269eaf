"""Names with ``<`` and ``>`` between Mailchimp and CiviCRM's tables (``beside-civicrm.md``, section 1)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, String, insert, select, type_coerce, update

from civiapi.store.schema.tables import contact, entity_tag, group, tag
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site

ADA, BOB = "ada@example.org", "bob@example.org"
SCRIPT, STORED = "<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"
NAMES = ("first_name", "last_name", "display_name", "sort_name")


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def stored_names(site: Site) -> list[tuple[Any, ...]]:
    """The names of contacts as the database has them."""
    raw = select(*(type_coerce(contact.c[name], String()) for name in NAMES)).order_by(contact.c.id)
    return await site.store.read(lambda conn: [tuple(row) for row in conn.execute(raw)])


async def look(site: Site, kind: str, address: str) -> None:
    async with hold_lease(site.ctx, site.list_id, brief=True) as lease:
        assert lease is not None
        await sync_member(site.ctx, await site.audience(), lease, MemberRef(kind, address))


async def test_a_script_in_a_signup_form_never_reaches_civicrm_as_it_is(site: Site) -> None:
    site.joined(ADA, merge_fields={"FNAME": SCRIPT, "LNAME": "<img src=x>"})
    await site.sync(since="ever")
    site.emulator.person("sign_up", BOB, merge_fields={"FNAME": "Bob", "LNAME": SCRIPT})
    await look(site, "subscribe", BOB)
    image = "&lt;img src=x&gt;"
    assert await stored_names(site) == [
        (STORED, image, f"{STORED} {image}", f"{image}, {STORED}"),
        ("Bob", STORED, f"Bob {STORED}", f"{STORED}, Bob"),
    ]
    assert [row.first_name for row in await site.contacts()] == [SCRIPT, "Bob"]


async def test_a_name_changed_in_a_profile_is_stored_encoded_and_only_once(site: Site) -> None:
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    await site.sync(since="ever")
    site.emulator.person("edit_profile", ADA, merge_fields={"FNAME": SCRIPT, "LNAME": "<" * 40})
    await look(site, "profile", ADA)
    [(first, last, _, _)] = await stored_names(site)
    assert (first, last) == (STORED, "&lt;" * 16)
    before = await site.contacts()
    await look(site, "profile", ADA)
    assert await site.contacts() == before


async def test_a_name_longer_than_its_column_once_encoded_is_cut_between_characters(site: Site) -> None:
    site.joined(ADA, merge_fields={"FNAME": "<" * 70, "LNAME": "x" * 63 + "<"})
    await site.sync(since="ever")
    [(first, last, display, _)] = await stored_names(site)
    assert (first, last) == ("&lt;" * 16, "x" * 63)
    assert len(display) <= 128


async def test_mailchimp_gets_names_and_tags_decoded(site: Site) -> None:
    contact_id = await site.person(ADA, first_name="I <3 U", last_name="A > B")

    def tagged(conn: Connection) -> None:
        conn.execute(insert(tag).values(id=7, name="a < b"))
        conn.execute(insert(entity_tag).values(entity_table="civicrm_contact", entity_id=contact_id, tag_id=7))

    await site.store.write(tagged)
    await site.sync(with_data=True)
    await site.sync(with_data=True)
    member = site.emulator.member(ADA)
    assert member is not None
    assert (member.merges["FNAME"], member.merges["LNAME"]) == ("I <3 U", "A > B")
    names = {one.id: one.name for one in site.emulator.audience().tags.values()}
    assert [names[one] for one in member.tags or ()] == ["CiviCRM: a < b"]


async def test_reports_give_names_and_titles_decoded(site: Site) -> None:
    contact_id = await site.person(ADA)

    def rename(conn: Connection) -> None:
        conn.execute(update(contact).values(display_name="I <3 U"))
        conn.execute(update(group).where(group.c.id == GROUP).values(title="A > B"))

    await site.store.write(rename)
    await site.sync()
    [found] = await ApiCaller(site)("explain", contact_id=contact_id)
    assert found["group_title"] == "A > B"
    assert "I <3 U" in str(found)
    assert "&lt;" not in str(found)
