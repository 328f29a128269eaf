"""Cache rows: one for each member of an audience, and one for each contact in its group that is not a member.

Here are the notes of what was sent for a row, and how two rows become one. ``cache_merge`` brings rows up to date with
members from Mailchimp.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select
from sqlalchemy import update as change

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list
from sync.audience import Audience
from sync.model import SyncStatus
from sync.store.members.holds import move_holds
from sync.store.members.member_codec import Fields, decode, encode
from sync.store.members.member_merge import NO_TIME, Sent, clear_default_timestamps, with_notes, without_notes
from sync.store.tables import cache, member, update

ROW = (
    cache.c.id,
    cache.c.mailchimp_member_id,
    cache.c.mailchimp_email,
    cache.c.mailchimp_status,
    cache.c.mailchimp_updated,
    cache.c.mailchimp_data,
    cache.c.civicrm_contact_id,
    cache.c.sync_status,
)
"""The columns that merges read."""


def note_sent(conn: Connection, audience: Audience, notes: Sequence[tuple[int, Sent]]) -> None:
    """Note on these rows what is being sent for them, so that it is recognised when Mailchimp reports it."""
    _rewrite_data(
        conn,
        dict(notes),
        lambda fields, sent: with_notes(fields, sent, audience.compact(sent.at) if sent.at else NO_TIME),
    )


def forget_sent(conn: Connection, cache_ids: Sequence[int]) -> None:
    """Delete the notes of what was sent: Mailchimp refused it, so it will not be reported."""
    _rewrite_data(conn, dict.fromkeys(cache_ids, None), lambda fields, _: without_notes(fields))


def wake_siblings(conn: Connection, list_id: str, cache_ids: Sequence[int]) -> None:
    """Mark ``todo`` the failed rows of the same contacts: the reason may have depended on one of these rows."""
    if not cache_ids:
        return
    contacts = conn.execute(
        select(cache.c.civicrm_contact_id).where(
            in_list(cache.c.id, cache_ids), cache.c.civicrm_contact_id.is_not(None)
        )
    ).scalars()
    if ids := list(contacts):
        conn.execute(
            change(cache)
            .where(
                cache.c.mailchimp_list_id == list_id,
                in_list(cache.c.civicrm_contact_id, ids),
                cache.c.sync_status == SyncStatus.FAIL,
            )
            .values(sync_status=SyncStatus.TODO)
        )


def merge_into(conn: Connection, loser_id: int, keeper_id: int) -> None:
    """Merge two rows of the same member: the updates and notes of *loser_id* move to *keeper_id*.

    A value of the kept row that the other row's note says was sent is our own write, and dated by its cause.
    """
    rows = lock_rows(conn, {loser_id, keeper_id})
    if loser_id not in rows or keeper_id not in rows:
        return
    theirs, ours = decode(rows[loser_id].mailchimp_data), decode(rows[keeper_id].mailchimp_data)
    fields = dict(ours)
    for key, value in theirs.items():
        if not key.startswith("sent-") or key.endswith("@"):
            continue
        name, cause = key.removeprefix("sent-"), theirs.get(key + "@") or NO_TIME
        if fields.get(name) == value:
            fields[name + "@"] = min(str(fields.get(name + "@") or cause), cause)
            if name == "status":
                clear_default_timestamps(fields, (one.removeprefix("sent-") for one in theirs))
        else:
            fields[key], fields[key + "@"] = value, cause
    if fields != ours:
        update_rows(conn, cache, ("mailchimp_data",), [(encode(fields), keeper_id)])
    absorb(conn, loser_id, keeper_id)


def keep_one(conn: Connection, list_id: str, rows: Sequence[Row[Any]]) -> Row[Any]:
    """Make several rows of one member one, as two processes of CiviCRM's extension leave them; returns it.

    The first with a contact is kept. The contact of another one gets a row without a member, unless it has a row.
    """
    kept = min(rows, key=lambda row: (row.civicrm_contact_id is None, row.id))
    others = [row for row in rows if row.id != kept.id]
    for row in others:
        merge_into(conn, row.id, kept.id)
    contacts = {row.civicrm_contact_id for row in others} - {None}
    mine = cache.c.mailchimp_list_id == list_id, cache.c.civicrm_contact_id.in_(contacts)
    known = set(conn.execute(select(cache.c.civicrm_contact_id).where(*mine)).scalars())
    for contact_id in sorted(contacts - known):
        values = {"mailchimp_list_id": list_id, "civicrm_contact_id": contact_id, "sync_status": SyncStatus.TODO}
        conn.execute(insert(cache).values(values))
    conn.execute(change(cache).where(cache.c.id == kept.id).values(sync_status=SyncStatus.TODO))
    return lock_rows(conn, {kept.id})[kept.id]


def lock_rows(conn: Connection, cache_ids: Collection[int]) -> dict[int, Row[Any]]:
    """The current rows by id, locked until the transaction ends.

    A run and the results of a batch may merge the same two rows at the same time, each in the other direction.
    """
    wanted = select(*ROW).where(in_list(cache.c.id, cache_ids)).order_by(cache.c.id).with_for_update()
    found: dict[int, Any] = {row.id: row for row in conn.execute(wanted)}
    return found


def absorb(conn: Connection, loser_id: int, keeper_id: int) -> None:
    """Move the updates of *loser_id* and what an undo holds of it to *keeper_id*, and delete the row; its notes are
    lost."""
    move_holds(conn, loser_id, keeper_id)
    conn.execute(
        change(update).where(update.c.mailchimpsync_cache_id == loser_id).values(mailchimpsync_cache_id=keeper_id)
    )
    conn.execute(delete(cache).where(cache.c.id == loser_id))


def _rewrite_data(conn: Connection, rows: Mapping[int, Any], rewrite: Callable[[Fields, Any], Fields]) -> None:
    found = conn.execute(select(cache.c.id, cache.c.mailchimp_data).where(in_list(cache.c.id, list(rows))))
    changed = []
    for row in found:
        old = decode(row.mailchimp_data)
        new = rewrite(old, rows[row.id])
        if new != old:
            changed.append((encode(new), row.id))
    update_rows(conn, cache, ("mailchimp_data",), changed)


def find_contact_id(conn: Connection, cache_id: int) -> str | None:
    """Mailchimp's contact id of a row's member, which stays as the address changes; None where it is not known."""
    return conn.execute(select(member.c.contact_id).where(member.c.cache_id == cache_id)).scalar()
