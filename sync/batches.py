"""Updates owed, handed to Mailchimp in batches, so that whatever is lost on the way is found again.

A batch row with its updates is committed as ``submitting`` before the POST; the answer gives it Mailchimp's id. A row
still ``submitting`` afterwards is a question: did Mailchimp get it? `settle_unknown` looks for it among the account's
recent batches and otherwise sends it again, which every operation survives. What became of the operations is
`results`' business, and when to ask for it is `watcher`'s.

What a newcomer trips over: one member is never in two open batches. Mailchimp keeps no order inside a batch and
promises none between batches, so whatever depends on something (tags on the member, the member on its new address)
waits here until that is completed, not merely sent.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import (
    Connection,
    String,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy import update as change

from civiapi.store.clock import SiteClock
from civiapi.store.dialect import among
from sync import claims, positions
from sync.audience import Audience
from sync.batch_rows import ABORTED, ABORTING, CALLED_OFF, NOT_PROCESSED, PENDING, PROCESSED, SUBMITTING
from sync.cache import note_sent
from sync.claims import Claim, ClaimLost
from sync.context import SyncContext
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import MailchimpError
from sync.mailchimp.wire import SKIP_MERGE_VALIDATION, Batch, BatchOperation, path_segment
from sync.merging import Sent
from sync.ready import count_ready, has_room, select_ready
from sync.resending import find_overruled, take_out
from sync.skew import steady_skew
from sync.tables import batch, cache, update
from sync.updates import CHUNK, OpenUpdate, read_update, select_updates

SEND_TRIES = 3
OLD = timedelta(minutes=15)
"""After this, what a fetch told is no longer taken for the present: whoever would join is looked at first."""

LOOK_BACK, LOOK_AHEAD = timedelta(minutes=2), timedelta(minutes=15)
"""How far the time Mailchimp gives a batch may be from when we sent it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submit did: updates and batches handed over, and how many updates could go but were left for later."""

    updates: int = 0
    batches: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch row that is not sent yet, or of which we do not know. *since* is when it was first tried.

    *is_old*: Mailchimp was last looked at so long ago that people may have left since.
    """

    row_id: int
    list_id: str
    since: datetime
    size: int
    is_old: bool = False


def _never() -> bool:
    return False


async def submit_pending(
    ctx: SyncContext,
    audience: Audience,
    claim: Claim,
    *,
    cache_ids: Sequence[int] | None = None,
    expired: Callable[[], bool] = _never,
    sent: Callable[[int], Awaitable[None]] | None = None,
) -> Submitted:
    """Hand over what waits for an audience (or for these rows of it), and first settle what is unknown.

    *sent* is told the size of each batch once Mailchimp has it. Stops when *expired* says so or the account's window is
    full; what is left goes when batches have finished (the watcher sees to that). Raises MailchimpError when Mailchimp
    does not take them, ClaimLost; nothing is lost by either.
    """
    client = ctx.clients.client_for(audience.api_key)
    await settle_unknown(ctx, audience, claim)
    updates = batches = 0
    while not expired():
        parcel = await ctx.store.write(_pack, audience, claim, ctx.options.batch_size, cache_ids)
        if parcel is None:
            break
        await _send(ctx, client, audience, claim, parcel)
        updates, batches = updates + parcel.size, batches + 1
        if sent is not None:
            await sent(parcel.size)
    if batches and ctx.on_queued is not None:
        ctx.on_queued()
    return Submitted(updates, batches, await ctx.store.read(count_ready, audience.list_id, cache_ids))


async def settle_unknown(ctx: SyncContext, audience: Audience, claim: Claim) -> int:
    """Find out about every batch of which we do not know whether Mailchimp got it; returns how many there were.

    Raises MailchimpError while that cannot be found out, ClaimLost.
    """
    parcels = await ctx.store.read(unknown_parcels, audience.list_id, audience.clock)
    client = ctx.clients.client_for(audience.api_key)
    for parcel in parcels:
        if parcel.size == 0:
            await ctx.store.write(_forget, claim, parcel)
            continue
        found = await find_submitted(ctx, client, parcel)
        if found is not None:
            log.info("a batch whose answer was lost was found", list_id=parcel.list_id, batch_id=found.id)
            await _note_sent(ctx, client, claim, parcel, found)
        else:
            await _send(ctx, client, audience, claim, parcel, is_again=True)
    return len(parcels)


async def find_submitted(ctx: SyncContext, client: MailchimpClient, parcel: Parcel) -> Batch | None:
    """The batch that Mailchimp made of a parcel, told by its time and size; None when it made none.

    Another program's batch of the same size may be taken for ours. Then its results hold none of our operations, and
    these are sent again as operations without a result.
    """
    sent = parcel.since + (client.clock_offset() or timedelta(0))
    candidates = [
        one
        async for one in client.iter_recent_batches(sent - LOOK_BACK)
        if (one.total_operations == parcel.size or (one.total_operations == 0 and one.status == PENDING))
        and one.submitted_at is not None
        and one.submitted_at <= sent + LOOK_AHEAD
    ]
    ours = await ctx.store.read(_known_ids, [one.id for one in candidates])
    free = [one for one in candidates if one.id not in ours]
    return min(free, key=lambda one: (one.total_operations != parcel.size, one.submitted_at, one.id), default=None)


