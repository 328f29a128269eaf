"""Runs that are killed after any commit, or stop at a deadline, and go on, end as an uninterrupted one.

The site has one of everything the stages care for. Units of work are tiny, so that there are many places to be killed
at; Mailchimp's clock stands still, so that two runs can be compared to the second.
"""

import copy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import stamina
from sqlalchemy import select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.engine import Store, open_store
from civiapi.store.schema.tables import email, group_contact, lease, subscription_history
from sync.context import SyncContext, UnitSizes
from sync.emulator.world import World
from sync.runs.stages import STAGES
from sync.store.members.blobs import load_data
from sync.store.members.member_codec import decode
from sync.store.runs import checkpoints
from sync.store.tables import cache
from tests.support.databases import chosen, copy_of, database_at
from tests.support.emulators import in_process_emulator
from tests.support.linked_site import TREES_GROUP, Site, a_site, sync_settings
from tests.support.small_changes import (
    TREES,
    give_tag,
    replace_address,
    trash,
    with_trees,
)
from tests.sync.runs.stages.by_hand import BEFORE, LATER, NOON, sync_by_hand, tags_at_mailchimp

SMALL = UnitSizes(rows_per_unit=10, scanned_rows_per_unit=12, members_per_page=8, members_per_lookup=1)
"""A few members to a page, a few rows to a unit, so that every stage has several."""


class Killed(BaseException):
    """The process is gone: nothing after this is carried out."""


