"""readyToAddCiviOnly: contacts in the group that are no members get a row, so that they are reconciled."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select
from sqlalchemy import insert as insert_into
from sqlalchemy import update as change

from civiapi.store.civicrm.contacts import addresses_of, best_email
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact, group_contact, subscription_history
from sync.audience import Audience
from sync.errors import SyncError
from sync.model import GroupStatus, SyncStatus
from sync.reconcile.decide import LONG_AGO
from sync.reconcile.facts import GroupHistory
from sync.runs.run import Run, Step
from sync.runs.stages.modified_contacts import next_modified
from sync.runs.stages.new_history import fix_horizon, next_history
from sync.store import sources
from sync.store.sources import tables_of
from sync.store.tables import cache


async def add_civi_only(run: Run) -> None:
    """Create rows for contacts in the group that have none: all, or those that changed since the last run."""
    await run.repeat(_add)


def _add(conn: Connection, step: Step) -> None:
    cursor = step.checkpoint.cursor
    if step.audience.one_way:
        _add_from_source(conn, step, cursor)
        return
    if cursor is None:
        fix_horizon(conn, step)
        cursor = {"phase": "all" if step.parameters.is_full else "history", "after": 0, "added": 0}
        if not step.parameters.is_full:
            cursor["after"] = step.checkpoint.history_id
    if cursor["phase"] == "all":
        ids, following = _everyone(conn, step, cursor)
    elif cursor["phase"] == "history":
        ids, following = _by_history(conn, step, cursor)
    else:
        ids, following = _recent(conn, step, cursor)
    added = make_rows(conn, step.audience, ids)
    step.counts.update(added=added)
    total = cursor["added"] + added
    if following is not None:
        step.continue_from(**following, added=total)
        return
    step.log(f"Group: {total} contacts in the group are not at Mailchimp yet.")
    step.finish()


def _add_from_source(conn: Connection, step: Step, cursor: dict[str, Any] | None) -> None:
    """Read the next members of a smart group as CiviCRM computed it: mark the rows of those who joined or left, and
    make rows for those without one. Contacts that changed since follow."""
    audience, group_id = step.audience, step.audience.group_id
    if cursor is not None and cursor["phase"] == "recent":
        ids, following = _recent(conn, step, cursor)
        _continue_source(conn, step, ids, following, cursor)
        return
    computed = sources.read_computed(conn, group_id) or ""
    moment = audience.clock.read(computed)
    if missing := sources.why_not_fresh(moment, step.at, audience.clock):
        raise SyncError(f"Audience {audience.list_id} is linked with group {group_id}, {missing}.")
    if cursor is None:
        fix_horizon(conn, step)
        if sources.is_known(conn, group_id, computed) and not step.parameters.is_full:
            step.continue_from(phase="recent", after={}, added=0, left=0)
            return
    if cursor is None or cursor["computed"] != computed:  # computed again meanwhile: what was read is kept
        cursor = {"after": 0, "computed": computed, "added": 0, "left": 0}
    found = sources.compare(
        conn, group_id, int(cursor["after"]), step.sizes.set_rows_per_unit, step.sizes.scanned_ids_per_unit
    )
    since = audience.clock.write(min(moment, step.at) if moment is not None else step.at)
    sources.store(conn, group_id, found, since)
    _mark(conn, audience, [*found.joined, *found.left])
    following = {"phase": "source", "after": found.upto, "computed": computed}
    if found.upto >= sources.highest_contact(conn):
        sources.note_known(conn, group_id, computed)
        following = {"phase": "recent", "after": {}}
    cursor = {**cursor, "left": cursor["left"] + len(found.left)}
    _continue_source(conn, step, without_row(conn, audience, found.joined), following, cursor)


def _continue_source(
    conn: Connection, step: Step, ids: list[int], following: dict[str, Any] | None, cursor: dict[str, Any]
) -> None:
    added = make_rows(conn, step.audience, ids)
    step.counts.update(added=added)
    total, left = cursor["added"] + added, cursor["left"]
    if following is not None:
        step.continue_from(**following, added=total, left=left)
        return
    step.log(f"Smart group: {total} contacts are not at Mailchimp yet, {left} left it.")
    step.finish()


def _mark(conn: Connection, audience: Audience, contact_ids: list[int]) -> None:
    """Mark the rows of these contacts to be reconciled."""
    mine = cache.c.mailchimp_list_id == audience.list_id, in_list(cache.c.civicrm_contact_id, contact_ids)
    conn.execute(change(cache).where(*mine).values(sync_status=SyncStatus.TODO))


Found = tuple[list[int], dict[str, Any] | None]


def _everyone(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    after = int(cursor["after"])
    part = select(group_contact.c.id).where(
        group_contact.c.group_id == step.audience.group_id, group_contact.c.id > after
    )
    bound = part.order_by(group_contact.c.id).limit(step.sizes.set_rows_per_unit).subquery()
    upto = conn.execute(select(func.max(bound.c.id))).scalar()
    if upto is None:
        return [], None
    missing = _added(step.audience).where(
        group_contact.c.id > after, group_contact.c.id <= upto, ~_has_row(step.audience)
    )
    return list(conn.execute(missing).scalars()), {"phase": "all", "after": upto}


def _by_history(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    history, size = subscription_history.c, step.sizes.rows_per_unit
    in_group = history.group_id == step.audience.group_id
    rows, following = next_history(conn, step, cursor["after"], (history.contact_id,), in_group, size=size)
    if following is None:
        return [], {"phase": "recent", "after": {}}
    return without_row(conn, step.audience, [row.contact_id for row in rows]), {"phase": "history", "after": following}


def _recent(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    ids, following = next_modified(conn, step, cursor["after"], step.sizes.rows_per_unit)
    return without_row(conn, step.audience, ids), {"phase": "recent", "after": following} if following else None


def without_row(conn: Connection, audience: Audience, contact_ids: list[int]) -> list[int]:
    """Those of these contacts that are in the group and have no cache row of the audience."""
    wanted = _added(audience, among=list(dict.fromkeys(contact_ids))).where(~_has_row(audience))
    return list(conn.execute(wanted).scalars()) if contact_ids else []


def _added(audience: Audience, *, among: Sequence[int] | None = None) -> Select[Any]:
    """The contacts in the group; *among*: of these."""
    members = tables_of(audience)[0].c
    group_id = members.group_id if among is None else unindexed(members.group_id)
    rows = (
        select(members.contact_id)
        .join(contact, contact.c.id == members.contact_id)
        .where(group_id == audience.group_id, members.status == GroupStatus.ADDED, unindexed(contact.c.is_deleted) == 0)
    )
    return rows if among is None else rows.where(in_list(members.contact_id, among))


def _has_row(audience: Audience) -> Any:
    members = tables_of(audience)[0]
    mine = select(cache.c.id).where(
        cache.c.mailchimp_list_id == audience.list_id, cache.c.civicrm_contact_id == members.c.contact_id
    )
    return mine.correlate(members).exists()


def make_rows(conn: Connection, audience: Audience, contact_ids: list[int]) -> int:
    """Give each contact a row: that of the member with its address if that member's contact left, else a new one."""
    if not contact_ids:
        return 0
    taken = set(_link_members(conn, audience, contact_ids))
    rest = [i for i in contact_ids if i not in taken]
    wanted = select(literal(audience.list_id), contact.c.id, literal(SyncStatus.TODO)).where(
        in_list(contact.c.id, rest)
    )
    columns = ["mailchimp_list_id", "civicrm_contact_id", "sync_status"]
    conn.execute(insert_into(cache).from_select(columns, wanted))
    return len(rest)


