"""Prepared sites: a database file and an emulated Mailchimp, copied for every history.

The clock of all stands still at noon, so that two histories can be compared to the second; what people did lies days
before or after it. Everything a stage cares for is there once or more: new here, new there, both, gone, moved, shared,
in the trash, with interests and tags.
"""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.schema.tables import email
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from sync.outbox.pending_batches import unconfirmed_batches
from sync.store.tables import batch
from tests.reliability.crash.child import OPERATIONS_A_BATCH
from tests.support.databases import copy_of, database_at
from tests.support.linked_site import TREES_GROUP, Site, a_site, sync_settings
from tests.support.small_changes import TREES, give_tag, replace_address, trash, with_trees

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
BEFORE, LATER = NOON - timedelta(days=1), NOON + timedelta(days=1)

Prepare = Callable[[Site, Traveller], Awaitable[None]]


@dataclass(frozen=True)
class PreparedSite:
    """A closed site: its database, by the path that stands for it (`database_at`), and its Mailchimp."""

    path: Path
    world: World

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[tuple[str, Emulator]]:
        """The URL of a database and a running emulator of their own."""
        path = self.path.with_name(f"{uuid4().hex}.sqlite")
        try:
            with copy_of(self.path, path) as url:
                async with running_emulator(copy.deepcopy(self.world)) as emulator:
                    yield url, emulator
        finally:
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)


async def prepare_site(folder: Path, clock: Traveller, *prepare: Prepare) -> PreparedSite:
    """A site that went through *prepare*, closed."""
    path = folder / f"{uuid4().hex}.sqlite"
    settings = sync_settings(poll_seconds=0.05, batch_size=OPERATIONS_A_BATCH)
    async with a_site(database_at(path), settings=settings, sockets=True, auto_batches=False) as site:
        for one in prepare:
            await one(site, clock)
        site.emulator.set_clock(datetime.now(UTC))  # and there it stays, whatever becomes of ours
        world = site.emulator.world
    return PreparedSite(path, world)


# ── What happened ───────────────────────────────────────────────────────────────────────────────────────────────────


async def people_at_both_ends(site: Site, _clock: Traveller) -> None:
    """Nothing was ever synced."""
    await with_trees(site)
    for number in range(3):
        site.joined(f"there{number}@example.org", interests={TREES: number == 1})
        await site.person(f"both{number}@example.org", at=BEFORE if number % 2 else LATER)
        site.joined(f"both{number}@example.org")
        await site.person(f"here{number}@example.org", at=NOON)
    site.emulator.person("unsubscribe", "both1@example.org")
    site.emulator.admin("unsubscribe", "both2@example.org")
    site.joined("gone@example.org", "old@example.org", "loud@example.org")
    await site.person("old@example.org", at=BEFORE)
    await site.person("here0@example.org", at=NOON)  # shares the address
    await site.person("gone@example.org", at=BEFORE)
    await site.person("loud@example.org", at=BEFORE)
    await trash(site, await site.person("there2@example.org", at=BEFORE))
    liked = await site.person("both9@example.org", at=BEFORE)
    site.joined("both9@example.org")
    await site.set_group(liked, "Added", group_id=TREES_GROUP, at=LATER)
    await give_tag(site, liked, "Volunteer")


async def synced(site: Site, clock: Traveller) -> None:
    """Both sides in sync, an hour ago."""
    await site.run(since="ever", with_data=True)
    await site.settle_with_batches()
    await site.run(with_data=True)
    await site.settle()
    site.emulator.configure(auto_batches=False)
    clock.shift(3600)


async def changed_at_both_ends(site: Site, _clock: Traveller) -> None:
    """Changes on both sides since the last sync."""
    site.emulator.admin("delete_permanently", "gone@example.org")
    site.emulator.person("unsubscribe", "there0@example.org")
    site.emulator.person("change_email", "there1@example.org", new_email="there11@example.org")
    site.joined("late@example.org", "later@example.org")
    moved = await owner(site, "old@example.org")
    await replace_address(site, moved, "new@example.org")
    await give_tag(site, moved, "Donor")
    await site.person("late-here@example.org", at=NOON)
    left = await owner(site, "loud@example.org")
    await site.set_group(left, "Removed", at=LATER)
    await trash(site, await owner(site, "here2@example.org"))


async def stopped_before_submitting(site: Site, _clock: Traveller) -> None:
    """Everything is decided; nothing was sent."""
    await site.run(with_data=True, stop_on="readyToSubmitUpdates")


async def some_are_refused(site: Site, _clock: Traveller) -> None:
    """Mailchimp will refuse some of what is sent: a compliance state, a forgotten address."""
    account = site.emulator.world.default_account
    account.options.configure(
        {"compliance_emails": ["here1@example.org"], "forgotten_emails": ["here2@example.org", "late-here@example.org"]}
    )


async def sent_not_worked_on(site: Site, _clock: Traveller) -> None:
    """Everything was sent; Mailchimp has carried out nothing."""
    await site.run(since="ever", with_data=True)


async def in_every_state(site: Site, _clock: Traveller) -> None:
    """Batches in every state: one finished, one going on, one whose answer was lost, one never sent."""
    await site.run(since="ever", with_data=True)
    account = site.emulator.world.default_account
    site.emulator.world.work_batches(account, ignore_delays=True)
    sent = await site.batches()
    assert len(sent) >= 3, sent
    lost = [one.id for one in sent[1:3]]
    del account.batches[sent[2].mailchimp_batch_id]

    def lose(conn: Connection) -> int:
        forgotten = change(batch).where(batch.c.id.in_(lost)).values(mailchimp_batch_id=None, status="submitting")
        return conn.execute(forgotten).rowcount

    await site.store.write(lose)
    audience = await site.audience()
    assert await site.store.read(unconfirmed_batches, site.list_id, audience.clock)


async def mailchimp_did_it_all(site: Site, _clock: Traveller) -> None:
    """Mailchimp has carried out every batch that it has."""
    site.emulator.run_batches()


async def people_acted_at_mailchimp(site: Site, _clock: Traveller) -> None:
    """Changes that webhooks report."""
    site.emulator.person("unsubscribe", "both0@example.org")
    site.emulator.person("sign_up", "walkin@example.org")
    site.emulator.person("change_email", "there1@example.org", new_email="there11@example.org")
    site.emulator.person("edit_profile", "here0@example.org", merge_fields={"FNAME": "Adele"})


# ── Who is who ────────────────────────────────────────────────────────────────────────────────────────


async def owner(site: Site, address: str) -> int:
    """The contact with this address."""
    wanted = select(email.c.contact_id).where(email.c.email == address).order_by(email.c.contact_id).limit(1)
    return await site.store.read(lambda conn: int(conn.execute(wanted).scalar_one()))
