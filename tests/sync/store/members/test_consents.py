"""Marketing permissions: read with members of audiences that have GDPR fields, dated, shown and searchable."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from entities import catalogue
from sync.store.members.consents import known_permissions, note_consents
from sync.store.tables import consent
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site

EMAIL, POST = "aaaa000001", "bbbb000002"
ADA, BEA = "ada@example.org", "bea@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        opened.emulator.audience().marketing_permissions = [
            {"marketing_permission_id": EMAIL, "text": "Email"},
            {"marketing_permission_id": POST, "text": "Direct mail"},
        ]
        opened.emulator.configure(auto_batches=True)
        yield opened


def gives(site: Site, address: str, *given: str) -> None:
    permissions = [{"marketing_permission_id": one, "enabled": one in given} for one in (EMAIL, POST)]
    site.emulator.person("edit_profile", address, marketing_permissions=permissions)


async def permissions_of(site: Site, address: str) -> dict[str, tuple[bool, str]]:
    shown = await site.explain(email=address)
    return {one["text"]: (one["granted"], one["since"]) for one in shown["permissions"]}


async def test_permissions_are_read_with_their_texts_and_dated_by_their_change(site: Site) -> None:
    site.emulator.set_clock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    site.joined(ADA, BEA)
    gives(site, ADA, EMAIL)
    await site.sync(since="ever")
    assert await permissions_of(site, ADA) == {
        "Email": (True, "2026-03-01 12:00:00"),
        "Direct mail": (False, "2026-03-01 12:00:00"),
    }
    site.emulator.set_clock(datetime(2026, 3, 2, 12, tzinfo=UTC))
    gives(site, ADA, EMAIL, POST)
    await site.sync()
    assert await permissions_of(site, ADA) == {
        "Email": (True, "2026-03-01 12:00:00"),
        "Direct mail": (True, "2026-03-02 12:00:00"),
    }
    assert [granted for granted, _ in (await permissions_of(site, BEA)).values()] == [False, False]
    known = await site.store.read(known_permissions, site.list_id)
    assert known == [{"permission_id": EMAIL, "text": "Email"}, {"permission_id": POST, "text": "Direct mail"}]


async def test_people_are_found_by_the_permissions_that_they_gave(site: Site) -> None:
    site.joined(ADA, BEA)
    gives(site, ADA, EMAIL)
    gives(site, BEA, EMAIL, POST)
    await site.sync(since="ever")
    api = Api(site.store, catalogue())

    async def found(**filters: Any) -> list[str]:
        asked = {"mailchimp_list_id": site.list_id, **filters}
        answer = await api.respond(Call("MailchimpsyncCache", "get", asked))
        return [row["mailchimp_email"] for row in answer["values"]]

    assert await found(permissions={"LIKE": f"%{POST}%"}) == [BEA]
    assert await found(permissions={"LIKE": f"%{EMAIL}%"}) == [ADA, BEA]
    assert await found(permissions={"NOT LIKE": f"%{POST}%"}) == [ADA]


async def test_a_sync_never_gives_a_permission(site: Site) -> None:
    await site.person(ADA)
    await site.sync(since="ever")
    assert [granted for granted, _ in (await permissions_of(site, ADA)).values()] in ([], [False, False])
    member = site.emulator.member(ADA)
    assert member is not None
    assert not (member.extra or {}).get("marketing_permissions")


async def test_nothing_is_written_where_nothing_changed_and_nothing_without_gdpr_fields(site: Site) -> None:
    site.joined(ADA)
    await site.sync(since="ever")
    before = await site._all(select(consent))
    await site.sync(since="ever")
    assert await site._all(select(consent)) == before
    site.emulator.audience().marketing_permissions = []
    site.joined(BEA)
    await site.sync(since="ever")
    assert await site._all(select(consent)) == before


async def test_malformed_permissions_are_left_out(site: Site) -> None:
    site.joined(ADA)
    await site.sync(since="ever")
    row = await site.row(ADA)
    odd: Any = [None, "x", {}, {"marketing_permission_id": 5}, {"marketing_permission_id": "y" * 99, "enabled": True}]
    odd += [{"marketing_permission_id": "cccc", "text": None, "enabled": "yes"}]
    member: Any = {"id": row.mailchimp_member_id, "marketing_permissions": odd, "last_changed": "never"}
    ids = {row.mailchimp_member_id: row.id}
    await site.store.write(note_consents, site.list_id, site.store.clock, [member], ids)
    mine = select(consent.c.permission_id, consent.c.granted, consent.c.since).where(consent.c.permission_id == "cccc")
    assert [tuple(one) for one in await site._all(mine)] == [("cccc", 0, None)]
