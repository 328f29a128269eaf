"""The brake: a sync that would take away too much stops before it reconciles, until a person has said yes.

What it would do is counted first by where rows stand (one set statement over those to be thought about), which can
only be too many; where that is within the limits, which is nearly always, that is all it costs. Else those rows, and
no others, are judged as the sync would judge them: the same facts, the same plan.

The brake and the yes are kept in the audience's position: a killed run that was confirmed goes on, and a braked one
that is run again without a yes fetches what is new and is judged anew.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, not_, or_, select

from sync.audience import Audience
from sync.context import SyncOptions
from sync.daily import count_group, find_sizes
from sync.errors import SyncBraked
from sync.facts import facts_for
from sync.kinds import INTERESTS, LEAVE_GROUP, SUBSCRIBE, UNSUBSCRIBE, kind_of
from sync.positions import READY_TO_FETCH, Position
from sync.reconcile import REMOVED, plan
from sync.sides import in_audience, in_group, was_heard_of
from sync.stages.base import ROWS_A_BIT, ROWS_A_STATEMENT, Run, Step, next_bound
from sync.tables import cache

GROUP, AUDIENCE, ADDITIONS = "group", "audience", "additions"
KINDS = (LEAVE_GROUP, UNSUBSCRIBE, SUBSCRIBE, INTERESTS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sync may do unasked: removals from either end up to *people*, or up to *percent* of it (0: no limit), and
    *additions* at Mailchimp (0: no limit)."""

    percent: float
    people: int
    additions: int

    @classmethod
    def of(cls, options: SyncOptions, own: Mapping[str, float]) -> "Limits":
        """Those of all connections, with what a connection has of its own."""
        return cls(
            percent=own.get("percent", options.brake_percent),
            people=int(own.get("people", options.brake_people)),
            additions=int(own.get("additions", options.brake_additions)),
        )

    def are_exceeded_by(self, removals: int, size: int) -> bool:
        """Whether taking *removals* of *size* people away is too much."""
        return self.percent > 0 and removals > self.people and removals * 100 > self.percent * size


@dataclass(frozen=True, slots=True)
class Toll:
    """What a sync would do to both ends, and how large they are; a size is 0 where nobody needed to know it."""

    removals_group: int = 0
    removals_audience: int = 0
    additions: int = 0
    group_size: int = 0
    audience_size: int = 0
    group_id: int = 0
    """Which group `removals_group` and `group_size` are of: the subscription group, or the one of an interest."""

    def exceeds(self, limits: Limits) -> str | None:
        """Which limit this is over: the kind of brake, or None."""
        if limits.are_exceeded_by(self.removals_group, self.group_size):
            return GROUP
        if limits.are_exceeded_by(self.removals_audience, self.audience_size):
            return AUDIENCE
        return ADDITIONS if limits.additions and self.additions > limits.additions else None


async def check_brake(run: Run) -> None:
    """Stop a run that would do too much, or let it go on. Raises SyncBraked, with the brake written down."""
    if not run.question.confirmed:
        limits = Limits.of(run.ctx.options, run.audience.brake)
        toll = await _weigh(run, limits)
        kind = toll.exceeds(limits)
        if kind is not None:
            sentence = _sentence(kind, toll, limits, run.audience.group_id)
            await run.commit(_pull, kind, toll, limits, sentence)
            raise SyncBraked(f"Audience {run.audience.list_id} stopped at {run.position.stage}: {sentence}")
    if run.position.brake is not None:
        await run.commit(_release)


async def take_up(run: Run) -> None:
    """Begin a run of a braked audience: with a yes it goes on where it stopped, else it looks at both ends anew."""
    if run.request.confirm and run.position.question is not None:
        await run.commit(_confirm)
    elif run.position.brake is not None and run.position.stage != READY_TO_FETCH:
        await run.commit(_look_anew)


def _confirm(conn: Connection, step: Step) -> None:
    step.position.question = replace(step.question, confirmed=True)
    if step.position.brake is not None:
        step.say("Confirmed: the sync goes on.")


def _look_anew(conn: Connection, step: Step) -> None:
    """Forget the braked question; all that it found out is in the rows, which stay to be thought about."""
    step.position.last_started = step.question.started
    step.position.move_to(READY_TO_FETCH)
    step.position.question = None


def _release(conn: Connection, step: Step) -> None:
    step.position.brake = None


def _pull(conn: Connection, step: Step, kind: str, toll: Toll, limits: Limits, sentence: str) -> None:
    since = (step.position.brake or {}).get("since") or step.site_time
    step.position.brake = {"kind": kind, **asdict(toll), "limits": asdict(limits), "sentence": sentence, "since": since}
    step.say(sentence)


def _sentence(kind: str, toll: Toll, limits: Limits, group_id: int) -> str:
    if kind == ADDITIONS:
        would = f"add {toll.additions} people at Mailchimp; the limit is {limits.additions}"
    else:
        removals, size, where = (
            (toll.removals_group, toll.group_size, "the group")
            if kind == GROUP
            else (toll.removals_audience, toll.audience_size, "the audience at Mailchimp")
        )
        if kind == GROUP and toll.group_id != group_id:
            where = f"the interest group {toll.group_id}"
        limit = f"{limits.percent:g} % and {limits.people} people"
        would = f"remove {removals} of {size} people from {where}; the limit is {limit}"
    return (
        f"The brake is on: this sync would {would}. Nobody was removed or added. Look at Mailchimpsync.plan; if that "
        "is what you want, go on with fetchandreconcile confirm=1."
    )


