"""From the facts of rows to plans, and from plans to the rows: the one path for syncs, previews and explanations.

`plan_rows` says what a sync does with each row and `reconcile_rows` does it. Code that counts, previews or explains a
sync calls `plan_rows`, so none of them can disagree with it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from sync.audience import Audience
from sync.reconcile.apply import Applied, apply_plans
from sync.reconcile.facts import facts_for
from sync.reconcile.plan import Plan, plan, plan_address

Watch = Callable[[Connection, Plan], None]


def plan_rows(conn: Connection, audience: Audience, cache_ids: Sequence[int], *, complete: bool = False) -> list[Plan]:
    """What a sync does next with each of these rows, by id; rows that are gone are left out.

    A change of address comes first: a row that needs one gets that plan (`Plan.is_address`), and once it is applied
    the row is planned again. *complete*: with the dates and addresses of rows for which they change nothing.
    """
    return [
        plan_address(facts, audience) or plan(facts, audience)
        for facts in facts_for(conn, audience, cache_ids, complete=complete)
    ]


def change_addresses(
    conn: Connection, audience: Audience, plans: Sequence[Plan], at: datetime, watch: Watch | None = None
) -> int:
    """Carry out those of these plans that change an address, at *at* (aware); returns how many these were."""
    moves = [one for one in plans if one.is_address]
    _apply(conn, audience, moves, at, watch)
    return len(moves)


def reconcile_rows(
    conn: Connection, audience: Audience, cache_ids: Sequence[int], at: datetime, watch: Watch | None = None
) -> Applied:
    """Bring both sides of these rows into agreement at *at* (aware): addresses first, then everything else.

    *watch* is called with each plan before it is carried out.
    """
    complete = watch is not None  # a preview gives the whole reasons
    plans = plan_rows(conn, audience, cache_ids, complete=complete)
    if change_addresses(conn, audience, plans, at, watch):
        plans = plan_rows(conn, audience, cache_ids, complete=complete)
    return _apply(conn, audience, plans, at, watch)


def _apply(conn: Connection, audience: Audience, plans: Sequence[Plan], at: datetime, watch: Watch | None) -> Applied:
    if watch is not None:
        for one in plans:
            watch(conn, one)
    return apply_plans(conn, audience, plans, at)