def unknown_parcels(conn: Connection, list_id: str, clock: SiteClock) -> list[Parcel]:
    """The batches of an audience that were tried and never answered, oldest first."""
    rows = conn.execute(_UNKNOWN, {"list_id": list_id})
    return [Parcel(row.id, list_id, clock.read(row.submitted_at) or datetime.now(UTC), row.size) for row in rows]


_LIST_ID = bindparam("list_id", type_=String())
_UNKNOWN = (
    select(batch.c.id, batch.c.submitted_at, func.count(update.c.id).label("size"))
    .outerjoin(update, (update.c.mailchimpsync_batch_id == batch.c.id) & (update.c.completed == 0))
    .where(
        batch.c.mailchimp_list_id == _LIST_ID,
        batch.c.response_processed == NOT_PROCESSED,
        batch.c.status == SUBMITTING,
    )
    .group_by(batch.c.id, batch.c.submitted_at)
    .order_by(batch.c.id)
)
"""Made once, as `_ALL_READY` is: the watcher asks them whenever it looks."""


def in_batch(conn: Connection, row_id: int) -> list[OpenUpdate]:
    """The open updates of one of our batches, at most a batch's worth, oldest first."""
    rows = conn.execute(select_updates().where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0))
    return [read_update(row) for row in rows]


def operation_id(row_id: int, update_id: int) -> str:
    """What ties a result back to its update: our batch row and the update."""
    return f"civiapi-{row_id}-{update_id}"


# ── One parcel ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def _send(
    ctx: SyncContext,
    client: MailchimpClient,
    audience: Audience,
    claim: Claim,
    parcel: Parcel,
    *,
    is_again: bool = False,
) -> None:
    """Post a parcel and note the answer; with *is_again* it may have been posted before.

    Raises MailchimpError: the updates wait again, or the outcome is unknown; ClaimLost, where whoever has the claim now
    finds out about it.
    """

    async def make_sure() -> None:
        await ctx.store.read(claims.look, claim)
        claims.look_at_clock(claim)

    updates = await _take_out_overruled(ctx, client, audience, claim, parcel, is_again)
    if not updates:
        await ctx.store.write(_forget, claim, parcel)
        return
    operations = [_operation(parcel, one) for one in updates]
    parcel = replace(parcel, size=len(operations))
    for attempt in range(1, SEND_TRIES + 1):
        try:
            sent = await client.submit_batch(operations, make_sure=make_sure)
        except MailchimpError as error:
            if not error.outcome_unknown:
                await ctx.store.write(_unpack, claim, parcel)
                raise
            found = await find_submitted(ctx, client, parcel)
            if found is None and attempt == SEND_TRIES:
                raise
            if found is None:
                continue
            sent = found
        await _note_sent(ctx, client, claim, parcel, sent)
        return


async def _take_out_overruled(
    ctx: SyncContext, client: MailchimpClient, audience: Audience, claim: Claim, parcel: Parcel, is_again: bool
) -> list[OpenUpdate]:
    """Take out whom the parcel would bring back although they left since their update was sent; returns the rest."""
    updates = await ctx.store.read(in_batch, parcel.row_id)
    is_risky = is_again or parcel.is_old
    overruled = await find_overruled(client, audience, [one for one in updates if is_risky or one.tries])
    if overruled:
        await ctx.store.write(take_out, audience, claim, parcel.row_id, overruled, steady_skew(client.clock_offset()))
        updates = await ctx.store.read(in_batch, parcel.row_id)
    return updates


async def _note_sent(ctx: SyncContext, client: MailchimpClient, claim: Claim, parcel: Parcel, sent: Batch) -> None:
    """Write down Mailchimp's id for a parcel; when the audience was aborted meanwhile, call the batch off."""
    try:
        await ctx.store.write(_record, claim, parcel, sent, ctx.store.clock)
    except ClaimLost:
        if await ctx.store.write(_record_called_off, parcel, sent):
            await call_off(ctx, client, parcel.row_id, sent.id)
        elif await ctx.store.read(_was_sent_again, parcel, sent):
            await client.delete_batch(sent.id)
        raise


async def call_off(ctx: SyncContext, client: MailchimpClient, row_id: int, batch_id: str) -> None:
    """Have Mailchimp stop a batch that was called off here, if it knows it at all. Raises MailchimpError."""
    if batch_id:
        await client.delete_batch(batch_id)
    await ctx.store.write(_close, row_id, ctx.store.clock.now())


def _operation(parcel: Parcel, one: OpenUpdate) -> BatchOperation:
    wanted = one.wanted
    path = f"/lists/{path_segment(parcel.list_id)}/{wanted.path_tail}"
    params = {} if wanted.method == "DELETE" or wanted.kind == "tags" else SKIP_MERGE_VALIDATION
    return BatchOperation(wanted.method, path, operation_id(parcel.row_id, one.id), wanted.body or None, params)


