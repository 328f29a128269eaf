"""Sharing a sync of all audiences among the processes on one database (``turns`` keeps the list).

Whoever asks works on it too, so it gets done where no worker runs; every worker looks for open turns now and then and
takes one at a time. The asker waits for the turns that others have taken, until the time is over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from civiapi.store.errors import StoreError
from sync import claims, turns
from sync.config import Link, read_config
from sync.context import SyncContext
from sync.errors import BadConfig, SyncError
from sync.stages.base import RunRequest
from sync.stopping import end_task

LOOK_SECONDS = 1.0
"""How often a worker looks for open turns, and an asker whether the others are done."""

Visit = Callable[[Link, RunRequest], Awaitable[SyncError | None]]

log = structlog.get_logger(__name__)


class Workers:
    """This process's share in syncs of all audiences. *visit* runs one audience and says how it failed, if it did."""

    def __init__(self, ctx: SyncContext, visit: Visit) -> None:
        self._ctx = ctx
        self._visit = visit
        self._task: asyncio.Task[None] | None = None
        self._asking = 0

    async def start(self) -> None:
        """Begin to take turns in the background, where other processes may ask for some."""
        if self._task is None and self._ctx.store.is_shared:
            self._task = asyncio.create_task(self._help(), name="worker")

    async def stop(self) -> None:
        """Stop; an audience being worked on stays where its last commit left it, for the next one to go on."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def visit_all(self, links: Sequence[Link], request: RunRequest) -> dict[str, SyncError | None]:
        """Have each of these audiences run by somebody; which had their turn in time, and how each failed."""
        by_id = {link.list_id: link for link in links}
        until_ms = claims.now_ms() + int(request.max_time * 1000)
        own: dict[str, SyncError | None] = {}
        await self._ctx.store.write(turns.ask, list(by_id), request, until_ms)
        self._asking += 1
        try:
            while await self._ctx.store.read(turns.waiting, list(by_id), claims.now_ms()):
                if self._ctx.stop.is_asked:
                    break
                taken = await self._take(by_id, own)
                if not taken:
                    await asyncio.sleep(LOOK_SECONDS / 4)
        finally:
            self._asking -= 1
        told = await self._ctx.store.write(turns.collect, list(by_id))
        return {one: own.get(one) or (SyncError(error) if error else None) for one, error in told.items()}

    async def _help(self) -> None:
        while True:
            taken = False
            try:
                if not self._asking and not self._ctx.stop.is_asked:
                    taken = await self._take((await self._ctx.store.read(read_config)).links, {})
            except (StoreError, BadConfig) as error:
                log.warning("turns could not be looked for", error=str(error))
            except Exception:  # the way in of all that runs here: one bad surprise must not end the help
                log.exception("a turn met a fault of ours")
            if not taken:
                await asyncio.sleep(LOOK_SECONDS)

    async def _take(self, by_id: Mapping[str, Link], heard: dict[str, SyncError | None]) -> bool:
        """Take one turn, if there is any, to its end; *heard* gets how it failed."""
        ctx = self._ctx
        turn = await ctx.store.write(turns.take, by_id, ctx.holder, ctx.options.claim_seconds, claims.now_ms())
        if turn is None:
            return False
        error = await self._visit(by_id[turn.list_id], turn.request)
        heard[turn.list_id] = error
        await ctx.store.write(turns.finish, turn.list_id, ctx.holder, str(error) if error else None)
        return True
