"""Holds a lease while a block lasts: taken, renewed by a heartbeat, released.

Two kinds of holder share an audience's lease. A *run* holds it for minutes; other runs answer "busy" meanwhile. *Brief*
holders (one member after a webhook, updates that follow a batch) hold it for seconds, and a run waits for them. The
holder's name says which kind.

While a run holds the lease, the lock that the extension goes by is ``busy`` as well; when the lease ends, in whatever
way, it becomes a stage again (``free_expired`` for those that were killed). And a ``busy`` of the extension's is
honoured by both kinds, unless its log has been silent for so long that it was killed: then a run takes it over.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection, select

from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.errors import StoreError
from civiapi.store.leases import BRIEF, Lease
from civiapi.store.schema.tables import lease as lease_table
from sync.context import SyncContext
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import READY_TO_FETCH, Checkpoint

NAME_LENGTH = 64
WAIT_SECONDS = 60.0
"""Seconds to wait for brief holders; the lease of one that was killed may expire later than this."""

FIRST_PAUSE, LAST_PAUSE = 0.02, 0.5  # seconds between two attempts

log = structlog.get_logger(__name__)


@asynccontextmanager
async def hold_lease(
    ctx: SyncContext, name: str, *, brief: bool = False, wait_seconds: float = WAIT_SECONDS
) -> AsyncIterator[Lease | None]:
    """Hold the lease on *name* (an audience) while the block lasts; None where another holder has it.

    Waits up to *wait_seconds* for brief holders, never for a run. The lease is renewed in the background; it may still
    be lost (a frozen process), so every commit under it ends with ``leases.check``.
    """
    lease = await _acquire(ctx, name, brief=brief, wait_seconds=wait_seconds)
    if lease is None:
        yield None
        return
    heartbeat = asyncio.create_task(_renew(ctx, lease), name=f"heartbeat of {name}")
    try:
        yield lease
    finally:
        await asyncio.shield(_release(ctx, lease, heartbeat))


async def _acquire(ctx: SyncContext, name: str, *, brief: bool, wait_seconds: float) -> Lease | None:
    holder = ((BRIEF if brief else "") + ctx.holder)[:NAME_LENGTH]
    loop, seconds = asyncio.get_running_loop(), ctx.settings.sync.claim_seconds
    until, pause = loop.time() + wait_seconds, FIRST_PAUSE
    while True:
        unreleased = ctx.unreleased.get(name)
        lease, worth_waiting = await ctx.store.write(_try_acquire, ctx, name, holder, seconds, unreleased)
        if unreleased is not None and ctx.unreleased.get(name) is unreleased:
            del ctx.unreleased[name]
        if lease is not None or not worth_waiting or loop.time() >= until:
            return lease
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE)


def _try_acquire(
    conn: Connection, ctx: SyncContext, name: str, holder: str, seconds: float, unreleased: Lease | None
) -> tuple[Lease | None, bool]:
    """The lease if it is free, after releasing *unreleased*; else None and whether its holder is a brief one."""
    if unreleased is not None:
        _end(conn, unreleased)
    clock, now = ctx.store.clock, datetime.now(UTC)
    brief = holder.startswith(BRIEF)
    checkpoint = checkpoints.load(conn, name, for_update=not brief)  # before the lease's row, as units of work do
    if is_extension_at_work(checkpoint, clock, now, ctx.settings.sync.crashed_minutes):
        return None, False
    lease = leases.acquire(conn, name, holder, seconds, leases.now_ms())
    if lease is not None:
        if not brief:
            _lock(conn, checkpoint, clock, now)
        return lease, False
    present = conn.execute(select(lease_table.c.holder).where(lease_table.c.name == name)).scalar_one_or_none()
    return None, bool(present and present.startswith(BRIEF))


async def _renew(ctx: SyncContext, lease: Lease) -> None:
    """Renew the lease until cancelled or lost."""
    seconds = ctx.settings.sync.claim_seconds
    while True:
        await asyncio.sleep(min(ctx.settings.sync.heartbeat_seconds, seconds / 3))  # in time, whatever was set
        at_ms = leases.now_ms()
        try:
            is_ours = await ctx.store.write(leases.renew, lease, seconds, at_ms)
            lease.expires_ms = at_ms + int(seconds * 1000) if is_ours else 0
            if not is_ours:
                return
        except StoreError as error:  # the next heartbeat tries again; a commit under an expired lease fails
            log.warning("a lease could not be renewed", lease=lease.name, error=str(error))


async def _release(ctx: SyncContext, lease: Lease, heartbeat: asyncio.Task[None]) -> None:
    """Release the lease, after the heartbeat has ended."""
    heartbeat.cancel()
    await asyncio.wait([heartbeat])
    try:
        await ctx.store.write(_end, lease)
    except StoreError as error:  # it expires, unless this process releases it before
        ctx.unreleased[lease.name] = lease
        log.warning("a lease could not be released", lease=lease.name, error=str(error))


def is_extension_at_work(checkpoint: Checkpoint, clock: SiteClock, now: datetime, crashed_minutes: float) -> bool:
    """Whether the lock is the extension's and it has logged within *crashed_minutes*; else it was killed."""
    if not checkpoint.is_held_elsewhere:
        return False
    logged = last_logged(checkpoint, clock)
    return logged is not None and now - logged < timedelta(minutes=crashed_minutes)