def _pack(
    conn: Connection, audience: Audience, claim: Claim, size: int, cache_ids: Sequence[int] | None
) -> Parcel | None:
    """Put the next updates that may go into a batch row of their own; None when there are none, or no room."""
    if cache_ids is None and not has_room(conn, audience):
        return None
    ready = select_ready(cache_ids).limit(size).subquery()
    next_ones = select_updates().where(update.c.id.in_(select(ready.c.id)))
    rows = conn.execute(next_ones, {"list_id": audience.list_id}).all()
    updates = [read_update(row) for row in rows]
    if not updates:
        return None
    since = datetime.now(UTC)
    made = conn.execute(
        insert(batch).values(
            mailchimp_list_id=audience.list_id,
            status=SUBMITTING,
            submitted_at=audience.clock.write(since),
            total_operations=len(updates),
        )
    )
    row_id = int(made.lastrowid)
    _link(conn, [one.id for one in updates], row_id)
    note_sent(
        conn,
        audience,
        [
            (one.cache_id, Sent.from_body(one.wanted.body, one.wanted.cause))
            for one in updates
            if one.wanted.slot == "member"
        ],
    )
    _set_live(conn, [one.cache_id for one in updates])
    is_old = cache_ids is None and _is_old(conn, audience.list_id, since)
    claims.check(conn, claim)
    return Parcel(row_id, audience.list_id, since, len(updates), is_old)


def _is_old(conn: Connection, list_id: str, now: datetime) -> bool:
    """Whether the fetch these updates were decided by began long ago: the run was stopped, or they had to wait."""
    position = positions.load(conn, list_id)
    began = position.question.started if position.question is not None else position.last_started
    return began is not None and now - datetime.fromtimestamp(began, UTC) > OLD


def _unpack(conn: Connection, claim: Claim, parcel: Parcel) -> None:
    """Mailchimp surely did not take the parcel: its updates wait again."""
    conn.execute(
        change(update).where(update.c.mailchimpsync_batch_id == parcel.row_id).values(mailchimpsync_batch_id=None)
    )
    _forget(conn, claim, parcel)


def _forget(conn: Connection, claim: Claim, parcel: Parcel) -> None:
    conn.execute(delete(batch).where(batch.c.id == parcel.row_id, batch.c.status == SUBMITTING))
    claims.check(conn, claim)


def _record(conn: Connection, claim: Claim, parcel: Parcel, sent: Batch, clock: SiteClock) -> None:
    conn.execute(
        change(batch)
        .where(batch.c.id == parcel.row_id, batch.c.status == SUBMITTING)
        .values(
            mailchimp_batch_id=sent.id,
            status=sent.status or PENDING,
            submitted_at=clock.write(sent.submitted_at or parcel.since),
        )
    )
    claims.check(conn, claim)


def _record_called_off(conn: Connection, parcel: Parcel, sent: Batch) -> bool:
    """Keep the id of a batch that was called off while it was on its way; False when it was not."""
    noted = conn.execute(
        change(batch)
        .where(batch.c.id == parcel.row_id, batch.c.status.in_(CALLED_OFF))
        .values(mailchimp_batch_id=sent.id, status=ABORTING)
    )
    return noted.rowcount == 1


def _was_sent_again(conn: Connection, parcel: Parcel, sent: Batch) -> bool:
    """Whether the next holder did not find this batch of ours and sent the parcel again: nobody waits for ours then."""
    known = conn.execute(select(batch.c.mailchimp_batch_id).where(batch.c.id == parcel.row_id)).scalar_one_or_none()
    return bool(known) and not _known_ids(conn, [sent.id])


def _close(conn: Connection, row_id: int, at: str) -> None:
    conn.execute(
        change(batch).where(batch.c.id == row_id).values(status=ABORTED, response_processed=PROCESSED, completed_at=at)
    )


def _link(conn: Connection, update_ids: Sequence[int], row_id: int) -> None:
    for start in range(0, len(update_ids), CHUNK):
        part = update_ids[start : start + CHUNK]
        conn.execute(change(update).where(among(update.c.id, part)).values(mailchimpsync_batch_id=row_id))


def _set_live(conn: Connection, cache_ids: Sequence[int]) -> None:
    """What was put in a batch is under way, a compliance retry (``redo``) as well."""
    for start in range(0, len(cache_ids), CHUNK):
        part = cache_ids[start : start + CHUNK]
        conn.execute(
            change(cache)
            .where(among(cache.c.id, part), cache.c.sync_status.in_(("ok", "redo")))
            .values(sync_status="live")
        )


def _known_ids(conn: Connection, batch_ids: Sequence[str]) -> set[str]:
    return set(
        conn.execute(select(batch.c.mailchimp_batch_id).where(among(batch.c.mailchimp_batch_id, batch_ids))).scalars()
    )
