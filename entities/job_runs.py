"""Running scheduled jobs: those that are due, or one that is asked for.

Each job is run under a claim of its own (``sync/claims.py``), renewed while it lasts, so that a job still running is
not started again, whichever process or caller asks. Taking the claim, seeing that the job is still due and writing
down that it began are one transaction. A job is an API call like any other; one that fails keeps no other from running.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection

from civiapi.call import SYSTEM, Call
from civiapi.dispatch import Api
from civiapi.store import jobs
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from civiapi.store.jobs import Job
from sync import claims
from sync.claims import Claim
from sync.stopping import end_task

CLAIM_SECONDS = 120.0  # a killed process's job may start again after this
HEARTBEAT_SECONDS = 30.0

log = structlog.get_logger(__name__)


def claim_name(job_id: int) -> str:
    """What a job's run claims, so that no other runs it meanwhile."""
    return f"job:{job_id}"


def holder() -> str:
    """A name for this process in claims, and for one use of it: no two are alike."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"


async def run_due(api: Api) -> None:
    """Run every job that is due, by name, one after another, and write down beginning and end."""
    clock = api.store.clock
    await _say(api, "Starting scheduled jobs execution")
    for one in await api.store.read(jobs.due_jobs, datetime.now(UTC), clock):
        await run_job(api, one.id)
    await _say(api, "Finishing scheduled jobs execution.")


async def _say(api: Api, words: str) -> None:
    await api.store.write(jobs.write_log, words, api.store.clock.now())


async def run_job(api: Api, job_id: int, *, forced: bool = False) -> None:
    """Run one job if it is (still) due, or in any case if *forced*. Nothing happens while it runs elsewhere."""
    started = await api.store.write(_start, job_id, api.store.clock, datetime.now(UTC), holder(), forced)
    if started is None:
        return
    one, claim = started
    async with _kept(api.store, claim):
        words = f"Error while executing {one.name}: the server was stopped"
        try:
            words = _outcome(one, await api.respond(Call(one.entity, one.action, _parameters(one), SYSTEM)))
        finally:
            await asyncio.shield(api.store.write(_end, one, words, api.store.clock, claim))


def _start(
    conn: Connection, job_id: int, clock: SiteClock, now: datetime, who: str, forced: bool
) -> tuple[Job, Claim] | None:
    """Claim the job and write down that it begins; ``None`` if it runs already, is gone or is no longer due."""
    one = jobs.find_job(conn, job_id, clock)
    if one is None:
        return None
    claim = claims.acquire(conn, claim_name(job_id), who, CLAIM_SECONDS, claims.now_ms())
    if claim is None:
        jobs.write_log(conn, f"{one.name} is still running and was not started again", clock.write(now), one)
        return None
    current = jobs.find_job(conn, job_id, clock)  # another process may have run it since we looked
    if current is None or not (forced or jobs.is_due(current, now, clock)):
        claims.release(conn, claim)
        return None
    jobs.note_start(conn, current, clock.write(now))
    return current, claim


def _end(conn: Connection, one: Job, words: str, clock: SiteClock, claim: Claim) -> None:
    jobs.note_end(conn, one, words, clock.now())
    claims.release(conn, claim)


def _parameters(one: Job) -> dict[str, Any]:
    return {**jobs.read_parameters(one.parameters), "version": 3}


def _outcome(one: Job, answer: Any) -> str:
    """What the job log says of an answer."""
    if isinstance(answer, dict) and answer.get("is_error"):
        result = f"Failure, Error message: {answer.get('error_message', '')}"
    else:
        values = answer.get("values", answer) if isinstance(answer, dict) else answer
        words = values if isinstance(values, str) else orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS).decode()
        result = f"Success ({words})"
    return f"Finished execution of {one.name} with result: {result}"


@asynccontextmanager
async def _kept(store: Store, claim: Claim) -> AsyncIterator[None]:
    """Renew the claim while the block lasts. Whoever runs the block gives the claim back."""
    beat = asyncio.create_task(_beat(store, claim), name=f"heartbeat of {claim.name}")
    try:
        yield
    finally:
        await end_task(beat)


async def _beat(store: Store, claim: Claim) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        try:
            if not await store.write(claims.renew, claim, CLAIM_SECONDS, claims.now_ms()):
                return
        except StoreError as error:  # the next beat tries again
            log.warning("a job's claim could not be renewed", claim=claim.name, error=str(error))
