"""The facade of the sync: one method for each thing that the API, the command line and the web pages may ask of it.

Each method is a few lines over the module that does the work. The service holds what lives as long as the process: the
context, the runner, the batch watcher, the webhook inbox and the background counts. Every method may raise
``SyncError`` (``errors``), whose text is for the caller.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection

from civiapi.alerts import records as alert_records
from civiapi.alerts.watch import send_test
from civiapi.settings import Settings
from civiapi.store import leases
from civiapi.store.author import current_author
from civiapi.store.engine import Store
from sync.audience import Privacy
from sync.campaigns.importing import ImportRequest, import_campaigns
from sync.connections import config_update, merge_fields
from sync.connections.account_info import fetch_account_info
from sync.connections.clients import Clients
from sync.connections.config import Link, read_config
from sync.connections.webhook_health import check_webhooks
from sync.connections.webhook_update import update_webhook
from sync.context import SyncContext, UnitSizes
from sync.data.plugins import data_plugins
from sync.errors import MailchimpFailed
from sync.field_rules import MergeField
from sync.inbox.events import Inbox
from sync.inbox.sync_contact import sync_contact
from sync.mailchimp.errors import MailchimpError
from sync.mailchimp.wire import PERMISSION
from sync.model import BatchRow
from sync.outbox import cancel, results
from sync.outbox.submit import submit_if_free
from sync.outbox.watcher import Watcher
from sync.reconcile import requeue
from sync.reconcile.categories import summarize
from sync.reconcile.matching import PersonQuery
from sync.reports import campaigns, status
from sync.reports.background_counts import BackgroundCounts
from sync.reports.health import Health
from sync.reports.people.causes import read_failures
from sync.reports.people.explain import explain
from sync.reports.preview import PlanFilter, find_kept, forget_old_plans, make_plan, read_plan
from sync.reports.run_view import KINDS, ChangeFilter, UndoPreview, list_of_run, read_run
from sync.reports.timeline import TimelineFilter, read_timeline
from sync.runs import progress
from sync.runs.engine import RunOutcome
from sync.runs.run import RunRequest
from sync.runs.runner import Listener, Runner
from sync.store import daily, retention
from sync.store.members import consents
from sync.store.runs import run_log
from sync.store.runs.checkpoints import waits_for_first_sync
from sync.undo.engine import preview_undo, undo_run

CLEAN_UP = "clean-up"
DAY = 86_400.0
"""Seconds; what "no limit" means, so that a run that never ends is noticed some day."""


class SyncService:
    """The sync of one process. *plugins* say what data to send; *on_stage* is as in `SyncContext`."""

    def __init__(
        self,
        store: Store,
        clients: Clients,
        settings: Settings,
        *,
        plugins: Sequence[object] = (),
        on_stage: Callable[[str, float, int], None] | None = None,
        sizes: UnitSizes | None = None,
    ) -> None:
        self._store = store
        self._clients = clients
        self._base_url = settings.server.base_url
        self.ctx = SyncContext(
            store,
            clients,
            settings,
            plugins=data_plugins(*plugins),
            holder=leases.new_holder(),
            sizes=sizes or UnitSizes(),
            on_stage=on_stage,
            on_queued=lambda: self._watcher.wake(),
        )
        self._watcher = Watcher(self.ctx)
        self._inbox = Inbox(self.ctx, self._watcher)
        self._counts = BackgroundCounts(store)
        self._runner = Runner(self.ctx, after_run=(self._recount, self._check_webhooks))

    @property
    def privacy(self) -> Privacy:
        """What becomes of contacts that CiviMail would not mail."""
        return self.ctx.privacy

    async def start(self) -> None:
        """Begin to watch batches, process webhook events, and take turns in syncs of several audiences."""
        await self._watcher.start()
        await self._inbox.start()
        await self._runner.start()

    def wind_down(self) -> None:
        """Start no new run; running ones stop after their unit of work or are cancelled soon after."""
        self._runner.wind_down()

    async def stop(self) -> None:
        """Stop what ``start`` began and all runs; what was not committed is done again after the next start."""
        await asyncio.gather(self._runner.stop(), self._inbox.stop(), self._watcher.stop())

    async def close(self) -> None:
        """Finish counts in progress, before the store closes."""
        await self._counts.finish()

    def listening(self, listener: Listener) -> AbstractContextManager[None]:
        """While the context lasts, *listener* gets the progress of each stage of each run of this process."""
        return self._runner.listening(listener)

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
        is_scheduled: bool = False,
    ) -> list[dict[str, Any]]:
        """Sync one group's audience, or all; returns ``list_id``, ``group_id`` and ``status`` of each.

        *is_scheduled*: nobody asked for it. Connections whose first sync nobody has started are then passed over,
        unless it is confirmed; each has ``waiting``, which says so.

        *max_time* seconds are shared by all; 0 is a day. *since* is aware, or ``ever``. *confirm*: continue whatever it
        removes or adds (``brake``). A failing audience does not keep others from their turn; the first error is raised
        at the end.
        """
        await forget_old_plans(self._store)
        request = RunRequest(max_time or DAY, since, stop_on, force_restart, with_data, confirm, current_author())
        links = await self._links(group_id)
        passed_over = await self._store.read(_new_ones, links) if is_scheduled and not confirm else []
        visited = await self._runner.sync([link for link in links if link not in passed_over], request)
        answered = [link for link in links if link in visited or link in passed_over]
        shown = await self._store.read(_shown_status, [link.list_id for link in answered])
        return [
            {"list_id": one.list_id, "group_id": one.group_id, "status": shown[one.list_id]}
            | ({"waiting": status.WAITING} if one in passed_over else {})
            for one in answered
        ]

    async def _recount(self, ran: RunOutcome) -> None:
        if ran.changed_something:
            await self._counts.after_run(ran.audience, ran.seconds)

    async def _check_webhooks(self, ran: RunOutcome) -> None:
        await check_webhooks(self.ctx, ran.audience, self._base_url)

    async def import_campaigns(
        self,
        *,
        group_id: int | None = None,
        since: datetime | str | None = None,
        figures: bool = False,
        max_time: float = 300,
    ) -> list[dict[str, Any]]:
        """Import what Mailchimp sent to one group's audience, or to all, as activities; the outcome of each.

        *since* is aware, ``ever``, or None for what is not known yet; *figures*: also who opened and clicked;
        *max_time* in seconds, 0 is a day. Raises UnknownGroup, and the first error after all had their turn.
        """
        request = ImportRequest(since, figures, max_time or DAY)
        return await import_campaigns(self.ctx, await self._links(group_id), request)

    async def abort(self, group_id: int) -> None:
        """Cancel everything in progress for a group's audience. Raises UnknownGroup, MailchimpFailed."""
        link = (await self._store.read(read_config)).link_for_group(group_id)
        await cancel.abort_sync(self.ctx, self.ctx.audience(link), current_author())

    # What is known

    @property
    def quiet(self) -> timedelta:
        """How long a sync at work may log nothing before it counts as crashed."""
        return timedelta(minutes=self.ctx.settings.sync.crashed_minutes)

    async def get_status(self, *, batches: bool = False) -> dict[str, dict[str, Any]]:
        """The status of every linked audience by list id; with *batches*, those of its run as Mailchimp has them."""
        now = datetime.now(UTC)
        config = await self._store.read(read_config)
        audiences = [self.ctx.audience(link) for link in config.links.values()]
        await self._counts.catch_up(audiences)
        shown = await self._store.read(
            status.read_statuses,
            self._store.clock,
            now,
            base_url=self._base_url,
            quiet=self.quiet,
            privacy=self.privacy,
        )
        if not batches:
            return shown
        for link in config.links.values():
            theirs = await self._store.read(status.batches_of_run, link.list_id, self._store.clock)
            if theirs and link.list_id in shown:
                current = await self._ask_about(link, theirs)
                shown[link.list_id] = status.with_batches(shown[link.list_id], current)
        return shown

    async def get_health(self) -> dict[str, Health]:
        """The health of every linked audience by list id. Raises BadConfig."""
        return {list_id: Health(one["health"]["state"]) for list_id, one in (await self.get_status()).items()}

    async def _ask_about(self, link: Link, known: Sequence[BatchRow]) -> Sequence[BatchRow]:
        try:
            client = self._clients.client_for(link.api_key)
        except MailchimpError:  # a key that cannot be used hides nothing else of the status
            return known
        return await status.ask_about_batches(client, known)

    async def get_progress(self, group_id: int | None = None) -> dict[str, dict[str, Any]]:
        """How far the sync of each linked audience (or of this group's) has got, by list id. Raises UnknownGroup."""
        links = await self._links(group_id)

        def look(conn: Connection) -> dict[str, dict[str, Any]]:
            clock, at_ms = self._store.clock, leases.now_ms()
            return {link.list_id: progress.read_progress(conn, link, clock, at_ms) for link in links}

        return await self._store.read(look)

    async def get_runs(self, group_id: int | None = None, *, limit: int = 25, offset: int = 0) -> list[dict[str, Any]]:
        """The run log of the linked audiences (or of this group's), newest first. Raises UnknownGroup."""
        groups = {link.list_id: link.group_id for link in await self._links(group_id)}
        clock, at_ms = self._store.clock, leases.now_ms()
        return await self._store.read(run_log.read_runs, groups, clock, at_ms, limit=limit, offset=offset)

    async def get_run(self, run_id: int, shown: ChangeFilter) -> dict[str, Any]:
        """A run: what it did to whom, its batches, its log. Raises SyncError where it is not kept."""
        link, clock = await self._link_of_run(run_id), self._store.clock
        found: dict[str, Any] = await self._store.read(read_run, run_id, link.list_id, link.group_id, clock, shown)
        return found

    async def plan_undo(self, run_id: int, shown: ChangeFilter) -> dict[str, Any]:
        """What an undo of a run would do, worked out now. Raises SyncError as `undo_run` does."""
        link = await self._link_of_run(run_id)
        preview = UndoPreview(shown)
        await preview_undo(self.ctx, self.ctx.audience(link), run_id, preview.add)
        return {"run_id": run_id, "list_id": link.list_id, "group_id": link.group_id} | preview.as_values()

    async def undo_run(self, run_id: int) -> dict[str, Any]:
        """Take back a run as far as nobody changed it since; the undo's own run, and what it did by kind.

        Raises SyncError where that is not possible, MailchimpFailed where Mailchimp did not answer.
        """
        link = await self._link_of_run(run_id)
        done = await undo_run(self.ctx, self.ctx.audience(link), run_id, current_author())
        return {
            "run_id": done.run_id,
            "undoes": run_id,
            "list_id": link.list_id,
            "group_id": link.group_id,
            "summary": summarize(done.counts, KINDS),
            "sent": done.sent,
        }

    async def _link_of_run(self, run_id: int) -> Link:
        list_id = await self._store.read(list_of_run, run_id)
        return (await self._store.read(read_config)).link_for_list(list_id)

    async def get_timeline(
        self,
        *,
        group_id: int | None = None,
        list_id: str = "",
        kinds: tuple[str, ...] = (),
        since: datetime | None = None,
        before: datetime | None = None,
        limit: int = 25,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """What happened to a connection, or to all, newest first; *list_id*: of one that is linked no more, too.

        *since* and *before* are aware; *limit* 0: all. Raises UnknownGroup.
        """
        groups = {link.list_id: link.group_id for link in await self._links(None)}
        if group_id is not None:
            [link] = await self._links(group_id)
            list_id = link.list_id
        wanted = TimelineFilter(list_id or None, kinds, since, before, limit, offset)
        return await self._store.read(read_timeline, groups, self._store.clock, wanted)

    async def get_campaigns(
        self, *, group_id: int | None = None, contact_id: int | None = None, limit: int = 25, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Imported campaigns, newest first: those a contact was sent, else those of one group's audience, or of all."""
        clock = self._store.clock
        if contact_id is not None:
            return await self._store.read(campaigns.read_campaigns_of, contact_id, clock, limit=limit, offset=offset)
        groups = {link.list_id: link.group_id for link in await self._links(group_id)}
        return await self._store.read(campaigns.read_campaigns, groups, clock, limit=limit, offset=offset)

    async def clean_up(self) -> dict[str, int]:
        """Delete what is older than the settings keep, a unit at a time; returns how many rows of each kind."""
        deleted: dict[str, int] = {}
        after: int | None
        for name, days in retention.days_kept(self.ctx.settings.retention).items():
            before, after = datetime.now(UTC) - timedelta(days=days), 0
            last = await self._store.read(retention.last_old, name, before, self._store.clock)
            deleted[name] = 0
            while after is not None:
                count, after = await self._store.write(
                    retention.delete_some, name, before, self._store.clock, after, last
                )
                deleted[name] += count
        return deleted

    async def clean_up_daily(self) -> None:
        """``clean_up`` if no process has done it for a day: a lease that is no process's lasts for that long."""
        if await self._store.write(leases.acquire, CLEAN_UP, CLEAN_UP, DAY, leases.now_ms()) is not None:
            await self.clean_up()

    async def get_alerts(self, *, limit: int = 25, offset: int = 0) -> list[dict[str, Any]]:
        """Problems, those that are open first, then the newest; with site times."""
        found = await self._store.read(alert_records.read_latest, limit=limit, offset=offset)
        return [alert_records.as_dict(one, self._store.clock) for one in found]

    async def test_alerts(self) -> list[dict[str, str]]:
        """Send a test message through each channel of the settings; the channels with why one failed, if it did."""
        return [{"channel": name, "error": error} for name, error in await send_test(self.ctx.settings)]

    async def get_daily(self, group_id: int, days: int = daily.DAYS) -> list[dict[str, Any]]:
        """What each of the last *days* days brought, oldest first. Raises UnknownGroup."""
        [link] = await self._links(group_id)
        return await self._store.read(daily.read_daily, link.list_id, self._store.clock, days)

    async def get_permissions(self, group_id: int) -> list[dict[str, str]]:
        """The marketing permissions of this group's audience, as last fetched. ``group_id``: that with which each is
        linked, empty for none. Raises UnknownGroup."""
        [link] = await self._links(group_id)
        known = await self._store.read(consents.known_permissions, link.list_id)
        return [one | {"group_id": str(link.interests.get(PERMISSION + one["permission_id"], ""))} for one in known]

    async def get_failures(self, group_id: int) -> list[dict[str, Any]]:
        """Who failed in this group's audience, by cause: its number, what to do, and what finds the people.

        Raises UnknownGroup.
        """
        [link] = await self._links(group_id)
        return await self._store.read(read_failures, link.list_id)

    async def explain(
        self, *, contact_id: int | None = None, email: str = "", group_id: int | None = None
    ) -> list[dict[str, Any]]:
        """One person in each connection (or this group's): both sides, the latest change, and what a sync would do."""
        config, links = await self._store.read(read_config), await self._links(group_id)
        query = PersonQuery(contact_id, email.strip())
        return await self._store.write(
            explain, config, links, self._store.clock, query, privacy=self.privacy, plugins=self.ctx.plugins
        )

    async def plan(
        self,
        group_id: int,
        *,
        plan_id: str = "",
        kept: bool = False,
        since: datetime | str | None = None,
        with_data: bool = False,
        kinds: tuple[str, ...] = (),
        search: str = "",
        limit: int = 25,
        offset: int = 0,
    ) -> dict[str, Any]:
        """What a sync of this group's audience would do: worked out now, or the one that *plan_id* names, still kept.

        *kept*: the newest one that no sync has followed; empty where there is none. Writes nothing but the plan. Raises
        UnknownGroup, PlanGone, and SyncError as a sync does.
        """
        [link] = await self._links(group_id)
        if kept and not plan_id:
            plan_id = await self._store.read(find_kept, link.list_id)
            if not plan_id:
                return {}
        made = plan_id or await make_plan(self.ctx, self.ctx.audience(link), since, with_data=with_data)
        clock = self._store.clock
        plan_filter = PlanFilter(kinds, search, limit, offset)
        found: dict[str, Any] = await self._store.read(read_plan, made, link.list_id, link.group_id, clock, plan_filter)
        return found

    async def _links(self, group_id: int | None) -> list[Link]:
        config = await self._store.read(read_config)
        return list(config.links.values()) if group_id is None else [config.link_for_group(group_id)]

    # Accounts and links

    async def fetch_account_info(self, api_key: str) -> dict[str, Any]:
        """What the configuration keeps of the account with this key, fetched from Mailchimp; nothing is stored."""
        return await fetch_account_info(self._store, self._clients, self._base_url, api_key)

    async def update_config(self, config: Any, digest: str | None = None) -> Mapping[str, Any]:
        """Store a configuration (JSON text or a map), over the one with *digest* only; returns the cleaned one."""
        return (await self._store.write(config_update.update_config, config, digest, current_author())).raw

    async def get_merge_fields(self, group_id: int) -> dict[str, Any]:
        """The merge fields of this group's audience as Mailchimp has them now, the rule of each, and the sources."""
        [link] = await self._links(group_id)
        return await self._show_merge_fields(link, await self._merge_fields(link))

    async def set_merge_fields(self, group_id: int, *, rules: Any = None, names: bool | None = None) -> dict[str, Any]:
        """Store all rules of this group's connection (None: as they are), and whether names are sent.

        Returns what ``get_merge_fields`` does. Raises BadConfig, UnknownGroup, MailchimpFailed.
        """
        [link] = await self._links(group_id)
        fields = await self._merge_fields(link)
        given = None if rules is None else merge_fields.read_given(rules, fields)
        by = current_author()
        stored = await self._store.write(merge_fields.store_rules, link.list_id, by, rules=given, names=names)
        return await self._show_merge_fields(stored, fields)

    async def _merge_fields(self, link: Link) -> dict[str, MergeField]:
        try:
            found = await self._clients.client_for(link.api_key).get_merge_fields(link.list_id)
        except MailchimpError as error:
            raise MailchimpFailed(f"Audience {link.list_id}: {error}") from error
        return {one.tag: one for body in found if (one := MergeField.from_wire(body)) is not None}

    async def _show_merge_fields(self, link: Link, fields: Mapping[str, MergeField]) -> dict[str, Any]:
        return {
            "list_id": link.list_id,
            "group_id": link.group_id,
            "names": link.sends_names,
            "fields": merge_fields.show(link, fields.values()),
            "sources": await self._store.read(merge_fields.list_sources),
        }

    async def count_removal(self, group_id: int) -> dict[str, int]:
        """How many rows of each kind are deleted with the connection of this group."""
        [link] = await self._links(group_id)
        return await self._store.read(config_update.count_removal, link.list_id)

    async def update_webhook(
        self, *, process: str, api_key: str, list_id: str = "", hook_id: str = ""
    ) -> Mapping[str, Any]:
        """Add or delete a webhook at Mailchimp; returns the configuration with the webhooks that exist then."""
        config = await update_webhook(
            self._store,
            self._clients,
            self._base_url,
            process=process,
            api_key=api_key,
            list_id=list_id,
            hook_id=hook_id,
            by=current_author(),
        )
        return config.raw

    # Webhooks

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Store a webhook event of a member, to be processed later; False for one that is stored already."""
        return await self._inbox.receive_audience_webhook(fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Store that a batch is finished, to be checked later; False for an event that is stored already."""
        return await self._inbox.receive_batch_webhook(fields)

    async def retry_webhook_event(self, event_id: int) -> bool:
        """Process a webhook event again; False when there is none with this id."""
        return await self._inbox.retry(event_id)

    # People and updates

    async def include_contacts(self, contact_ids: Sequence[int]) -> int:
        """Have the next sync reconcile these contacts in every audience; returns how many cache rows that are."""
        return await self._store.write(requeue.include_contacts, contact_ids)

    async def include_matching(self, list_id: str, where: Sequence[ColumnElement[bool]]) -> dict[str, int]:
        """Have the next sync reconcile matching rows; how many there are, and how many were not ``todo``."""
        matched = affected = 0
        after: int | None = 0
        size = self.ctx.sizes.scanned_rows_per_unit
        while after is not None:
            part, changed, after = await self._store.write(requeue.include_matching, list_id, where, after, size)
            matched, affected = matched + part, affected + changed
        return {"matched": matched, "affected": affected}

    async def sync_member(
        self, group_id: int, *, contact_id: int | None = None, email: str = ""
    ) -> list[dict[str, Any]]:
        """Sync one person now, in the connection of this group; returns what ``explain`` returns afterwards."""
        [link] = await self._links(group_id)
        await sync_contact(self.ctx, self.ctx.audience(link), PersonQuery(contact_id, email.strip()))
        return await self.explain(contact_id=contact_id, email=email, group_id=group_id)

    async def submit_batches(self) -> dict[str, int]:
        """Send the waiting updates of every audience without a run: list id → updates sent, where any were."""
        links = await self._links(None)
        sent = {link.list_id: await submit_if_free(self.ctx, self.ctx.audience(link)) for link in links}
        return {list_id: count for list_id, count in sent.items() if count}

    async def process_completed(self, row_id: int, *, force: bool = False) -> dict[str, Any]:
        """Fetch and apply the results of one of our batches; returns its row."""
        return await results.process_completed(self.ctx, row_id, force=force)

    async def wait_until_idle(self, list_ids: Sequence[str] | None = None, *, seconds: float = 3600) -> bool:
        """Wait until nothing is in flight for these audiences (default: all); False if it takes longer.

        Webhook events stored so far are processed first.
        """
        await self._inbox.process_due()
        if list_ids is None:
            list_ids = list((await self._store.read(read_config)).links)
        return await self._watcher.wait_until_idle(list_ids, seconds)


def _new_ones(conn: Connection, links: Sequence[Link]) -> list[Link]:
    return [link for link in links if waits_for_first_sync(conn, link.list_id)]


def _shown_status(conn: Connection, list_ids: Sequence[str]) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {list_id: status.shown_position(conn, list_id, now) for list_id in list_ids}
