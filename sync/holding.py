"""Holding a claim while something is done under it: taken, renewed by a heartbeat, given back.

Two kinds of holder share an audience's claim. A *run* holds it for minutes, and whoever else comes is told that the
audience is busy. *Brief* holders (one member after a webhook, updates that follow a batch) hold it for seconds: a run
that finds one waits for it, so that nobody is told "busy" because of them. Which kind a holder is stands in its name.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import Connection, select

from civiapi.store.errors import StoreError
from sync import claims
from sync.claims import BRIEF, Claim
from sync.context import SyncContext
from sync.tables import claim as claim_table

NAME_LENGTH = 64
PATIENCE = 60.0
"""Seconds that anybody waits for brief holders; one that was killed lapses by itself, maybe later than this."""

FIRST_PAUSE, LAST_PAUSE = 0.02, 0.5  # seconds between two looks at a claim that somebody holds

log = structlog.get_logger(__name__)


@asynccontextmanager
async def held(
    ctx: SyncContext, name: str, *, brief: bool = False, patience: float = PATIENCE
) -> AsyncIterator[Claim | None]:
    """Hold the claim on *name* (an audience) while the block lasts; None where somebody else holds it.

    Waits up to *patience* seconds for brief holders, and never for a run. The claim is renewed in the background; it
    may still be lost (a frozen process), so every commit under it ends with ``claims.check``.
    """
    claim = await _take(ctx, name, brief=brief, patience=patience)
    if claim is None:
        yield None
        return
    beat = asyncio.create_task(_beat(ctx, claim), name=f"heartbeat of {name}")
    try:
        yield claim
    finally:
        await asyncio.shield(_give_back(ctx, claim, beat))


async def _take(ctx: SyncContext, name: str, *, brief: bool, patience: float) -> Claim | None:
    holder = ((BRIEF if brief else "") + ctx.holder)[:NAME_LENGTH]
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + patience, FIRST_PAUSE
    while True:
        kept = ctx.kept.get(name)
        claim, worth_waiting = await ctx.store.write(_try, name, holder, ctx.options.claim_seconds, kept)
        if kept is not None and ctx.kept.get(name) is kept:
            del ctx.kept[name]
        if claim is not None or not worth_waiting or loop.time() >= until:
            return claim
        await asyncio.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE)


def _try(conn: Connection, name: str, holder: str, seconds: float, kept: Claim | None) -> tuple[Claim | None, bool]:
    """The claim if it could be had, *kept* given back first; else whether its holder is a brief one."""
    if kept is not None:
        claims.release(conn, kept)
    claim = claims.acquire(conn, name, holder, seconds, claims.now_ms())
    if claim is not None:
        return claim, False
    present = conn.execute(select(claim_table.c.holder).where(claim_table.c.name == name)).scalar_one_or_none()
    return None, bool(present and present.startswith(BRIEF))


async def _beat(ctx: SyncContext, claim: Claim) -> None:
    """Renew the claim until cancelled or lost."""
    while True:
        await asyncio.sleep(ctx.options.heartbeat_seconds)
        at_ms, seconds = claims.now_ms(), ctx.options.claim_seconds
        try:
            is_ours = await ctx.store.write(claims.renew, claim, seconds, at_ms)
            claim.expires_ms = at_ms + int(seconds * 1000) if is_ours else 0
            if not is_ours:
                return
        except StoreError as error:  # the next beat tries again; a claim that lapses meanwhile is noticed at a commit
            log.warning("a claim could not be renewed", claim=claim.name, error=str(error))


async def _give_back(ctx: SyncContext, claim: Claim, beat: asyncio.Task[None]) -> None:
    """Release the claim, once no heartbeat can renew it any more."""
    beat.cancel()
    await asyncio.wait([beat])
    try:
        await ctx.store.write(claims.release, claim)
    except StoreError as error:  # it lapses by itself, unless we come back to it before
        ctx.kept[claim.name] = claim
        log.warning("a claim could not be given back", claim=claim.name, error=str(error))
