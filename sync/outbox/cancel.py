"""Aborts the sync of an audience: its leases, batches and open updates.

Our own rows are changed in one transaction; then Mailchimp is asked to cancel the batches. A batch that could not be
cancelled keeps the status ``aborting``, and the watcher and the next abort try again. Operations that Mailchimp had
carried out already come back with the next fetch.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.author import Author
from sync.audience import Audience
from sync.connections.connection_share import RESULTS
from sync.context import SyncContext
from sync.errors import MailchimpFailed
from sync.mailchimp.errors import MailchimpError
from sync.model import BatchRow, SyncStatus
from sync.outbox.submit import cancel_batch
from sync.store.batches import ABORTING, CANCELLED, OPEN, read_batch, select_batches
from sync.store.events import ABORT, BY_SYNC, record
from sync.store.runs import checkpoints
from sync.store.runs.data_due import note_cancelled
from sync.store.tables import batch, cache, update

REASON = "Sync was aborted"

log = structlog.get_logger(__name__)


async def abort_sync(ctx: SyncContext, audience: Audience, by: Author = BY_SYNC) -> int:
    """Reset the audience and cancel its open updates and batches, as *by* asks; returns how many updates that were.

    May be repeated. Raises MailchimpFailed when batches could not be cancelled; all else is done, and they are
    cancelled later.
    """
    cancelled = await ctx.store.write(_abort, audience, by)
    try:
        await cancel_batches(ctx, audience)
    except MailchimpError as error:
        raise MailchimpFailed(
            f"The sync was aborted, but not every batch could be cancelled yet; this is tried again. {error}"
        ) from error
    return cancelled


async def cancel_batches(ctx: SyncContext, audience: Audience) -> None:
    """Cancel at Mailchimp every batch of the audience that was aborted here.

    A batch whose id never reached us is not looked for: cancelling another program's batch by mistake would be worse
    than letting ours run. Raises MailchimpError when one could not be cancelled, after trying the others.
    """
    client = ctx.clients.client_for(audience.api_key)
    failed: MailchimpError | None = None
    for row in await ctx.store.read(batches_to_cancel, [audience.list_id]):
        try:
            await cancel_batch(ctx, client, row.id, row.batch_id)
        except MailchimpError as error:
            log.warning("a batch could not be cancelled yet", batch_id=row.batch_id, error=str(error))
            failed = error
    if failed is not None:
        raise failed


def batches_to_cancel(conn: Connection, list_ids: Sequence[str]) -> list[BatchRow]:
    """The batches of these audiences that were aborted and may still run at Mailchimp."""
    return [read_batch(row) for row in conn.execute(_TO_CANCEL, {"list_ids": list_ids})]


_TO_CANCEL = (
    select_batches()
    .where(
        batch.c.mailchimp_list_id.in_(bindparam("list_ids", expanding=True)),
        batch.c.response_processed.in_(OPEN),
        batch.c.status == ABORTING,
    )
    .order_by(batch.c.id)
)
"""Built once: the watcher runs it at every check."""


def _abort(conn: Connection, audience: Audience, by: Author) -> int:
    for name in (audience.list_id, RESULTS + audience.list_id):
        leases.revoke(conn, name)
    checkpoint = checkpoints.load(conn, audience.list_id, for_update=True)
    checkpoint.move_to(checkpoints.READY_TO_FETCH)
    checkpoint.parameters = None
    checkpoint.brake = None
    checkpoint.is_held = checkpoint.is_held_elsewhere = checkpoint.repeats_fetch = False
    checkpoint.fetch = {**checkpoint.fetch, "offset": 0}
    checkpoint.add_log_line(audience.clock.now(), "Abort!")
    checkpoints.save(conn, checkpoint)
    count = _fail_open(conn, audience.list_id)
    updates = f" {count:,} updates were cancelled." if count else ""
    record(conn, ABORT, audience.list_id, f"The sync was aborted.{updates}", by)
    conn.execute(
        change(batch)
        .where(
            batch.c.mailchimp_list_id == audience.list_id,
            batch.c.response_processed.in_(OPEN),
            func.coalesce(batch.c.status, "").not_in(CANCELLED),
        )
        .values(status=ABORTING)
    )
    return count


def _fail_open(conn: Connection, list_id: str) -> int:
    """Complete every open update of the audience with the reason and mark its row as failed."""
    mine = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id)
    owing = select(update.c.mailchimpsync_cache_id).where(
        update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(mine)
    )
    owing_ids = select(owing.subquery().c.mailchimpsync_cache_id)
    conn.execute(change(cache).where(cache.c.id.in_(owing_ids)).values(sync_status=SyncStatus.FAIL))
    note_cancelled(conn, owing_ids)
    cancelled = conn.execute(
        change(update)
        .where(update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(mine))
        .values(completed=1, error_response=REASON)
    )
    return cancelled.rowcount
