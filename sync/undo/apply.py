"""Carry out undo plans in bulk: groups, contacts and updates, what is held afterwards, and the record of the undo.

Must run in the unit that gathered the facts, under the audience's lease. The changes that were looked at are marked in
the same transaction, so that an undo that was killed goes on with the others.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from civiapi.store.civicrm.group_membership import current_statuses, set_status
from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact, subscription_history
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, MemberOperation, SyncStatus
from sync.reconcile.decide import LONG_AGO
from sync.reconcile.facts import UNDO_METHOD
from sync.store.members.blobs import INTEREST
from sync.store.members.holds import STATUS, Hold, place_holds
from sync.store.members.member_codec import decode
from sync.store.members.privacy import who_objects
from sync.store.runs.own_rows import HISTORY, note_rows
from sync.store.runs.run_changes import RunChange, history_ids, note_changes
from sync.store.runs.run_log import linked_then
from sync.store.sources import read_sources, version_of
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, run_change
from sync.store.updates import overtake, queue_many
from sync.undo.planning import LEFT, UndoPlan


@dataclass(slots=True)
class _Done:
    """What was carried out. *history*: the history row of a group and contact; *updates*: by the id of the change."""

    history: dict[tuple[int, int], int] = field(default_factory=dict)
    updates: dict[int, int] = field(default_factory=dict)


def apply_undo(
    conn: Connection, audience: Audience, run_id: int, plans: Sequence[UndoPlan], at: datetime, read_at: datetime
) -> list[UndoPlan]:
    """Carry these plans out at *at* to take back run *run_id*, recorded under ``audience.run_id``; at *read_at* the
    members were fetched (both aware): a change of a member after that overrules an update that is sent late.

    Returns them as they were carried out: a group that changed in this very moment is left.
    """
    done = _Done()
    plans = _set_groups_back(conn, audience, run_id, plans, audience.clock.write(at), done)
    _trash(conn, plans, audience.clock.write(at))
    cancelled = [one.change.update_id for one in plans if one.cancel and one.change.update_id is not None]
    overtake(conn, cancelled, f"run {run_id} was undone.")
    rows = _rows_of(conn, audience, plans)
    operations = [  # dated long ago: no change of anybody's mind, once it is not held
        (rows[one.change.id], replace(one.operation, cause=LONG_AGO, decided=read_at))
        for one in plans
        if one.operation is not None and one.change.id in rows
    ]
    ids = queue_many(conn, operations)
    sending = [one for one in plans if one.operation is not None and one.change.id in rows]
    done.updates = {one.change.id: update_id for one, update_id in zip(sending, ids, strict=True)}
    _hold(conn, audience, linked_then(conn, audience, run_id), plans, rows, operations, at)
    quiet = [rows[one.change.id] for one in plans if one.kind not in ("", LEFT) and one.change.id in rows]
    set_sync_status(conn, quiet, SyncStatus.TODO, only=(SyncStatus.OK, SyncStatus.FAIL))
    note_changes(conn, audience.run_id, _record(plans, rows, done))
    looked_at = [(audience.run_id, done.updates.get(one.change.id), one.change.id) for one in plans]
    update_rows(conn, run_change, ("undone_by", "undo_update_id"), looked_at)
    return list(plans)


def _set_groups_back(
    conn: Connection, audience: Audience, run_id: int, plans: Sequence[UndoPlan], site_time: str, done: _Done
) -> list[UndoPlan]:
    """Set the groups back; plans whose contact has another status by now are left."""
    wanted: dict[tuple[int, str], list[UndoPlan]] = defaultdict(list)
    for one in plans:
        if one.group_status is not None and one.change.group_id is not None:
            wanted[one.change.group_id, one.group_status].append(one)
    moved: dict[int, UndoPlan] = {}
    for (group_id, status), group_plans in wanted.items():
        by_contact = {one.change.contact_id or 0: one for one in group_plans}
        now = current_statuses(conn, group_id, list(by_contact), lock=True)
        for contact_id, one in by_contact.items():
            if now.get(contact_id) == status:  # the facts were read in this unit: somebody else, a moment ago
                moved[one.change.id] = UndoPlan(one.change, LEFT, "The group was changed at this moment.")
        ids = [contact_id for contact_id, one in by_contact.items() if one.change.id not in moved]
        tracking = f"Undo of sync run {run_id}"
        written = set_status(conn, group_id, ids, status, method=UNDO_METHOD, at=site_time, tracking=tracking)
        note_rows(conn, audience.list_id, HISTORY, written, site_time)
        new = history_ids(conn, group_id, ids, written) if ids else {}
        done.history.update({(group_id, contact_id): row_id for contact_id, row_id in new.items()})
    return [moved.get(one.change.id, one) for one in plans]


def _trash(conn: Connection, plans: Sequence[UndoPlan], site_time: str) -> None:
    """Move contacts to the trash, and separate them from their members, who get no other contact (`_hold`)."""
    ids = [one.change.contact_id for one in plans if one.trash and one.change.contact_id is not None]
    if not ids:
        return
    trashed = {"is_deleted": 1, "modified_date": site_time}
    conn.execute(change(contact).where(in_list(contact.c.id, ids)).values(trashed))
    unlinked = {"civicrm_contact_id": None, "civicrm_groups": None}
    conn.execute(change(cache).where(in_list(cache.c.civicrm_contact_id, ids)).values(unlinked))


def _rows_of(conn: Connection, audience: Audience, plans: Sequence[UndoPlan]) -> dict[int, int]:
    """The cache row of each plan's change that is there still, by the id of the change."""
    ids = [one.change.cache_id for one in plans if one.change.cache_id is not None]
    there = select(cache.c.id).where(in_list(cache.c.id, ids), unindexed(cache.c.mailchimp_list_id) == audience.list_id)
    known = set(conn.execute(there).scalars())
    return {one.change.id: one.change.cache_id or 0 for one in plans if one.change.cache_id in known}


