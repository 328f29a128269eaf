"""Watches what is under way at Mailchimp until nothing is: batches asked about, results fetched, followers sent.

One task in each process that serves. Several may watch the same audiences: claims see to it that results are written
down and updates are sent by one at a time. Webhooks only make it look sooner; without any it finishes everything.
Nothing is remembered here that the database does not know, but when to look again.

What a newcomer trips over: what a run left waiting on purpose (``stop_on``) is not sent from here. Only when an
audience is between two runs does what waits (compliance retries, tags, what did not fit the account's window) follow.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection
from sqlalchemy import update as change

from civiapi.store.errors import StoreError
from sync import positions
from sync.abort import cancel_batches, to_cancel
from sync.audience import Audience
from sync.batch_rows import BatchRow, find_by_batch_id, unfinished
from sync.batches import settle_unknown, submit_pending, unknown_parcels
from sync.claims import ClaimLost
from sync.config import Link, read_config
from sync.context import SyncContext
from sync.errors import BadConfig
from sync.holding import held
from sync.mailchimp.errors import MailchimpError
from sync.ready import free_stranded, has_ready
from sync.results import BatchBusy, process_batch
from sync.stopping import end_task
from sync.tables import cache
from sync.updates import owes_something

FIRST_LOOK = 1.0
"""Seconds after which a new batch is first asked about, or `poll_seconds` if that is less: small ones finish fast."""

GROWTH = 1.5
LONGEST_GAP = 300.0
FIRST_REST = 5.0
"""Seconds that an account is left alone after Mailchimp could not be asked; doubles up to the longest gap."""

FIRST_PAUSE = 0.05

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Turn:
    """When something is to be looked at again, on the monotonic clock, and the gap that led there."""

    at: float
    gap: float


@dataclass(frozen=True, slots=True)
class _State:
    """What there is to do for an audience."""

    batches: list[BatchRow]
    unknown: int
    to_cancel: int
    is_ready: bool
    is_between_runs: bool

    @property
    def is_quiet(self) -> bool:
        """True when nothing is under way and nothing waits that we may send."""
        waits = self.is_ready and self.is_between_runs
        return not (self.batches or self.unknown or self.to_cancel or waits)


class Watcher:
    """Sees to it that what is under way for the linked audiences comes to an end."""

    def __init__(self, ctx: SyncContext) -> None:
        self._ctx = ctx
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._looking = asyncio.Lock()
        self._batches: dict[int, _Turn] = {}
        self._resting: dict[str, _Turn] = {}  # by API key
        self._tidied: set[str] = set()

    async def start(self) -> None:
        """Begin to watch in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="batch watcher")

    async def stop(self) -> None:
        """Stop watching; what was begun and not committed is done again by whoever watches next."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    def wake(self) -> None:
        """Look at everything now: something was sent, or somebody says that something is finished."""
        for turn in self._batches.values():
            turn.at = 0.0
        self._woken.set()

    async def hint(self, batch_id: str) -> bool:
        """Look now at the batch that Mailchimp calls *batch_id*; False when it is none of ours."""
        row = await self._ctx.store.read(find_by_batch_id, batch_id)
        if row is None:
            return False
        self._batches[row.id] = _Turn(0.0, 0.0)
        self._woken.set()
        return True

    async def settle(self, list_ids: Sequence[str], deadline: float) -> bool:
        """Wait until nothing is under way for these audiences; False if that takes longer than *deadline* seconds.

        Looks itself, whether or not watching was started.
        """
        until, pause = time.monotonic() + deadline, FIRST_PAUSE
        while True:
            await self._look(list_ids)
            if await self._are_quiet(list_ids):
                return True
            if time.monotonic() >= until or self._ctx.stop.is_asked:
                return False
            await asyncio.sleep(min(pause, self._ctx.options.poll_seconds, max(0.0, until - time.monotonic())))
            pause *= GROWTH

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._look()
            except (StoreError, BadConfig) as error:
                log.warning("batches could not be looked at", error=str(error))
            except Exception:  # the way in of all that runs here: one bad surprise must not end the watch
                log.exception("batches could not be looked at")
            await wait_for_event(self._woken, self._pause())

    def _pause(self) -> float:
        """Seconds until something is due; never more than `poll_seconds`, as other processes send batches too."""
        now = time.monotonic()
        due = min((turn.at - now for turn in self._batches.values()), default=LONGEST_GAP)
        return max(FIRST_PAUSE, min(due, self._ctx.options.poll_seconds))

    async def _look(self, list_ids: Iterable[str] | None = None) -> None:
        """Do once what there is to do: for all audiences what is due, or for these everything."""
        wanted = None if list_ids is None else set(list_ids)
        async with self._looking:
            config = await self._ctx.store.read(read_config)
            accounts: dict[str, list[Link]] = defaultdict(list)
            for link in config.links.values():
                if wanted is None or link.list_id in wanted:
                    accounts[link.api_key].append(link)
            await asyncio.gather(
                *(self._look_at_account(key, links, wanted is not None) for key, links in accounts.items())
            )

    async def _look_at_account(self, api_key: str, links: Sequence[Link], everything: bool) -> None:
        """One account after its own pace: one that cannot be reached holds up no other."""
        resting = self._resting.get(api_key)
        if resting is not None and resting.at > time.monotonic() and not everything:
            return
        options = self._ctx.options
        try:
            for link in links:
                audience = link.audience(self._ctx.store.clock, respect_privacy=options.respect_privacy)
                await self._look_at_audience(audience, everything)
        except MailchimpError as error:
            gap = min(LONGEST_GAP, resting.gap * 2 if resting is not None else FIRST_REST)
            self._resting[api_key] = _Turn(time.monotonic() + gap, gap)
            log.warning("Mailchimp could not be asked about batches", error=str(error), again_in_seconds=gap)
        else:
            self._resting.pop(api_key, None)

    async def _look_at_audience(self, audience: Audience, everything: bool) -> None:
        state = await self._ctx.store.read(_read_state, audience)
        try:
            if state.to_cancel:
                await cancel_batches(self._ctx, audience)
            due = [row for row in state.batches if everything or self._is_due(row)]
            finished = [await self._look_at_batch(audience, row) for row in due]
            came_to_rest = any(finished) and len(finished) == len(state.batches)
            if came_to_rest or audience.list_id not in self._tidied:
                await self._ctx.store.write(tidy, audience.list_id)
                self._tidied.add(audience.list_id)
            if any(finished) or state.unknown or state.is_ready:
                await self._send_followers(audience)
        except (ClaimLost, BatchBusy) as error:
            log.info("somebody else is at work on an audience", list_id=audience.list_id, reason=str(error))

    def _is_due(self, row: BatchRow) -> bool:
        """Whether a batch is to be asked about now; one never seen before gets its first turn."""
        now = time.monotonic()
        if row.id not in self._batches:
            first = min(FIRST_LOOK, self._ctx.options.poll_seconds)
            self._batches[row.id] = _Turn(now + first, first)
        return self._batches[row.id].at <= now

    async def _look_at_batch(self, audience: Audience, row: BatchRow) -> bool:
        """Ask about one batch; True when it was finished and its results are written down."""
        found = await process_batch(self._ctx, audience, row)
        if found.tally is not None:
            self._batches.pop(row.id, None)
            return True
        options = self._ctx.options
        before = self._batches.get(row.id)
        gap = min(LONGEST_GAP, max(options.poll_seconds, before.gap * GROWTH if before else 0.0))
        self._batches[row.id] = _Turn(time.monotonic() + gap, gap)
        return False

    async def _send_followers(self, audience: Audience) -> None:
        """Settle what is unknown, and between two runs send what waits; a run that is going on does so itself."""
        async with held(self._ctx, audience.list_id, brief=True, patience=0.0) as claim:
            if claim is None:
                return
            if (await self._ctx.store.read(_read_state, audience)).is_between_runs:
                await submit_pending(self._ctx, audience, claim)
            else:
                await settle_unknown(self._ctx, audience, claim)

    async def _are_quiet(self, list_ids: Sequence[str]) -> bool:
        config = await self._ctx.store.read(read_config)
        audiences = [config.links[i].audience(self._ctx.store.clock) for i in list_ids if i in config.links]
        return all([(await self._ctx.store.read(_read_state, one)).is_quiet for one in audiences])


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, at most so long. (``asyncio.wait_for`` of Python 3.11 may swallow a cancellation.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _read_state(conn: Connection, audience: Audience) -> _State:
    list_id = audience.list_id
    return _State(
        batches=unfinished(conn, [list_id]),
        unknown=len(unknown_parcels(conn, list_id, audience.clock)),
        to_cancel=len(to_cancel(conn, [list_id])),
        is_ready=has_ready(conn, list_id),
        is_between_runs=positions.load(conn, list_id).stage == positions.READY_TO_FETCH,
    )


def tidy(conn: Connection, list_id: str) -> None:
    """Mend what no rule leaves but a database that others write to may hold: what waits for something that never comes.

    Open updates of batches that are done with wait again; rows that are ``live`` though nothing is owed for them are
    thought about again.
    """
    free_stranded(conn, list_id)
    conn.execute(
        change(cache)
        .where(
            cache.c.mailchimp_list_id == list_id,
            cache.c.sync_status.in_(("live", "redo")),
            ~owes_something(),
        )
        .values(sync_status="todo")
    )
