"""How many people a run would remove or add, counted only as exactly as the brake needs.

First rows are counted by their state, with one set statement, which can only count too many. Where that is within the
limits, as nearly always, that is all. Otherwise the rows that may matter, and no others, are planned as the sync would
plan them: same facts, same plan.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, not_, or_, select

from civiapi.settings import SyncSettings
from sync.audience import Audience, Privacy
from sync.model import GroupStatus, SyncStatus
from sync.reconcile.categories import INTERESTS, LEAVE_GROUP, SUBSCRIBE, UNSUBSCRIBE, kind_of
from sync.reconcile.conditions import in_audience, in_group, was_heard_of
from sync.reconcile.planning import plan_rows
from sync.runs.run import Run, next_todo
from sync.store.daily import count_group, find_sizes
from sync.store.members.privacy import member_objects
from sync.store.tables import cache

GROUP, AUDIENCE, ADDITIONS, DATA = "group", "audience", "additions", "data"
KINDS = (LEAVE_GROUP, UNSUBSCRIBE, SUBSCRIBE, INTERESTS)

_Part = tuple[Counter[str], int | None]
"""Counts of some rows, and the id after which to continue; None at the end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sync may do unconfirmed: removals from either side up to *people*, or up to *percent* of it (0: no limit),
    and *additions* at Mailchimp (0: no limit); merge fields changed by new rules of up to *people*, or up to *data*
    percent of the members (0: no limit)."""

    percent: float
    people: int
    additions: int
    data: float = 0.0

    @classmethod
    def of(cls, settings: SyncSettings, own: Mapping[str, float]) -> "Limits":
        """The limits of all connections, with what a connection has of its own."""
        return cls(
            percent=own.get("percent", settings.brake_percent),
            people=int(own.get("people", settings.brake_people)),
            additions=int(own.get("additions", settings.brake_additions)),
            data=own.get("data", settings.brake_data_percent),
        )

    def are_exceeded_by(self, removals: int, size: int) -> bool:
        """Whether removing *removals* of *size* people is too much."""
        return self.percent > 0 and removals > self.people and removals * 100 > self.percent * size


@dataclass(frozen=True, slots=True)
class Impact:
    """How many people a sync would remove and add, and the sizes of both sides; a size that was not needed is 0."""

    removals_group: int = 0
    removals_audience: int = 0
    additions: int = 0
    group_size: int = 0
    audience_size: int = 0
    group_id: int = 0
    """The group of `removals_group` and `group_size`: the subscription group or an interest's."""
    data_changes: int = 0
    """Members of whom new rules would send merge fields."""

    def exceeds(self, limits: Limits) -> str | None:
        """The kind of limit that this exceeds, or None."""
        if limits.are_exceeded_by(self.removals_group, self.group_size):
            return GROUP
        if limits.are_exceeded_by(self.removals_audience, self.audience_size):
            return AUDIENCE
        if limits.additions and self.additions > limits.additions:
            return ADDITIONS
        too_many = self.data_changes > limits.people and self.data_changes * 100 > limits.data * self.audience_size
        return DATA if limits.data and too_many else None


async def estimate_impact(run: Run, limits: Limits) -> Impact:
    """What the run would do, exact where it exceeds the limits."""
    audience = run.audience
    most = await _sum_parts(run, _count_rows, run.ctx.sizes.scanned_rows_per_unit)
    kinds = [
        kind
        for kind, limit, most_allowed in (
            (LEAVE_GROUP, limits.percent, limits.people),
            (UNSUBSCRIBE, limits.percent, limits.people),
            (SUBSCRIBE, limits.additions, limits.additions),
        )
        if limit and most[kind] > most_allowed
    ]
    interests = await _interest_sizes(run, limits) if limits.percent and most[INTERESTS] > limits.people else {}
    if not kinds and not interests:
        return Impact()
    audience_size, group_size = await run.ctx.store.read(find_sizes, audience)
    bound = Impact(most[LEAVE_GROUP], most[UNSUBSCRIBE], most[SUBSCRIBE], group_size, audience_size, audience.group_id)
    if bound.exceeds(limits) is None and not interests:
        return Impact()
    exact = await _count_exactly(run, [*kinds, *([INTERESTS] if interests else [])], bound, limits, interests)
    if exact.exceeds(limits) is None:
        return exact
    return await _count_exactly(run, KINDS, bound, limits, interests)  # people will read these numbers: count all


