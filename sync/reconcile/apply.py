"""Apply plans in bulk: group changes at once, updates for Mailchimp, and the cache rows.

Must run in the unit that gathered the facts. A group status that changed in between (another program writes to the
same database) is left alone and its row stays ``todo``: the next sync reconciles it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from civiapi.store.civicrm.group_membership import current_statuses, set_status
from civiapi.store.databases.bulk import insert_rows, update_rows
from civiapi.store.databases.expressions import in_list
from sync.audience import Audience
from sync.model import GroupStatus, MemberOperation, SyncStatus
from sync.reconcile.categories import (
    CANNOT,
    HAND_OVER,
    INTERESTS,
    JOIN_GROUP,
    LEAVE_GROUP,
    LET_GO,
    kind_besides,
    kind_of,
)
from sync.reconcile.decide import Decision
from sync.reconcile.facts import ECHO_METHOD
from sync.reconcile.matching import Range, link_contact, match_contacts
from sync.reconcile.plan import GroupChange, Plan
from sync.reconcile.requeue import forget_refusals
from sync.store.daily import add_changes
from sync.store.members.blobs import dump_data, load_data
from sync.store.members.holds import lift_holds
from sync.store.members.member_codec import ECHO, decode, encode
from sync.store.retries import due_of, now_s
from sync.store.runs.own_rows import HISTORY, note_rows
from sync.store.runs.run_changes import RunChange, history_ids, note_changes
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache
from sync.store.updates import overtake_waiting, queue_many

Written = dict[tuple[int, int], int]
"""The history row of each change of a group, by group and contact."""


@dataclass(slots=True)
class Applied:
    """How many rows were judged, and what came of them."""

    rows: int = 0
    joined: int = 0
    left: int = 0
    updates: int = 0
    failed: int = 0

    def as_counts(self) -> dict[str, int]:
        """The counts by name."""
        return {
            "rows": self.rows,
            "joined": self.joined,
            "left": self.left,
            "updates": self.updates,
            "failed": self.failed,
        }


@dataclass(slots=True)
class _Written:
    """Cache rows gathered by what changes on them."""

    by_status: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    groups: list[tuple[Any, ...]] = field(default_factory=list)
    data: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[tuple[Any, ...]] = field(default_factory=list)


def apply_plans(conn: Connection, audience: Audience, plans: Sequence[Plan], at: datetime) -> Applied:
    """Carry these plans out at *at* (aware), and say what was done."""
    site_time = audience.clock.write(at)
    written: Written = {}
    stale = _change_groups(conn, audience, plans, site_time, written)
    standing = [plan for plan in plans if plan.facts.cache_id not in stale]
    operations: list[tuple[int, MemberOperation]] = []
    for plan in standing:
        if plan.drops:
            overtake_waiting(conn, plan.facts.cache_id, plan.reason, plan.drops)
        if plan.operation is not None:
            operations.append((plan.facts.cache_id, plan.operation))
    known = {one.id for plan in standing for one in plan.facts.open}
    update_ids = queue_many(conn, operations)
    queued = sum(1 for update_id in update_ids if update_id not in known)
    if audience.run_id:
        fresh = {
            cache_id: update_id
            for (cache_id, _), update_id in zip(operations, update_ids, strict=True)
            if update_id not in known
        }
        note_changes(conn, audience.run_id, [one for plan in standing for one in _changes_of(plan, written, fresh)])
    _forget_vain_retries(conn, standing)
    lift_holds(conn, [(plan.facts.cache_id, field) for plan in standing for field in plan.facts.lapsed])
    _write_rows(conn, audience, standing, site_time)
    _unlink(conn, audience, [plan for plan in standing if plan.unlink])
    joined = sum(1 for plan in standing if plan.decision is Decision.JOIN_GROUP and plan.group_changes)
    left = sum(1 for plan in standing if plan.decision is Decision.LEAVE_GROUP and plan.group_changes)
    add_changes(conn, audience, at, joined_civicrm=joined, left_civicrm=left)
    return Applied(
        rows=len(plans),
        joined=joined,
        left=left,
        updates=queued,
        failed=sum(1 for plan in standing if plan.sync_status == SyncStatus.FAIL),
    )


def _forget_vain_retries(conn: Connection, plans: Sequence[Plan]) -> None:
    """Forget the refusals of rows that are due for a retry but cannot be sent for another reason by now.

    Once that reason is gone, the update is sent at once instead of at the next retry.
    """
    failed = [plan.facts.cache_id for plan in plans if plan.sync_status == SyncStatus.FAIL and plan.operation is None]
    if due := due_of(conn, failed, now_s()):
        forget_refusals(conn, in_list(cache.c.id, due))


def _changes_of(plan: Plan, written: Written, fresh: Mapping[int, int]) -> Iterator[RunChange]:
    """What is recorded of a plan that was carried out; *fresh*: the update queued for a cache row."""
    facts, kind = plan.facts, kind_of(plan)
    base = RunChange(kind, facts.cache_id, facts.contact_id, reason=plan.reason)
    for one in plan.group_changes if facts.contact_id is not None else ():
        history_id = written.get((one.group_id, facts.contact_id or 0))
        of_one = kind if one.field == "status" else INTERESTS
        yield base._replace(kind=of_one, group_id=one.group_id, history_id=history_id, was=one.was)
    if plan.operation is not None and facts.cache_id in fresh:
        held = {one.interest_id: one.held for one in facts.interests}
        chosen = plan.operation.body.get("interests") or {}
        yield base._replace(
            kind=kind_besides(plan.operation) if kind in (JOIN_GROUP, LEAVE_GROUP) else kind,
            update_id=fresh[facts.cache_id],
            history_id=facts.history_id,
            was=facts.member.status if facts.member else None,
            replaced={"interests": {key: bool(held.get(key)) for key in chosen}} if chosen else None,
        )
    elif not plan.group_changes and kind in (CANNOT, LET_GO, HAND_OVER):
        yield base


def _change_groups(
    conn: Connection, audience: Audience, plans: Sequence[Plan], site_time: str, noted: Written
) -> set[int]:
    """Make the group changes, the history row of each in *noted*; returns the rows whose contact's group had changed
    meanwhile, which were left alone."""
    wanted: dict[tuple[int, str], dict[int, GroupChange]] = defaultdict(dict)
    for plan in plans:
        for one in plan.group_changes:
            if plan.facts.contact_id is not None:
                wanted[one.group_id, one.status].setdefault(plan.facts.contact_id, one)
    moved: set[tuple[int, int]] = set()
    for (group_id, status), contacts in wanted.items():
        now = current_statuses(conn, group_id, list(contacts), lock=True)
        moved |= {(group_id, i) for i, one in contacts.items() if now.get(i) != one.was and now.get(i) is not None}
        unmoved = [i for i in contacts if (group_id, i) not in moved]
        written = set_status(conn, group_id, unmoved, status, method=ECHO_METHOD, at=site_time)
        note_rows(conn, audience.list_id, HISTORY, written, site_time)
        if audience.run_id and unmoved:
            ids = history_ids(conn, group_id, unmoved, written)
            noted.update({(group_id, contact_id): history_id for contact_id, history_id in ids.items()})
    return {
        plan.facts.cache_id
        for plan in plans
        if any((one.group_id, plan.facts.contact_id) in moved for one in plan.group_changes)
    }


def _write_rows(conn: Connection, audience: Audience, plans: Sequence[Plan], site_time: str) -> None:
    written, group_ids = _Written(), audience.group_ids
    for plan in plans:
        _row(written, audience, group_ids, plan, site_time)
    for status, ids in written.by_status.items():
        set_sync_status(conn, ids, status)
    update_rows(conn, cache, ("civicrm_groups", "sync_status"), written.groups)
    update_rows(conn, cache, ("mailchimp_data", "civicrm_groups", "sync_status"), written.data)
    update_rows(conn, cache, ("civicrm_data",), written.notes)


def _row(written: _Written, audience: Audience, group_ids: Sequence[int], plan: Plan, site_time: str) -> None:
    facts, stored = plan.facts, plan.facts.stored
    history = facts.history
    if plan.group_changes:
        history = {**history, **{one.group_id: (one.status, site_time) for one in plan.group_changes}}
    groups = "|".join(f"{i};{history[i][0]};{history[i][1]}" for i in group_ids if i in history) or None
    if plan.group_changes:
        echoes = {f"{ECHO}{one.field}@": audience.compact(one.since) for one in plan.group_changes}
        data = decode(stored.member_data if stored else None)
        written.data.append((encode(data | echoes), groups, plan.sync_status, facts.cache_id))
    elif stored is None or groups != stored.groups:
        written.groups.append((groups, plan.sync_status, facts.cache_id))
    elif plan.sync_status != stored.sync_status:
        written.by_status[plan.sync_status].append(facts.cache_id)
    noted = stored.civicrm_data if stored else None
    if plan.sync_status == SyncStatus.FAIL or (noted and SyncStatus.FAIL.encode() in noted):
        known = load_data(noted)
        reason = plan.reason if plan.sync_status == SyncStatus.FAIL else None
        if known.get(SyncStatus.FAIL) != reason:
            kept = {key: value for key, value in known.items() if key != SyncStatus.FAIL}
            kept |= {SyncStatus.FAIL: reason} if reason else {}
            written.notes.append((dump_data(kept) if kept else None, facts.cache_id))


def _unlink(conn: Connection, audience: Audience, plans: Sequence[Plan]) -> None:
    """Separate members from their contacts and match them with the present owners of their addresses; a contact in the
    group without a row left gets a new one.

    The present owner must be reconciled with this member before anybody is subscribed at that address.
    """
    if not plans:
        return
    ids = [plan.facts.cache_id for plan in plans]
    conn.execute(change(cache).where(in_list(cache.c.id, ids)).values(civicrm_contact_id=None, civicrm_groups=None))
    for plan in plans:
        if plan.successor is not None:
            link_contact(conn, audience, plan.facts.cache_id, plan.successor)
    for cache_id in ids:  # those without a successor
        match_contacts(conn, audience, Range(cache_id - 1, cache_id))
    contacts = [
        plan.facts.contact_id for plan in plans if plan.facts.group and plan.facts.group.status == GroupStatus.ADDED
    ]
    left = select(cache.c.civicrm_contact_id).where(
        cache.c.mailchimp_list_id == audience.list_id, in_list(cache.c.civicrm_contact_id, contacts)
    )
    served = set(conn.execute(left).scalars())
    fresh = [(audience.list_id, i, SyncStatus.TODO) for i in dict.fromkeys(contacts) if i not in served]
    insert_rows(conn, cache, ("mailchimp_list_id", "civicrm_contact_id", "sync_status"), fresh)
