"""The sync's front door: everything the API, the command line and the web pages may ask of it, one method each.

Each method is a few lines over the module whose subject it is. The service holds what they share for the life of a
process: the store, the clients, the settings, the watcher of batches, the inbox of webhooks, and those who listen to
progress. Every method raises ``SyncError`` (``errors``) with a sentence for whoever asked.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection

from civiapi.store.engine import Store
from sync import abort, accounts, claims, daily, include, progress, results, runs, status
from sync.audience import Audience
from sync.balances import Balances
from sync.batches import submit_pending
from sync.claims import ClaimLost
from sync.clients import Clients
from sync.config import Link, read_config
from sync.context import SyncContext, SyncOptions
from sync.data_sync import data_plugins
from sync.engine import BUSY, RunOutcome, RunRequest, StageProgress, run_audience
from sync.errors import MailchimpFailed, SyncError
from sync.explain import Whom, explain
from sync.holding import held
from sync.hook_health import look_after_hooks
from sync.inbox import Inbox
from sync.mailchimp.errors import MailchimpError
from sync.one_person import sync_person
from sync.planning import Wish, forget_old_plans, make_plan, read_plan
from sync.stopping import GRACE, STOPPING, end_task
from sync.watcher import Watcher
from sync.workers import Workers

Listener = Callable[[StageProgress], None]

DAY = 86_400.0
"""Seconds; what "no limit" means, so that a run that never ends is noticed some day."""


class SyncService:
    """The sync of one process. *base_url* is where Mailchimp reaches this server; *plugins* say what data to send."""

    def __init__(
        self,
        store: Store,
        clients: Clients,
        options: SyncOptions,
        *,
        base_url: str = "",
        plugins: Sequence[object] = (),
        on_stage: Callable[[str, float, int], None] | None = None,
    ) -> None:
        self._store = store
        self._clients = clients
        self._base_url = base_url
        self._listeners: list[Listener] = []
        self._runs: set[asyncio.Task[RunOutcome]] = set()
        self.ctx = SyncContext(
            store,
            clients,
            options,
            plugins=data_plugins(*plugins),
            holder=f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}",
            on_stage=on_stage,
            on_queued=lambda: self._watcher.wake(),
        )
        self._watcher = Watcher(self.ctx)
        self._inbox = Inbox(self.ctx, self._watcher)
        self._workers = Workers(self.ctx, self._visit)
        self._balances = Balances(store)

    async def start(self) -> None:
        """Begin to watch batches, to work on what webhooks told, and to share in syncs of all, in the background."""
        await self._watcher.start()
        await self._inbox.start()
        await self._workers.start()

    def wind_down(self) -> None:
        """Begin no run any more; those going on stop after their present bit of work, or are broken off soon."""
        self.ctx.stop.is_asked = True
        asyncio.get_running_loop().call_later(GRACE, self._break_off)

    def _break_off(self) -> None:
        for task in self._runs:
            task.cancel()

    async def stop(self) -> None:
        """Stop what ``start`` began; what was not committed is done again by whoever comes next."""
        self.ctx.stop.is_asked = True
        await asyncio.gather(
            self._workers.stop(), self._inbox.stop(), self._watcher.stop(), *(end_task(task) for task in self._runs)
        )

    async def close(self) -> None:
        """Finish what must not be left half done when the store closes."""
        await self._balances.finish()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """While the block lasts, *listener* hears how far each stage of each run of this process has got."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    # Runs

    async def fetch_and_reconcile(
        self,
        *,
        group_id: int | None = None,
        max_time: float = 300,
        since: datetime | str | None = None,
        stop_on: str | None = None,
        force_restart: bool = False,
        with_data: bool = False,
        confirm: bool = False,
    ) -> list[dict[str, Any]]:
        """Sync one group's audience, or each in turn; what came of each: ``list_id``, ``group_id`` and ``status``.

        *max_time* seconds are shared by all; 0 is a day. *since* is aware, or ``ever``. *confirm*: yes to whatever it
        takes away (``brake``). One audience that fails keeps none of the others from its turn; the first failure is
        raised at the end.
        """
        links = await self._links(group_id)
        request = RunRequest(max_time or DAY, since, stop_on, force_restart, with_data, confirm)
        shared = len(links) > 1 and self._store.is_shared
        visited = await (self._workers.visit_all(links, request) if shared else self._visit_in_turn(links, request))
        await forget_old_plans(self._store)
        failures = [error for error in visited.values() if error is not None]
        if failures:
            raise failures[0]
        done: list[dict[str, Any]] = []
        for link in links:
            if link.list_id in visited:
                shown = await self._store.read(status.shown_position, link.list_id, datetime.now(UTC))
                done.append({"list_id": link.list_id, "group_id": link.group_id, "status": shown})
        return done

    async def _visit_in_turn(self, links: Sequence[Link], request: RunRequest) -> dict[str, SyncError | None]:
        """Run these audiences one after another while the time lasts; which had their turn, and how each failed."""
        until = time.monotonic() + request.max_time
        visited: dict[str, SyncError | None] = {}
        for link in links:
            left = until - time.monotonic()
            if left <= 0:
                break
            visited[link.list_id] = await self._visit(link, replace(request, max_time=left))
        return visited

    async def _visit(self, link: Link, request: RunRequest) -> SyncError | None:
        """Run one audience; how it failed, if it did. Broken off because the server stops is a failure too."""
        if self.ctx.stop.is_asked:
            return SyncError(STOPPING)
        audience, began = self._audience(link), time.monotonic()
        task = asyncio.create_task(run_audience(self.ctx, audience, request, self._tell))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        try:
            ran = await task
        except SyncError as error:
            return error
        except asyncio.CancelledError:
            asked = asyncio.current_task()
            if asked is None or asked.cancelling():  # it is the caller who gave up
                raise
            return SyncError(STOPPING)
        if ran.changed_something:
            await self._balances.after_run(audience, time.monotonic() - began)
        if ran.outcome != BUSY:
            await look_after_hooks(self.ctx, link, self._base_url)
        return None

    def _tell(self, progress: StageProgress) -> None:
        for listener in self._listeners:
            listener(progress)

    def _audience(self, link: Link) -> Audience:
        return link.audience(self._store.clock, respect_privacy=self.ctx.options.respect_privacy)

    async def abort(self, group_id: int) -> None:
        """Call off whatever is under way for a group's audience. Raises UnknownGroup, MailchimpFailed."""
        link = (await self._store.read(read_config)).link_for_group(group_id)
        await abort.abort_sync(self.ctx, self._audience(link))

    # What is known

    async def get_status(self, *, batches: bool = False) -> dict[str, dict[str, Any]]:
        """The status of every linked audience by list id; with *batches*, unfinished ones as Mailchimp has them now."""
        now = datetime.now(UTC)
        config = await self._store.read(read_config)
        audiences = [self._audience(link) for link in config.links.values()]
        await self._balances.catch_up(audiences)
        shown = await self._store.read(status.read_statuses, self._store.clock, now, base_url=self._base_url)
        if not batches:
            return shown
        known = await self._store.read(status.unfinished_batches)
        for link in config.links.values():
            theirs = [row for row in known if row.list_id == link.list_id]
            if theirs and link.list_id in shown:
                told = await self._ask_about(link, theirs)
                shown[link.list_id] = status.with_batches(shown[link.list_id], told)
        return shown

    async def _ask_about(self, link: Link, known: Sequence[status.OpenBatch]) -> Sequence[status.OpenBatch]:
        try:
            client = self._clients.client_for(link.api_key)
        except MailchimpError:  # a key that cannot be used hides nothing else of the status
            return known
        return await status.ask_about_batches(client, known)

    async def get_progress(self, group_id: int | None = None) -> dict[str, dict[str, Any]]:
        """How far the sync of each linked audience (or of this group's) has got, by list id. Raises UnknownGroup."""
        links = await self._links(group_id)

        def look(conn: Connection) -> dict[str, dict[str, Any]]:
            clock, at_ms = self._store.clock, claims.now_ms()
            return {link.list_id: progress.read_progress(conn, link, clock, at_ms) for link in links}

        return await self._store.read(look)

    async def get_runs(self, group_id: int | None = None, *, limit: int = 25, offset: int = 0) -> list[dict[str, Any]]:
        """The run log of the linked audiences (or of this group's), newest first. Raises UnknownGroup."""
        groups = {link.list_id: link.group_id for link in await self._links(group_id)}
        clock, at_ms = self._store.clock, claims.now_ms()
        return await self._store.read(runs.read_runs, groups, clock, at_ms, limit=limit, offset=offset)

    async def get_daily(self, group_id: int, days: int = daily.DAYS) -> list[dict[str, Any]]:
        """What each of the last *days* days brought, oldest first. Raises UnknownGroup."""
        [link] = await self._links(group_id)
        return await self._store.read(daily.read_daily, link.list_id, self._store.clock, days)

    async def explain(
        self, *, contact_id: int | None = None, email: str = "", group_id: int | None = None
    ) -> list[dict[str, Any]]:
        """One person in each connection (or in this group's): both ends, who spoke last, and what a sync would do."""
        config, links = await self._store.read(read_config), await self._links(group_id)
        whom = Whom(contact_id, email.strip())
        privacy = self.ctx.options.respect_privacy
        return await self._store.write(explain, config, links, self._store.clock, whom, respect_privacy=privacy)

    async def plan(
        self, group_id: int, *, plan_id: str = "", since: datetime | str | None = None, wish: Wish | None = None
    ) -> dict[str, Any]:
        """What a sync of this group's audience would do: worked out now, or the one that *plan_id* names, still kept.

        Writes nothing but the plan. Raises UnknownGroup, PlanGone, and SyncError as a sync does.
        """
        [link] = await self._links(group_id)
        made = plan_id or await make_plan(self.ctx, self._audience(link), since)
        clock = self._store.clock
        found: dict[str, Any] = await self._store.read(
            read_plan, made, link.list_id, link.group_id, clock, wish or Wish()
        )
        return found

    async def _links(self, group_id: int | None) -> list[Link]:
        config = await self._store.read(read_config)
        return list(config.links.values()) if group_id is None else [config.link_for_group(group_id)]

    # Accounts and links

    async def fetch_account_info(self, api_key: str) -> dict[str, Any]:
        """What the configuration keeps of the account with this key, asked of Mailchimp; nothing is stored."""
        return await accounts.fetch_account_info(self._store, self._clients, self._base_url, api_key)

    async def update_config(self, config: Any, digest: str | None = None) -> Mapping[str, Any]:
        """Store a configuration (JSON text or a map), over the one with *digest* only; returns the cleaned one."""
        return (await self._store.write(accounts.update_config, config, digest)).raw

    async def count_removal(self, group_id: int) -> dict[str, int]:
        """What goes when the connection of this group is no longer in the configuration: counts by kind of row."""
        [link] = await self._links(group_id)
        return await self._store.read(accounts.count_removal, link.list_id)

    async def update_webhook(
        self, *, process: str, api_key: str, list_id: str = "", hook_id: str = ""
    ) -> Mapping[str, Any]:
        """Add or delete a webhook at Mailchimp; returns the configuration with the hooks there are now."""
        config = await accounts.update_webhook(
            self._store,
            self._clients,
            self._base_url,
            process=process,
            api_key=api_key,
            list_id=list_id,
            hook_id=hook_id,
        )
        return config.raw

    # Webhooks

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Keep what a webhook tells of a member, to be worked on later; False for what is kept already."""
        return await self._inbox.receive_audience_webhook(fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Keep that a batch is finished, to be looked at later; False for what is kept already."""
        return await self._inbox.receive_batch_webhook(fields)

    async def retry_webhook_event(self, event_id: int) -> bool:
        """Have what a webhook told worked on again; False when nothing is kept under this id."""
        return await self._inbox.retry(event_id)

    # People and updates

    async def include_contacts(self, contact_ids: Sequence[int]) -> int:
        """Have the next sync look at these contacts in every audience; returns how many cache rows that are."""
        return await self._store.write(include.include_contacts, contact_ids)

    async def include_matching(self, list_id: str, where: Sequence[ColumnElement[bool]]) -> dict[str, int]:
        """Have the next sync look at all rows of an audience that match; how many, and how many were not due anyway."""
        matched = affected = 0
        after: int | None = 0
        while after is not None:
            part, changed, after = await self._store.write(include.include_part, list_id, where, after)
            matched, affected = matched + part, affected + changed
        return {"matched": matched, "affected": affected}

    async def sync_member(
        self, group_id: int, *, contact_id: int | None = None, email: str = ""
    ) -> list[dict[str, Any]]:
        """Bring one person into step now, in the connection of this group; as ``explain`` tells of them then."""
        [link] = await self._links(group_id)
        await sync_person(self.ctx, self._audience(link), Whom(contact_id, email.strip()))
        return await self.explain(contact_id=contact_id, email=email, group_id=group_id)

    async def submit_batches(self) -> dict[str, int]:
        """Send what waits of every audience that nobody is at work on: list id → updates sent, where there were any."""
        sent = {}
        for link in (await self._store.read(read_config)).links.values():
            count = await self._submit(self._audience(link))
            if count:
                sent[link.list_id] = count
        return sent

    async def _submit(self, audience: Audience) -> int:
        async with held(self.ctx, audience.list_id, brief=True) as claim:
            if claim is None:
                return 0
            try:
                return (await submit_pending(self.ctx, audience, claim)).updates
            except MailchimpError as error:
                raise MailchimpFailed(f"Audience {audience.list_id}: {error}") from error
            except ClaimLost as error:
                raise SyncError(str(error)) from error

    async def process_completed(self, row_id: int, *, force: bool = False) -> dict[str, Any]:
        """Fetch and apply the results of one of our batches; returns its row."""
        return await results.process_completed(self.ctx, row_id, force=force)

    async def settle(self, list_ids: Sequence[str] | None = None, *, seconds: float = 3600) -> bool:
        """Wait until nothing is under way at Mailchimp for these audiences (default: all); False if it takes longer.

        What webhooks told so far is worked on first.
        """
        await self._inbox.work_off()
        if list_ids is None:
            list_ids = list((await self._store.read(read_config)).links)
        return await self._watcher.settle(list_ids, seconds)
