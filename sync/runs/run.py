"""What a stage is given: the run it belongs to, and the way to commit a unit of work with the new checkpoint."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec

from sqlalchemy import ColumnElement, Connection, Integer, Select, String, bindparam, func, select

from civiapi.runtime.loop_priority import background_work
from civiapi.store import leases
from civiapi.store.author import Author
from civiapi.store.databases.expressions import unindexed
from civiapi.store.leases import Lease
from sync.audience import Audience
from sync.connections.connection_share import INTERVAL_S, take_share
from sync.context import SyncContext, UnitSizes
from sync.mailchimp.client import MailchimpClient
from sync.model import SyncStatus
from sync.reconcile.matching import Range
from sync.runs import progress
from sync.store.events import BY_SYNC
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import READY_TO_FETCH, STAGES, Checkpoint, Cursor, RunParameters
from sync.store.tables import cache

P = ParamSpec("P")

DATA_STAGE = "readyToCheckForDataUpdates"


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage has got; *total* is None where it is not known."""

    list_id: str
    stage: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller asks of a run. Times in seconds; *max_time* 0: no limit.

    *since*: changes at Mailchimp from then on (aware; the overlap is subtracted), ``ever`` for everything, None for
    since the last sync. *stop_on*: the stage to stop before. *confirm*: continue whatever it removes or adds (`brake`);
    *by*: who asks.
    """

    max_time: float = 300
    since: datetime | str | None = None
    stop_on: str | None = None
    force_restart: bool = False
    with_data: bool = False
    confirm: bool = False
    by: Author = BY_SYNC


@dataclass(slots=True)
class Step:
    """A unit of work inside its transaction: the checkpoint it moves and what it counts. New each time a unit runs."""

    audience: Audience
    checkpoint: Checkpoint
    at: datetime
    sizes: UnitSizes = field(default_factory=UnitSizes)
    counts: Counter[str] = field(default_factory=Counter)
    total: int | None = None
    """How much the present stage has to do, where a unit has counted it."""
    possible_renames: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Members of a fetched page that may be known ones under a new address (`cache.merge_page`)."""

    @property
    def parameters(self) -> RunParameters:
        """What the present run does."""
        return self.checkpoint.parameters or RunParameters()

    @property
    def site_time(self) -> str:
        """Now, as the site writes it."""
        return self.audience.clock.write(self.at)

    def log(self, message: str) -> None:
        """Add a line to the audience's log."""
        self.checkpoint.add_log_line(self.site_time, message)

    def continue_from(self, **cursor: Any) -> None:
        """Continue this stage from *cursor*."""
        self.checkpoint.cursor = cursor

    def finish(self) -> None:
        """Move to the next stage."""
        following = STAGES.index(self.checkpoint.stage) + 1
        name = STAGES[following] if following < len(STAGES) else READY_TO_FETCH
        if name == DATA_STAGE and not self.parameters.with_data:
            name = STAGES[following + 1]
        self.checkpoint.move_to(name)


