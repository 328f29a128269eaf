"""Carries plans out: group changes now, updates owed, and the rows as they stand then. Everything in bulk.

Must run in the unit that gathered the facts. A group that changed in between (on a database that others write to at
the same time) is left alone and its row stays ``todo``: the next look sees the newer word.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from civiapi.store.bulk import insert_rows, update_rows
from civiapi.store.dialect import among
from civiapi.store.groups import set_status
from civiapi.store.tables import group_contact
from sync.audience import Audience
from sync.daily import add_changes
from sync.facts import ECHO_METHOD
from sync.matching import Range, match_contacts
from sync.member_data import ECHO, decode, encode
from sync.reconcile import ADDED, Decision, GroupChange, Plan
from sync.stored import dump_data, load_data
from sync.tables import cache
from sync.updates import Wanted, drop_open, queue_many

CHUNK = 500  # keeps an IN list under every driver's limit
FAIL = "fail"


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
    stale = _change_groups(conn, audience, plans, site_time)
    standing = [plan for plan in plans if plan.facts.cache_id not in stale]
    wishes: list[tuple[int, Wanted]] = []
    for plan in standing:
        if plan.drops:
            drop_open(conn, plan.facts.cache_id, plan.drops)
        if plan.wanted is not None:
            wishes.append((plan.facts.cache_id, plan.wanted))
    owed = {one.id for plan in standing for one in plan.facts.open}
    queued = sum(1 for update_id in queue_many(conn, wishes) if update_id not in owed)
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
        failed=sum(1 for plan in standing if plan.sync_status == FAIL),
    )


def _change_groups(conn: Connection, audience: Audience, plans: Sequence[Plan], site_time: str) -> set[int]:
    """Make the group changes; returns the rows whose contact's group had changed meanwhile, which were left alone."""
    wanted: dict[tuple[int, str], dict[int, GroupChange]] = defaultdict(dict)
    for plan in plans:
        for one in plan.group_changes:
            if plan.facts.contact_id is not None:
                wanted[one.group_id, one.status].setdefault(plan.facts.contact_id, one)
    moved: set[tuple[int, int]] = set()
    for (group_id, status), contacts in wanted.items():
        now = _standings_locked(conn, group_id, list(contacts))
        moved |= {(group_id, i) for i, one in contacts.items() if now.get(i) != one.was and now.get(i) is not None}
        unmoved = [i for i in contacts if (group_id, i) not in moved]
        set_status(conn, group_id, unmoved, status, method=ECHO_METHOD, at=site_time)
    return {
        plan.facts.cache_id
        for plan in plans
        if any((one.group_id, plan.facts.contact_id) in moved for one in plan.group_changes)
    }


def _standings_locked(conn: Connection, group_id: int, contact_ids: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        rows = conn.execute(
            select(group_contact.c.contact_id, group_contact.c.status)
            .where(group_contact.c.group_id == group_id, among(group_contact.c.contact_id, part))
            .with_for_update()
        )
        found.update({row.contact_id: row.status for row in rows})
    return found


def _write_rows(conn: Connection, audience: Audience, plans: Sequence[Plan], site_time: str) -> None:
    written, group_ids = _Written(), audience.group_ids
    for plan in plans:
        _row(written, audience, group_ids, plan, site_time)
    for status, ids in written.by_status.items():
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            conn.execute(change(cache).where(among(cache.c.id, part)).values(sync_status=status))
    update_rows(conn, cache, ("civicrm_groups", "sync_status"), written.groups)
    update_rows(conn, cache, ("mailchimp_data", "civicrm_groups", "sync_status"), written.data)
    update_rows(conn, cache, ("civicrm_data",), written.notes)


def _row(written: _Written, audience: Audience, group_ids: Sequence[int], plan: Plan, site_time: str) -> None:
    facts, stored = plan.facts, plan.facts.stored
    words = facts.words
    if plan.group_changes:
        words = {**words, **{one.group_id: (one.status, site_time) for one in plan.group_changes}}
    groups = "|".join(f"{i};{words[i][0]};{words[i][1]}" for i in group_ids if i in words) or None
    if plan.group_changes:
        echoes = {f"{ECHO}{one.field}@": audience.compact(one.since) for one in plan.group_changes}
        data = decode(stored.member_data if stored else None)
        written.data.append((encode(data | echoes), groups, plan.sync_status, facts.cache_id))
    elif stored is None or groups != stored.groups:
        written.groups.append((groups, plan.sync_status, facts.cache_id))
    elif plan.sync_status != stored.sync_status:
        written.by_status[plan.sync_status].append(facts.cache_id)
    noted = stored.civicrm_data if stored else None
    if plan.sync_status == FAIL or (noted and FAIL.encode() in noted):
        known = load_data(noted)
        reason = plan.reason if plan.sync_status == FAIL else None
        if known.get(FAIL) != reason:
            kept = {key: value for key, value in known.items() if key != FAIL}
            kept |= {FAIL: reason} if reason else {}
            written.notes.append((dump_data(kept) if kept else None, facts.cache_id))


def _unlink(conn: Connection, audience: Audience, plans: Sequence[Plan]) -> None:
    """Let members go from their contacts, to whoever has their address now; a contact in the group with no row left
    gets one, to start anew.

    Whoever has the address now must meet the member as it stands, before anybody is subscribed at that address.
    """
    if not plans:
        return
    ids = [plan.facts.cache_id for plan in plans]
    conn.execute(change(cache).where(among(cache.c.id, ids)).values(civicrm_contact_id=None, civicrm_groups=None))
    for cache_id in ids:
        match_contacts(conn, audience, Range(cache_id - 1, cache_id))
    contacts = [plan.facts.contact_id for plan in plans if plan.facts.group and plan.facts.group.status == ADDED]
    left = select(cache.c.civicrm_contact_id).where(
        cache.c.mailchimp_list_id == audience.list_id, among(cache.c.civicrm_contact_id, contacts)
    )
    served = set(conn.execute(left).scalars())
    fresh = [(audience.list_id, i, "todo") for i in dict.fromkeys(contacts) if i not in served]
    insert_rows(conn, cache, ("mailchimp_list_id", "civicrm_contact_id", "sync_status"), fresh)
