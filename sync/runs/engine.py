"""Runs one audience through its stages, under a lease, until a deadline.

A sync from top to bottom:

    SyncService.fetch_and_reconcile      one call: which audiences, for how long
      Runner.sync, Runner.visit          each audience as a task of its own, in turn or shared with other processes
        run_audience                     takes the audience's lease, or answers "busy"
          resume_braked_run              a run that the brake stopped: continued with a confirmation, else restarted
          _run_stages                    from the stage of the last commit on, each stage of `STAGES`:
            Stage.before                   a check before the stage begins: the brake, before readyToReconcileQueue
            Stage.work                     units of work, each one transaction together with its checkpoint
          _note_end_counts               members and group contacts for the daily figures
        after-run work                   counts of large audiences, missing webhooks, expired plans

Whatever ends a run (deadline, error, lost lease, cancellation), the checkpoint stays at the last commit, the lease is
released, and the next run continues there.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from civiapi.store import leases
from civiapi.store.author import authored_by
from civiapi.store.errors import ConstraintBroken, NoSuchReference, StoreError
from civiapi.store.leases import LeaseLost
from sync.audience import Audience
from sync.connections.config import has_unseen_changes, note_changes
from sync.connections.linked_groups import with_usable_groups
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncBraked, SyncError
from sync.leases import hold_lease
from sync.mailchimp.errors import BadKey, InvalidApiKey, MailchimpError
from sync.runs.brake import resume_braked_run
from sync.runs.progress import UNITS
from sync.runs.run import Run, RunRequest, StageProgress
from sync.runs.stages import STAGES
from sync.store import daily
from sync.store.events import BY_OTHERS, BY_SYNC
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import BUSY_ENTRY, READY_TO_FETCH
from sync.store.runs.run_log import RunEnd, close_entry, open_entry

BUSY_TEXT = f"{BUSY_ENTRY} Will not do anything."
FINISHED, PAUSED, STOPPED, FAILED, BRAKED, BUSY = "finished", "paused", "stopped", "failed", "braked", "busy"

_STAGES = {stage.name: stage for stage in STAGES}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: *outcome* is finished, paused (out of time), stopped (as asked) or busy.

    *counts*: what each stage did; *seconds*: how long the run took.
    """

    audience: Audience
    outcome: str
    counts: dict[str, dict[str, int]]
    seconds: float = 0.0

    @property
    def changed_something(self) -> bool:
        """Whether the run changed any row."""
        return _changed_something(self.counts)


