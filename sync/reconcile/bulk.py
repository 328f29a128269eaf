"""Settle plain rows as sets: a first sync may have a million of them, all with the same outcome.

A row is plain when only the two statuses matter: no update is open, no undo holds it, no failure is noted, the contact
has the member's address and is not to be unsubscribed because it objects to mail, and no interests are linked. Two
cases of these have the same plan whatever the dates are, and are settled here by conditions: both sides agree, or the
contact of a member in the audience was never in the group (the contact joins). The tests compare these conditions with
`plan_rows`, which plans every other row, and all rows of a preview.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, func, literal, not_, or_, select
from sqlalchemy import update as change

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import subscription_history
from sync.audience import Audience, Privacy
from sync.model import GroupStatus, SyncStatus
from sync.reconcile.apply import Applied
from sync.reconcile.categories import JOIN_GROUP
from sync.reconcile.conditions import gave_up_address, in_audience, in_group, never_heard_of
from sync.reconcile.facts import ECHO_METHOD, member_since
from sync.reconcile.matching import Range
from sync.store.daily import add_changes
from sync.store.members.echoes import form_columns, note_echoes, read_forms
from sync.store.members.holds import has_hold
from sync.store.members.member_codec import ECHO, peek, with_text
from sync.store.members.privacy import member_objects
from sync.store.runs.own_rows import HISTORY, note_rows
from sync.store.runs.run_changes import history_ids, note_many
from sync.store.tables import cache
from sync.store.updates import owes_something


def settle_plain_rows(conn: Connection, audience: Audience, rows: Range, at: datetime) -> Applied:
    """Settle the plain rows of a range at *at* (aware), and say what was done; the others stay as they are."""
    if audience.one_way or any(group_id != audience.group_id for group_id in audience.interests.values()):
        return Applied()
    plain = and_(
        rows.of(audience),
        ~owes_something(),
        ~has_hold(),
        not_(gave_up_address()),
        func.coalesce(func.instr(cache.c.civicrm_data, literal(SyncStatus.FAIL.value)), 0) == 0,
    )
    if audience.privacy is Privacy.UNSUBSCRIBE:
        plain = and_(plain, not_(member_objects()))
    resting = _rest(conn, audience, plain)
    rows_joined, joined = _join(conn, audience, plain, at)
    return Applied(rows=resting + rows_joined, joined=joined)


def _rest(conn: Connection, audience: Audience, plain: ColumnElement[bool]) -> int:
    """Mark the rows whose sides agree as ok, with the latest change of the group; returns how many."""
    inside, member = in_group(audience), in_audience()
    agree = or_(and_(member, inside), and_(not_(member), not_(inside)))  # first: few rows are left for the rest
    values = {"sync_status": SyncStatus.OK, "civicrm_groups": _latest_change(audience)}
    return conn.execute(change(cache).where(agree, plain).values(values)).rowcount


def _latest_change(audience: Audience) -> ScalarSelect[str]:
    """CiviCRM's latest change as the cache stores it (``12;Added;2026-01-09 10:00:00``); NULL without history."""
    history = subscription_history.c
    latest = literal(f"{audience.group_id};").concat(func.coalesce(history.status, ""))
    return (
        select(latest.concat(";").concat(func.coalesce(history.date, "")))
        .where(
            history.contact_id == cache.c.civicrm_contact_id,
            unindexed(history.group_id) == audience.group_id,  # a contact has a few rows
        )
        .order_by(history.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )


def _join(conn: Connection, audience: Audience, plain: ColumnElement[bool], at: datetime) -> tuple[int, int]:
    """Add the contacts of members that were never in the group; returns the numbers of rows and of contacts."""
    mine = select(cache.c.id, cache.c.civicrm_contact_id, *form_columns())
    found = conn.execute(
        mine.where(plain, cache.c.civicrm_contact_id.is_not(None), in_audience(), never_heard_of(audience))
    ).all()
    if not found:
        return 0, 0
    site_time = audience.clock.write(at)
    contacts = list(dict.fromkeys(row[1] for row in found))
    history = set_status(conn, audience.group_id, contacts, GroupStatus.ADDED, method=ECHO_METHOD, at=site_time)
    note_rows(conn, audience.list_id, HISTORY, history, site_time)
    if audience.run_id:
        ids, group_id = history_ids(conn, audience.group_id, contacts, history), audience.group_id
        note_many(conn, audience.run_id, JOIN_GROUP, [(row[0], row[1], group_id, ids[row[1]]) for row in found])
    groups = f"{audience.group_id};{GroupStatus.ADDED};{site_time}"
    forms, others = read_forms(found)
    note_echoes(conn, forms, civicrm_groups=groups, sync_status=SyncStatus.OK)
    _note_others(conn, audience, others, groups)
    add_changes(conn, audience, at, joined_civicrm=len(contacts))
    return len(found), len(contacts)


def _note_others(conn: Connection, audience: Audience, cache_ids: Sequence[int], groups: str) -> None:
    """`note_echoes` for rows with data in another form."""
    if not cache_ids:
        return
    columns = (cache.c.id, cache.c.mailchimp_data, cache.c.mailchimp_updated)
    found = conn.execute(select(*columns).where(in_list(cache.c.id, cache_ids)))
    written = [
        (with_text(data, f"{ECHO}status@", _said_at(audience, data, updated)), groups, SyncStatus.OK, cache_id)
        for cache_id, data, updated in found
    ]
    update_rows(conn, cache, ("mailchimp_data", "civicrm_groups", "sync_status"), written)


def _said_at(audience: Audience, data: bytes | None, updated: str | None) -> str:
    """The time of the Mailchimp change that is mirrored, as a member's data keeps times: nearly always it is there."""
    noted = peek(data, "status@") or ""
    return noted if len(noted) == 14 and noted.isdecimal() else audience.compact(member_since(audience, None, updated))