async def _interest_sizes(run: Run, limits: Limits) -> dict[int, int]:
    """The size of each interest group from which too many people could be removed."""
    groups = [group_id for group_id in run.audience.group_ids if group_id != run.audience.group_id]
    sizes = {group_id: await run.ctx.store.read(count_group, group_id) for group_id in groups}
    return {group_id: size for group_id, size in sizes.items() if size > limits.people}


async def _count_exactly(
    run: Run, kinds: Sequence[str], bound: Impact, limits: Limits, interests: Mapping[int, int]
) -> Impact:
    """What the run would do about rows of these kinds; of the interest groups, the first that exceeds the limits."""

    def count(conn: Connection, audience: Audience, after: int, size: int) -> _Part:
        return count_plans(conn, audience, kinds, after, size)

    found = await _sum_parts(run, count, run.ctx.sizes.rows_per_unit)
    impact = replace(
        bound,
        removals_group=found[LEAVE_GROUP],
        removals_audience=found[UNSUBSCRIBE],
        additions=found[SUBSCRIBE],
    )
    if impact.exceeds(limits) is None:
        for group_id, group_size in interests.items():
            removals = found[_leaving(group_id)]
            if limits.are_exceeded_by(removals, group_size):
                return replace(impact, removals_group=removals, group_size=group_size, group_id=group_id)
    return impact


async def _sum_parts(
    run: Run, count: Callable[[Connection, Audience, int, int], _Part], rows_per_unit: int
) -> Counter[str]:
    """The counts of all ``todo`` rows, one unit after another."""
    found: Counter[str] = Counter()
    after: int | None = 0
    while after is not None:
        part, after = await run.ctx.store.read(count, run.audience, after, rows_per_unit)
        found += part
    return found


def _count_rows(conn: Connection, audience: Audience, after: int, size: int) -> _Part:
    """How many of the next rows can be of each kind at most, by their state."""
    rows, _ = next_todo(conn, audience, after, size)
    if rows is None:
        return Counter(), None
    candidates = _candidates(audience)
    sums = [func.coalesce(func.sum(case((one, 1), else_=0)), 0) for one in candidates.values()]
    row = conn.execute(select(*sums).where(rows.of(audience), cache.c.civicrm_contact_id.is_not(None))).one()
    return Counter({kind: int(count) for kind, count in zip(candidates, row, strict=True)}), rows.upto


def count_plans(conn: Connection, audience: Audience, kinds: Sequence[str], after: int, size: int) -> _Part:
    """Plan the next rows that can be of these kinds, and count the plans by kind."""
    candidates = _candidates(audience)
    one_of_them = or_(*(candidates[kind] for kind in kinds))
    wanted = _todo(audience, [cache.c.id]).where(cache.c.id > after, one_of_them).order_by(cache.c.id).limit(size)
    ids = list(conn.execute(wanted).scalars())
    found: Counter[str] = Counter()
    for planned in plan_rows(conn, audience, ids):
        found[kind_of(planned)] += 1
        found.update(
            _leaving(change.group_id)
            for change in planned.group_changes
            if change.status == GroupStatus.REMOVED and change.group_id != audience.group_id
        )
    return found, ids[-1] if len(ids) == size else None


def _candidates(audience: Audience) -> Mapping[str, ColumnElement[bool]]:
    """The rows that `reconcile.decide` can give each kind of plan. What the row itself says comes first: the group is
    looked up for few of them."""
    inside, member = in_group(audience), in_audience()
    left = and_(member, not_(inside), was_heard_of(audience))
    return {
        LEAVE_GROUP: and_(not_(member), cache.c.mailchimp_status.is_not(None), inside),
        UNSUBSCRIBE: or_(left, member_objects()) if audience.privacy is Privacy.UNSUBSCRIBE else left,
        SUBSCRIBE: and_(not_(member), inside),
        INTERESTS: cache.c.mailchimp_status.is_not(None),
    }


def _leaving(group_id: int) -> str:
    """The key under which removals from an interest group are counted."""
    return f"left {group_id}"


def _todo(audience: Audience, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(*columns).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.sync_status == SyncStatus.TODO,
        cache.c.civicrm_contact_id.is_not(None),
    )
