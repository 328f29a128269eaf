"""What a stage is given: the run it belongs to, and one way to commit a bit of work together with the new position."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec

from sqlalchemy import ColumnElement, Connection, Integer, Select, String, bindparam, func, select

from civiapi.store.courtesy import in_the_background
from civiapi.store.dialect import unindexed
from sync import claims, positions, progress
from sync.audience import Audience
from sync.claims import Claim
from sync.context import SyncContext
from sync.mailchimp.client import MailchimpClient
from sync.positions import READY_TO_FETCH, STAGES, Cursor, Position, Question
from sync.shares import LOOK_SECONDS, take_share
from sync.tables import cache

P = ParamSpec("P")

DATA_STAGE = "readyToCheckForDataUpdates"
ROWS_A_BIT = 1000
"""Rows that Python looks at in one unit."""
ROWS_A_SET = 2000
"""Rows that set statements write in one unit."""
ROWS_A_STATEMENT = 4000
"""Rows that set statements look over in one unit. All three: so few that a webhook, which waits for the one writer, is
answered within a tenth of a second."""


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage has got; *total* is None where nobody knows."""

    list_id: str
    stage: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked. Times in seconds; *max_time* 0: no limit.

    *since*: changes at Mailchimp from then on (aware; the overlap is taken off), ``ever`` for everything, None for
    since the last sync. *stop_on*: the stage to stop before. *confirm*: yes
    to whatever this takes away (`brake`).
    """

    max_time: float = 300
    since: datetime | str | None = None
    stop_on: str | None = None
    force_restart: bool = False
    with_data: bool = False
    confirm: bool = False


@dataclass(slots=True)
class Step:
    """One bit of work inside its unit: the position it moves and what it counts. Made anew each time a unit runs."""

    audience: Audience
    position: Position
    at: datetime
    counts: Counter[str] = field(default_factory=Counter)
    total: int | None = None
    """How much the present stage has to do, where a bit has found out."""
    suspects: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """What a bit of the fetch leaves open: members that may be old ones under a new address (`cache.merge_page`)."""

    @property
    def question(self) -> Question:
        """What this run was asked."""
        return self.position.question or Question()

    @property
    def site_time(self) -> str:
        """Now, as the site writes it."""
        return self.audience.clock.write(self.at)

    def say(self, message: str) -> None:
        """Add a line to the audience's log."""
        self.position.say(self.site_time, message)

    def stay(self, **cursor: Any) -> None:
        """Go on in this stage from *cursor*."""
        self.position.cursor = cursor

    def finish(self) -> None:
        """Go on to the next stage."""
        following = STAGES.index(self.position.stage) + 1
        name = STAGES[following] if following < len(STAGES) else READY_TO_FETCH
        if name == DATA_STAGE and not self.question.with_data:
            name = STAGES[following + 1]
        self.position.move_to(name)


@dataclass(slots=True)
class Run:
    """One run of one audience, held by a claim."""

    ctx: SyncContext
    audience: Audience
    claim: Claim
    request: RunRequest
    position: Position
    on_progress: Callable[[StageProgress], None] | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    began_ms: int = field(default_factory=claims.now_ms)
    shared_at: float = -LOOK_SECONDS
    """When it was last looked how many other processes are at work on the account (monotonic)."""

    @property
    def client(self) -> MailchimpClient:
        """The client of the audience's account. Raises InvalidApiKey."""
        return self.ctx.clients.client_for(self.audience.api_key)

    @property
    def cursor(self) -> Cursor | None:
        """Where in the present stage to go on."""
        return self.position.cursor

    @property
    def question(self) -> Question:
        """What this run was asked."""
        return self.position.question or Question()

    def is_out_of_time(self) -> bool:
        """True once no new bit of work may begin: time is up, or the process is to end."""
        if self.ctx.stop.is_asked:
            return True
        return bool(self.request.max_time) and time.monotonic() - self.started >= self.request.max_time

    async def commit(
        self, fn: Callable[Concatenate[Connection, Step, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> Step:
        """Run one bit of work and save the position it leaves, in one transaction that only our claim lets through.

        Raises ClaimLost, with nothing written.
        """
        stage = self.position.stage
        if time.monotonic() - self.shared_at >= LOOK_SECONDS:
            self.shared_at = time.monotonic()
            await take_share(self.ctx, self.audience)
        step = await self.ctx.store.write(_unit, self.audience, self.claim, self.began_ms, fn, args, kwargs)
        self.position = step.position
        self.counts.setdefault(stage, Counter()).update(step.counts)
        if self.on_progress is not None:
            done = self.counts[stage][progress.UNITS[stage]]
            self.on_progress(StageProgress(self.audience.list_id, stage, done, progress.total_of(self.position, stage)))
        return step

    async def repeat(self, fn: Callable[[Connection, Step], None]) -> None:
        """Do bits of work until the stage is finished or time is up."""
        stage = self.position.stage
        while self.position.stage == stage:
            await self.commit(fn)
            if self.is_out_of_time():
                return


def _unit(
    conn: Connection,
    audience: Audience,
    claim: Claim,
    began_ms: int,
    fn: Callable[..., None],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Step:
    step = Step(audience, positions.load(conn, audience.list_id, for_update=True), datetime.now(UTC))
    stage = step.position.stage
    with in_the_background():
        fn(conn, step, *args, **kwargs)
    progress.note(step.position, stage, step.counts, step.total, began_ms)
    positions.save(conn, step.position)
    claims.check(conn, claim)
    return step


def next_bound(
    conn: Connection, audience: Audience, after: int, size: int, *, only_todo: bool
) -> tuple[int | None, int]:
    """The id up to which the next *size* rows after *after* go, None when there are no more; and how many they are."""
    part = {"list_id": audience.list_id, "after": after, "size": size}
    bound, count = conn.execute(_BOUND_OF_TODO if only_todo else _BOUND, part).one()
    return bound, count


def count_rows(conn: Connection, list_id: str, *, only_todo: bool) -> int:
    """How many rows an audience has, or how many of them are to be thought about."""
    return int(conn.execute(_ROWS_TODO if only_todo else _ROWS, {"list_id": list_id}).scalar_one())


def _bound_of(*wanted: ColumnElement[bool]) -> Select[int | None, int]:
    rows = select(cache.c.id).where(cache.c.id > bindparam("after", type_=Integer()), *wanted)
    part = rows.order_by(cache.c.id).limit(bindparam("size", type_=Integer())).subquery()
    return select(func.max(part.c.id), func.count())


_LIST_ID = bindparam("list_id", type_=String())
_ROWS = select(func.count()).where(cache.c.mailchimp_list_id == _LIST_ID)
_ROWS_TODO = _ROWS.where(cache.c.sync_status == "todo")
_BOUND = _bound_of(unindexed(cache.c.mailchimp_list_id) == _LIST_ID)  # in the order of ids, which no index of it has
_BOUND_OF_TODO = _bound_of(cache.c.mailchimp_list_id == _LIST_ID, cache.c.sync_status == "todo")
"""Made once: nearly every stage asks with every bit."""
