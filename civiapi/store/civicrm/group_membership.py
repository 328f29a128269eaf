"""Group contacts and subscription history, which are only changed together.

A group contact has the current status; subscription history is the append-only log, in which the highest id of a
contact and group is CiviCRM's latest change. Dates are site times.
"""

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import Connection, and_, delete, select, update

from civiapi.store.databases.bulk import insert_numbered, insert_rows
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import group_contact, subscription_history


class GroupStatus(StrEnum):
    """The status of a contact in a CiviCRM group."""

    ADDED = "Added"
    REMOVED = "Removed"
    PENDING = "Pending"
    DELETED = "Deleted"
    """Only in the history: the contact was removed from the group without leaving a row."""


def current_statuses(
    conn: Connection, group_id: int, contact_ids: Sequence[int], *, lock: bool = False
) -> dict[int, str]:
    """The status (Added, Removed, Pending) of each contact in the group; absent: never in it.

    *lock*: nobody else changes these rows until the transaction ends, where the database locks rows (MariaDB).
    """
    query = select(group_contact.c.contact_id, group_contact.c.status).where(
        unindexed(group_contact.c.group_id) == group_id, in_list(group_contact.c.contact_id, contact_ids)
    )
    rows = conn.execute(query.with_for_update() if lock else query)
    return dict(rows.all())


def set_status(
    conn: Connection,
    group_id: int,
    contact_ids: Sequence[int],
    status: str,
    *,
    method: str,
    at: str,
    tracking: str = "",
) -> range:
    """Set the status of these contacts in the group and add a history row for each, at site time *at*.

    Contacts that have the status already get a history row as well. ``Deleted`` removes the group contact. Contacts
    must exist. Returns the ids of the history rows; an empty range where rows of others may be among them.
    """
    if not contact_ids:
        return range(0)
    ids = list(dict.fromkeys(contact_ids))
    known = current_statuses(conn, group_id, ids)
    _move(conn, group_id, [i for i in ids if i in known], status)
    new = [i for i in ids if i not in known] if status != GroupStatus.DELETED else []
    if new:
        insert_rows(conn, group_contact, ("group_id", "contact_id", "status"), [(group_id, i, status) for i in new])
    columns = ("contact_id", "group_id", "date", "method", "status", "tracking")
    rows = [(i, group_id, at, method, status, tracking) for i in ids]
    return insert_numbered(conn, subscription_history, columns, rows)


def _move(conn: Connection, group_id: int, contact_ids: Sequence[int], status: str) -> None:
    if not contact_ids:
        return
    theirs = and_(unindexed(group_contact.c.group_id) == group_id, in_list(group_contact.c.contact_id, contact_ids))
    if status == GroupStatus.DELETED:
        conn.execute(delete(group_contact).where(theirs))
    else:
        conn.execute(update(group_contact).where(theirs).values(status=status))
