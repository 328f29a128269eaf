"""Asking for people to be looked at again: ``Mailchimpsync.includecontact`` and ``includematching``."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, or_, select, update

from sync.tables import cache, update_detail
from sync.tables import update as owed

CHUNK = 500  # keeps an IN list under every driver's limit
ROWS_A_BIT = 10_000


def include_contacts(conn: Connection, contact_ids: Sequence[int]) -> int:
    """Have the next sync look at these contacts in every audience; returns how many cache rows that are."""
    affected = 0
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        affected += conn.execute(
            update(cache).where(cache.c.civicrm_contact_id.in_(part)).values(sync_status="todo")
        ).rowcount
        _forget_refusals(conn, cache.c.civicrm_contact_id.in_(part))
    return affected


def include_part(
    conn: Connection, list_id: str, where: Sequence[ColumnElement[bool]], after: int
) -> tuple[int, int, int | None]:
    """Have the next sync look at the next rows of an audience that match, from id *after* on.

    Returns how many matched, how many of them were not to be looked at anyway, and where to go on (None: that is all).
    """
    mine = (cache.c.mailchimp_list_id == list_id, cache.c.id > after, *where)
    ids = list(conn.execute(select(cache.c.id).where(*mine).order_by(cache.c.id).limit(ROWS_A_BIT)).scalars())
    affected = 0
    for start in range(0, len(ids), CHUNK):
        part = cache.c.id.in_(ids[start : start + CHUNK])
        rested = or_(cache.c.sync_status != "todo", cache.c.sync_status.is_(None))
        affected += conn.execute(update(cache).where(part, rested).values(sync_status="todo")).rowcount
        _forget_refusals(conn, part)
    return len(ids), affected, ids[-1] if len(ids) == ROWS_A_BIT else None


def _forget_refusals(conn: Connection, which: ColumnElement[bool]) -> None:
    """Let what Mailchimp refused be asked once more: a person has asked for it, so it is no mere repeat."""
    ended = (
        select(owed.c.id).join(cache, cache.c.id == owed.c.mailchimpsync_cache_id).where(which, owed.c.completed == 1)
    )
    ids = list(conn.execute(ended).scalars())
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        conn.execute(update(update_detail).where(update_detail.c.update_id.in_(part)).values(cause_s=None))
