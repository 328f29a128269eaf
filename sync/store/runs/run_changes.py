"""What a run did to whom: a row for each contact made, group change, update queued, and person who cannot be synced.

Written in the unit that does it. Names and addresses are not kept here: a reader finds them at the contact and the
cache row, and does not where these were deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, select

from civiapi.store.databases.bulk import insert_rows
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import subscription_history
from sync.store.tables import run_change

COLUMNS = (
    "run_id", "kind", "cache_id", "contact_id", "group_id", "history_id", "update_id", "was", "replaced", "reason",
)  # fmt: skip


class RunChange(NamedTuple):
    """One thing that a run did; the columns of ``civiapi_run_change``, *replaced* as a map."""

    kind: str
    cache_id: int | None = None
    contact_id: int | None = None
    group_id: int | None = None
    history_id: int | None = None
    update_id: int | None = None
    was: str | None = None
    replaced: Mapping[str, Any] | None = None
    reason: str | None = None


def note_changes(conn: Connection, run_id: int, changes: Iterable[RunChange]) -> None:
    """Record what a run did; nothing without a run (0)."""
    if run_id:
        rows = [(run_id, *one[:7], orjson.dumps(one[7]).decode() if one[7] else None, one[8]) for one in changes]
        insert_rows(conn, run_change, COLUMNS, rows)


def note_many(
    conn: Connection, run_id: int, kind: str, rows: Sequence[tuple[int, int] | tuple[int, int, int, int]]
) -> None:
    """Record that a run did the same to many: cache id, contact id, and of a change of a group that and the history id.

    Without a reason: it is in the kind and the member.
    """
    if run_id and rows:
        insert_rows(conn, run_change, COLUMNS[: 2 + len(rows[0])], [(run_id, kind, *one) for one in rows])


def history_ids(conn: Connection, group_id: int, contact_ids: Sequence[int], written: range) -> dict[int, int]:
    """The history row just written for each of these distinct contacts, in their order; *written*: its ids where known.

    They are read where rows of others were written meanwhile.
    """
    if len(written) == len(contact_ids):
        return dict(zip(contact_ids, written, strict=True))
    newest = (
        select(subscription_history.c.contact_id, func.max(subscription_history.c.id))
        .where(in_list(subscription_history.c.contact_id, contact_ids))
        .where(unindexed(subscription_history.c.group_id) == group_id)
        .group_by(subscription_history.c.contact_id)
    )
    return dict(conn.execute(newest).all())
