"""What a sync would do, told before it does: Mailchimpsync.plan, against what the sync of the same world then does."""

import csv
import io
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import time_machine
from rich.console import Console
from sqlalchemy import Connection, select
from time_machine import Traveller

from civiapi.cli.plan import PlanFailed, write_plans
from civiapi.settings import DatabaseSettings, MailchimpSettings, Settings
from civiapi.store.schema.tables import METADATA, group_contact
from sync.connections.config import read_config, write_config
from sync.leases import hold_lease
from sync.reconcile.categories import KINDS
from sync.reports import preview
from sync.store.tables import cache, plan, plan_person, update, update_detail
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS as DATABASES
from tests.support.databases import a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
OURS = {plan.name, plan_person.name, "civiapi_claim"}


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(poll_seconds=0.05, brake_percent=0)) as opened:
            yield opened


@pytest.fixture
def ask(site: Site) -> ApiCaller:
    return ApiCaller(site)


def everything(conn: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but the plan's own and claims."""
    return {
        name: sorted((tuple(row) for row in conn.execute(select(table))), key=repr)
        for name, table in METADATA.tables.items()
        if name not in OURS
    }


def scratches(folder: Path) -> list[Path]:
    return sorted(folder.glob("civiapi-scratch-*"))


async def a_mixed_site(site: Site, clock: Traveller) -> None:
    """One of each: to be subscribed, unsubscribed, added, removed, made, refused; one in step."""
    await site.person("leaves@example.org")
    await site.person("stays@example.org")
    site.joined("unsubscribes@example.org")
    await site.sync(since="ever")
    clock.shift(60)
    for one in await site.contacts():
        if await site.addresses(one.id) == ["leaves@example.org"]:
            await site.set_group(one.id, "Removed")
    site.emulator.person("unsubscribe", "unsubscribes@example.org")
    site.joined("newcomer@example.org", "known@example.org")
    await site.person("known@example.org", status=None)
    await site.person("joins@example.org")
    held_id = await site.person("cannot@example.org")
    await ApiCaller(site)("create", "Contact", id=held_id, is_opt_out=1)


# ── What it tells ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_plan_tells_numbers_by_kind_and_every_person_with_the_reason(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    await a_mixed_site(site, clock)
    made = await ask("plan", group_id=GROUP)
    assert (made["list_id"], made["group_id"], made["made_at"]) == (site.list_id, GROUP, "2026-01-09 12:01:00")
    assert {one["email"]: one["kind"] for one in made["people"]} == {
        "leaves@example.org": "unsubscribe",
        "unsubscribes@example.org": "leave_group",
        "newcomer@example.org": "new_contact",
        "known@example.org": "join_group",
        "joins@example.org": "subscribe",
        "cannot@example.org": "cannot",
    }
    people = {one["email"]: one for one in made["people"]}
    assert people["newcomer@example.org"]["contact_id"] is None
    assert people["newcomer@example.org"]["reason"].startswith("CiviCRM does not know this address: a contact is made.")
    assert people["leaves@example.org"] | {"contact_id": 0} == {
        "contact_id": 0,
        "name": "Ada Byron",
        "email": "leaves@example.org",
        "kind": "unsubscribe",
        "mailchimp_status": "subscribed",
        "civicrm_status": "Removed",
        "reason": "Left the group on 9 January 2026 at 12:01:00, after subscribing at Mailchimp on 9 January "
        "at 11:59:00: unsubscribed at Mailchimp.",
    }
    assert [(one["kind"], one["count"]) for one in made["summary"] if one["kind"] != "in_step"] == [
        ("subscribe", 1), ("unsubscribe", 1), ("join_group", 1), ("new_contact", 1), ("leave_group", 1), ("cannot", 1)
    ]  # fmt: skip
    assert made["summary"][0]["sentence"] == "1 person: they are in the group and are subscribed at Mailchimp."


async def test_making_a_plan_changes_nothing_anywhere(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    await a_mixed_site(site, clock)
    before = await site.store.read(everything)
    site.emulator.clear_requests()
    await ask("plan", group_id=GROUP, since="ever")
    assert await site.store.read(everything) == before
    assert {one.method for one in site.emulator.requests} == {"GET"}


async def test_the_scratch_copy_holds_no_key_and_is_gone_afterwards(
    site: Site, ask: ApiCaller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Traveller
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await a_mixed_site(site, clock)
    [one, *_] = await site.contacts()
    await ask("create", "Contact", id=one.id, api_key="a-secret-key-of-a-contact")
    seen: list[bytes] = []
    rehearse = preview._run_trial

    async def look(*args: Any) -> None:
        await rehearse(*args)
        [folder] = scratches(tmp_path)
        assert folder.stat().st_mode & 0o077 == 0
        seen.extend(file.read_bytes() for file in folder.iterdir())

    monkeypatch.setattr(preview, "_run_trial", look)
    await ask("plan", group_id=GROUP)
    assert seen
    assert not any(b"a-secret-key" in text or site.emulator.key.encode() in text for text in seen)
    assert scratches(tmp_path) == []


# ── Paging, filters, keeping ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_plan_is_paged_and_filtered_without_asking_mailchimp_again(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    await a_mixed_site(site, clock)
    made = await ask("plan", group_id=GROUP, options={"limit": 2})
    assert (len(made["people"]), made["count"]) == (2, 6)
    site.emulator.clear_requests()
    known = {"group_id": GROUP, "plan_id": made["plan_id"]}
    rest = await ask("plan", **known, options={"limit": 2, "offset": 2})
    assert not {one["email"] for one in rest["people"]} & {one["email"] for one in made["people"]}
    found = await ask("plan", **known, search="KNOWN@")
    assert [(one["email"], one["kind"]) for one in found["people"]] == [("known@example.org", "join_group")]
    two = await ask("plan", **known, kind=["subscribe", "cannot"])
    assert (two["count"], {one["kind"] for one in two["people"]}) == (2, {"subscribe", "cannot"})
    assert two["summary"] == made["summary"]
    assert (await ask("plan", **known, search="%"))["count"] == 0
    too_long = await ask.answer("plan", **known, search="x" * 200_000)
    assert too_long["error_message"] == "A pattern has at most 512 bytes (search)"
    assert site.emulator.requests == []


async def test_a_plan_is_kept_for_half_an_hour(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    site.joined("ada@example.org")
    made = await ask("plan", group_id=GROUP)
    clock.shift(1900)
    answer = await ask.answer("plan", group_id=GROUP, plan_id=made["plan_id"])
    assert answer["error_message"] == "That plan is not kept any more; make a new one (leave plan_id out)."
    await ask("plan", group_id=GROUP)
    assert await kept(site) == (1, 1)


async def kept(site: Site) -> tuple[int, int]:
    """How many plans are kept, and how many people of them."""
    return await site.store.read(
        lambda conn: (len(conn.execute(select(plan)).all()), len(conn.execute(select(plan_person)).all()))
    )


async def test_the_people_of_a_plan_are_not_kept_for_ever(site: Site, ask: ApiCaller, clock: Traveller) -> None:
    site.joined("ada@example.org")
    await ask("plan", group_id=GROUP)
    clock.shift(1900)
    await ask("fetchandreconcile")
    assert await kept(site) == (0, 0)
    site.joined("bob@example.org")
    await ask("plan", group_id=GROUP)
    await ask("updateconfig", config=deepcopy(dict((await site.store.read(read_config)).raw)) | {"lists": {}})
    assert await kept(site) == (0, 0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param({"group_id": 999}, "Unknown group ID `999`", id="A group that is not linked."),
        pytest.param({}, "Mandatory key(s) missing from params array: group_id", id="No group."),
        pytest.param({"group_id": GROUP, "kind": "in_step"}, "kind must be one of: subscribe", id="No kind to list."),
        pytest.param({"group_id": GROUP, "since": "soonish"}, "Could not parse 'since' date.", id="No date."),
        pytest.param({"group_id": GROUP, "plan_id": "nope"}, "That plan is not kept any more", id="No such plan."),
    ],
)
async def test_what_makes_no_sense_is_refused(ask: ApiCaller, params: dict[str, Any], message: str) -> None:
    assert (await ask.answer("plan", **params))["error_message"].startswith(message)


async def test_no_plan_is_made_while_a_sync_is_at_work(site: Site, ask: ApiCaller) -> None:
    async with hold_lease(site.ctx, site.list_id):
        answer = await ask.answer("plan", group_id=GROUP)
    assert answer["error_message"].startswith("A sync of this audience is under way")


async def test_a_mailchimp_out_of_order_is_told(site: Site, ask: ApiCaller) -> None:
    site.emulator.add_fault("500", path="/members")
    answer = await ask.answer("plan", group_id=GROUP)
    assert answer["error_message"].startswith(f"Audience {site.list_id} stopped at readyToFetch")


# ── With the brake ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_plan_of_a_braked_sync_shows_what_a_yes_would_do(
    site: Site, ask: ApiCaller, clock: Traveller
) -> None:
    site.joined(*(f"member{n}@example.org" for n in range(6)))
    await site.sync(since="ever")
    clock.shift(60)
    for one in await site.contacts():
        await site.set_group(one.id, "Removed")
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["lists"][site.list_id]["brake"] = {"percent": 10, "people": 2}
    await site.store.write(write_config, raw)
    before = (await ask("plan", group_id=GROUP))["summary"]
    assert (await ask.answer("fetchandreconcile"))["is_error"] == 1
    after = (await ask("plan", group_id=GROUP))["summary"]
    assert before == after
    assert [(one["kind"], one["count"]) for one in after] == [("unsubscribe", 6)]


# ── A plan and then a sync ──────────────────────────────────────────────────────────────────────────────────────────


class World:
    """A site that a seed has stirred: people who come, go, move and share addresses at both ends."""

    def __init__(self, site: Site, ask: ApiCaller, clock: Traveller, seed: int) -> None:
        self.site, self.ask, self.clock, self.dice = site, ask, clock, random.Random(seed)
        self.addresses = [f"p{n}@example.org" for n in range(10)]

    async def stir(self, times: int) -> None:
        for _ in range(times):
            self.clock.shift(self.dice.choice((60, 700)))
            act = self.dice.choice((self.join, self.leave, self.subscribe, self.unsubscribe, self.move, self.object))
            await act(self.dice.choice(self.addresses))

    async def contact(self, address: str) -> int | None:
        found = await self.ask("get", "Email", email=address, sequential=1)
        return int(found[0]["contact_id"]) if found else None

    async def join(self, address: str) -> None:
        contact_id = await self.contact(address)
        if contact_id is None or self.dice.random() < 0.2:
            await self.site.person(address, at=datetime.now(UTC))
        else:
            await self.site.set_group(contact_id, "Added")

    async def leave(self, address: str) -> None:
        contact_id = await self.contact(address)
        if contact_id is not None:
            await self.site.set_group(contact_id, "Removed")

    async def subscribe(self, address: str) -> None:
        if self.site.emulator.member(address) is None:
            self.site.joined(address)

    async def unsubscribe(self, address: str) -> None:
        if self.site.at_mailchimp(address) == "subscribed":
            self.site.emulator.person("unsubscribe", address)

    async def move(self, address: str) -> None:
        contact_id = await self.contact(address)
        if contact_id is not None:
            [first, *_] = await self.ask("get", "Email", contact_id=contact_id, sequential=1)
            await self.ask("create", "Email", id=first["id"], email=self.dice.choice(self.addresses))

    async def object(self, address: str) -> None:
        contact_id = await self.contact(address)
        if contact_id is not None:
            await self.ask("create", "Contact", id=contact_id, is_opt_out=self.dice.choice((0, 1)))


SLOTS = {"email": "change_address", "archive": "archive_address"}


async def owed(site: Site) -> set[tuple[str, str]]:
    """What waits for Mailchimp: kind and the address it is about."""
    wanted = (
        select(update_detail.c.kind, update.c.data, cache.c.mailchimp_email)
        .join(update, update.c.id == update_detail.c.update_id)
        .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
        .where(update.c.completed == 0)
    )
    found = set()
    for kind, data, known in await site.store.read(lambda conn: list(conn.execute(wanted))):
        body = orjson.loads(data or "{}")
        word = {"subscribed": "subscribe", "unsubscribed": "unsubscribe"}.get(body.get("status"), "")
        found.add((SLOTS.get(kind, word), known or body["email_address"]))
    return found


async def in_group(site: Site) -> set[int]:
    wanted = select(group_contact.c.contact_id).where(group_contact.c.status == "Added")
    return await site.store.read(lambda conn: set(conn.execute(wanted).scalars()))


@pytest.mark.parametrize("seed", range(8))
async def test_a_plan_and_then_a_sync_of_the_same_world_agree(tmp_path: Path, clock: Traveller, seed: int) -> None:
    """Who is planned to join, leave, be subscribed or unsubscribed, and nobody else, is so after the sync."""
    settings = sync_settings(poll_seconds=0.05, brake_percent=0)
    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}", settings=settings) as site:
        ask = ApiCaller(site)
        world = World(site, ask, clock, seed)
        for since in ("ever", None, None):
            await world.stir(9)
            asked = {"since": since} if since else {}
            planned = await ask("plan", group_id=GROUP, options={"limit": 0}, **asked)
            before = await in_group(site)
            outcome = await site.run(since=since, stop_on="readyToSubmitUpdates")
            after = await in_group(site)
            people = planned["people"]
            ids = {kind: {one["contact_id"] for one in people if one["kind"] == kind} for kind in KINDS}
            assert ids["leave_group"] == before - after
            assert ids["join_group"] <= after - before
            fresh = [one for one in people if one["kind"] == "new_contact"]
            assert len(fresh) == len(after - before - ids["join_group"])
            sent = {"subscribe", "unsubscribe", *SLOTS.values()}
            assert {(one["kind"], one["email"]) for one in people if one["kind"] in sent} == await owed(site)
            counts = {one["kind"]: one["count"] for one in planned["summary"]}
            assert counts.get("cannot", 0) == outcome.counts["readyToReconcileQueue"]["failed"]
            await site.sync()


# ── On the command line ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_command_line_tells_the_numbers_and_writes_everybody_as_csv(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'site.sqlite'}"
    async with a_site(url, sockets=True) as site:
        await site.person("joins@example.org")
        site.joined("newcomer@example.org")
        settings = Settings(
            database=DatabaseSettings(url), mailchimp=MailchimpSettings(base_url=site.emulator.root_url)
        )
        said, written = io.StringIO(), io.StringIO(newline="")
        console = Console(file=said, width=150)
        assert await write_plans(settings, None, {}, console, written) == 2
        assert "new_contact │ 1" in said.getvalue()
        rows = list(csv.DictReader(io.StringIO(written.getvalue())))
        assert [(row["group_id"], row["kind"], row["email"]) for row in rows] == [
            (str(GROUP), "new_contact", "newcomer@example.org"),
            (str(GROUP), "subscribe", "joins@example.org"),
        ]
        assert await write_plans(settings, GROUP, {"kind": ["subscribe"]}, console, None) == 1
        with pytest.raises(PlanFailed, match="Unknown group ID `999`"):
            await write_plans(settings, 999, {}, console, None)
