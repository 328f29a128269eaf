"""Asking for people to be looked at again: ``Mailchimpsync.includecontact``."""

from collections.abc import Sequence

from sqlalchemy import Connection, update

from sync.tables import cache

CHUNK = 500  # keeps an IN list under every driver's limit


def include_contacts(conn: Connection, contact_ids: Sequence[int]) -> int:
    """Have the next sync look at these contacts in every audience; returns how many cache rows that are."""
    affected = 0
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        affected += conn.execute(
            update(cache).where(cache.c.civicrm_contact_id.in_(part)).values(sync_status="todo")
        ).rowcount
    return affected
