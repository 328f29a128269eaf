"""The sync status of cache rows."""

from collections.abc import Collection

from sqlalchemy import Connection, update

from civiapi.store.databases.expressions import in_list
from sync.model import SyncStatus
from sync.store.tables import cache


def set_sync_status(
    conn: Connection, cache_ids: Collection[int], status: str, *, only: Collection[SyncStatus] = ()
) -> None:
    """Set the status of these rows; with *only*, of those that have one of these statuses."""
    if not cache_ids:
        return
    rows = update(cache).where(in_list(cache.c.id, cache_ids))
    conn.execute((rows.where(cache.c.sync_status.in_(only)) if only else rows).values(sync_status=status))
