"""Read what an undo depends on, for many changes of a run with a few set statements. Nothing is decided or written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, and_, func, not_, or_, select

from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact, group_contact, subscription_history
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, MemberOperation, OpenUpdate, OperationKind
from sync.reconcile.categories import LEAVE_GROUP, NEW_CONTACT
from sync.reconcile.facts import ECHO_METHOD, UNDO_METHOD
from sync.store.members.blobs import MERGE
from sync.store.members.member_codec import decode, interests_of, values_of
from sync.store.members.member_merge import NAMES
from sync.store.members.obstacles import find_obstacles
from sync.store.runs.run_log import linked_then
from sync.store.sources import read_sources
from sync.store.tables import cache, run_change, update
from sync.store.updates import MEMBER_GONE, open_updates, read_update, select_updates
from sync.undo.planning import Change, GroupNow, MemberNow, UndoFacts, UpdateNow
from sync.undo.touched import find_touched

_COLUMNS = (
    run_change.c.id,
    run_change.c.kind,
    run_change.c.cache_id,
    run_change.c.contact_id,
    run_change.c.group_id,
    run_change.c.history_id,
    run_change.c.update_id,
    run_change.c.was,
    run_change.c.replaced,
)


def next_changes(conn: Connection, run_id: int, after: int, limit: int) -> list[Change]:
    """The next things that the run did and that no undo has looked at, or whose undo came to nothing, oldest first."""
    wanted = (
        select(*_COLUMNS)
        .outerjoin(update, update.c.id == run_change.c.undo_update_id)
        .where(run_change.c.run_id == run_id, run_change.c.id > after, or_(run_change.c.undone_by.is_(None), _FAILED))
    )
    rows = conn.execute(wanted.order_by(run_change.c.id).limit(limit))
    return [Change(*row[:8], orjson.loads(row.replaced) if row.replaced else {}) for row in rows]


_FAILED = and_(
    unindexed(update.c.completed) == 1, func.coalesce(update.c.error_response, MEMBER_GONE).not_in(("", MEMBER_GONE))
)
"""The update that was to take something back was refused, or not sent because the member had changed; where the member
is gone there is nothing to take back."""


def count_failed(conn: Connection, run_id: int) -> int:
    """How many of the things that the run did an undo tried to take back at Mailchimp in vain."""
    theirs = run_change.join(update, update.c.id == run_change.c.undo_update_id)
    wanted = select(func.count()).select_from(theirs).where(run_change.c.run_id == run_id, _FAILED)
    return conn.execute(wanted).scalar_one()


def read_undo_facts(conn: Connection, audience: Audience, run_id: int, changes: Sequence[Change]) -> list[UndoFacts]:
    """The facts of each of these changes of a run, in their order."""
    linked = frozenset(linked_then(conn, audience, run_id).values())
    changes = _with_present_rows(conn, audience, changes)
    made = [one.contact_id for one in changes if one.kind == NEW_CONTACT and one.contact_id is not None]
    touched = find_touched(conn, audience, made, linked, (ECHO_METHOD, UNDO_METHOD)) if made else {}
    groups = _groups_now(conn, [one for one in changes if one.group_id is not None])
    updates = _updates_now(conn, [one.update_id for one in changes if one.update_id is not None])
    left = [one.cache_id for one in changes if one.kind == LEAVE_GROUP and one.group_id == audience.group_id]
    members = _members_now(conn, sorted({cache_id for cache_id, _ in updates.values()} | {i for i in left if i}))
    sent = [one for one in changes if one.update_id in updates]
    changed = _changed_since(conn, audience, linked, sent, updates)
    leaving = sorted({cache_id for cache_id, one in updates.values() if _unsubscribes(one.operation)})
    obstacles = find_obstacles(conn, audience, leaving)
    found = []
    for one in changes:
        cache_id, its_update = updates.get(one.update_id or 0, (0, None))
        found.append(
            UndoFacts(
                replace(one, cache_id=cache_id) if cache_id else one,
                group=groups.get((one.group_id or 0, one.contact_id or 0)),
                is_alive=one.contact_id in touched,
                touched=touched.get(one.contact_id or 0, ""),
                update=its_update,
                member=members.get(cache_id or one.cache_id or 0),
                changed=changed.get(one.id, ""),
                obstacle=obstacles.get(cache_id, ""),
            )
        )
    return found


def _with_present_rows(conn: Connection, audience: Audience, changes: Sequence[Change]) -> list[Change]:
    """The changes with the cache rows of today: a row that was merged into another since is that one."""
    ids = [one.cache_id for one in changes if one.cache_id is not None]
    there = set(conn.execute(select(cache.c.id).where(in_list(cache.c.id, ids))).scalars())
    gone = [one for one in changes if one.cache_id is not None and one.cache_id not in there]
    if not gone:
        return list(changes)
    contacts = [one.contact_id for one in gone if one.contact_id is not None]
    theirs = select(cache.c.civicrm_contact_id, func.min(cache.c.id)).where(
        in_list(cache.c.civicrm_contact_id, contacts), unindexed(cache.c.mailchimp_list_id) == audience.list_id
    )
    rows: dict[int, int] = dict(conn.execute(theirs.group_by(cache.c.civicrm_contact_id)).all())
    moved = {one.id: replace(one, cache_id=rows.get(one.contact_id or 0)) for one in gone}
    return [moved.get(one.id, one) for one in changes]


def _groups_now(conn: Connection, changes: Sequence[Change]) -> dict[tuple[int, int], GroupNow]:
    """The contacts of these changes in their groups, by group and contact; deleted contacts are left out."""
    if not changes:
        return {}
    ids = list({one.contact_id for one in changes if one.contact_id is not None})
    group_ids = {one.group_id for one in changes}
    there = set(conn.execute(select(contact.c.id).where(in_list(contact.c.id, ids))).scalars())
    current = select(group_contact.c.group_id, group_contact.c.contact_id, group_contact.c.status).where(
        in_list(group_contact.c.contact_id, ids), unindexed(group_contact.c.group_id).in_(group_ids)
    )
    statuses = {(row.group_id, row.contact_id): row.status for row in conn.execute(current)}
    history = subscription_history.c
    wanted = select(history.id, history.group_id, history.contact_id, history.status, history.method).where(
        in_list(history.contact_id, ids),
        unindexed(history.group_id).in_(group_ids),
        func.coalesce(history.method, "") != UNDO_METHOD,
    )
    latest = {(row.group_id, row.contact_id): row for row in sorted(conn.execute(wanted).all(), key=lambda row: row.id)}
    found = {}
    for one in changes:
        key = one.group_id or 0, one.contact_id or 0
        if key[1] in there:
            row = latest.get(key)
            status = statuses.get(key)
            found[key] = GroupNow(status, row.id, row.status, row.method) if row else GroupNow(status)
    return found


def _updates_now(conn: Connection, update_ids: Sequence[int]) -> dict[int, tuple[int, UpdateNow]]:
    """The cache row of each of these updates that is kept, and what became of the update."""
    if not update_ids:
        return {}
    wanted = select_updates().add_columns(update.c.completed, update.c.error_response)
    found = {}
    for row in conn.execute(wanted.where(in_list(update.c.id, update_ids))):
        one = read_update(row)
        is_open = not row.completed
        found[one.id] = (
            one.cache_id,
            UpdateNow(
                one.operation, is_open and not one.in_flight, is_open and one.in_flight, row.error_response or ""
            ),
        )
    return found


def _members_now(conn: Connection, cache_ids: Sequence[int]) -> dict[int, MemberNow]:
    """These cache rows, with what is in flight for them counted as carried out."""
    if not cache_ids:
        return {}
    rows = conn.execute(
        select(
            cache.c.id,
            cache.c.mailchimp_member_id,
            cache.c.mailchimp_email,
            cache.c.mailchimp_status,
            cache.c.mailchimp_data,
        ).where(in_list(cache.c.id, cache_ids))
    ).all()
    opened = open_updates(conn, cache_ids)
    return {row.id: _member_now(row, [one for one in opened.get(row.id, ()) if one.in_flight]) for row in rows}


def _member_now(row: Any, in_flight: Sequence[OpenUpdate]) -> MemberNow:
    data = decode(row.mailchimp_data)
    inside = row.mailchimp_status in RECEIVES_MAIL
    chosen = interests_of(data)
    for one in in_flight:
        if one.operation.kind == OperationKind.ARCHIVE:
            inside = False
        elif one.operation.kind == OperationKind.MEMBER:
            inside = one.operation.body.get("status", "subscribed" if inside else "") in RECEIVES_MAIL
            chosen.update(one.operation.body.get("interests") or {})
    return MemberNow(
        row.mailchimp_member_id,
        row.mailchimp_email or "",
        row.mailchimp_status,
        inside,
        chosen,
        {field: str(data.get(name) or "") for name, field in NAMES}
        | {tag: str(value) for tag, value in values_of(data, MERGE).items()},
    )


def _unsubscribes(operation: MemberOperation) -> bool:
    status = operation.body.get("status")
    return operation.kind == OperationKind.ARCHIVE or (status is not None and status not in RECEIVES_MAIL)


def _changed_since(
    conn: Connection,
    audience: Audience,
    groups: Collection[int],
    changes: Sequence[Change],
    updates: Mapping[int, tuple[int, UpdateNow]],
) -> Mapping[int, str]:
    """Of each of these changes by id, how the contact's status in the *groups* changed since, by others than the sync.

    In a source: since the change that the update was for.
    """
    ids = list({one.contact_id for one in changes if one.contact_id is not None})
    if not ids:
        return {}
    history = subscription_history.c
    others = or_(not_(history.method.in_((ECHO_METHOD, UNDO_METHOD))), history.method.is_(None))
    rows = conn.execute(
        select(history.id, history.contact_id, history.status, history.method).where(
            in_list(history.contact_id, ids), unindexed(history.group_id).in_(groups), others
        )
    ).all()
    latest = {row.contact_id: row for row in sorted(rows, key=lambda row: row.id)}
    sources = read_sources(conn, audience.group_id, ids) if audience.one_way and audience.group_id in groups else {}
    found = {}
    for one in changes:
        known, cause = sources.get(one.contact_id or 0), updates[one.update_id or 0][1].operation.cause
        moment = audience.clock.read(known.since) if known is not None else None
        if known is not None and moment is not None and cause is not None and moment > cause:
            found[one.id] = f"{known.status} by CiviCRM's search"
        row = latest.get(one.contact_id or 0)
        if row is not None and row.id > (one.history_id or 0):
            found[one.id] = f"{row.status} by {row.method or 'somebody'}"
    return found
