"""Queue contacts or rows for the next sync: ``Mailchimpsync.includecontact`` and ``includematching``."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, or_, select
from sqlalchemy import update as change

from civiapi.store.databases.expressions import in_list
from sync.model import SyncStatus
from sync.store.members.holds import lift_all_holds
from sync.store.retries import forget_retries
from sync.store.tables import cache, retry, update, update_detail


def include_contacts(conn: Connection, contact_ids: Sequence[int]) -> int:
    """Queue these contacts for the next sync in every audience; returns how many cache rows that are."""
    theirs = in_list(cache.c.civicrm_contact_id, contact_ids)
    rows = conn.execute(change(cache).where(theirs).values(sync_status=SyncStatus.TODO)).rowcount
    forget_refusals(conn, theirs)
    lift_all_holds(conn, theirs)
    return rows


def include_matching(
    conn: Connection, list_id: str, where: Sequence[ColumnElement[bool]], after: int, size: int
) -> tuple[int, int, int | None]:
    """Queue the next *size* rows of an audience that match, after row *after*, for the next sync.

    Returns how many matched, how many of them were not queued already, and the row to continue after (None: no more).
    """
    matching = (cache.c.mailchimp_list_id == list_id, cache.c.id > after, *where)
    ids = list(conn.execute(select(cache.c.id).where(*matching).order_by(cache.c.id).limit(size)).scalars())
    rows = in_list(cache.c.id, ids)
    not_queued = or_(cache.c.sync_status != SyncStatus.TODO, cache.c.sync_status.is_(None))
    changed = conn.execute(change(cache).where(rows, not_queued).values(sync_status=SyncStatus.TODO)).rowcount
    forget_refusals(conn, rows)
    lift_all_holds(conn, rows)
    return len(ids), changed, ids[-1] if len(ids) == size else None


def forget_refusals(conn: Connection, rows: ColumnElement[bool]) -> None:
    """Forget that Mailchimp refused updates of these rows, so that the next sync that decides the same sends them
    again."""
    forget_retries(conn, list(conn.execute(select(retry.c.cache_id).join(cache).where(rows)).scalars()))
    completed = (
        select(update.c.id)
        .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
        .where(rows, update.c.completed == 1)
    )
    ids = list(conn.execute(completed).scalars())
    if ids:
        conn.execute(change(update_detail).where(in_list(update_detail.c.update_id, ids)).values(cause_s=None))
