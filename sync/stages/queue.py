"""readyToReconcileQueue and readyToSubmitUpdates: each row that is to be thought about is, and what is owed is sent."""

from sqlalchemy import Connection, select

from sync.apply import apply_plans
from sync.batches import submit_pending
from sync.config import clear_trust_override
from sync.context import OnPlan
from sync.facts import facts_for
from sync.kinds import kind_of
from sync.matching import Range
from sync.plain_rows import settle_plain_rows
from sync.positions import Cursor
from sync.progress import done_of
from sync.ready import count_waiting
from sync.reconcile import plan
from sync.stages.base import ROWS_A_BIT, ROWS_A_SET, Run, Step, count_rows, next_bound
from sync.tables import cache

ROWS_A_LOOK = ROWS_A_BIT // 2  # judging takes longest of all: a webhook may be waiting for the one writer


async def reconcile_queue(run: Run) -> None:
    """Decide about each row that is ``todo``: CiviCRM is changed now, what Mailchimp is owed is written down."""
    watch = run.ctx.on_plan

    def reconcile(conn: Connection, step: Step) -> None:
        _reconcile(conn, step, watch)

    await run.repeat(reconcile)


def _reconcile(conn: Connection, step: Step, watch: OnPlan | None) -> None:
    cursor = step.position.cursor
    if cursor is None:
        step.total = count_rows(conn, step.audience.list_id, only_todo=True)
        cursor = {"phase": "plain" if watch is None else "each", "after": 0, "rows": 0, "updates": 0}
    if cursor.get("phase") == "plain":  # an earlier version, killed in this stage, left a place without a phase
        _settle_plain(conn, step, cursor)
    else:
        _look_at_each(conn, step, cursor, watch)


def _settle_plain(conn: Connection, step: Step, cursor: Cursor) -> None:
    upto, _ = next_bound(conn, step.audience, cursor["after"], ROWS_A_SET, only_todo=True)
    if upto is None:
        step.stay(**cursor | {"phase": "each", "after": 0})
        return
    applied = settle_plain_rows(conn, step.audience, Range(cursor["after"], upto, only_todo=True), step.at)
    step.counts.update(applied.as_counts())
    step.stay(**cursor | {"after": upto, "rows": cursor["rows"] + applied.rows})


def _look_at_each(conn: Connection, step: Step, cursor: Cursor, watch: OnPlan | None) -> None:
    ids = list(
        conn.execute(
            select(cache.c.id)
            .where(
                cache.c.mailchimp_list_id == step.audience.list_id,
                cache.c.sync_status == "todo",
                cache.c.id > cursor["after"],
            )
            .order_by(cache.c.id)
            .limit(ROWS_A_LOOK)
        ).scalars()
    )
    plans = [plan(one, step.audience) for one in facts_for(conn, step.audience, ids, lean=True)]
    if watch is not None:
        for one in plans:
            watch(conn, one, kind_of(one))
    applied = apply_plans(conn, step.audience, plans, step.at)
    step.counts.update(applied.as_counts())
    rows, updates = cursor["rows"] + applied.rows, cursor["updates"] + applied.updates
    if len(ids) == ROWS_A_LOOK:
        step.stay(phase="each", after=ids[-1], rows=rows, updates=updates)
        return
    clear_trust_override(conn, step.audience.list_id, list(step.audience.trust))
    step.say(f"Looked at {rows} rows; {updates} updates are owed to Mailchimp.")
    step.finish()


async def submit_updates(run: Run) -> None:
    """Hand what is owed to Mailchimp in batches. What does not fit now goes when batches have finished."""
    begun = False

    def expired() -> bool:
        nonlocal begun
        begun, was_begun = True, begun
        return was_begun and run.is_out_of_time()  # one batch goes however late it is, or nothing ever would

    async def sent(updates: int) -> None:
        await run.commit(_sent, updates)

    await run.commit(_begin)
    submitted = await submit_pending(run.ctx, run.audience, run.claim, expired=expired, sent=sent)
    await run.commit(_submitted, submitted.updates, submitted.batches, submitted.left, run.is_out_of_time())


def _begin(conn: Connection, step: Step) -> None:
    step.total = done_of(step.position, step.position.stage) + count_waiting(conn, step.audience.list_id)


def _sent(conn: Connection, step: Step, updates: int) -> None:
    step.counts.update(updates=updates, batches=1)


def _submitted(conn: Connection, step: Step, updates: int, batches: int, left: int, out_of_time: bool) -> None:
    step.counts.update(left=left)
    step.say(f"Sent {updates} updates to Mailchimp in {batches} batches.")
    if left and out_of_time:
        return
    step.position.last_started = step.question.started
    step.position.question = None
    step.finish()
