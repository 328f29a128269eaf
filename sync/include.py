"""Asking for people to be looked at again: ``Mailchimpsync.includecontact``."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from sync.tables import cache, update_detail
from sync.tables import update as owed

CHUNK = 500  # keeps an IN list under every driver's limit


def include_contacts(conn: Connection, contact_ids: Sequence[int]) -> int:
    """Have the next sync look at these contacts in every audience; returns how many cache rows that are."""
    affected = 0
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        affected += conn.execute(
            update(cache).where(cache.c.civicrm_contact_id.in_(part)).values(sync_status="todo")
        ).rowcount
        _forget_refusals(conn, part)
    return affected


def _forget_refusals(conn: Connection, contact_ids: Sequence[int]) -> None:
    """Let what Mailchimp refused be asked once more: a person has asked for it, so it is no mere repeat."""
    ended = (
        select(owed.c.id)
        .join(cache, cache.c.id == owed.c.mailchimpsync_cache_id)
        .where(cache.c.civicrm_contact_id.in_(contact_ids), owed.c.completed == 1)
    )
    ids = list(conn.execute(ended).scalars())
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        conn.execute(update(update_detail).where(update_detail.c.update_id.in_(part)).values(cause_s=None))