# ── What is held ────────────────────────────────────────────────────────────────────────────────────────────────────


def _hold(
    conn: Connection,
    audience: Audience,
    linked: Mapping[str, int],
    plans: Sequence[UndoPlan],
    rows: Mapping[int, int],
    operations: Sequence[tuple[int, MemberOperation]],
    at: datetime,
) -> None:
    """Hold what is taken back as both sides are once the updates are carried out.

    *linked*: the groups that were linked when the run began; another group that is linked now is not held.
    """
    ids = sorted({rows[one.change.id] for one in plans if one.kind not in ("", LEFT) and one.change.id in rows})
    if not ids:
        return
    columns = (cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_status, cache.c.mailchimp_data)
    found = conn.execute(select(*columns).where(in_list(cache.c.id, ids))).all()
    members = {row.id: row for row in found}
    contacts = [row.civicrm_contact_id for row in found if row.civicrm_contact_id is not None]
    newest = _newest_history(conn, audience, contacts)
    objecting = who_objects(conn, contacts)
    linked_now = audience.linked
    holds: dict[tuple[int, str], Hold] = {}
    for one in plans:
        if one.kind in ("", LEFT) or one.change.id not in rows:
            continue
        row = members[rows[one.change.id]]
        for name, inside in _fields_of(
            audience, one, row.mailchimp_status in RECEIVES_MAIL, decode(row.mailchimp_data)
        ):
            interest_id = "" if name == STATUS else name.removeprefix(INTEREST)
            group_id = linked_now.get(interest_id, 0)
            if linked.get(interest_id, 0) != group_id:
                continue
            holds[row.id, name] = Hold(
                row.id,
                name,
                audience.run_id,
                int(at.timestamp()),
                row.civicrm_contact_id,
                newest.get((row.civicrm_contact_id or 0, group_id), 0),
                inside,
                row.civicrm_contact_id in objecting,
            )
        if one.data is not None:
            held = Hold(row.id, one.data_kind, audience.run_id, int(at.timestamp()), value=one.data)
            holds[row.id, one.data_kind] = held
    place_holds(conn, holds.values())


def _fields_of(
    audience: Audience, one: UndoPlan, is_inside: bool, data: Mapping[str, object]
) -> Iterator[tuple[str, bool]]:
    """The fields that a plan holds, and whether the member is in the audience, or has the interest, afterwards."""
    if one.inside is not None:
        yield STATUS, one.inside
    elif one.trash or one.change.group_id == audience.group_id:
        yield STATUS, is_inside
    for interest_id, chosen in one.interests.items():
        yield f"{INTEREST}{interest_id}", chosen
    if one.change.group_id is not None and one.change.group_id != audience.group_id:
        for interest_id, group_id in audience.interests.items():
            if group_id == one.change.group_id:
                yield f"{INTEREST}{interest_id}", bool(data.get(f"{INTEREST}{interest_id}"))


def _newest_history(conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> dict[tuple[int, int], int]:
    history = subscription_history.c
    rows = conn.execute(
        select(history.contact_id, history.group_id, func.max(history.id).label("id"))
        .where(in_list(history.contact_id, contact_ids), unindexed(history.group_id).in_(audience.group_ids))
        .group_by(history.contact_id, history.group_id)
    )
    found = {(row.contact_id, row.group_id): row.id for row in rows}
    if audience.one_way:
        for contact_id, one in read_sources(conn, audience.group_id, contact_ids).items():
            found[contact_id, audience.group_id] = version_of(one.since, audience.clock)
    return found


def _record(plans: Sequence[UndoPlan], rows: Mapping[int, int], done: _Done) -> Iterator[RunChange]:
    """What the undo did, as a run that can be opened."""
    for one in plans:
        if one.kind:
            of = one.change
            yield RunChange(
                one.kind,
                rows.get(of.id),
                of.contact_id,
                of.group_id,
                done.history.get((of.group_id or 0, of.contact_id or 0)),
                done.updates.get(of.id),
                reason=one.reason,
            )
