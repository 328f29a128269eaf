"""Drives one audience through its stages to a deadline, under a claim, and leaves a record of it.

The engine knows the order of stages, when to stop, and what to say; what a stage does is in ``sync/stages``. Whatever
ends a run (the clock, an error, a lost claim, a cancelled call), the position stays where the last commit left it,
the claim is given back, and the next run goes on from there.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, select

from civiapi.store.tables import group as group_table
from sync import claims, daily, positions
from sync.audience import Audience
from sync.brake import check_brake, take_up
from sync.claims import Claim, ClaimLost
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncBraked, SyncError
from sync.holding import held
from sync.mailchimp.errors import BadKey, InvalidApiKey, MailchimpError
from sync.positions import READY_TO_FETCH, Position
from sync.progress import UNITS
from sync.runs import close_entry, open_entry
from sync.stages import STAGES
from sync.stages.base import Run, RunRequest, StageProgress

__all__ = ["RunOutcome", "RunRequest", "StageProgress", "prepare", "run_audience"]

BUSY_TEXT = "Called but locks say process already busy. Will not do anything."
FINISHED, PAUSED, STOPPED, FAILED, BRAKED, BUSY = "finished", "paused", "stopped", "failed", "braked", "busy"

RECONCILE = "readyToReconcileQueue"
_WORK = {stage.name: stage.work for stage in STAGES}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: *outcome* is finished, paused (out of time), stopped (as asked) or busy.

    *status* is what ``fetchandreconcile`` answers; *counts* what each stage did.
    """

    list_id: str
    group_id: int
    outcome: str
    status: dict[str, Any]
    counts: dict[str, dict[str, int]]

    @property
    def changed_something(self) -> bool:
        """Whether any row is not as it was before."""
        return _changed_something(self.counts)