def _link_members(conn: Connection, audience: Audience, contact_ids: list[int]) -> list[int]:
    """Link contacts with the member of their address whose present contact left the group before they joined.

    Returns those contacts. Other contacts that share an address get a row of their own, which fails with that reason.
    """
    best = {i: (best_email(mine) or "").lower() for i, mine in addresses_of(conn, contact_ids).items()}
    held = conn.execute(
        select(cache.c.id, cache.c.mailchimp_email, cache.c.civicrm_contact_id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            in_list(cache.c.mailchimp_email, [address for address in best.values() if address]),
            unindexed(cache.c.mailchimp_member_id).is_not(None),
            unindexed(cache.c.civicrm_contact_id).is_not(None),
        )
    ).all()
    if not held:
        return []
    history = GroupHistory(conn, audience, [*contact_ids, *(row.civicrm_contact_id for row in held)])
    taken: list[int] = []
    for row in held:
        holder = history.standing(row.civicrm_contact_id, audience.group_id, None)
        successors = sorted(i for i, address in best.items() if address == row.mailchimp_email.lower())
        if not successors or (holder is not None and holder.status == GroupStatus.ADDED):
            continue
        successor = history.standing(successors[0], audience.group_id, None)
        if successor is not None and successor.since > (holder.since if holder else LONG_AGO):
            conn.execute(
                change(cache)
                .where(cache.c.id == row.id)
                .values(civicrm_contact_id=successors[0], sync_status=SyncStatus.TODO)
            )
            taken.append(successors[0])
    return taken
