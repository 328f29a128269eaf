"""Takes back a run: looks first what changed at Mailchimp since, then plans and carries out unit by unit, then sends.

    undo_run                     the audience's lease is held, as for a sync
      _check                     the run is there, is a sync, has ended, and was not taken back
      _fetch_changes             members that changed since the last sync are merged, so that plans see them
      _undo_some                 a unit: changes that no undo has looked at → facts → plans → written and marked
      submit_pending             updates are sent as those of a sync: the intent is committed first

Killed anywhere, the next call for the same run goes on with the changes that are not marked; what waits to be sent is
sent by it, by the watcher or by the next sync. A change whose update was refused, or overruled before it was sent, is
planned again by the next call. `preview_undo` does all of it but the writing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from civiapi.runtime.loop_priority import background_work
from civiapi.runtime.shutdown import STOPPING
from civiapi.store import leases
from civiapi.store.author import Author, authored_by
from civiapi.store.leases import Lease, LeaseLost
from sync.audience import Audience
from sync.connections.linked_groups import with_usable_groups
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.leases import hold_lease
from sync.mailchimp.errors import MailchimpError
from sync.mailchimp.wire import Member
from sync.outbox.submit import resolve_unconfirmed, submit_pending
from sync.runs.stages.fetch import find_moved
from sync.store.daily import forget_count
from sync.store.events import BY_SYNC
from sync.store.members.cache_merge import Merged, merge_page
from sync.store.runs import checkpoints
from sync.store.runs.run_log import RunEnd, close_entry, open_entry
from sync.store.tables import run_change, run_log
from sync.undo.apply import apply_undo
from sync.undo.facts import count_failed, next_changes, read_undo_facts
from sync.undo.planning import UndoPlan, plan_undo

STAGE = "undo"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
BUSY = "A sync of this audience is under way; its runs can be undone once it has stopped."


@dataclass(slots=True)
class Undone:
    """An undo: its own run, the run that it takes back, what it did by kind, and how many updates were sent."""

    run_id: int
    undoes: int
    counts: Counter[str] = field(default_factory=Counter)
    sent: int = 0


async def undo_run(ctx: SyncContext, audience: Audience, run_id: int, by: Author = BY_SYNC) -> Undone:
    """Take back what a run did to this audience, as *by* asks, as far as nobody has changed it since.

    Raises SyncError: there is no such run, it was taken back, it is an undo, or a sync is under way; MailchimpFailed
    where Mailchimp did not answer: before anything was changed, or with all updates waiting to be sent.
    """
    with authored_by(None):  # what it writes is the sync's, as what it takes back
        async with hold_lease(ctx, audience.list_id) as lease:
            if lease is None:
                raise SyncError(BUSY)
            await ctx.store.read(_check, audience.list_id, run_id)
            usable = await ctx.store.read(with_usable_groups, audience)
            read_at = datetime.now(UTC).replace(microsecond=0)
            with _translated(audience):
                await _fetch_changes(ctx, usable, lease)
            return await _undo_recorded(ctx, usable, lease, run_id, read_at, by)


async def preview_undo(
    ctx: SyncContext, audience: Audience, run_id: int, show: Callable[[Connection, Sequence[UndoPlan]], None]
) -> None:
    """Give *show* what `undo_run` would do at this moment, unit by unit in its order: a run of a million is never whole
    in memory. Writes nothing but members that changed at Mailchimp.

    Raises as `undo_run` does.
    """
    async with hold_lease(ctx, audience.list_id) as lease:
        if lease is None:
            raise SyncError(BUSY)
        await ctx.store.read(_check, audience.list_id, run_id)
        usable = await ctx.store.read(with_usable_groups, audience)
        with _translated(audience):
            await _fetch_changes(ctx, usable, lease)

        def show_some(conn: Connection, after: int) -> int | None:
            plans, following = _plan_some(conn, usable, run_id, after, ctx.sizes.reconciled_rows_per_unit)
            show(conn, [one for one in plans if one.kind])
            return following

        after: int | None = 0
        while after is not None:
            after = await ctx.store.read(show_some, after)


@contextmanager
def _translated(audience: Audience) -> Iterator[None]:
    try:
        yield
    except MailchimpError as error:
        raise MailchimpFailed(f"Audience {audience.list_id}: {error}. Nothing was undone.") from error
    except LeaseLost as error:
        raise SyncError(f"Audience {audience.list_id}: {error}") from error


def _check(conn: Connection, list_id: str, run_id: int) -> None:
    """Raise SyncError unless this run of the audience can be taken back."""
    row = conn.execute(select(run_log).where(run_log.c.id == run_id, run_log.c.list_id == list_id)).one_or_none()
    if row is None:
        raise SyncError(f"There is no run {run_id}, or it is not kept any more.")
    if row.undoes is not None:
        raise SyncError(f"Run {run_id} is the undo of run {row.undoes}; an undo cannot be undone.")
    if row.undone_by is not None and not count_failed(conn, run_id):
        raise SyncError(f"Run {run_id} was undone already, by run {row.undone_by}.")
    if conn.execute(select(run_change.c.id).where(run_change.c.run_id == run_id).limit(1)).first() is None:
        raise SyncError(f"Run {run_id} changed nothing that is on record, so there is nothing to undo.")


# ── What changed at Mailchimp since ─────────────────────────────────────────────────────────────────────────────────


async def _fetch_changes(ctx: SyncContext, audience: Audience, lease: Lease) -> None:
    """Merge the members that changed since the last sync; the next sync fetches them once more, as after a webhook."""
    checkpoint = await ctx.store.read(checkpoints.load, audience.list_id)
    last = checkpoint.last_sync(audience.clock, datetime.now(UTC))
    since = last - timedelta(seconds=ctx.settings.sync.overlap_seconds) if last else None
    client = ctx.clients.client_for(audience.api_key)
    pages = client.iter_member_pages(audience.list_id, since=since, count=ctx.sizes.members_per_page)
    try:
        async for page in pages:
            merged = await ctx.store.write(_merge, audience, lease, page.members, client.skew())
            if merged.possible_renames:
                moved = await find_moved(client, audience.list_id, merged.possible_renames)
                left = [one for one in page.members if one.get("id") in merged.possible_renames]
                await ctx.store.write(_merge, audience, lease, left, client.skew(), moved)
    finally:
        await pages.aclose()


def _merge(
    conn: Connection,
    audience: Audience,
    lease: Lease,
    members: Sequence[Member],
    skew: timedelta,
    moved: Mapping[str, int] | None = None,
) -> Merged:
    checkpoints.lock(conn, audience.list_id)
    merged = merge_page(conn, audience, members, skew=skew, find_renames=moved is None, moved=moved)
    leases.check(conn, lease)
    return merged


# ── The undo itself ─────────────────────────────────────────────────────────────────────────────────────────────────


async def _undo_recorded(
    ctx: SyncContext, audience: Audience, lease: Lease, run_id: int, read_at: datetime, by: Author
) -> Undone:
    """Undo between opening and closing an entry of the run log. Raises SyncError."""
    entry = await ctx.store.write(_open, audience, run_id, by)
    undone = Undone(entry, run_id)
    outcome, error = FAILED, None
    try:
        await _undo_all(ctx, replace(audience, run_id=entry), lease, read_at, undone)
        outcome = FINISHED
    except MailchimpError as failure:
        error = f"Run {run_id} is undone in CiviCRM, but Mailchimp failed ({failure}). What waits is sent later."
        raise MailchimpFailed(error) from failure
    except LeaseLost as failure:
        error = f"{failure} The undo of run {run_id} goes on when it is called again."
        raise SyncError(error) from failure
    except SyncError as failure:
        outcome, error = STOPPED, str(failure)
        raise
    except asyncio.CancelledError:
        outcome = STOPPED
        raise
    finally:
        ended = RunEnd(outcome, {STAGE: dict(undone.counts)}, error)
        await asyncio.shield(ctx.store.write(close_entry, entry, ended))
    return undone


async def _undo_all(ctx: SyncContext, audience: Audience, lease: Lease, read_at: datetime, undone: Undone) -> None:
    """Undo unit by unit, send, and mark the run. Raises SyncError, MailchimpError, LeaseLost."""
    after: int | None = 0
    while after is not None:
        if ctx.stop.is_asked:
            raise SyncError(f"{STOPPING} The undo of run {undone.undoes} goes on when it is called again.")
        part, after = await ctx.store.write(_undo_some, ctx, audience, lease, undone.undoes, read_at, after)
        undone.counts.update(part)
    undone.sent = await resolve_unconfirmed(ctx, audience, lease)
    undone.sent += (await submit_pending(ctx, audience, lease)).updates
    await ctx.store.write(_mark_undone, audience, lease, undone.undoes)


def _open(conn: Connection, audience: Audience, run_id: int, by: Author) -> int:
    return open_entry(conn, audience, by, undoes=run_id)


def _plan_some(
    conn: Connection, audience: Audience, run_id: int, after: int, limit: int
) -> tuple[Sequence[UndoPlan], int | None]:
    """The plans of the next changes, and the id after which to continue; None at the end."""
    changes = next_changes(conn, run_id, after, limit)
    plans = [plan_undo(one) for one in read_undo_facts(conn, audience, run_id, changes)]
    return plans, changes[-1].id if len(changes) == limit else None


def _undo_some(
    conn: Connection, ctx: SyncContext, audience: Audience, lease: Lease, run_id: int, read_at: datetime, after: int
) -> tuple[Counter[str], int | None]:
    """A unit of the undo."""
    checkpoints.lock(conn, audience.list_id)
    with background_work():
        plans, following = _plan_some(conn, audience, run_id, after, ctx.sizes.reconciled_rows_per_unit)
        done = apply_undo(conn, audience, run_id, plans, datetime.now(UTC).replace(microsecond=0), read_at)
    leases.check(conn, lease)
    return Counter(one.kind for one in done if one.kind), following


def _mark_undone(conn: Connection, audience: Audience, lease: Lease, run_id: int) -> None:
    conn.execute(change(run_log).where(run_log.c.id == run_id).values(undone_by=audience.run_id))
    forget_count(conn, audience)
    leases.check(conn, lease)
