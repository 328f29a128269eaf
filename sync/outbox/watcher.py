"""Follows what is in flight at Mailchimp to its end: checks batches, applies results, sends updates that follow.

One task in each process that serves. Several processes may watch the same audiences; leases let one at a time apply
results or send updates. Webhooks only make the watcher check sooner. It remembers nothing that the database lacks,
except when to check next.

Updates that a run left waiting on purpose (``stop_on``) are not sent from here. Waiting updates (compliance retries,
tags, what exceeded the account's limit in flight) are sent only while the audience is between two runs.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection
from sqlalchemy import update as change

from civiapi.runtime.shutdown import end_task
from civiapi.store import leases
from civiapi.store.errors import StoreError
from civiapi.store.leases import LeaseLost
from sync.audience import Audience
from sync.connections.config import Link, read_config
from sync.context import SyncContext
from sync.errors import BadConfig
from sync.leases import free_expired, hold_lease
from sync.mailchimp.errors import MailchimpError
from sync.model import BatchRow, SyncStatus
from sync.outbox.cancel import batches_to_cancel, cancel_batches
from sync.outbox.pending_batches import unconfirmed_batches
from sync.outbox.results import BatchBusy, process_batch
from sync.outbox.selection import has_ready, requeue_orphans
from sync.outbox.submit import resolve_unconfirmed, submit_pending
from sync.store.batches import find_by_batch_id, unfinished
from sync.store.runs import checkpoints
from sync.store.tables import cache
from sync.store.updates import owes_something

FIRST_CHECK = 1.0
"""Seconds until a new batch is first checked, or `poll_seconds` if that is less: small ones finish fast."""

GROWTH = 1.5
MAX_GAP = 300.0
FIRST_BACKOFF = 5.0
"""Seconds until an account is checked again after Mailchimp did not answer; doubles up to `MAX_GAP`."""

FIRST_PAUSE = 0.05

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Due:
    """When something is to be checked again, on the monotonic clock, and the gap before that."""

    at: float
    gap: float


@dataclass(frozen=True, slots=True)
class _State:
    """What is to do for an audience."""

    batches: list[BatchRow]
    unknown: int
    to_cancel: int
    is_ready: bool
    is_between_runs: bool

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits that may be sent."""
        waits = self.is_ready and self.is_between_runs
        return not (self.batches or self.unknown or self.to_cancel or waits)


