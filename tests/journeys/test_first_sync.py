"""The first sync of real data: CiviCRM's demonstration contacts with an exported audience, against an oracle.

The oracle below reads nothing but the CSV files and knows nothing of the engine: it works out by the rules who should
be where afterwards, one person at a time.
"""

import csv
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from civiapi.importer.import_folder import import_folder
from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, email, group_contact
from sync.audience import Audience
from sync.connections.clients import Clients
from sync.connections.config import read_config, write_config
from sync.context import SyncContext
from sync.emulator.data.exports import load
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from sync.outbox.watcher import Watcher
from sync.runs.engine import run_audience
from sync.runs.run import RunRequest
from sync.store.tables import cache
from tests.support.linked_site import sync_settings

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CIVICRM, EXPORT = DATA / "civicrm_sample", DATA / "mailchimp_export"
GROUP = "2"  # Newsletter Subscribers

pytestmark = pytest.mark.skipif(not EXPORT.is_dir(), reason=f"the sample data is not beside the repository ({DATA})")


# ── The oracle ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Expected:
    """Who is where afterwards. Addresses in lower case; contacts by id, new ones by their address."""

    receives_mail: frozenset[str]
    gets_no_mail: frozenset[str]
    in_group: frozenset[str]
    left_group: frozenset[str]
    created: frozenset[str]
    failed: frozenset[str]


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def exported_members() -> dict[str, tuple[str, str, dict[str, str]]]:
    """Address → status, time of the last change, the row."""
    found = {}
    for path in sorted(EXPORT.glob("*.csv")):
        status = path.name.partition("_")[0]
        for row in read(EXPORT, path.name):
            found[row["Email Address"].lower()] = (status, row["LAST_CHANGED"], row)
    return found


def work_out() -> Expected:
    people = {row["id"]: row for row in read(CIVICRM, "contacts.csv") if row["is_deleted"] == "0"}
    addresses: dict[str, list[dict[str, str]]] = {}
    owners: dict[str, list[str]] = {}
    for row in read(CIVICRM, "emails.csv"):
        if row["contact_id"] in people:
            addresses.setdefault(row["contact_id"], []).append(row)
            owners.setdefault(row["email"].lower(), []).append(row["contact_id"])
    inside = {
        row["contact_id"]
        for row in read(CIVICRM, "group_contacts.csv")
        if row["group_id"] == GROUP and row["status"] == "Added"
    }
    words: dict[str, tuple[int, str]] = {}
    for row in read(CIVICRM, "subscription_history.csv"):
        if row["group_id"] == GROUP:
            words[row["contact_id"]] = max(words.get(row["contact_id"], (0, "")), (int(row["id"]), row["date"]))
    members = exported_members()
    mail, no_mail, stay, leave, created, failed = (set[str]() for _ in range(6))
    served = set()
    for address, (status, changed, _) in members.items():
        owner = whose(owners.get(address, []), inside, words)
        if owner is None:
            (mail if status == "subscribed" else no_mail).add(address)
            if status == "subscribed":
                created.add(address)
            continue
        served.add(owner)
        if status == "subscribed":
            mail.add(address)
            stay.add(owner)
        elif owner not in inside:
            no_mail.add(address)
        elif changed > words[owner][1]:
            no_mail.add(address)
            leave.add(owner)
        else:
            stay.add(owner)
            refused = status == "cleaned" or is_private(people[owner]) or held(addresses[owner], address)
            (no_mail if refused else mail).add(address)
            if refused:
                failed.add(owner)
    for owner in inside - served:
        stay.add(owner)
        usable = [row for row in addresses.get(owner, []) if row["on_hold"] == "0"]
        best = sorted(usable, key=lambda row: (row["is_bulkmail"] != "1", row["is_primary"] != "1", int(row["id"])))
        if best and not is_private(people[owner]):
            mail.add(best[0]["email"].lower())
        else:
            failed.add(owner)
    return Expected(
        frozenset(mail),
        frozenset(no_mail),
        frozenset(stay | created),
        frozenset(leave),
        frozenset(created),
        frozenset(failed),
    )


def whose(candidates: list[str], inside: set[str], words: dict[str, tuple[int, str]]) -> str | None:
    """The four rules, in their order."""
    if len(set(candidates)) == 1:
        return candidates[0]
    for rule in (lambda one: one in inside, lambda one: one in words, lambda one: True):
        if fitting := sorted((one for one in candidates if rule(one)), key=int):
            return fitting[0]
    return None


def is_private(person: dict[str, str]) -> bool:
    return "1" in (person["do_not_email"], person["is_opt_out"], person["is_deceased"])


def held(rows: list[dict[str, str]], address: str) -> bool:
    return all(row["on_hold"] != "0" for row in rows if row["email"].lower() == address)


