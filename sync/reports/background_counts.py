"""Counts large audiences in the background, so that requests for the status do not wait for a count.

A process counts an audience once at a time, in a unit that only reads; the result is stored in the database for all
processes. Small audiences are counted on each request (``store.balance``), and never here.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection

from civiapi.store import leases
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from sync.audience import Audience
from sync.store import balance, daily

AT_MOST_S = 0.03
"""Seconds that a request for the status waits for a count; one of some ten thousand rows takes about as long."""

SHARE = 0.1
"""How long a run may wait for a count, as a share of the time it took itself."""

log = structlog.get_logger(__name__)


class BackgroundCounts:
    """Repeats the stored counts when they are outdated."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[bool]] = {}

    async def refresh(self, audiences: Iterable[Audience]) -> None:
        """Start to count those of these audiences whose stored counts are due; does not wait for it."""
        mine = [one for one in audiences if one.list_id not in self._tasks]
        for audience in await self._store.read(_stale, mine, leases.now_ms()):
            self._begin(audience)

    async def catch_up(self, audiences: Iterable[Audience]) -> None:
        """Count those of these audiences that have no run now and are counted quickly, and wait for it briefly.

        During a run there is no waiting: a count would soon be outdated.
        """
        mine = list(audiences)
        behind = await self._store.read(_behind, mine, leases.now_ms())
        counting = [self._begin(one) for one, took_ms in behind if took_ms <= AT_MOST_S * 1000]
        if counting:
            await asyncio.wait(counting, timeout=AT_MOST_S)
        await self.refresh(mine)

    async def after_run(self, audience: Audience, seconds: float) -> None:
        """Count again after a run of *seconds*; wait for a count that takes no more than a small part of that time.

        So the numbers are current after a large sync, and a small one in a large audience does not wait.
        """
        at_most = max(AT_MOST_S, seconds * SHARE)
        for one, took_ms in await self._store.read(_behind, [audience], leases.now_ms()):
            counting = self._begin(one)
            if took_ms <= at_most * 1000:
                await asyncio.wait([counting], timeout=at_most)

    def _begin(self, audience: Audience) -> asyncio.Task[bool]:
        """The count of an audience: the one in progress, else a new one."""
        if (counting := self._tasks.get(audience.list_id)) is not None:
            return counting
        task = asyncio.create_task(self._count(audience), name=f"count of {audience.list_id}")
        self._tasks[audience.list_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(audience.list_id, None))
        return task

    async def finish(self) -> None:
        """Wait for the counts in progress: a process that ends at once would never store one."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _count(self, audience: Audience) -> bool:
        """Whether it could be counted."""
        try:
            found = await self._store.read(_take, audience, leases.now_ms())
            await self._store.write(_keep, audience, *found)
        except StoreError as error:
            log.warning("an audience could not be counted", list_id=audience.list_id, error=str(error))
            return False
        return True


def _stale(conn: Connection, audiences: Iterable[Audience], at_ms: int) -> list[Audience]:
    return [one for one in audiences if balance.is_stale(conn, one.list_id, one.group_id, at_ms)]


def _behind(conn: Connection, audiences: Iterable[Audience], at_ms: int) -> list[tuple[Audience, int]]:
    """Those whose stored count is outdated or missing, and how many milliseconds the last one took."""
    found = [(one, balance.find_behind(conn, one.list_id, one.group_id, at_ms)) for one in audiences]
    return [(one, took_ms) for one, took_ms in found if took_ms is not None]


def _take(conn: Connection, audience: Audience, at_ms: int) -> tuple[balance.Count, int]:
    count = balance.take_count(conn, audience.list_id, audience.group_id, at_ms)
    return count, daily.count_group(conn, audience.group_id)


def _keep(conn: Connection, audience: Audience, count: balance.Count, in_group: int) -> None:
    balance.keep_count(conn, audience.list_id, audience.group_id, count)
    daily.note_ends(conn, audience, datetime.now(UTC), count.balance.subscribed_at_mailchimp, in_group)
