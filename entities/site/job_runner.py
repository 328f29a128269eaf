"""Run scheduled jobs: all that are due, or a given one.

Each job runs under a lease of its own, renewed while it lasts, so that a running job is not started again by any
process or caller. Acquiring the lease, checking that the job is still due and recording its start are one transaction.
A job is an API call like any other; one that fails does not keep others from running.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection

from civiapi.api.call import SYSTEM, Call
from civiapi.api.context import ApiService
from civiapi.logs import masked
from civiapi.runtime.shutdown import end_task
from civiapi.store import leases
from civiapi.store.author import SCHEDULE
from civiapi.store.civicrm import jobs
from civiapi.store.civicrm.jobs import Job
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from civiapi.store.leases import Lease
from civiapi.store.schema.migrations import is_civicrms

LEASE_SECONDS = 120.0  # after which the job of a killed process may start again
HEARTBEAT_SECONDS = 30.0

JOB_CALLER = replace(SYSTEM, name=SCHEDULE, withholds_secrets=True, is_schedule=True)
"""Who calls in a job. Its answer is kept in the job log, so secret fields do not exist for it."""

log = structlog.get_logger(__name__)


def lease_name(job_id: int) -> str:
    """The lease of a running job."""
    return f"job:{job_id}"


def find_due(conn: Connection, api: ApiService, now: datetime) -> list[Job]:
    """The jobs to run at *now*, by name; on a CiviCRM's database only those whose call is answered here.

    CiviCRM goes by ``last_run``: a job that was only marked as run would not be run by anybody.
    """
    due = jobs.due_jobs(conn, now, api.store.clock)
    return [one for one in due if api.answers(one.entity, one.action)] if due and is_civicrms(conn) else due


def belongs_to_civicrm(conn: Connection, api: ApiService, one: Job) -> bool:
    """Whether a job is to be left to the CiviCRM that made the database."""
    return not api.answers(one.entity, one.action) and is_civicrms(conn)


async def run_due(api: ApiService) -> None:
    """Run every due job in order of name, and log the start and the end."""
    await _log(api, "Starting scheduled jobs execution")
    for one in await api.store.read(find_due, api, datetime.now(UTC)):
        await run_job(api, one.id)
    await _log(api, "Finishing scheduled jobs execution.")


async def _log(api: ApiService, text: str) -> None:
    await api.store.write(jobs.write_log, text, api.store.clock.now())


async def run_job(api: ApiService, job_id: int, *, forced: bool = False) -> None:
    """Run a job if it is still due, or in any case if *forced*; not if it is running already."""
    started = await api.store.write(_start, job_id, api.store.clock, datetime.now(UTC), leases.new_holder(), forced)
    if started is None:
        return
    one, lease = started
    async with _renewed(api.store, lease):
        outcome = f"Error while executing {one.name}: the server was stopped"
        try:
            parameters = {**jobs.read_parameters(one.parameters), "version": 3}
            outcome = _outcome(one, await api.respond(Call(one.entity, one.action, parameters, JOB_CALLER)))
        finally:
            await asyncio.shield(api.store.write(_end, one, outcome, api.store.clock, lease))


def _start(
    conn: Connection, job_id: int, clock: SiteClock, now: datetime, holder: str, forced: bool
) -> tuple[Job, Lease] | None:
    """Acquire the job's lease and record its start; ``None`` if it is running, deleted or no longer due."""
    one = jobs.find_job(conn, job_id, clock)
    if one is None:
        return None
    lease = leases.acquire(conn, lease_name(job_id), holder, LEASE_SECONDS, leases.now_ms())
    if lease is None:
        jobs.write_log(conn, f"{one.name} is still running and was not started again", clock.write(now), one)
        return None
    current = jobs.find_job(conn, job_id, clock)  # another process may have run it in between
    if current is None or not (forced or jobs.is_due(current, now, clock)):
        leases.release(conn, lease)
        return None
    jobs.note_start(conn, current, clock.write(now))
    return current, lease


def _end(conn: Connection, one: Job, outcome: str, clock: SiteClock, lease: Lease) -> None:
    jobs.note_end(conn, one, outcome, clock.now())
    leases.release(conn, lease)


def _outcome(one: Job, answer: Any) -> str:
    """The text of the job log for an answer."""
    if isinstance(answer, dict) and answer.get("is_error"):
        result = f"Failure, Error message: {answer.get('error_message', '')}"
    else:
        values = answer.get("values", answer) if isinstance(answer, dict) else answer
        text = values if isinstance(values, str) else orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS).decode()
        result = f"Success ({text})"
    return f"Finished execution of {one.name} with result: {masked(result)}"


@asynccontextmanager
async def _renewed(store: Store, lease: Lease) -> AsyncIterator[None]:
    """Renew the lease during the block, which releases it itself."""
    beat = asyncio.create_task(_renew(store, lease), name=f"heartbeat of {lease.name}")
    try:
        yield
    finally:
        await end_task(beat)


async def _renew(store: Store, lease: Lease) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        try:
            if not await store.write(leases.renew, lease, LEASE_SECONDS, leases.now_ms()):
                return
        except StoreError as error:  # retried with the next beat
            log.warning("the lease of a job could not be renewed", lease=lease.name, error=str(error))