# ── The sync ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Ends:
    """Both ends after a sync, and the way to another."""

    store: Store
    emulator: Emulator
    ctx: SyncContext
    audience: Audience

    async def sync(self, since: str | None) -> None:
        outcome = await run_audience(self.ctx, self.audience, RunRequest(since=since))
        assert outcome.outcome == "finished"
        self.emulator.run_batches()
        assert await Watcher(self.ctx).wait_until_idle([self.audience.list_id], 20)

    async def group(self) -> dict[str, str]:
        """Contact (by id, those made by the sync by their address) → status."""
        known = {row["id"] for row in read(CIVICRM, "contacts.csv")}
        rows = await self.all(
            select(group_contact.c.contact_id, group_contact.c.status, email.c.email)
            .outerjoin(email, (email.c.contact_id == group_contact.c.contact_id) & (email.c.is_primary == 1))
            .where(group_contact.c.group_id == int(GROUP))
        )
        return {str(i) if str(i) in known else address: status for i, status, address in rows}

    async def failed(self) -> set[str]:
        rows = await self.all(select(cache.c.civicrm_contact_id).where(cache.c.sync_status == "fail"))
        return {str(row[0]) for row in rows}

    async def all(self, query: Any) -> list[Any]:
        return await self.store.read(lambda conn: list(conn.execute(query)))

    def mailed(self) -> dict[str, bool]:
        members = self.emulator.audience(self.audience.list_id).members
        return {one.email.lower(): one.status in ("subscribed", "pending") for one in members}


@pytest.fixture
async def ends(store: Store) -> AsyncIterator[Ends]:
    """The sample contacts and the exported audience, linked and not yet synced."""
    await import_folder(store, CIVICRM, zone="UTC")
    world = World()
    load(world, EXPORT)
    async with running_emulator(world) as emulator:
        list_id = next(iter(world.default_account.audiences))
        lists = {list_id: {"apiKey": emulator.key, "subscriptionGroup": GROUP, "interests": {}}}
        accounts = {emulator.key: {"apiKey": emulator.key, "audiences": {list_id: {"name": "Newsletter"}}}}
        await store.write(write_config, {"accounts": accounts, "lists": lists})
        clients = Clients(base_url=emulator.root_url)
        ctx = SyncContext(store, clients, sync_settings(poll_seconds=0.02), holder="test")
        config = await store.read(read_config)
        yield Ends(store, emulator, ctx, config.links[list_id].audience(store.clock))
        await clients.close()


def test_the_oracle_speaks_of_everybody() -> None:
    expected = work_out()
    assert len(exported_members()) == 134
    known = {one for one in expected.in_group | expected.left_group if one.isdecimal()}
    assert len({row["contact_id"] for row in read(CIVICRM, "group_contacts.csv") if row["group_id"] == GROUP}) == 60
    assert len(known) >= 60
    assert set(exported_members()) <= expected.receives_mail | expected.gets_no_mail


async def test_after_the_first_sync_everybody_is_where_the_rules_say(ends: Ends) -> None:
    expected = work_out()
    await ends.sync("ever")

    group = await ends.group()
    assert {one for one, status in group.items() if status == "Added"} == expected.in_group
    assert {one for one, status in group.items() if status == "Removed"} == expected.left_group
    mailed = ends.mailed()
    assert {address for address, receives in mailed.items() if receives} == expected.receives_mail
    assert {address for address, receives in mailed.items() if not receives} == expected.gets_no_mail
    assert await ends.failed() == expected.failed


async def test_each_contact_made_has_the_members_names_and_address(ends: Ends) -> None:
    expected = work_out()
    await ends.sync("ever")
    rows = await ends.all(
        select(contact.c.first_name, contact.c.last_name, contact.c.contact_type, email.c.email)
        .join(email, email.c.contact_id == contact.c.id)
        .where(email.c.email.in_(expected.created), email.c.is_primary == 1)
    )
    members = exported_members()
    assert {(row.email, row.first_name or "", row.last_name or "", row.contact_type) for row in rows} == {
        (address, members[address][2]["First Name"], members[address][2]["Last Name"], "Individual")
        for address in expected.created
    }
    assert len(rows) == len(expected.created)


@pytest.mark.parametrize("since", [None, "ever"], ids=["incremental", "full"])
async def test_a_second_sync_changes_and_sends_nothing(ends: Ends, since: str | None) -> None:
    await ends.sync("ever")
    group, mailed, failed = await ends.group(), ends.mailed(), await ends.failed()
    ends.emulator.clear_requests()
    await ends.sync(since)
    assert [one.path for one in ends.emulator.requests if one.method != "GET"] == []
    assert (await ends.group(), ends.mailed(), await ends.failed()) == (group, mailed, failed)


async def test_what_happens_afterwards_at_either_end_reaches_the_other(ends: Ends) -> None:
    await ends.sync("ever")
    group = await ends.group()
    created = sorted(one for one in work_out().created if group[one] == "Added")
    leaver, remover = created[0], created[1]
    ends.emulator.advance(60)
    ends.emulator.person("unsubscribe", leaver)
    site_time = ends.store.clock.write(datetime.now(UTC))
    remover_id = (await ends.all(select(email.c.contact_id).where(email.c.email == remover)))[0][0]
    await ends.store.write(set_status, int(GROUP), [remover_id], "Removed", method="Admin", at=site_time)
    await ends.sync(None)
    assert (await ends.group())[leaver] == "Removed"
    assert ends.mailed()[remover] is False
