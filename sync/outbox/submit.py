"""Sends waiting updates to Mailchimp in batches, without losing or forgetting any.

A batch row with its updates is committed as ``submitting`` before the POST; the answer gives it Mailchimp's id. A row
left in ``submitting`` has an unknown outcome: `resolve_unconfirmed` looks for the batch at Mailchimp, by its size and
the time in the row, and otherwise sends it again, which every operation allows. Before anything is sent long after that
time, the row gets a new one. Results are applied by ``results``, and ``watcher`` decides when to ask for them.

A member is never in two open batches. Mailchimp keeps no order within a batch or between batches, so an update that
depends on another (tags on the member, the member on its new address) waits here until that one is completed.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from civiapi.store import leases
from civiapi.store.leases import Lease, LeaseLost
from sync.audience import Audience
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.leases import hold_lease
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import MailchimpError
from sync.mailchimp.wire import SKIP_MERGE_VALIDATION, Batch, BatchOperation, body_to_wire, path_segment
from sync.model import OpenUpdate, OperationKind
from sync.outbox.pending_batches import (
    PendingBatch,
    close_batch,
    create_batch,
    delete_batch,
    in_batch,
    known_batch_ids,
    operation_id,
    record_cancelled,
    record_sending,
    record_sent,
    release_batch,
    unconfirmed_batches,
    was_sent_again,
)
from sync.outbox.recheck import (
    complete_unmailable,
    complete_unneeded,
    find_carried_out,
    find_doubtful,
    find_unmailable,
    find_unneeded,
    may_be_unneeded,
    read_known,
)
from sync.outbox.selection import count_ready
from sync.store.batches import PENDING

SEND_TRIES = 3
LOOK_BACK, LOOK_AHEAD = timedelta(minutes=2), timedelta(minutes=15)
"""How far Mailchimp's time of a batch may be from the time in our row."""
OF_NEW_MEMBERS = frozenset({"email_address", "status_if_new"})
"""What an upsert says of a member that is not there. The address may be an old one by now: an upsert would make a
member of it, and a change would set it."""
SAME_TIME = timedelta(minutes=5)
"""What is sent so soon after the time in our row is found by it: all `SEND_TRIES`, if each times out."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Submitted:
    """Updates and batches that were sent, and how many updates could be sent but were left for later."""

    updates: int = 0
    batches: int = 0
    left: int = 0


def _never() -> bool:
    return False


async def submit_pending(
    ctx: SyncContext,
    audience: Audience,
    lease: Lease,
    *,
    cache_ids: Sequence[int] | None = None,
    expired: Callable[[], bool] = _never,
    sent: Callable[[int], Awaitable[None]] | None = None,
) -> Submitted:
    """Send the waiting updates of an audience (or of these rows of it), after resolving unconfirmed batches.

    *sent* is called with the size of each batch. Stops when *expired* returns True or too much of the account is in
    flight; the watcher sends the rest when batches have finished. Raises MailchimpError, LeaseLost; nothing is lost.
    """
    client = ctx.clients.client_for(audience.api_key)
    await resolve_unconfirmed(ctx, audience, lease)
    updates = batches = 0
    while not expired():
        pending = await ctx.store.write(create_batch, ctx, audience, lease, cache_ids)
        if pending is None:
            break
        size = await _send(ctx, client, audience, lease, pending)
        updates, batches = updates + size, batches + bool(size)
        if sent is not None and size:
            await sent(size)
    if batches and ctx.on_queued is not None:
        ctx.on_queued()
    return Submitted(updates, batches, await ctx.store.read(count_ready, audience.list_id, cache_ids))


async def submit_if_free(ctx: SyncContext, audience: Audience) -> int:
    """Send the waiting updates of an audience unless a run holds it; returns how many. Raises SyncError."""
    async with hold_lease(ctx, audience.list_id, brief=True) as lease:
        if lease is None:
            return 0
        try:
            return (await submit_pending(ctx, audience, lease)).updates
        except MailchimpError as error:
            raise MailchimpFailed(f"Audience {audience.list_id}: {error}") from error
        except LeaseLost as error:
            raise SyncError(str(error)) from error


async def resolve_unconfirmed(ctx: SyncContext, audience: Audience, lease: Lease) -> int:
    """Find or send again every batch whose outcome is unknown; returns how many updates were on their way or are now.

    Raises MailchimpError, LeaseLost.
    """
    unconfirmed = await ctx.store.read(unconfirmed_batches, audience.list_id, audience.clock)
    client = ctx.clients.client_for(audience.api_key)
    updates = 0
    for pending in unconfirmed:
        if pending.size == 0:
            await ctx.store.write(delete_batch, lease, pending)
            continue
        found = await find_submitted(ctx, client, pending)
        if found is not None:
            log.info("an unconfirmed batch was found", list_id=pending.list_id, batch_id=found.id)
            await _note_sent(ctx, client, lease, pending, found)
            updates += pending.size
        else:
            updates += await _send(ctx, client, audience, lease, pending, is_again=True)
    return updates


async def find_submitted(ctx: SyncContext, client: MailchimpClient, pending: PendingBatch) -> Batch | None:
    """Mailchimp's batch for a pending one, recognized by time and size; None when there is none.

    Another program's batch of the same size may be mistaken for ours. Its results hold none of our operations, which
    are then sent again as operations without a result.
    """
    candidates = [
        one
        async for one in client.iter_batches()
        if (one.total_operations == pending.size or (one.total_operations == 0 and one.status == PENDING))
        and one.submitted_at is not None
        # the offset is known from the first answer on, which in a new process is this listing's
        and -LOOK_BACK <= one.submitted_at - (client.clock_offset() or timedelta(0)) - pending.since <= LOOK_AHEAD
    ]
    ours = await ctx.store.read(known_batch_ids, [one.id for one in candidates])
    free = [one for one in candidates if one.id not in ours]
    return min(free, key=lambda one: (one.total_operations != pending.size, one.submitted_at, one.id), default=None)


# ── One batch ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def _send(
    ctx: SyncContext,
    client: MailchimpClient,
    audience: Audience,
    lease: Lease,
    pending: PendingBatch,
    *,
    is_again: bool = False,
) -> int:
    """Send a batch and store the answer; with *is_again* it may have been sent before. Returns the updates sent.

    Raises MailchimpError, with the updates waiting again or the batch unconfirmed; LeaseLost, with the batch left to
    the next holder.
    """
    for tries in range(1, SEND_TRIES + 1):
        updates = await _complete_unneeded(ctx, client, audience, lease, pending, is_again)
        if not updates:
            await ctx.store.write(delete_batch, lease, pending)
            return 0
        operations = [_operation(pending, one) for one in updates]
        pending = replace(pending, size=len(operations))
        pending, sent = await _post(ctx, client, lease, pending, operations, is_last=tries == SEND_TRIES)
        if sent is not None:
            await _note_sent(ctx, client, lease, pending, sent)
            return len(operations)
    raise AssertionError("The last try of a batch returns or raises.")


async def _post(
    ctx: SyncContext,
    client: MailchimpClient,
    lease: Lease,
    pending: PendingBatch,
    operations: Sequence[BatchOperation],
    *,
    is_last: bool,
) -> tuple[PendingBatch, Batch | None]:
    """Post operations and return our batch as it is stored now, and Mailchimp's; None where that is not found.

    Raises MailchimpError; with *is_last* also where None would be returned.
    """

    async def make_sure() -> None:
        nonlocal pending
        if timedelta(0) <= datetime.now(UTC) - pending.since <= SAME_TIME:
            await ctx.store.read(leases.check_unlocked, lease)
        else:
            pending = await ctx.store.write(record_sending, lease, pending, ctx.store.clock)
        leases.check_clock(lease)

    try:
        sent: Batch | None = await client.submit_batch(operations, before_send=make_sure)
    except MailchimpError as error:
        if not error.outcome_unknown:
            await ctx.store.write(release_batch, lease, pending)
            raise
        sent = await find_submitted(ctx, client, pending)
        if sent is None and is_last:
            raise
    return pending, sent


async def _complete_unneeded(
    ctx: SyncContext, client: MailchimpClient, audience: Audience, lease: Lease, pending: PendingBatch, is_again: bool
) -> list[OpenUpdate]:
    """Complete updates that are not to be sent any more (``recheck``); returns the rest."""
    updates = await ctx.store.read(in_batch, pending.row_id)
    is_risky = is_again or pending.is_old
    if doubtful := find_doubtful(updates, is_risky=is_risky):
        unmailable = await ctx.store.read(find_unmailable, audience, doubtful)
        sent = [
            one
            for one in doubtful
            if one.cache_id in unmailable and one.operation.decided is None and (is_again or one.tries)
        ]
        done = await find_carried_out(client, audience, sent)
        now, skew = client.now(), client.skew()
        await ctx.store.write(complete_unmailable, audience, lease, pending.row_id, doubtful, done, at=now, skew=skew)
        updates = await ctx.store.read(in_batch, pending.row_id)
    looked_at = may_be_unneeded(updates, is_risky=is_risky)
    known = await ctx.store.read(read_known, audience, looked_at) if looked_at else {}
    unneeded = await find_unneeded(client, audience, looked_at, known)
    if unneeded:
        now, skew = client.now(), client.skew()
        await ctx.store.write(complete_unneeded, audience, lease, pending.row_id, unneeded, at=now, skew=skew)
        updates = await ctx.store.read(in_batch, pending.row_id)
    return updates


async def _note_sent(
    ctx: SyncContext, client: MailchimpClient, lease: Lease, pending: PendingBatch, sent: Batch
) -> None:
    """Store Mailchimp's id of a batch; when the audience was aborted meanwhile, cancel the batch."""
    try:
        await ctx.store.write(record_sent, lease, pending, sent, ctx.store.clock)
    except LeaseLost:
        if await ctx.store.write(record_cancelled, pending, sent):
            await cancel_batch(ctx, client, pending.row_id, sent.id)
        elif await ctx.store.read(was_sent_again, pending, sent):
            await client.delete_batch(sent.id)
        raise


async def cancel_batch(ctx: SyncContext, client: MailchimpClient, row_id: int, batch_id: str) -> None:
    """Cancel a batch at Mailchimp, if it has an id there, and close our row. Raises MailchimpError."""
    if batch_id:
        await client.delete_batch(batch_id)
    await ctx.store.write(close_batch, row_id, ctx.store.clock.now())


def _operation(pending: PendingBatch, one: OpenUpdate) -> BatchOperation:
    operation = one.operation
    path = f"/lists/{path_segment(pending.list_id)}/{operation.path_tail}"
    params = {} if operation.method == "DELETE" or operation.kind == OperationKind.TAGS else SKIP_MERGE_VALIDATION
    method, body = operation.method, body_to_wire(operation.body)
    if method == "PUT" and operation.needs_member:
        method, body = "PATCH", {key: value for key, value in body.items() if key not in OF_NEW_MEMBERS}
    return BatchOperation(method, path, operation_id(pending.row_id, one.id), body or None, params)
