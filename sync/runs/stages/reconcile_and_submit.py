"""readyToReconcileQueue and readyToSubmitUpdates: ``todo`` rows are reconciled, and queued updates are sent."""

from sqlalchemy import Connection, select

from civiapi.store.databases.expressions import in_list
from sync.connections.config import clear_trust_override
from sync.model import SyncStatus
from sync.outbox.selection import count_waiting
from sync.outbox.submit import submit_pending
from sync.reconcile.bulk import settle_plain_rows
from sync.reconcile.planning import Watch, reconcile_rows
from sync.runs.progress import done_of
from sync.runs.run import Run, Step, count_rows, next_todo
from sync.store.runs.checkpoints import Cursor
from sync.store.runs.own_rows import forget_recent_contacts
from sync.store.tables import cache


async def reconcile_queue(run: Run) -> None:
    """Plan each ``todo`` row and apply the plan: CiviCRM is changed now, updates for Mailchimp are queued."""
    watch = run.ctx.on_plan

    def reconcile(conn: Connection, step: Step) -> None:
        _reconcile(conn, step, watch)

    await run.repeat(reconcile)


def _reconcile(conn: Connection, step: Step, watch: Watch | None) -> None:
    cursor = step.checkpoint.cursor
    if cursor is None:
        step.total = count_rows(conn, step.audience.list_id, only_todo=True)
        cursor = {"phase": "plain" if watch is None else "each", "after": 0, "rows": 0, "updates": 0}
    if cursor.get("phase") == "plain":  # an earlier version, killed in this stage, left a cursor without a phase
        _reconcile_plain_rows(conn, step, cursor)
    else:
        _reconcile_each(conn, step, cursor, watch)


def _reconcile_plain_rows(conn: Connection, step: Step, cursor: Cursor) -> None:
    rows, _ = next_todo(conn, step.audience, cursor["after"], step.sizes.set_rows_per_unit)
    if rows is None:
        step.continue_from(**cursor | {"phase": "each", "after": 0})
        return
    forget_recent_contacts(conn, step.audience.list_id, step.site_time, rows.of(step.audience))
    applied = settle_plain_rows(conn, step.audience, rows, step.at)
    step.counts.update(applied.as_counts())
    step.continue_from(**cursor | {"after": rows.upto, "rows": cursor["rows"] + applied.rows})


def _reconcile_each(conn: Connection, step: Step, cursor: Cursor, watch: Watch | None) -> None:
    ids = list(
        conn.execute(
            select(cache.c.id)
            .where(
                cache.c.mailchimp_list_id == step.audience.list_id,
                cache.c.sync_status == SyncStatus.TODO,
                cache.c.id > cursor["after"],
            )
            .order_by(cache.c.id)
            .limit(step.sizes.reconciled_rows_per_unit)
        ).scalars()
    )
    forget_recent_contacts(conn, step.audience.list_id, step.site_time, in_list(cache.c.id, ids))
    applied = reconcile_rows(conn, step.audience, ids, step.at, watch)
    step.counts.update(applied.as_counts())
    rows, updates = cursor["rows"] + applied.rows, cursor["updates"] + applied.updates
    if len(ids) == step.sizes.reconciled_rows_per_unit:
        step.continue_from(phase="each", after=ids[-1], rows=rows, updates=updates)
        return
    clear_trust_override(conn, step.audience.list_id, list(step.audience.trust))
    step.log(f"Reconciled {rows} rows; {updates} updates are queued for Mailchimp.")
    step.finish()


async def submit_updates(run: Run) -> None:
    """Send queued updates to Mailchimp in batches; what exceeds the limit in flight follows when batches finish."""
    begun = False

    def expired() -> bool:
        nonlocal begun
        begun, was_begun = True, begun
        return was_begun and run.is_out_of_time()  # one batch is sent however late it is, or none ever would be

    async def sent(updates: int) -> None:
        await run.commit(_sent, updates)

    await run.commit(_begin)
    submitted = await submit_pending(run.ctx, run.audience, run.lease, expired=expired, sent=sent)
    await run.commit(_submitted, submitted.updates, submitted.batches, submitted.left, run.is_out_of_time())


def _begin(conn: Connection, step: Step) -> None:
    step.total = done_of(step.checkpoint, step.checkpoint.stage) + count_waiting(conn, step.audience.list_id)


def _sent(conn: Connection, step: Step, updates: int) -> None:
    step.counts.update(updates=updates, batches=1)


def _submitted(conn: Connection, step: Step, updates: int, batches: int, left: int, out_of_time: bool) -> None:
    step.counts.update(left=left)
    step.log(f"Sent {updates} updates to Mailchimp in {batches} batches.")
    if left and out_of_time:
        return
    step.checkpoint.last_started = step.parameters.started
    step.checkpoint.parameters = None
    step.finish()
