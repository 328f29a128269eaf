"""A small site linked with an audience of a running emulator: people in and out, the road of a sync, and a look inside.

The real client calls the emulator, in the same process or (`sockets`) over HTTP; waiting between retries is off.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import stamina
from sqlalchemy import Connection, insert, select

from civiapi.settings import MailchimpSettings, ServerSettings, Settings, SyncSettings
from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import contact, email, group, group_contact, subscription_history
from sync.audience import Audience
from sync.connections.clients import Clients
from sync.connections.config import read_config, write_config
from sync.context import SyncContext
from sync.emulator.server.running import Emulator, running_emulator
from sync.inbox.events import Inbox
from sync.leases import hold_lease
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation
from sync.outbox.pending_batches import OLD
from sync.outbox.submit import Submitted, submit_pending
from sync.outbox.watcher import Watcher
from sync.reconcile.matching import PersonQuery
from sync.reports.people.explain import explain
from sync.runs.engine import RunOutcome, run_audience
from sync.runs.run import RunRequest
from sync.store.runs import checkpoints
from sync.store.tables import batch, cache, update, webhook_event
from sync.store.updates import queue
from sync.undo.engine import preview_undo
from sync.undo.planning import UndoPlan
from tests.support.emulators import InProcessEmulator, in_process_emulator

GROUP = 12
TREES_GROUP = 13
PATIENCE = 20.0
"""Seconds within which everything here comes to rest, or the test fails."""


@dataclass
class Site:
    """One linked audience, at both ends."""

    store: Store
    emulator: Emulator
    clients: Clients
    ctx: SyncContext
    list_id: str
    watcher: Watcher = field(init=False)
    inbox: Inbox = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.ctx)
        self.inbox = Inbox(self.ctx, self.watcher)

    @property
    def client(self) -> MailchimpClient:
        return self.clients.client_for(self.emulator.key)

    async def audience(self) -> Audience:
        config = await self.store.read(read_config)
        return self.ctx.audience(config.link_for_list(self.list_id))

    # CiviCRM's end

    async def person(
        self, address: str, *, at: datetime | None = None, status: str | None = "Added", **names: str
    ) -> int:
        """A contact with this address, put into the group at *at* (default: a minute ago) unless *status* is None."""
        moment = at or datetime.now(UTC) - timedelta(minutes=1)

        def make(conn: Connection) -> int:
            names_ = {"first_name": "Ada", "last_name": "Byron", **names}
            made = conn.execute(insert(contact).values(contact_type="Individual", display_name="Ada Byron", **names_))
            key = int(made.lastrowid)
            conn.execute(insert(email).values(contact_id=key, email=address, is_primary=1, location_type_id=1))
            if status is not None:
                set_status(conn, GROUP, [key], status, method="Admin", at=self.store.clock.write(moment))
            return key

        return await self.store.write(make)

    async def set_group(
        self, contact_id: int, status: str, *, group_id: int = GROUP, at: datetime | None = None
    ) -> None:
        site_time = self.store.clock.write(at or datetime.now(UTC))
        await self.store.write(set_status, group_id, [contact_id], status, method="Admin", at=site_time)

    async def standing(self, contact_id: int, group_id: int = GROUP) -> str | None:
        wanted = select(group_contact.c.status).where(
            group_contact.c.contact_id == contact_id, group_contact.c.group_id == group_id
        )
        return await self.store.read(lambda conn: conn.execute(wanted).scalar())

    async def addresses(self, contact_id: int) -> list[str]:
        wanted = select(email.c.email).where(email.c.contact_id == contact_id).order_by(email.c.id)
        return await self.store.read(lambda conn: list(conn.execute(wanted).scalars()))

    async def contacts(self) -> list[Any]:
        return await self._all(select(contact).where(contact.c.is_deleted == 0).order_by(contact.c.id))

    async def history(self, contact_id: int) -> list[tuple[str, str]]:
        history = subscription_history.c
        wanted = select(history.status, history.method).where(history.contact_id == contact_id).order_by(history.id)
        return [(row.status, row.method) for row in await self._all(wanted)]

    # Our rows

    async def rows(self) -> list[Any]:
        return await self._all(select(cache).order_by(cache.c.id))

    async def row(self, address: str) -> Any:
        """The row of a member, or of a contact whose address this is."""
        found = await self._all(select(cache).where(cache.c.mailchimp_email == address))
        if not found:
            owner = select(email.c.contact_id).where(email.c.email == address)
            found = await self._all(select(cache).where(cache.c.civicrm_contact_id.in_(owner)))
        assert len(found) == 1, found
        return found[0]

    async def explain(self, contact_id: int | None = None, *, email: str = "") -> dict[str, Any]:
        """What the explanation of this person in the linked audience says."""
        config, query = await self.store.read(read_config), PersonQuery(contact_id, email)
        links = [config.link_for_list(self.list_id)]
        [shown] = await self.store.write(
            explain, config, links, self.store.clock, query, privacy=self.ctx.privacy, plugins=self.ctx.plugins
        )
        return shown

    async def status(self) -> dict[str, Any]:
        """The status as CiviCRM's extension stores it: stage, log, fetch."""
        return (await self.store.read(checkpoints.load, self.list_id)).as_status()

    async def updates(self) -> list[Any]:
        return await self._all(select(update).order_by(update.c.id))

    async def batches(self) -> list[Any]:
        return await self._all(select(batch).order_by(batch.c.id))

    async def events(self) -> list[Any]:
        return await self._all(select(webhook_event).order_by(webhook_event.c.id))

    async def _all(self, wanted: Any) -> list[Any]:
        return await self.store.read(lambda conn: list(conn.execute(wanted)))

    async def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of cache, update and batch as they stand, without ids of batches at Mailchimp."""
        return {
            "cache": [tuple(row) for row in await self.rows()],
            "update": [tuple(row) for row in await self.updates()],
            "batch": [tuple(row) for row in await self.batches()],
        }

    # The road of a sync

    async def new_row(self, address: str) -> int:
        """A contact in the group with a row for them, not at Mailchimp; the row's id."""
        contact_id = await self.person(address)
        values = {"mailchimp_list_id": self.list_id, "civicrm_contact_id": contact_id, "sync_status": "todo"}
        return await self.store.write(lambda conn: int(conn.execute(insert(cache).values(**values)).lastrowid))

    async def owe(self, cache_id: int, wanted: MemberOperation) -> int:
        return await self.store.write(queue, cache_id, wanted)

    async def owe_subscribing(self, *addresses: str) -> list[int]:
        """A row for each address, with its subscribing owed; the update ids."""
        return [await self.owe(await self.new_row(one), subscribing(one)) for one in addresses]

    async def submit(self, **more: Any) -> Submitted:
        """Send what is owed, under a claim as everywhere."""
        audience = await self.audience()
        async with hold_lease(self.ctx, self.list_id) as claim:
            assert claim is not None
            return await submit_pending(self.ctx, audience, claim, **more)

    async def run(self, **request: Any) -> RunOutcome:
        """One run of the engine."""
        return await run_audience(self.ctx, await self.audience(), RunRequest(**request))

    async def send(self) -> None:
        """Send what is owed and see it through."""
        await self.submit()
        await self.settle()

    async def plan_undo(self, run_id: int) -> list[UndoPlan]:
        """What undoing a run would do now."""
        plans: list[UndoPlan] = []
        await preview_undo(self.ctx, await self.audience(), run_id, lambda _, part: plans.extend(part))
        return plans

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        assert await self.watcher.wait_until_idle([self.list_id], PATIENCE)

    async def settle_with_batches(self) -> None:
        """Let Mailchimp work batches off by itself from now on, and wait until nothing is under way."""
        self.emulator.configure(auto_batches=True)
        await self.settle()

    async def age(self) -> None:
        """Let the last sync have begun so long ago that members are looked at again before they are changed."""

        def move(conn: Connection) -> None:
            checkpoint = checkpoints.load(conn, self.list_id, for_update=True)
            checkpoint.last_started = int((datetime.now(UTC) - OLD - timedelta(minutes=2)).timestamp())
            checkpoints.save(conn, checkpoint)

        await self.store.write(move)

    async def sync(self, **request: Any) -> None:
        """A run, and all that follows from it."""
        await self.run(**request)
        await self.settle()

    def at_mailchimp(self, address: str) -> str | None:
        """The status of a member at Mailchimp."""
        found = self.emulator.member(address)
        return found.status if found else None

    def posted_batches(self) -> int:
        return sum(one.method == "POST" and one.path.endswith("/batches") for one in self.emulator.requests)

    def joined(self, *addresses: str, **more: Any) -> None:
        """Members that Mailchimp has from somewhere else."""
        for address in addresses:
            self.emulator.admin("import", address, **more)