def show_brake(position: Position) -> dict[str, Any] | bool:
    """The brake as ``getstatus`` shows it; False while it is off."""
    return dict(position.brake) if position.brake is not None else False


# ── Counting ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _weigh(run: Run, limits: Limits) -> Toll:
    """What the run would do, as exactly as it takes to tell whether that is too much."""
    store, audience = run.ctx.store, run.audience
    most = await _most(run)
    kinds = [
        kind
        for kind, wanted in (
            (LEAVE_GROUP, limits.percent and most[LEAVE_GROUP] > limits.people),
            (UNSUBSCRIBE, limits.percent and most[UNSUBSCRIBE] > limits.people),
            (SUBSCRIBE, limits.additions and most[SUBSCRIBE] > limits.additions),
        )
        if wanted
    ]
    interests = await _interest_sizes(run, limits) if limits.percent and most[INTERESTS] > limits.people else {}
    if not kinds and not interests:
        return Toll()
    audience_size, group_size = await store.read(find_sizes, audience)
    upmost = Toll(most[LEAVE_GROUP], most[UNSUBSCRIBE], most[SUBSCRIBE], group_size, audience_size, audience.group_id)
    if upmost.exceeds(limits) is None and not interests:
        return Toll()
    exact = await _judge(run, [*kinds, *([INTERESTS] if interests else [])], upmost, limits, interests)
    if exact.exceeds(limits) is None:
        return exact
    return await _judge(run, list(KINDS), upmost, limits, interests)  # people will look at these numbers: all


async def _interest_sizes(run: Run, limits: Limits) -> dict[int, int]:
    """The interests' groups from which too many could be removed, with how many are in each."""
    sizes = {
        group_id: await run.ctx.store.read(count_group, group_id)
        for group_id in run.audience.group_ids
        if group_id != run.audience.group_id
    }
    return {group_id: size for group_id, size in sizes.items() if size > limits.people}


async def _judge(run: Run, kinds: Sequence[str], upmost: Toll, limits: Limits, interests: Mapping[int, int]) -> Toll:
    """What the run would do about the rows that may be of these kinds; of the groups, the first that loses too many."""
    found: Counter[str] = Counter()
    after: int | None = 0
    while after is not None:
        part, after = await run.ctx.store.read(_judge_part, run.audience, kinds, after)
        found += part
    toll = replace(
        upmost,
        removals_group=found[LEAVE_GROUP],
        removals_audience=found[UNSUBSCRIBE],
        additions=found[SUBSCRIBE],
    )
    if toll.exceeds(limits) is None:
        for group_id, size in interests.items():
            if limits.are_exceeded_by(found[_left(group_id)], size):
                return replace(toll, removals_group=found[_left(group_id)], group_size=size, group_id=group_id)
    return toll


def _candidates(audience: Audience) -> Mapping[str, ColumnElement[bool]]:
    """Where a row must stand for each of these to be decided about it (`reconcile.decide`)."""
    inside, member = in_group(audience), in_audience()
    return {
        LEAVE_GROUP: and_(cache.c.mailchimp_status.is_not(None), inside, not_(member)),
        UNSUBSCRIBE: and_(member, not_(inside), was_heard_of(audience)),
        SUBSCRIBE: and_(inside, not_(member)),
        INTERESTS: cache.c.mailchimp_status.is_not(None),
    }


def _left(group_id: int) -> str:
    """What leaving an interest's group is counted by."""
    return f"left {group_id}"


def _todo(audience: Audience, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(*columns).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.sync_status == "todo",
        cache.c.civicrm_contact_id.is_not(None),
    )


async def _most(run: Run) -> Counter[str]:
    """How many of each kind there can be at most, by where the rows to be thought about stand."""
    found: Counter[str] = Counter()
    after: int | None = 0
    while after is not None:
        part, after = await run.ctx.store.read(_count_part, run.audience, after)
        found += part
    return found


def _count_part(conn: Connection, audience: Audience, after: int) -> tuple[Counter[str], int | None]:
    upto, _ = next_bound(conn, audience, after, ROWS_A_STATEMENT, only_todo=True)
    if upto is None:
        return Counter(), None
    candidates = _candidates(audience)
    sums = [func.coalesce(func.sum(case((one, 1), else_=0)), 0) for one in candidates.values()]
    row = conn.execute(_todo(audience, sums).where(cache.c.id > after, cache.c.id <= upto)).one()
    return Counter({kind: int(count) for kind, count in zip(candidates, row, strict=True)}), upto


def _judge_part(
    conn: Connection, audience: Audience, kinds: Sequence[str], after: int
) -> tuple[Counter[str], int | None]:
    """Judge the next rows that may be of these kinds, as the sync will."""
    candidates = _candidates(audience)
    one_of_them = or_(*(candidates[kind] for kind in kinds))
    wanted = _todo(audience, [cache.c.id]).where(cache.c.id > after, one_of_them).order_by(cache.c.id).limit(ROWS_A_BIT)
    ids = list(conn.execute(wanted).scalars())
    found: Counter[str] = Counter()
    for one in facts_for(conn, audience, ids, lean=True):
        planned = plan(one, audience)
        found[kind_of(planned)] += 1
        found.update(
            _left(change.group_id)
            for change in planned.group_changes
            if change.status == REMOVED and change.group_id != audience.group_id
        )
    return found, ids[-1] if len(ids) == ROWS_A_BIT else None
