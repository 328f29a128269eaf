"""readyToCheckForGroupChanges: rows whose contact has new group history since the last run become ``todo``."""

from typing import Any

from sqlalchemy import Connection, and_, not_, or_
from sqlalchemy import update as change

from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import subscription_history
from sync.audience import Privacy
from sync.model import SyncStatus
from sync.reconcile.conditions import in_audience, in_group
from sync.reconcile.facts import ECHO_METHOD
from sync.runs.run import Run, Step, next_rows
from sync.runs.stages.modified_contacts import modified_since
from sync.runs.stages.new_history import next_history
from sync.store.members.holds import STATUS, has_hold
from sync.store.members.privacy import member_objects
from sync.store.retries import wake_due
from sync.store.runs.own_rows import forget_before
from sync.store.tables import cache


async def check_for_group_changes(run: Run) -> None:
    """Mark ``todo`` the rows of contacts with new history in a group that matters; on a full run also rows whose
    contact is in the group and not in the audience, or the other way round. Rows that were refused for now and are due
    again are marked as well."""
    await run.repeat(_check)


def _check(conn: Connection, step: Step) -> None:
    cursor = step.checkpoint.cursor
    if cursor is None:
        woken = wake_due(conn, step.audience.list_id, int(step.at.timestamp()))
        step.counts.update(retried=woken)
        cursor = {"phase": "history", "after": step.checkpoint.history_id, "marked": 0}
    if cursor["phase"] == "history":
        marked, following = _by_history(conn, step, int(cursor["after"]))
    else:
        marked, following = _by_comparison(conn, step, int(cursor["after"]))
    step.counts.update(marked=marked)
    total = cursor["marked"] + marked
    if following is not None:
        step.continue_from(**following, marked=total)
        return
    step.checkpoint.history_id = step.parameters.history_mark
    seen_again = modified_since(step.audience, step.parameters.started)
    forget_before(conn, step.audience.list_id, step.checkpoint.history_id, seen_again)
    step.checkpoint.interests = dict(step.audience.interests)
    step.checkpoint.privacy = step.audience.privacy
    step.log(f"Group: {total} rows to reconcile because of changes in CiviCRM.")
    step.finish()


Following = tuple[int, dict[str, Any] | None]


def _by_history(conn: Connection, step: Step, after: int) -> Following:
    """Rows by new history; history that the sync wrote itself is skipped, as its rows were reconciled then, except that
    of groups with several links, where it may mirror another one."""
    history, size = subscription_history.c, step.sizes.set_rows_per_unit
    shared = history.group_id.in_(step.audience.also_linked)
    by_others = or_(history.method != ECHO_METHOD, history.method.is_(None), shared)
    in_groups = history.group_id.in_(step.audience.group_ids)
    rows, following = next_history(conn, step, after, (history.contact_id,), in_groups, by_others, size=size)
    if following is None:
        compares = step.parameters.is_full or _is_linked_anew(step) or _is_privacy_new(step)
        return 0, {"phase": "all", "after": 0} if compares else None
    contacts = list(dict.fromkeys(row.contact_id for row in rows))
    marked = 0
    if contacts:
        mine = and_(
            cache.c.mailchimp_list_id == step.audience.list_id,
            in_list(cache.c.civicrm_contact_id, contacts),
            or_(cache.c.sync_status != SyncStatus.TODO, cache.c.sync_status.is_(None)),
        )
        marked = conn.execute(change(cache).where(mine).values(sync_status=SyncStatus.TODO)).rowcount
    return marked, {"phase": "history", "after": following}


def _is_linked_anew(step: Step) -> bool:
    """Whether other interests are linked than in the last run."""
    return step.checkpoint.interests != dict(step.audience.interests)


def _is_privacy_new(step: Step) -> bool:
    """Whether the last run treated contacts that CiviMail would not mail in another way."""
    return step.checkpoint.privacy != step.audience.privacy


def _by_comparison(conn: Connection, step: Step, after: int) -> Following:
    """Rows whose group and audience disagree, that failed, or that are unsubscribed because of an objection; all rows
    when the linked interests changed."""
    part, _ = next_rows(conn, step.audience, after, step.sizes.scanned_rows_per_unit)
    if part is None:
        return 0, None
    inside, member = in_group(step.audience), in_audience()
    rows = and_(
        part.of(step.audience),
        cache.c.civicrm_contact_id.is_not(None),
        or_(cache.c.sync_status != SyncStatus.TODO, cache.c.sync_status.is_(None)),
    )
    if not _is_linked_anew(step):
        failed = cache.c.sync_status == SyncStatus.FAIL  # updates cancelled by an abort are still needed
        objecting = (member_objects(),) if step.audience.privacy is Privacy.UNSUBSCRIBE else ()
        apart = or_(and_(inside, not_(member)), and_(not_(inside), member))
        rows = and_(rows, or_(and_(apart, not_(has_hold(STATUS))), failed, *objecting))
    marked = conn.execute(change(cache).where(rows).values(sync_status=SyncStatus.TODO)).rowcount
    return marked, {"phase": "all", "after": part.upto}