@dataclass(slots=True)
class Run:
    """One run of one audience, under a lease."""

    ctx: SyncContext
    audience: Audience
    lease: Lease
    request: RunRequest
    checkpoint: Checkpoint
    on_progress: Callable[[StageProgress], None] | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    began_ms: int = field(default_factory=leases.now_ms)
    shared_at: float = -INTERVAL_S
    """When the share of the account's connections was last computed (monotonic)."""

    @property
    def client(self) -> MailchimpClient:
        """The client of the audience's account. Raises InvalidApiKey."""
        return self.ctx.clients.client_for(self.audience.api_key)

    @property
    def cursor(self) -> Cursor | None:
        """Where to continue in the present stage."""
        return self.checkpoint.cursor

    @property
    def parameters(self) -> RunParameters:
        """What the present run does."""
        return self.checkpoint.parameters or RunParameters()

    @property
    def plain_counts(self) -> dict[str, dict[str, int]]:
        """What each stage did in this run."""
        return {stage: dict(counts) for stage, counts in self.counts.items()}

    @property
    def seconds(self) -> float:
        """How long this run has been going on."""
        return time.monotonic() - self.started

    def is_out_of_time(self) -> bool:
        """Whether no new unit of work may begin: the time is over, or the process is to end."""
        if self.ctx.stop.is_asked:
            return True
        return bool(self.request.max_time) and self.seconds >= self.request.max_time

    async def commit(
        self, fn: Callable[Concatenate[Connection, Step, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> Step:
        """Run one unit of work and save the checkpoint it leaves, in one transaction that fails without our lease.

        Raises LeaseLost, with nothing written.
        """
        stage = self.checkpoint.stage
        if time.monotonic() - self.shared_at >= INTERVAL_S:
            self.shared_at = time.monotonic()
            await take_share(self.ctx, self.audience)
        step = await self.ctx.store.write(_unit, self, fn, args, kwargs)
        self.checkpoint = step.checkpoint
        self.counts.setdefault(stage, Counter()).update(step.counts)
        if self.on_progress is not None:
            done = self.counts[stage][progress.UNITS[stage]]
            self.on_progress(
                StageProgress(self.audience.list_id, stage, done, progress.total_of(self.checkpoint, stage))
            )
        return step

    async def repeat(self, fn: Callable[[Connection, Step], None]) -> None:
        """Do units of work until the stage is finished or the time is over."""
        stage = self.checkpoint.stage
        while self.checkpoint.stage == stage:
            await self.commit(fn)
            if self.is_out_of_time():
                return


def _unit(conn: Connection, run: Run, fn: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    checkpoint = checkpoints.load(conn, run.audience.list_id, for_update=True)
    checkpoint.is_held = True
    checkpoint.is_waiting = False
    checkpoint.is_held_elsewhere = False  # an extension that was made to start in spite of our lock
    step = Step(run.audience, checkpoint, datetime.now(UTC), run.ctx.sizes)
    stage = step.checkpoint.stage
    with background_work():
        fn(conn, step, *args, **kwargs)
    progress.note(step.checkpoint, stage, step.counts, step.total, run.began_ms)
    checkpoints.save(conn, step.checkpoint)
    leases.check(conn, run.lease)
    return step


def next_rows(conn: Connection, audience: Audience, after: int, size: int) -> tuple[Range | None, int]:
    """The next *size* rows after *after*, None when there are no more; and how many they are."""
    part = {"list_id": audience.list_id, "after": after, "size": size}
    upto, count = conn.execute(_BOUND, part).one()
    return None if upto is None else Range(after, upto), count


def next_todo(conn: Connection, audience: Audience, after: int, size: int) -> tuple[Range | None, int]:
    """`next_rows` of those that are ``todo``."""
    ids = list(conn.execute(_TODO, {"list_id": audience.list_id, "after": after, "size": size}).scalars())
    return (Range(after, ids[-1], ids) if ids else None), len(ids)


def next_range(conn: Connection, step: Step, after: int) -> tuple[Range | None, int]:
    """The next rows of a stage that scans all rows in a full run, else the ``todo`` ones; counts them at the start."""
    only_todo = not step.parameters.is_full
    if not after:
        step.total = count_rows(conn, step.audience.list_id, only_todo=only_todo)
    look = next_todo if only_todo else next_rows
    return look(conn, step.audience, after, step.sizes.scanned_rows_per_unit)


def count_rows(conn: Connection, list_id: str, *, only_todo: bool) -> int:
    """How many rows an audience has, or how many of them are ``todo``."""
    return int(conn.execute(_ROWS_TODO if only_todo else _ROWS, {"list_id": list_id}).scalar_one())


def _rows_after(*wanted: ColumnElement[bool]) -> Select[int]:
    rows = select(cache.c.id).where(cache.c.id > bindparam("after", type_=Integer()), *wanted)
    return rows.order_by(cache.c.id).limit(bindparam("size", type_=Integer()))


_LIST_ID = bindparam("list_id", type_=String())
_ROWS = select(func.count()).where(cache.c.mailchimp_list_id == _LIST_ID)
_ROWS_TODO = _ROWS.where(cache.c.sync_status == SyncStatus.TODO)
_NEXT = _rows_after(unindexed(cache.c.mailchimp_list_id) == _LIST_ID).subquery()  # in the order of ids
_BOUND = select(func.max(_NEXT.c.id), func.count())
_TODO = _rows_after(cache.c.mailchimp_list_id == _LIST_ID, cache.c.sync_status == SyncStatus.TODO)
"""Built once: nearly every stage runs them in every unit."""
