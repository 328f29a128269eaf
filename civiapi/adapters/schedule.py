"""Recurring jobs as CiviCRM has them: rows naming an API call, fired on time.

APScheduler looks at the clock, ``civicrm_job`` says what is due, ``Job.execute`` runs it. Of several processes on one
database one leads at a time, by a claim that it renews at each look; when it stops, another leads.
"""

import asyncio
import logging
import os
import secrets
import socket
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import Connection

from civiapi.call import SYSTEM, Call
from civiapi.dispatch import Api
from civiapi.store import jobs
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from sync import claims
from sync.claims import Claim
from sync.stopping import end_task

NAME = "scheduler"
SHORTEST_LEAD = 120.0  # seconds that a leader may be silent

log = structlog.get_logger(__name__)


class Scheduler:
    """Looks every *tick_seconds* whether a job is due, and has the due ones run while it leads."""

    def __init__(self, api: Api, store: Store, *, tick_seconds: float) -> None:
        self._api = api
        self._store = store
        self._tick_seconds = tick_seconds
        self._holder = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._claim: Claim | None = None
        self._at_work: asyncio.Task[None] | None = None
        self._clock = AsyncIOScheduler(timezone=UTC)

    async def start(self) -> None:
        """Begin to look, the first time after one tick."""
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a look left out because a job runs is no warning
        trigger = IntervalTrigger(seconds=max(self._tick_seconds, 0.01), timezone=UTC)
        self._clock.add_job(self._look, trigger, id=NAME, max_instances=1, coalesce=True, misfire_grace_time=None)
        self._clock.start()

    def wind_down(self) -> None:
        """Look no more; the job at work may end."""
        self._clock.pause()

    async def stop(self) -> None:
        """Stop looking, stop the job at work (it says so in the job log), let others lead."""
        self._clock.shutdown(wait=False)
        if self._at_work is not None:
            await end_task(self._at_work)
        if self._claim is not None:
            try:
                await self._store.write(claims.release, self._claim)
            except StoreError as error:  # it lapses by itself
                log.warning("the lead of the scheduler could not be given back", error=str(error))

    async def _look(self) -> None:
        self._at_work = asyncio.ensure_future(self.tick())
        try:
            await self._at_work
        finally:
            self._at_work = None

    async def tick(self) -> None:
        """One look: where this process leads and something is due, run it. Raises nothing but cancellation."""
        try:
            self._claim = await self._store.write(self._lead, claims.now_ms())
            if self._claim is None:
                return
            if not await self._store.read(jobs.due_jobs, datetime.now(UTC), self._store.clock):
                return
            await self._api.respond(Call("Job", "execute", {}, SYSTEM))
        except Exception:
            log.exception("scheduled jobs could not be looked at; the next look is in due time")

    def _lead(self, conn: Connection, at_ms: int) -> Claim | None:
        seconds = max(SHORTEST_LEAD, 3 * self._tick_seconds)
        if self._claim is not None and claims.renew(conn, self._claim, seconds, at_ms):
            return self._claim
        return claims.acquire(conn, NAME, self._holder, seconds, at_ms)
