"""For random people: a sync, its undo and more syncs leave both sides as before, for everybody untouched since."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from civiapi.store.schema.tables import contact
from sync.emulator.model.records import Interest, InterestCategory, Member
from sync.model import RECEIVES_MAIL
from sync.store.tables import run_log
from sync.undo.engine import undo_run
from tests.support.databases import database_at
from tests.support.linked_site import TREES_GROUP, Site, a_site, link

HISTORIES, PEOPLE = 24, 12
TREES = "9143cf3bd1"
"""An interest, and in every second history a marketing permission instead."""
AT_MAILCHIMP = (None, "subscribed", "unsubscribed", "cleaned", "archived")
IN_GROUP = (None, "Added", "Removed")
BACK_AS = {None: "archived", "archived": "archived"}
"""Nobody who was a member is none again: archived is as near as it gets."""

Sides = dict[str, tuple[str | None, str | None, bool, str | None]]


async def make_audience(site: Site, *, has_permission: bool) -> None:
    """An interest or a marketing permission, linked with a group."""
    groups = {TREES: str(TREES_GROUP)}
    audience = site.emulator.audience()
    if has_permission:
        audience.marketing_permissions = [{"marketing_permission_id": TREES, "text": "Trees"}]
        await site.store.write(link, site.emulator.key, site.list_id, permissions=groups)
    else:
        category = InterestCategory("c" * 10, "Topics")
        category.interests[TREES] = Interest(TREES, category.id, "Trees")
        audience.categories[category.id] = category
        await site.store.write(link, site.emulator.key, site.list_id, groups)


def has_chosen(member: Member) -> bool:
    return TREES in member.interests or TREES in (member.extra or {}).get("marketing_permissions", ())


async def make_person(site: Site, chance: random.Random, address: str) -> None:
    """Somebody at one end or both, in any status, changed at either end at any time."""
    status, standing = chance.choice(AT_MAILCHIMP), chance.choice(IN_GROUP)
    day = timedelta(days=1)
    if status is not None:
        chosen = chance.random() < 0.5
        if site.emulator.audience().marketing_permissions:
            site.joined(address, marketing_permissions=[{"marketing_permission_id": TREES, "enabled": chosen}])
        else:
            site.joined(address, interests={TREES: chosen})
        if status == "unsubscribed":
            site.emulator.person("unsubscribe", address)
        elif status == "archived":
            site.emulator.admin("archive", address)
        elif status == "cleaned":
            site.emulator.person("hard_bounce", address)
    if standing is not None or chance.random() < 0.5:
        contact_id = await site.person(address, status=None)
        if standing is not None:
            await site.set_group(contact_id, "Added", at=datetime.now(UTC) - 3 * day)
        if standing == "Removed":
            await site.set_group(contact_id, "Removed", at=datetime.now(UTC) + chance.choice((-day, day)))
        if chance.random() < 0.3:
            moment = datetime.now(UTC) + chance.choice((-day, day))
            await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=moment)


async def sides_of(site: Site, addresses: list[str]) -> Sides:
    """Each person's status in the group and in the interest's group, and at Mailchimp with the interest."""
    alive = select(contact.c.id).where(contact.c.is_deleted == 0)
    living = set(await site.store.read(lambda conn: list(conn.execute(alive).scalars())))
    found: Sides = {}
    for address in addresses:
        ids = [row.id for row in await site.contacts() if address in await site.addresses(row.id) and row.id in living]
        standing = await site.standing(ids[0]) if ids else None
        trees = await site.standing(ids[0], TREES_GROUP) if ids else None
        member = site.emulator.member(address)
        status = member.status if member else None
        chosen = bool(member and has_chosen(member) and status in RECEIVES_MAIL)
        found[address] = (standing, status, chosen, trees)
    return found


def as_after_undo(before: Sides) -> Sides:
    return {
        address: (standing, status if status is not None else "none", chosen, trees)
        for address, (standing, status, chosen, trees) in before.items()
    }


def comparable(sides: Sides, before: Sides) -> Sides:
    """Members who were none before are told as none when they are archived again."""
    return {
        address: (
            standing,
            "none" if before[address][1] is None and status in (None, "archived") else status,
            chosen,
            trees,
        )
        for address, (standing, status, chosen, trees) in sides.items()
    }


async def newest_run(site: Site) -> int:
    newest = select(run_log.c.id).order_by(run_log.c.id.desc()).limit(1)
    return await site.store.read(lambda conn: conn.execute(newest).scalar_one())


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_sync_undo_sync_leaves_the_untouched_as_before(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    addresses = [f"person{number}@example.org" for number in range(PEOPLE)]
    async with a_site(database_at(tmp_path / "undo.sqlite")) as site:
        await make_audience(site, has_permission=seed % 2 == 1)
        for address in addresses:
            await make_person(site, chance, address)
        before = await sides_of(site, addresses)
        await site.sync()
        run_id = await newest_run(site)
        synced = await sides_of(site, addresses)
        touched = set(chance.sample(addresses, 3))
        for address in sorted(touched):  # somebody changes them after the sync
            member = site.emulator.member(address)
            if member is not None and member.status == "subscribed":
                site.emulator.person("unsubscribe", address)
        plans = await site.plan_undo(run_id)
        done = await undo_run(site.ctx, await site.audience(), run_id)
        await site.settle()
        assert sum(done.counts.values()) == len(plans)
        untouched = [address for address in addresses if address not in touched]
        wanted = as_after_undo({address: before[address] for address in untouched})
        for since in (None, "ever", None):
            assert comparable(await sides_of(site, untouched), before) == wanted, synced
            await site.run(since=since)
            await site.settle()
        assert comparable(await sides_of(site, untouched), before) == wanted, synced
