"""The rows of batches that are being sent: created before the POST, completed with Mailchimp's id or released after it.

Functions are one step of a unit each. No Mailchimp here: ``submit`` sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, String, bindparam, delete, func, insert, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.leases import Lease
from sync.audience import Audience
from sync.context import SyncContext
from sync.mailchimp.wire import Batch
from sync.model import OpenUpdate, OperationKind, SyncStatus
from sync.outbox.selection import has_room, select_ready
from sync.store.batches import ABORTED, ABORTING, CANCELLED, NOT_PROCESSED, PENDING, PROCESSED, SUBMITTING
from sync.store.members.cache import note_sent
from sync.store.members.member_merge import Sent
from sync.store.runs import checkpoints
from sync.store.sync_status import set_sync_status
from sync.store.tables import batch, update
from sync.store.updates import read_update, select_updates

OLD = timedelta(minutes=15)
"""After this, a fetch is out of date: members are fetched again before a status of theirs is changed."""


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch row that is not sent yet, or whose outcome is unknown. *since* is the stored time by which it is found.

    *is_old*: the last fetch began so long ago that members may have changed since.
    """

    row_id: int
    list_id: str
    since: datetime
    size: int
    is_old: bool = False


def unconfirmed_batches(conn: Connection, list_id: str, clock: SiteClock) -> list[PendingBatch]:
    """The batches of an audience that were sent without an answer, oldest first."""
    rows = conn.execute(_UNKNOWN, {"list_id": list_id})
    return [PendingBatch(row.id, list_id, clock.read(row.submitted_at) or datetime.now(UTC), row.size) for row in rows]


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
"""Built once: the watcher runs it at every check."""


def in_batch(conn: Connection, row_id: int) -> list[OpenUpdate]:
    """The open updates of one of our batches, oldest first."""
    rows = conn.execute(select_updates().where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0))
    return [read_update(row) for row in rows]


def operation_id(row_id: int, update_id: int) -> str:
    """The id by which a result is matched with its update: our batch row and the update."""
    return f"civiapi-{row_id}-{update_id}"


def create_batch(
    conn: Connection, ctx: SyncContext, audience: Audience, lease: Lease, cache_ids: Sequence[int] | None
) -> PendingBatch | None:
    """Put the next updates that can be sent into a batch row; None when there are none or no room."""
    if cache_ids is None and not has_room(conn, audience, ctx.sizes):
        return None
    ready = select_ready(cache_ids).limit(ctx.settings.mailchimp.batch_size).subquery()
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
            (one.cache_id, Sent.from_body(one.operation.body, one.operation.cause))
            for one in updates
            if one.operation.kind_group == OperationKind.MEMBER
        ],
    )
    cache_ids_sent = [one.cache_id for one in updates]
    set_sync_status(conn, cache_ids_sent, SyncStatus.LIVE, only=(SyncStatus.OK, SyncStatus.REDO))
    is_old = cache_ids is None and _is_old(conn, audience.list_id, since)
    leases.check(conn, lease)
    return PendingBatch(row_id, audience.list_id, since, len(updates), is_old)


def _is_old(conn: Connection, list_id: str, now: datetime) -> bool:
    """Whether the fetch that these updates follow from began long ago: the run was stopped, or they had to wait."""
    checkpoint = checkpoints.load(conn, list_id)
    began = checkpoint.parameters.started if checkpoint.parameters is not None else checkpoint.last_started
    return began is not None and now - datetime.fromtimestamp(began, UTC) > OLD


def record_sending(conn: Connection, lease: Lease, pending: PendingBatch, clock: SiteClock) -> PendingBatch:
    """Store that a batch is sent now, long after its stored time: one whose answer is lost is found by it.

    Raises LeaseLost.
    """
    since = datetime.now(UTC)
    conn.execute(
        change(batch)
        .where(batch.c.id == pending.row_id, batch.c.status == SUBMITTING)
        .values(submitted_at=clock.write(since))
    )
    leases.check(conn, lease)
    return replace(pending, since=since)


def release_batch(conn: Connection, lease: Lease, pending: PendingBatch) -> None:
    """Delete a batch that Mailchimp refused, and queue its updates again. Raises LeaseLost."""
    conn.execute(
        change(update).where(update.c.mailchimpsync_batch_id == pending.row_id).values(mailchimpsync_batch_id=None)
    )
    delete_batch(conn, lease, pending)


def delete_batch(conn: Connection, lease: Lease, pending: PendingBatch) -> None:
    """Delete a batch that was not sent; its updates are not touched. Raises LeaseLost."""
    conn.execute(delete(batch).where(batch.c.id == pending.row_id, batch.c.status == SUBMITTING))
    leases.check(conn, lease)


def record_sent(conn: Connection, lease: Lease, pending: PendingBatch, sent: Batch, clock: SiteClock) -> None:
    """Store Mailchimp's id and status of a batch that it accepted. Raises LeaseLost."""
    conn.execute(
        change(batch)
        .where(batch.c.id == pending.row_id, batch.c.status == SUBMITTING)
        .values(
            mailchimp_batch_id=sent.id,
            status=sent.status or PENDING,
            submitted_at=clock.write(sent.submitted_at or pending.since),
        )
    )
    leases.check(conn, lease)


def record_cancelled(conn: Connection, pending: PendingBatch, sent: Batch) -> bool:
    """Store the id of a batch that was cancelled while it was being sent; False when it was not."""
    noted = conn.execute(
        change(batch)
        .where(batch.c.id == pending.row_id, batch.c.status.in_(CANCELLED))
        .values(mailchimp_batch_id=sent.id, status=ABORTING)
    )
    return noted.rowcount == 1


def was_sent_again(conn: Connection, pending: PendingBatch, sent: Batch) -> bool:
    """Whether the next lease holder did not find this batch and sent it again, so that ours is one too many."""
    known = conn.execute(select(batch.c.mailchimp_batch_id).where(batch.c.id == pending.row_id)).scalar_one_or_none()
    return bool(known) and not known_batch_ids(conn, [sent.id])


def close_batch(conn: Connection, row_id: int, at: str) -> None:
    """Store that a batch was aborted at *at* (site time); it has no results to apply."""
    conn.execute(
        change(batch).where(batch.c.id == row_id).values(status=ABORTED, response_processed=PROCESSED, completed_at=at)
    )


def _link(conn: Connection, update_ids: Sequence[int], row_id: int) -> None:
    conn.execute(change(update).where(in_list(update.c.id, update_ids)).values(mailchimpsync_batch_id=row_id))


def known_batch_ids(conn: Connection, batch_ids: Sequence[str]) -> set[str]:
    """Those of Mailchimp's batch ids that are stored."""
    return set(
        conn.execute(select(batch.c.mailchimp_batch_id).where(in_list(batch.c.mailchimp_batch_id, batch_ids))).scalars()
    )