class Watcher:
    """Checks the batches of the linked audiences until all are processed."""

    def __init__(self, ctx: SyncContext, *, clock: Callable[[], float] | None = None) -> None:
        self._ctx = ctx
        self._clock = clock or time.monotonic  # looked up here: a default keeps the real one from virtual time
        self._poll_seconds = ctx.settings.mailchimp.poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._checking = asyncio.Lock()
        self._batches: dict[int, _Due] = {}
        self._backoffs: dict[str, _Due] = {}  # by API key
        self._repaired: set[str] = set()

    async def start(self) -> None:
        """Begin to watch in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="batch watcher")

    async def stop(self) -> None:
        """Stop watching; what was not committed is done again by the next watcher."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    def wake(self) -> None:
        """Check all batches now."""
        for due in self._batches.values():
            due.at = 0.0
        self._woken.set()

    async def check_batch(self, batch_id: str) -> bool:
        """Check the batch with Mailchimp's id *batch_id* now; False when it is not ours."""
        row = await self._ctx.store.read(find_by_batch_id, batch_id)
        if row is None:
            return False
        self._batches[row.id] = _Due(0.0, 0.0)
        self._woken.set()
        return True

    async def wait_until_idle(self, list_ids: Sequence[str], deadline: float) -> bool:
        """Wait until these audiences are idle; False if that takes longer than *deadline* seconds.

        Checks batches itself, whether or not the watcher was started.
        """
        until, pause = self._clock() + deadline, FIRST_PAUSE
        while True:
            await self.check(list_ids)
            if await self._are_idle(list_ids):
                return True
            if self._clock() >= until or self._ctx.stop.is_asked:
                return False
            await asyncio.sleep(min(pause, self._poll_seconds, max(0.0, until - self._clock())))
            pause *= GROWTH

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._free_expired()
                await self.check()
            except (StoreError, BadConfig) as error:
                log.warning("batches could not be checked", error=str(error))
            except Exception:  # the watcher's catch-all: an unexpected error must not end it
                log.exception("batches could not be checked")
            await wait_for_event(self._woken, self._pause())

    async def _free_expired(self) -> None:
        """Let others, and the extension, work on audiences whose sync was killed."""
        store = self._ctx.store
        if await store.read(leases.held_by_ended, leases.now_ms()):
            await store.write(leases.shorten_ended, leases.now_ms())
        if await store.read(leases.expired, leases.now_ms()):
            await store.write(free_expired)

    def _pause(self) -> float:
        """Seconds until something is due; at most `poll_seconds`, as other processes send batches too."""
        return max(FIRST_PAUSE, min(self.seconds_until_due(), self._poll_seconds))

    def seconds_until_due(self) -> float:
        """Seconds until the next batch is to be checked; `MAX_GAP` without one, negative where one is overdue."""
        now = self._clock()
        return min((due.at - now for due in self._batches.values()), default=MAX_GAP)

    async def check(self, list_ids: Iterable[str] | None = None) -> None:
        """Do once what is due for all audiences, or everything for these."""
        wanted = None if list_ids is None else set(list_ids)
        async with self._checking:
            config = await self._ctx.store.read(read_config)
            accounts: dict[str, list[Link]] = defaultdict(list)
            for link in config.links.values():
                if wanted is None or link.list_id in wanted:
                    accounts[link.api_key].append(link)
            await asyncio.gather(
                *(self._check_account(key, links, wanted is not None) for key, links in accounts.items())
            )

    async def _check_account(self, api_key: str, links: Sequence[Link], everything: bool) -> None:
        """Check one account; an account that cannot be reached does not delay others."""
        backoff = self._backoffs.get(api_key)
        if backoff is not None and backoff.at > self._clock() and not everything:
            return
        try:
            for link in links:
                await self._check_audience(self._ctx.audience(link), everything)
        except MailchimpError as error:
            gap = min(MAX_GAP, backoff.gap * 2 if backoff is not None else FIRST_BACKOFF)
            self._backoffs[api_key] = _Due(self._clock() + gap, gap)
            log.warning("Mailchimp did not answer about batches", error=str(error), again_in_seconds=gap)
        else:
            self._backoffs.pop(api_key, None)

    async def _check_audience(self, audience: Audience, everything: bool) -> None:
        state = await self._ctx.store.read(_read_state, audience)
        try:
            if state.to_cancel:
                await cancel_batches(self._ctx, audience)
            due = [row for row in state.batches if everything or self._is_due(row)]
            finished = [await self._process_batch(audience, row) for row in due]
            is_idle = any(finished) and len(finished) == len(state.batches)
            if is_idle or audience.list_id not in self._repaired:
                await self._ctx.store.write(repair, audience.list_id)
                self._repaired.add(audience.list_id)
            if any(finished) or state.unknown or state.is_ready:
                await self._send_waiting(audience)
        except (LeaseLost, BatchBusy) as error:
            log.info("another process works on an audience", list_id=audience.list_id, reason=str(error))

    def _is_due(self, row: BatchRow) -> bool:
        """Whether a batch is to be checked now; a new one is scheduled."""
        now = self._clock()
        if row.id not in self._batches:
            first = min(FIRST_CHECK, self._poll_seconds)
            self._batches[row.id] = _Due(now + first, first)
        return self._batches[row.id].at <= now

    async def _process_batch(self, audience: Audience, row: BatchRow) -> bool:
        """Check one batch; True when it was finished and its results are applied."""
        found = await process_batch(self._ctx, audience, row)
        if found.counts is not None:
            self._batches.pop(row.id, None)
            return True
        before = self._batches.get(row.id)
        gap = min(MAX_GAP, max(self._poll_seconds, before.gap * GROWTH if before else 0.0))
        self._batches[row.id] = _Due(self._clock() + gap, gap)
        return False

    async def _send_waiting(self, audience: Audience) -> None:
        """Resolve unconfirmed batches and, between two runs, send waiting updates; a run does so itself."""
        async with hold_lease(self._ctx, audience.list_id, brief=True, wait_seconds=0.0) as lease:
            if lease is None:
                return
            if (await self._ctx.store.read(_read_state, audience)).is_between_runs:
                await submit_pending(self._ctx, audience, lease)
            else:
                await resolve_unconfirmed(self._ctx, audience, lease)

    async def _are_idle(self, list_ids: Sequence[str]) -> bool:
        config = await self._ctx.store.read(read_config)
        audiences = [self._ctx.audience(config.links[i]) for i in list_ids if i in config.links]
        return all([(await self._ctx.store.read(_read_state, one)).is_idle for one in audiences])


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, at most so long. (``asyncio.wait_for`` of Python 3.11 may swallow a cancellation.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _read_state(conn: Connection, audience: Audience) -> _State:
    list_id = audience.list_id
    return _State(
        batches=unfinished(conn, [list_id]),
        unknown=len(unconfirmed_batches(conn, list_id, audience.clock)),
        to_cancel=len(batches_to_cancel(conn, [list_id])),
        is_ready=has_ready(conn, list_id),
        is_between_runs=checkpoints.load(conn, list_id).stage == checkpoints.READY_TO_FETCH,
    )


def repair(conn: Connection, list_id: str) -> None:
    """Repair rows that wait for something that never comes, as another program's writes may leave them.

    Open updates of processed batches wait again; rows that are ``live`` without an open update are reconciled again.
    """
    requeue_orphans(conn, list_id)
    conn.execute(
        change(cache)
        .where(
            cache.c.mailchimp_list_id == list_id,
            cache.c.sync_status.in_((SyncStatus.LIVE, SyncStatus.REDO)),
            ~owes_something(),
        )
        .values(sync_status=SyncStatus.TODO)
    )
