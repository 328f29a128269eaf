"""Calling off all that is under way for an audience: who works on it, its batches, its open updates.

First everything of ours is put to rest in one transaction; then Mailchimp is asked to stop the batches. A batch that
could not be stopped stays to be stopped (``aborting``): the watcher and the next abort try again. What Mailchimp had
carried out already comes back with the next fetch.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy import update as change

from sync import claims, positions
from sync.audience import Audience
from sync.batch_rows import ABORTING, CALLED_OFF, OPEN, BatchRow, read_batch, select_batches
from sync.batches import call_off
from sync.context import SyncContext
from sync.errors import MailchimpFailed
from sync.mailchimp.errors import MailchimpError
from sync.shares import RESULTS
from sync.tables import batch, cache, update

REASON = "Sync was aborted"

log = structlog.get_logger(__name__)


async def abort_sync(ctx: SyncContext, audience: Audience) -> int:
    """Put the audience to rest and cancel its unfinished batches; returns how many updates were called off.

    May be repeated. Raises MailchimpFailed when batches could not be cancelled: everything else is done, and they are
    cancelled later.
    """
    called_off = await ctx.store.write(_put_to_rest, audience)
    try:
        await cancel_batches(ctx, audience)
    except MailchimpError as error:
        raise MailchimpFailed(
            f"The sync was aborted, but not every batch could be cancelled yet; this is tried again. {error}"
        ) from error
    return called_off


async def cancel_batches(ctx: SyncContext, audience: Audience) -> None:
    """Have Mailchimp stop every batch of the audience that was called off here; gone already is as good.

    A batch whose id never reached us is not looked for: to take another program's for ours and stop it would be worse
    than to let ours run. Raises MailchimpError when one could not be stopped; the others were tried.
    """
    client = ctx.clients.client_for(audience.api_key)
    failed: MailchimpError | None = None
    for row in await ctx.store.read(to_cancel, [audience.list_id]):
        try:
            await call_off(ctx, client, row.id, row.batch_id)
        except MailchimpError as error:
            log.warning("a batch could not be cancelled yet", batch_id=row.batch_id, error=str(error))
            failed = error
    if failed is not None:
        raise failed


def to_cancel(conn: Connection, list_ids: Sequence[str]) -> list[BatchRow]:
    """The batches of these audiences that were called off and may still run at Mailchimp."""
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
"""Made once: the watcher asks it whenever it looks."""


def _put_to_rest(conn: Connection, audience: Audience) -> int:
    for name in (audience.list_id, RESULTS + audience.list_id):
        claims.withdraw(conn, name)
    position = positions.load(conn, audience.list_id, for_update=True)
    position.move_to(positions.READY_TO_FETCH)
    position.question = None
    position.brake = None
    position.fetch = {**position.fetch, "offset": 0}
    position.say(audience.clock.now(), "Abort!")
    positions.save(conn, position)
    count = _fail_open(conn, audience.list_id)
    conn.execute(
        change(batch)
        .where(
            batch.c.mailchimp_list_id == audience.list_id,
            batch.c.response_processed.in_(OPEN),
            func.coalesce(batch.c.status, "").not_in(CALLED_OFF),
        )
        .values(status=ABORTING)
    )
    return count


def _fail_open(conn: Connection, list_id: str) -> int:
    """Complete every open update of the audience with the reason; their rows fail."""
    mine = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id)
    owing = select(update.c.mailchimpsync_cache_id).where(
        update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(mine)
    )
    owing_ids = select(owing.subquery().c.mailchimpsync_cache_id)
    conn.execute(change(cache).where(cache.c.id.in_(owing_ids)).values(sync_status="fail"))
    called_off = conn.execute(
        change(update)
        .where(update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(mine))
        .values(completed=1, error_response=REASON)
    )
    return called_off.rowcount
