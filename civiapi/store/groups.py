"""Group contact and subscription history, always together: nobody changes one without the other.

A group contact says where someone stands now; subscription history is the append-only log of how they got there, and
its highest id for a contact and a group is what CiviCRM last said. Dates are site times.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, select, update

from civiapi.store.bulk import insert_rows
from civiapi.store.dialect import among
from civiapi.store.tables import group_contact, subscription_history

CHUNK = 500  # keeps an IN list under every driver's limit


def standings(conn: Connection, group_id: int, contact_ids: Sequence[int]) -> dict[int, str]:
    """Where each contact stands in the group now (Added, Removed, Pending); absent: never in it."""
    found: dict[int, str] = {}
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        rows = conn.execute(
            select(group_contact.c.contact_id, group_contact.c.status).where(
                group_contact.c.group_id == group_id, among(group_contact.c.contact_id, part)
            )
        )
        found.update({row.contact_id: row.status for row in rows})
    return found


def set_status(
    conn: Connection,
    group_id: int,
    contact_ids: Sequence[int],
    status: str,
    *,
    method: str,
    at: str,
    tracking: str | None = None,
) -> None:
    """Put these contacts into *status* in the group, and write down that they were, at site time *at*.

    Whoever asks decides whether a contact that already stands there is asked for at all: everyone passed here gets a
    history row. ``Deleted`` takes the group contact away. Contacts must exist.
    """
    if not contact_ids:
        return
    ids = list(dict.fromkeys(contact_ids))
    known = standings(conn, group_id, ids)
    _move(conn, group_id, [i for i in ids if i in known], status)
    new = [i for i in ids if i not in known] if status != "Deleted" else []
    if new:
        insert_rows(conn, group_contact, ("group_id", "contact_id", "status"), [(group_id, i, status) for i in new])
    columns = ("contact_id", "group_id", "date", "method", "status", "tracking")
    insert_rows(conn, subscription_history, columns, [(i, group_id, at, method, status, tracking) for i in ids])


def _move(conn: Connection, group_id: int, contact_ids: Sequence[int], status: str) -> None:
    for start in range(0, len(contact_ids), CHUNK):
        theirs = and_(
            group_contact.c.group_id == group_id, among(group_contact.c.contact_id, contact_ids[start : start + CHUNK])
        )
        if status == "Deleted":
            conn.execute(delete(group_contact).where(theirs))
        else:
            conn.execute(update(group_contact).where(theirs).values(status=status))