class MortalStore(Store):
    """A store whose process dies right after its *lives*-th commit."""

    def __init__(self, store: Store, lives: int) -> None:
        super().__init__(store.clock)
        self.store, self.lives = store, lives

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return await self.store.read(fn, *args, **kwargs)

    async def read_at_once(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.read(fn, *args, **kwargs)

    async def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        result = await self.store.write(fn, *args, **kwargs)
        self.lives -= 1
        self._check()
        return result

    def _check(self) -> None:
        if self.lives <= 0:
            raise Killed

    async def close(self) -> None:
        raise AssertionError("whoever opened the store closes it")


@dataclass(frozen=True)
class Model:
    """A site as it stood: its database and its Mailchimp, to be copied for every run."""

    path: Path
    world: World

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[Site]:
        copied = self.path.with_name(f"{uuid4().hex}.sqlite")
        with stamina.set_testing(True, attempts=2), copy_of(self.path, copied) as url:
            store = await open_store(url)
            async with in_process_emulator(copy.deepcopy(self.world)) as emulator:
                clients = emulator.clients()
                ctx = SyncContext(store, clients, sync_settings(poll_seconds=0.05), holder="tests", sizes=SMALL)
                yield Site(store, emulator, clients, ctx, emulator.audience().id)
                await clients.close()
                await store.close()


@pytest.fixture
async def model(tmp_path: Path, clock: Traveller) -> Model:
    """One of everything: new here, new there, both, gone, moved, shared, in the trash, with interests and tags."""
    path = tmp_path / "model.sqlite"
    async with a_site(database_at(path), auto_batches=False) as site:
        await with_trees(site)
        for number in range(3):
            site.joined(f"there{number}@example.org", interests={TREES: number == 1})
            await site.person(f"both{number}@example.org", at=BEFORE if number % 2 else LATER)
            site.joined(f"both{number}@example.org")
            await site.person(f"here{number}@example.org", at=NOON)
        site.emulator.person("unsubscribe", "both1@example.org")
        site.emulator.admin("unsubscribe", "both2@example.org")
        site.joined("gone@example.org", "old@example.org")
        moved = await site.person("old@example.org", at=BEFORE)
        await site.person("here0@example.org", at=NOON)
        await site.person("gone@example.org", at=BEFORE)
        await trash(site, await site.person("there2@example.org", at=BEFORE))
        liked = await site.person("both9@example.org", at=BEFORE)
        site.joined("both9@example.org")
        await site.set_group(liked, "Added", group_id=TREES_GROUP, at=LATER)
        await give_tag(site, liked, "Volunteer")
        await sync_by_hand(site, since="ever", with_data=True)
        clock.shift(3600)
        site.emulator.admin("delete_permanently", "gone@example.org")
        site.emulator.person("unsubscribe", "there0@example.org")
        site.emulator.person("change_email", "there1@example.org", new_email="there11@example.org")
        site.joined("late@example.org", "later@example.org")
        await replace_address(site, moved, "new@example.org")
        await give_tag(site, moved, "Donor")
        await site.person("late-here@example.org", at=NOON)
        world = site.emulator.world
    return Model(path, copy.deepcopy(world))


async def ends_of(site: Site) -> dict[str, Any]:
    """Both ends and our rows, told by address, without what no two runs have in common (row numbers, present times)."""
    members = {
        one.email: (one.status, sorted(one.interests), sorted(tags_at_mailchimp(site, one.email)))
        for one in site.emulator.audience().members
    }
    rows = await site.store.read(
        lambda conn: conn.execute(
            select(cache, email.c.email)
            .outerjoin(email, (email.c.contact_id == cache.c.civicrm_contact_id) & (email.c.is_primary == 1))
            .order_by(cache.c.id)
        ).all()
    )
    groups = await site.store.read(
        lambda conn: conn.execute(
            select(email.c.email, group_contact.c.group_id, group_contact.c.status).join(
                email, (email.c.contact_id == group_contact.c.contact_id) & (email.c.is_primary == 1)
            )
        ).all()
    )
    history = await site.store.read(
        lambda conn: conn.execute(
            select(
                email.c.email,
                subscription_history.c.group_id,
                subscription_history.c.status,
                subscription_history.c.method,
            ).join(email, (email.c.contact_id == subscription_history.c.contact_id) & (email.c.is_primary == 1))
        ).all()
    )
    return {
        "members": members,
        "rows": sorted(
            (
                str(row.email),
                str(row.mailchimp_email),
                str(row.mailchimp_status),
                row.sync_status,
                re.sub(r";[\d :-]{19}", "", row.civicrm_groups or ""),
                str(sorted(decode(row.mailchimp_data).items())),
                str(sorted(load_data(row.civicrm_data).items())),
            )
            for row in rows
        ),
        "groups": sorted(tuple(map(str, row)) for row in groups),
        "history": sorted(tuple(map(str, row)) for row in history),
        "contacts": sorted(str(row.display_name) for row in await site.contacts()),
    }


async def lapse(site: Site) -> None:
    """Let the leases of killed processes expire."""
    await site.store.write(lambda conn: conn.execute(change(lease).values(expires_ms=0)).rowcount)


@pytest.mark.parametrize("since", ["ever", None], ids=["full", "incremental"])
async def test_a_run_killed_after_any_commit_and_continued_ends_as_an_uninterrupted_one(
    model: Model, since: str | None
) -> None:
    async with model.copy() as site:
        await finish(site, since)
        expected = await ends_of(site)
    died_at, lives, step = set(), 1, 1 if chosen() == "sqlite" else 9  # a second each on MariaDB
    while await killed_after(model, lives, since, expected, died_at):
        lives += step
    assert step > 1 or died_at >= {stage.name for stage in STAGES}


async def killed_after(model: Model, lives: int, since: str | None, expected: Any, died_at: set[str]) -> bool:
    """Kill a run after so many commits and let another one finish; False when it was finished before."""
    async with model.copy() as site:
        whole = site.ctx
        site.ctx = replace(whole, store=MortalStore(whole.store, lives))
        try:
            await site.run(since=since, with_data=True, max_time=0)
        except Killed:
            died_at.add((await site.store.read(checkpoints.load, site.list_id)).stage)
        else:
            return False
        site.ctx = whole
        await lapse(site)
        await finish(site, since)
        assert await ends_of(site) == expected, f"killed after commit {lives}"
    return True


async def test_a_run_that_stops_at_each_deadline_and_goes_on_ends_as_an_uninterrupted_one(model: Model) -> None:
    async with model.copy() as site:
        await finish(site, "ever")
        expected = await ends_of(site)
    async with model.copy() as site:
        runs = 0
        while (await site.run(since="ever", with_data=True, max_time=1e-9)).outcome == "paused":
            runs += 1
        assert runs > len(STAGES)
        await finish(site, None)
        assert await ends_of(site) == expected


async def finish(site: Site, since: str | None) -> None:
    """Run to the end, let Mailchimp work off its batches, and once more for what followed from that."""
    await sync_by_hand(site, since=since, with_data=True)
    await sync_by_hand(site, with_data=True)
