"""Runs syncs in one process: audiences in turn or shared with other processes, cancellation, after-run work.

``Runner.sync`` is what a call asks for, ``Runner.visit`` one audience of it; `engine` says what a visit does. Processes
on one database share a sync of several audiences through ``work_queue``: the process that was asked works on the queue
too, so that the sync is done where no other worker runs, and waits for the turns that others have taken.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from civiapi.runtime.shutdown import GRACE, STOPPING, end_task
from civiapi.store import leases
from civiapi.store.errors import StoreError
from sync.connections.config import Link, read_config
from sync.context import SyncContext
from sync.errors import BadConfig, SyncError
from sync.runs import work_queue
from sync.runs.engine import BUSY, RunOutcome, run_audience
from sync.runs.run import RunRequest, StageProgress

POLL_SECONDS = 1.0
"""How often a worker looks for open turns."""

Listener = Callable[[StageProgress], None]
AfterRun = Callable[[RunOutcome], Awaitable[None]]
Visited = dict[str, SyncError | None]
"""The audiences that had their turn, by list id, each with its error if it failed."""

log = structlog.get_logger(__name__)


class Runner:
    """Syncs audiences in this process; each task of *after_run* gets the outcome of every run, in order."""

    def __init__(self, ctx: SyncContext, *, after_run: Sequence[AfterRun] = ()) -> None:
        self._ctx = ctx
        self._after_run = after_run
        self._listeners: list[Listener] = []
        self._runs: set[asyncio.Task[RunOutcome]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._requests = 0

    async def start(self) -> None:
        """Begin to take turns in the background where other processes share the database."""
        if self._worker is None and self._ctx.store.is_shared:
            self._worker = asyncio.create_task(self._work(), name="sync worker")

    def wind_down(self) -> None:
        """Start no new run; a running one stops after its unit of work and is cancelled after `GRACE` seconds."""
        self._ctx.stop.is_asked = True
        asyncio.get_running_loop().call_later(GRACE, self._cancel_runs)

    async def stop(self) -> None:
        """Cancel the worker and all runs; the next run continues from the last commit of each."""
        self._ctx.stop.is_asked = True
        worker, self._worker = self._worker, None
        await asyncio.gather(*(end_task(task) for task in (worker, *self._runs) if task is not None))

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """While the block lasts, *listener* gets the progress of each stage of each run of this process."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def sync(self, links: Sequence[Link], request: RunRequest) -> list[Link]:
        """Sync these audiences while *request.max_time* lasts; returns those that had their turn.

        Raises the first SyncError, after every audience has had its turn.
        """
        shared = len(links) > 1 and self._ctx.store.is_shared
        visited = await (self._share(links, request) if shared else self._visit_in_turn(links, request))
        for error in visited.values():
            if error is not None:
                raise error
        return [link for link in links if link.list_id in visited]

    async def visit(self, link: Link, request: RunRequest) -> SyncError | None:
        """Run one audience and its after-run work; returns the error if the run failed or the server stops."""
        if self._ctx.stop.is_asked:
            return SyncError(STOPPING)
        task = asyncio.create_task(run_audience(self._ctx, self._ctx.audience(link), request, self._publish))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        try:
            ran = await task
        except SyncError as error:
            return error
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():  # the caller was cancelled, not the run
                raise
            return SyncError(STOPPING)
        if ran.outcome != BUSY:
            for work in self._after_run:
                await work(ran)
        return None

    async def _visit_in_turn(self, links: Sequence[Link], request: RunRequest) -> Visited:
        until = time.monotonic() + request.max_time
        visited: Visited = {}
        for link in links:
            left = until - time.monotonic()
            if left <= 0:
                break
            visited[link.list_id] = await self.visit(link, replace(request, max_time=left))
        return visited

    def _cancel_runs(self) -> None:
        for task in self._runs:
            task.cancel()

    def _publish(self, progress: StageProgress) -> None:
        for listener in self._listeners:
            listener(progress)

    # Sharing with other processes

    async def _share(self, links: Sequence[Link], request: RunRequest) -> Visited:
        """Queue a turn for each audience, take turns as every worker does, and wait for those that others took."""
        store, by_id, own = self._ctx.store, {link.list_id: link for link in links}, Visited()
        until_ms = leases.now_ms() + int(request.max_time * 1000)
        await store.write(work_queue.enqueue, list(by_id), request, until_ms)
        self._requests += 1
        try:
            while await store.read(work_queue.count_unfinished, list(by_id), leases.now_ms()):
                if self._ctx.stop.is_asked:
                    break
                if not await self._take_turn(by_id, own):
                    await asyncio.sleep(POLL_SECONDS / 4)
        finally:
            self._requests -= 1
        ended = await store.write(work_queue.collect, list(by_id))
        return {list_id: own.get(list_id) or (SyncError(error) if error else None) for list_id, error in ended.items()}

    async def _work(self) -> None:
        """Take turns that other processes queued; a request of this process takes its own."""
        while True:
            taken = False
            try:
                if not self._requests and not self._ctx.stop.is_asked:
                    taken = await self._take_turn((await self._ctx.store.read(read_config)).links, {})
            except (StoreError, BadConfig) as error:
                log.warning("the work queue could not be read", error=str(error))
            except Exception:  # the worker's catch-all: an unexpected error must not end it
                log.exception("a turn failed unexpectedly")
            if not taken:
                await asyncio.sleep(POLL_SECONDS)

    async def _take_turn(self, by_id: Mapping[str, Link], visited: Visited) -> bool:
        """Take one open turn and finish it, its result put into *visited*; False when there is none."""
        ctx, at_ms = self._ctx, leases.now_ms()
        turn = await ctx.store.write(work_queue.take, by_id, ctx.holder, ctx.settings.sync.claim_seconds, at_ms)
        if turn is None:
            return False
        error = visited[turn.list_id] = await self.visit(by_id[turn.list_id], turn.request)
        await ctx.store.write(work_queue.finish, turn.list_id, ctx.holder, str(error) if error else None)
        return True