async def run_audience(
    ctx: SyncContext,
    audience: Audience,
    request: RunRequest,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> RunOutcome:
    """Sync one audience, or go on where its last run stopped, until it is done, out of time or told to stop.

    Raises SyncError, which names audience and stage and says how to go on; ClaimLost is one of the things it says.
    """
    if request.force_restart:
        await ctx.store.write(_restart, audience)
    async with held(ctx, audience.list_id) as claim:
        if claim is None:
            position = await ctx.store.write(_say_busy, audience)
            return _outcome(audience, BUSY, position, {})
        return await _run_claimed(ctx, audience, claim, request, on_progress)


async def _run_claimed(
    ctx: SyncContext,
    audience: Audience,
    claim: Claim,
    request: RunRequest,
    on_progress: Callable[[StageProgress], None] | None,
) -> RunOutcome:
    audience, position = await ctx.store.read(prepare, audience)
    run = Run(ctx, audience, claim, request, position, on_progress)
    entry = await ctx.store.write(open_entry, audience.list_id)
    outcome, error = FAILED, None
    try:
        await take_up(run)
        outcome = await _drive(run)
        await _count_ends(run)
    except MailchimpError as failure:
        error = f"Audience {audience.list_id} stopped at {run.position.stage}: {failure}. {_way_on(failure)}"
        await _say(run, error)
        raise MailchimpFailed(error) from failure
    except SyncBraked as failure:
        outcome, error = BRAKED, str(failure)
        raise
    except ClaimLost as failure:
        error = str(failure)
        raise SyncError(f"Audience {audience.list_id} stopped at {run.position.stage}: {error}") from failure
    except asyncio.CancelledError:
        outcome = STOPPED
        raise
    finally:
        counts = _plain(run)
        await asyncio.shield(ctx.store.write(close_entry, entry, outcome, counts, error))
    return _outcome(audience, outcome, run.position, counts)


async def _drive(run: Run) -> str:
    """Do stage after stage; returns how it ended."""
    while True:
        stage = run.position.stage
        if run.request.stop_on == stage:
            await _say(run, f"Stopped as requested at step {stage}")
            return STOPPED
        started = time.monotonic()
        if stage == RECONCILE and run.cursor is None:
            await check_brake(run)
        await _WORK[stage](run)
        _report(run, stage, time.monotonic() - started)
        if run.position.stage == READY_TO_FETCH and run.position.question is None:
            return FINISHED
        if run.is_out_of_time():
            why = "The server stops" if run.ctx.stop.is_asked else "Out of time"
            await _say(run, f"{why} at {run.position.stage}; the next run continues there.")
            return PAUSED


async def _count_ends(run: Run) -> None:
    """Keep how many are at both ends now, for the day's figures; counted anew only where this run changed something."""
    anew = _changed_something(run.counts)
    ends = await run.ctx.store.read(daily.count_ends, run.audience, anew=anew)
    if ends is not None:
        await run.ctx.store.write(_note_ends, run, datetime.now(UTC), *ends)


def _changed_something(counts: Mapping[str, Mapping[str, int]]) -> bool:
    return any(of_stage.get(name) for of_stage in counts.values() for name in daily.NEWS)


def _note_ends(conn: Connection, run: Run, at: datetime, mailchimp: int, civicrm: int) -> None:
    daily.note_ends(conn, run.audience, at, mailchimp, civicrm)
    claims.check(conn, run.claim)


async def _say(run: Run, message: str) -> None:
    """Put a line into the audience's log; lost with the claim, because the log is then somebody else's."""
    try:
        await run.commit(lambda conn, step: step.say(message))
    except ClaimLost:
        log.warning("the claim was lost before this was said", list_id=run.audience.list_id, message=message)


def _way_on(failure: MailchimpError) -> str:
    if isinstance(failure, BadKey | InvalidApiKey):
        return "Store a key that works (Mailchimpsync.updateconfig); the next run continues there."
    return "The next run continues there."


def _report(run: Run, stage: str, seconds: float) -> None:
    counts = dict(run.counts.get(stage, {}))
    if run.ctx.on_stage is not None:
        run.ctx.on_stage(stage, seconds, counts.get(UNITS[stage], 0))
    busiest = max(counts.values(), default=0)
    log.info(
        "stage",
        list_id=run.audience.list_id,
        stage=stage,
        seconds=round(seconds, 3),
        a_second=round(busiest / seconds) if seconds > 0 else None,
        **counts,
    )


def _restart(conn: Connection, audience: Audience) -> None:
    """Take the audience from whoever holds it, and start at the beginning."""
    claims.withdraw(conn, audience.list_id)
    position = positions.load(conn, audience.list_id, for_update=True)
    position.restart()
    positions.save(conn, position)


def _say_busy(conn: Connection, audience: Audience) -> Position:
    position = positions.load(conn, audience.list_id, for_update=True)
    position.say(audience.clock.now(), BUSY_TEXT)
    positions.save(conn, position)
    return position


def prepare(conn: Connection, audience: Audience) -> tuple[Audience, Position]:
    """The audience with those interests whose groups exist, and where it stands. Raises SyncError without its group."""
    rows = conn.execute(
        select(group_table.c.id, group_table.c.saved_search_id).where(group_table.c.id.in_(audience.group_ids))
    )
    groups = {row.id: row.saved_search_id for row in rows}
    if audience.group_id not in groups:
        raise SyncError(
            f"Audience {audience.list_id} is linked with group {audience.group_id}, which does not exist. "
            "Link it with another group on the Config screen."
        )
    if groups[audience.group_id] is not None:
        raise SyncError(
            f"Audience {audience.list_id} is linked with group {audience.group_id}, a smart group: nobody can be put "
            "into or taken out of it. Link it with an ordinary group."
        )
    usable = {key: group for key, group in audience.interests.items() if group in groups and groups[group] is None}
    if usable != dict(audience.interests):
        left_out = sorted(set(audience.interests) - set(usable))
        log.warning("interests without a usable group are left out", list_id=audience.list_id, interests=left_out)
    return replace(audience, interests=usable), positions.load(conn, audience.list_id)


def _plain(run: Run) -> dict[str, dict[str, int]]:
    return {stage: dict(counts) for stage, counts in run.counts.items()}


def _outcome(audience: Audience, outcome: str, position: Position, counts: dict[str, dict[str, int]]) -> RunOutcome:
    return RunOutcome(audience.list_id, audience.group_id, outcome, position.as_status(), counts)
