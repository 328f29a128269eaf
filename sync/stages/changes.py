"""readyToCheckForGroupChanges: whoever CiviCRM said something about since the last run is to be thought about."""

from typing import Any

from sqlalchemy import Connection, and_, not_, or_, select
from sqlalchemy import update as change

from civiapi.store.dialect import among
from civiapi.store.tables import subscription_history
from sync.facts import ECHO_METHOD
from sync.sides import in_audience, in_group
from sync.stages.base import ROWS_A_BIT, ROWS_A_STATEMENT, Run, Step, next_bound
from sync.tables import cache


async def check_for_group_changes(run: Run) -> None:
    """Mark ``todo`` the rows of contacts with new history in a group that matters; on a full run also rows whose
    contact is in the group and not in the audience, or the other way round."""
    await run.repeat(_check)


def _check(conn: Connection, step: Step) -> None:
    cursor = step.position.cursor or {"phase": "history", "after": step.position.history_id, "marked": 0}
    if cursor["phase"] == "history":
        marked, following = _by_history(conn, step, int(cursor["after"]))
    else:
        marked, following = _by_comparison(conn, step, int(cursor["after"]))
    step.counts.update(marked=marked)
    total = cursor["marked"] + marked
    if following is not None:
        step.stay(**following, marked=total)
        return
    step.position.history_id = step.question.history_mark
    step.position.interests = dict(step.audience.interests)
    step.say(f"Group: {total} rows to look at again because of what CiviCRM said.")
    step.finish()


Following = tuple[int, dict[str, Any] | None]


def _by_history(conn: Connection, step: Step, after: int) -> Following:
    """Our own echoes are no news: the row was judged when they were made."""
    history = subscription_history.c
    rows = conn.execute(
        select(history.id, history.contact_id, history.method)
        .where(
            history.id > after,
            history.id <= step.question.history_upto,
            history.group_id.in_(step.audience.group_ids),
        )
        .order_by(history.id)
        .limit(ROWS_A_BIT // 2)
    ).all()
    if not rows:
        compares = step.question.is_full or step.position.interests != dict(step.audience.interests)
        return 0, {"phase": "all", "after": 0} if compares else None
    contacts = list(dict.fromkeys(row.contact_id for row in rows if row.method != ECHO_METHOD))
    marked = 0
    if contacts:
        mine = and_(
            cache.c.mailchimp_list_id == step.audience.list_id,
            among(cache.c.civicrm_contact_id, contacts),
            or_(cache.c.sync_status != "todo", cache.c.sync_status.is_(None)),
        )
        marked = conn.execute(change(cache).where(mine).values(sync_status="todo")).rowcount
    return marked, {"phase": "history", "after": rows[-1].id}


def _by_comparison(conn: Connection, step: Step, after: int) -> Following:
    """Where group and audience disagree or somebody failed, whatever history says; everybody, with other interests."""
    upto, _ = next_bound(conn, step.audience, after, ROWS_A_STATEMENT, only_todo=False)
    if upto is None:
        return 0, None
    inside, member = in_group(step.audience), in_audience()
    rows = and_(
        cache.c.mailchimp_list_id == step.audience.list_id,
        cache.c.id > after,
        cache.c.id <= upto,
        cache.c.civicrm_contact_id.is_not(None),
        or_(cache.c.sync_status != "todo", cache.c.sync_status.is_(None)),
    )
    if step.position.interests == dict(step.audience.interests):
        failed = cache.c.sync_status == "fail"  # what was called off by an abort is owed still
        rows = and_(rows, or_(and_(inside, not_(member)), and_(not_(inside), member), failed))
    marked = conn.execute(change(cache).where(rows).values(sync_status="todo")).rowcount
    return marked, {"phase": "all", "after": upto}
