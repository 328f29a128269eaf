"""From an address to a contact: the four rules in their order, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, email, group
from sync.audience import Audience
from sync.reconcile.dead_contacts import drop_dead_contacts
from sync.reconcile.matching import Range, match_contacts
from sync.store.tables import cache
from tests.support.databases import KINDS, a_store

GROUP = 12
ADDRESS = "ada@example.org"
ALL = Range(0, 10_000)


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


@dataclass(frozen=True)
class Owner:
    """A contact with the address; where it was put in the group, in order; whether it is in the trash."""

    groups: tuple[str, ...] = ()
    is_deleted: bool = False
    address: str = ADDRESS


def audience_of(store: Store) -> Audience:
    return Audience("abc123", GROUP, store.clock)


def make(conn: Connection, owners: tuple[Owner, ...], address: str = ADDRESS) -> list[int]:
    """The contacts, and one member row without a contact; the contacts' ids."""
    conn.execute(insert(group).values(id=GROUP, name="News", title="News", frontend_title="News"))
    ids = []
    for owner in owners:
        made = conn.execute(insert(contact).values(contact_type="Individual", is_deleted=int(owner.is_deleted)))
        ids.append(int(made.lastrowid))
        conn.execute(insert(email).values(contact_id=ids[-1], email=owner.address, is_primary=1))
        for status in owner.groups:
            set_status(conn, GROUP, [ids[-1]], status, method="Admin", at="2026-01-09 12:00:00")
    values = {"mailchimp_list_id": "abc123", "mailchimp_member_id": "m" * 32, "mailchimp_email": address}
    conn.execute(insert(cache).values(**values, mailchimp_status="subscribed", sync_status="ok"))
    return ids


RULES: list[tuple[str, tuple[Owner, ...], int | None]] = [
    ("Nobody has the address.", (), None),
    ("Exactly one contact has it.", (Owner(),), 0),
    ("One has it, though it left the group.", (Owner(("Added", "Removed")),), 0),
    ("Of two, the one that is in the group.", (Owner(), Owner(("Added",))), 1),
    ("Of two in the group, the lower id.", (Owner(("Added",)), Owner(("Added",))), 0),
    ("Being in the group outdoes having been in it.", (Owner(("Added", "Removed")), Owner(("Added",))), 1),
    ("Of two, the one that was in the group once.", (Owner(), Owner(("Added", "Removed"))), 1),
    ("Of two that never were in the group, the lower id.", (Owner(), Owner()), 0),
    ("Contacts in the trash do not count.", (Owner(("Added",), is_deleted=True), Owner()), 1),
    ("All are in the trash.", (Owner(is_deleted=True),), None),
    ("Letter case does not count.", (Owner(address="Ada@Example.ORG"),), 0),
]


@pytest.mark.parametrize(("owners", "expected"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
async def test_rules(store: Store, owners: tuple[Owner, ...], expected: int | None) -> None:
    ids = await store.write(make, owners)
    matched = await store.write(match_contacts, audience_of(store), ALL)
    found = await store.read(lambda conn: conn.execute(select(cache.c.civicrm_contact_id)).scalar())
    assert (matched, found) == ((0, None) if expected is None else (1, ids[expected]))


async def test_two_addresses_of_one_contact_are_one_owner(store: Store) -> None:
    ids = await store.write(make, (Owner(),))
    await store.write(lambda conn: conn.execute(insert(email).values(contact_id=ids[0], email=ADDRESS)))
    await store.write(match_contacts, audience_of(store), ALL)
    assert await store.read(lambda conn: conn.execute(select(cache.c.civicrm_contact_id)).scalar()) == ids[0]


async def test_what_is_matched_is_thought_about(store: Store) -> None:
    await store.write(make, (Owner(),))
    await store.write(match_contacts, audience_of(store), ALL)
    assert await store.read(lambda conn: conn.execute(select(cache.c.sync_status)).scalar()) == "todo"


async def test_rows_outside_the_range_or_at_rest_are_left_alone(store: Store) -> None:
    await store.write(make, (Owner(),))
    assert await store.write(match_contacts, audience_of(store), Range(0, 10_000, [])) == 0
    assert await store.write(match_contacts, audience_of(store), Range(10_000, 20_000)) == 0


async def test_a_member_whose_contact_went_to_the_trash_is_unlinked_and_matched_anew(store: Store) -> None:
    ids = await store.write(make, (Owner(is_deleted=True), Owner()))

    def link(conn: Connection) -> None:
        conn.execute(cache.update().values(civicrm_contact_id=ids[0]))

    await store.write(link)
    assert await store.write(drop_dead_contacts, audience_of(store), ALL) == (1, 0)
    await store.write(match_contacts, audience_of(store), ALL)
    assert await store.read(lambda conn: conn.execute(select(cache.c.civicrm_contact_id)).scalar()) == ids[1]


async def test_a_row_with_neither_member_nor_contact_goes(store: Store) -> None:
    ids = await store.write(make, (Owner(is_deleted=True),))

    def crm_only(conn: Connection) -> None:
        conn.execute(insert(cache).values(mailchimp_list_id="abc123", civicrm_contact_id=ids[0], sync_status="ok"))

    await store.write(crm_only)
    assert await store.write(drop_dead_contacts, audience_of(store), ALL) == (1, 1)
    assert len(await store.read(lambda conn: conn.execute(select(cache.c.id)).all())) == 1
