"""Run scheduled jobs in time: APScheduler ticks, ``civicrm_job`` says what is due, ``Job.execute`` runs it.

Of several processes on one database one leads at a time, by a lease that it renews with every tick; when it stops,
another takes over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import Connection

from civiapi.api.call import SYSTEM, Call
from civiapi.api.context import ApiService
from civiapi.runtime.shutdown import end_task
from civiapi.store import leases
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from civiapi.store.leases import Lease
from entities.site import job_runner

NAME = "scheduler"
MIN_LEASE_SECONDS = 120.0

log = structlog.get_logger(__name__)


class Scheduler:
    """Checks every *tick_seconds* whether a job is due, and runs due jobs while this process leads."""

    def __init__(
        self,
        api: ApiService,
        store: Store,
        *,
        tick_seconds: float,
        beside: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        """Each of *beside* is called at every tick, also while a job runs."""
        self._api = api
        self._beside = beside
        self._store = store
        self._tick_seconds = tick_seconds
        self._holder = leases.new_holder()
        self._lease: Lease | None = None
        self._running: asyncio.Task[None] | None = None
        self._clock = AsyncIOScheduler(timezone=UTC)

    async def start(self) -> None:
        """Start ticking, the first time after one interval."""
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a tick skipped while a job runs needs no warning
        trigger = IntervalTrigger(seconds=max(self._tick_seconds, 0.01), timezone=UTC)
        self._clock.add_job(self._run_tick, trigger, id=NAME, max_instances=1, coalesce=True, misfire_grace_time=None)
        for work in self._beside:
            once = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
            self._clock.add_job(_logging_faults, trigger, args=(work,), **once)
        self._clock.start()

    def wind_down(self) -> None:
        """Stop ticking; a running job may end."""
        self._clock.pause()

    async def stop(self) -> None:
        """Stop ticking, cancel the running job (the job log records it), and release the lease."""
        self._clock.shutdown(wait=False)
        if self._running is not None:
            await end_task(self._running)
        if self._lease is not None:
            try:
                await self._store.write(leases.release, self._lease)
            except StoreError as error:
                log.warning("the scheduler's lease could not be released and will expire", error=str(error))

    async def _run_tick(self) -> None:
        self._running = asyncio.ensure_future(self.tick())
        try:
            await self._running
        finally:
            self._running = None

    async def tick(self) -> None:
        """Run what is due, if this process leads. Raises nothing but cancellation."""
        try:
            self._lease = await self._store.write(self._acquire_or_renew, leases.now_ms())
            if self._lease is None:
                return
            if not await self._store.read(job_runner.find_due, self._api, datetime.now(UTC)):
                return
            await self._api.respond(Call("Job", "execute", {}, SYSTEM))
        except Exception:
            log.exception("the check for due jobs failed; the next check follows in time")

    def _acquire_or_renew(self, conn: Connection, at_ms: int) -> Lease | None:
        seconds = max(MIN_LEASE_SECONDS, 3 * self._tick_seconds)
        if self._lease is not None and leases.renew(conn, self._lease, seconds, at_ms):
            return self._lease
        return leases.acquire(conn, NAME, self._holder, seconds, at_ms)


async def _logging_faults(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("work beside the jobs failed; it is tried again at the next tick")