def last_logged(checkpoint: Checkpoint, clock: SiteClock) -> datetime | None:
    """When the holder of the audience logged last (aware UTC); None where that is not known."""
    newest = checkpoint.newest_entry
    return clock.read(newest["time"]) if newest is not None else None


def free_expired(conn: Connection) -> int:
    """End the leases whose holders were killed, so that the extension may work on their audiences; returns how many."""
    at_ms, freed = leases.now_ms(), 0
    for name in leases.expired(conn, at_ms):
        checkpoint = checkpoints.load(conn, name, for_update=True)
        if leases.end_expired(conn, name, at_ms):
            freed += _unlock(conn, checkpoint)
    return freed


def _lock(conn: Connection, checkpoint: Checkpoint, clock: SiteClock, now: datetime) -> None:
    """Store the lock as ours; where the extension was killed while it held it, its fetch is gone on with."""
    if checkpoint.is_held_elsewhere:
        checkpoint.is_held_elsewhere, checkpoint.repeats_fetch = False, True
        logged = last_logged(checkpoint, clock)
        silent = f"has logged nothing since {clock.write(logged)}" if logged else "has no log"
        checkpoint.add_log_line(clock.write(now), f"The extension left its lock busy and {silent}: taken over.")
    checkpoint.is_held = True
    checkpoints.save(conn, checkpoint)


def _end(conn: Connection, lease: Lease) -> None:
    """Release the lease and, where nobody has taken it meanwhile, the lock."""
    if lease.holder.startswith(BRIEF):
        leases.release(conn, lease)
        return
    checkpoint = checkpoints.load(conn, lease.name, for_update=True)
    if leases.release(conn, lease):
        _unlock(conn, checkpoint)


def _unlock(conn: Connection, checkpoint: Checkpoint) -> bool:
    """Store the stage in place of a lock of ours; whether there was one."""
    if not checkpoint.is_held:
        return False
    hand_over(conn, checkpoint)
    return True


def hand_over(conn: Connection, checkpoint: Checkpoint) -> None:
    """Store a checkpoint of ours so that the extension can continue from it without missing a member.

    An incomplete fetch of ours cannot be continued by the extension, because its order differs. The extension repeats
    the fetch since the last sync, or continues the one that it began.
    """
    checkpoint.is_held = False
    if checkpoint.stage == READY_TO_FETCH and checkpoint.parameters is not None:
        checkpoint.fetch = checkpoint.parameters.continued or {**checkpoint.fetch, "offset": 0}
    checkpoints.save(conn, checkpoint)