async def run_audience(
    ctx: SyncContext,
    audience: Audience,
    request: RunRequest,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> RunOutcome:
    """Sync one audience, or continue its last run, until it is done, out of time or at *request.stop_on*.

    Raises SyncError, whose text names audience, stage and next step.
    """
    if request.force_restart:
        await ctx.store.write(_restart, audience)
    with authored_by(*BY_SYNC):  # what a run writes is the sync's, not the caller's
        return await _run_under_lease(ctx, audience, request, on_progress)


async def _run_under_lease(
    ctx: SyncContext,
    audience: Audience,
    request: RunRequest,
    on_progress: Callable[[StageProgress], None] | None,
) -> RunOutcome:
    async with hold_lease(ctx, audience.list_id) as lease:
        if lease is None:
            await ctx.store.write(_log_busy, audience)
            return RunOutcome(audience, BUSY, {})
        usable = await ctx.store.read(with_usable_groups, audience)
        checkpoint = await ctx.store.read(checkpoints.load, audience.list_id)
        run = Run(ctx, usable, lease, request, checkpoint, on_progress)
        with bound_contextvars(list_id=audience.list_id):
            outcome = await _run_recorded(run)
        return RunOutcome(audience, outcome, run.plain_counts, run.seconds)


async def _run_recorded(run: Run) -> str:
    """Run the stages between opening and closing the entry in the run log; returns how it ended. Raises SyncError."""
    if await run.ctx.store.read(has_unseen_changes):
        await run.ctx.store.write(note_changes, BY_OTHERS)
    entry = await run.ctx.store.write(open_entry, run.audience, run.request.by)
    run.audience = replace(run.audience, run_id=entry)
    outcome, error = FAILED, None
    try:
        await resume_braked_run(run)
        outcome = await _run_stages(run)
        await _note_end_counts(run)
    except MailchimpError as failure:
        error = f"{_stopped_at(run)}: {str(failure).removesuffix('.')}. {_next_step_hint(failure)}"
        await _log(run, error)
        raise MailchimpFailed(error) from failure
    except SyncBraked as failure:
        outcome, error = BRAKED, str(failure)
        raise
    except SyncError as failure:
        error = str(failure)
        await _log(run, error)
        raise
    except LeaseLost as failure:
        error = str(failure)
        raise SyncError(f"{_stopped_at(run)}: {error}") from failure
    except Exception as failure:  # of the store, or a fault of ours: other audiences have their turn all the same
        error = f"{_stopped_at(run)}: {_unexpected(failure)}. The next run continues there."
        await _log(run, error)
        raise SyncError(error) from failure
    except asyncio.CancelledError:
        outcome = STOPPED
        raise
    finally:
        ended = RunEnd(outcome, run.plain_counts, error, _log_of(run))
        await asyncio.shield(run.ctx.store.write(close_entry, entry, ended))
    return outcome


async def _run_stages(run: Run) -> str:
    """Do stage after stage; returns how it ended."""
    while True:
        stage = _STAGES[run.checkpoint.stage]
        if run.request.stop_on == stage.name:
            await _log(run, f"Stopped as requested at step {stage.name}")
            return STOPPED
        started = time.monotonic()
        with bound_contextvars(stage=stage.name):
            if stage.before is not None and run.cursor is None:
                await stage.before(run)
            await stage.work(run)
        _report(run, stage.name, time.monotonic() - started)
        if run.checkpoint.stage == READY_TO_FETCH and run.checkpoint.parameters is None:
            return FINISHED
        if run.is_out_of_time():
            why = "The server stops" if run.ctx.stop.is_asked else "Out of time"
            await _log(run, f"{why} at {run.checkpoint.stage}; the next run continues there.")
            return PAUSED


async def _note_end_counts(run: Run) -> None:
    """Keep the size of both sides for the daily figures; counted again only where this run changed something."""
    ends = await run.ctx.store.read(daily.count_ends, run.audience, recount=_changed_something(run.counts))
    if ends is not None:
        await run.ctx.store.write(_write_end_counts, run, datetime.now(UTC), *ends)


def _write_end_counts(conn: Connection, run: Run, at: datetime, mailchimp: int, civicrm: int) -> None:
    daily.note_ends(conn, run.audience, at, mailchimp, civicrm)
    leases.check(conn, run.lease)


def _changed_something(counts: Mapping[str, Mapping[str, int]]) -> bool:
    return any(of_stage.get(name) for of_stage in counts.values() for name in daily.NEWS)


async def _log(run: Run, message: str) -> None:
    """Add a line to the audience's log; dropped if the lease was lost, because the log is the next holder's then."""
    try:
        await run.commit(lambda conn, step: step.log(message))
    except LeaseLost:
        log.warning("the lease was lost before a log line was written", message=message)


def _log_of(run: Run) -> list[dict[str, str]]:
    """The lines of the audience's log since this run began."""
    began = run.audience.clock.write_epoch(run.began_ms // 1000)
    return [line for line in run.checkpoint.log if line["time"] >= began]


def _stopped_at(run: Run) -> str:
    return f"Audience {run.audience.list_id} stopped at {run.checkpoint.stage}"


def _unexpected(failure: Exception) -> str:
    """Why a run ended that neither Mailchimp nor its configuration stopped."""
    if isinstance(failure, NoSuchReference):
        return "a group or contact was deleted meanwhile"
    if isinstance(failure, ConstraintBroken) and failure.table:
        return f"{failure} in the table {failure.table}"
    if isinstance(failure, StoreError):
        return str(failure)
    log.exception("a run failed unexpectedly")
    return f"an unexpected error ({type(failure).__name__}), of which the server's log has more"


def _next_step_hint(failure: MailchimpError) -> str:
    if isinstance(failure, BadKey | InvalidApiKey):
        return "Store a key that works (Mailchimpsync.updateconfig); the next run continues there."
    return "The next run continues there."


def _report(run: Run, stage: str, seconds: float) -> None:
    counts = dict(run.counts.get(stage, {}))
    if run.ctx.on_stage is not None:
        run.ctx.on_stage(stage, seconds, counts.get(UNITS[stage], 0))
    per_second = round(max(counts.values(), default=0) / seconds) if seconds > 0 else None
    log.info("stage", stage=stage, seconds=round(seconds, 3), per_second=per_second, **counts)


def _restart(conn: Connection, audience: Audience) -> None:
    """Withdraw the audience's lease from its holder and move its checkpoint to the beginning."""
    leases.revoke(conn, audience.list_id)
    checkpoint = checkpoints.load(conn, audience.list_id, for_update=True)
    checkpoint.restart()
    checkpoints.save(conn, checkpoint)


def _log_busy(conn: Connection, audience: Audience) -> None:
    checkpoint = checkpoints.load(conn, audience.list_id, for_update=True)
    checkpoint.add_log_line(audience.clock.now(), BUSY_TEXT)
    checkpoints.save(conn, checkpoint)