def subscribing(address: str, *, cause: datetime | None = None, **body: Any) -> MemberOperation:
    """The update that subscribes an address."""
    whole = {"email_address": address, "status_if_new": "subscribed", "status": "subscribed", **body}
    return MemberOperation("member", "PUT", f"members/{subscriber_hash(address)}", whole, cause or datetime.now(UTC))


def unsubscribing(address: str, *, cause: datetime | None = None) -> MemberOperation:
    """The update that unsubscribes an address."""
    whole = {"email_address": address, "status_if_new": "unsubscribed", "status": "unsubscribed"}
    return MemberOperation("member", "PUT", f"members/{subscriber_hash(address)}", whole, cause or datetime.now(UTC))


def sync_settings(*, poll_seconds: float = 0.01, batch_size: int = 1000, base_url: str = "", **sync: Any) -> Settings:
    """Settings of the program with these values of ``[mailchimp]``, ``[server]`` and ``[sync]``."""
    mailchimp = MailchimpSettings(poll_seconds=poll_seconds, batch_size=batch_size)
    return Settings(server=ServerSettings(base_url=base_url), mailchimp=mailchimp, sync=SyncSettings(**sync))


@asynccontextmanager
async def a_site(
    url: str, *, settings: Settings | None = None, sockets: bool = False, **options: Any
) -> AsyncIterator[Site]:
    """A migrated database at *url*, linked with the only audience of a new emulator.

    *sockets*: other processes, or tests of HTTP itself, use the emulator too.
    """
    store = await open_store(url)
    await migrate(store)
    with stamina.set_testing(True, attempts=2):
        async with running_emulator(**options) if sockets else in_process_emulator(**options) as emulator:
            if isinstance(emulator, InProcessEmulator):
                clients = emulator.clients()
            else:
                clients = Clients(base_url=emulator.root_url)
            try:
                list_id = emulator.audience().id
                await store.write(link, emulator.key, list_id)
                ctx = SyncContext(store, clients, settings or sync_settings(), holder="tests")
                yield Site(store, emulator, clients, ctx, list_id)
            finally:
                await clients.close()
                await store.close()


def link(conn: Connection, key: str, list_id: str, interests: dict[str, str] | None = None, **more: Any) -> None:
    """Link the group with the audience, as the Config screen does; *more*: what else is stored of the link."""
    if conn.execute(select(group.c.id).where(group.c.id == GROUP)).first() is None:
        for group_id, name in ((GROUP, "News"), (TREES_GROUP, "Trees")):
            conn.execute(insert(group).values(id=group_id, name=name, title=name))
    account = {"apiKey": key, "audiences": {list_id: {"name": "Newsletter"}}, "batchWebhookSecret": "s" * 40}
    lists = {list_id: {"apiKey": key, "subscriptionGroup": str(GROUP), "interests": interests or {}, **more}}
    write_config(conn, {"accounts": {key: account}, "lists": lists})
