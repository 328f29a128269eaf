"""Batch rows: their states, and the functions that read and change them. No calls to Mailchimp.

The table is the extension's. Its rows may have no status (a batch never asked about) and no counts.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, or_, select
from sqlalchemy import update as change

from sync.mailchimp.wire import Batch
from sync.model import BatchRow
from sync.store.tables import batch

SUBMITTING = "submitting"
ABORTED = "aborted"
ABORTING = "aborting"
"""Ours: cancelled here, and still to be cancelled at Mailchimp."""

PENDING = "pending"
CANCELLED = (ABORTED, ABORTING)
EXPIRED = "expired"
"""Ours: Mailchimp has deleted the batch."""

NOT_PROCESSED, PROCESSING, PROCESSED = 0, 1, 2
"""The values of ``response_processed``."""
OPEN = (NOT_PROCESSED, PROCESSING)


def select_batches() -> Select[Any]:
    """Our batch rows as `read_batch` takes them; add a WHERE."""
    return _BATCHES


def read_batch(row: Row[*tuple[Any, ...]]) -> BatchRow:
    """A batch from a row of `select_batches`."""
    return BatchRow(
        row.id,
        row.mailchimp_list_id or "",
        row.mailchimp_batch_id or "",
        row.status or "",
        row.response_processed or NOT_PROCESSED,
        row.finished_operations or 0,
        row.errored_operations or 0,
        row.total_operations or 0,
        row.submitted_at,
        row.completed_at,
    )


def find_batch_row(conn: Connection, row_id: int) -> BatchRow | None:
    """One of our batches by our row's id."""
    row = conn.execute(select_batches().where(batch.c.id == row_id)).one_or_none()
    return None if row is None else read_batch(row)


def find_by_batch_id(conn: Connection, batch_id: str) -> BatchRow | None:
    """One of our batches by Mailchimp's id; None for another program's."""
    row = conn.execute(select_batches().where(batch.c.mailchimp_batch_id == batch_id)).first()
    return None if row is None else read_batch(row)


def read_whole(conn: Connection, row_id: int) -> dict[str, Any]:
    """All columns of a batch row."""
    return dict(conn.execute(select(batch).where(batch.c.id == row_id)).one()._mapping)


def unfinished(conn: Connection, list_ids: Sequence[str]) -> list[BatchRow]:
    """The batches of these audiences that Mailchimp has and whose results are not all written down, oldest first."""
    return [read_batch(row) for row in conn.execute(_UNFINISHED, {"list_ids": list_ids})]


def sent_since(conn: Connection, list_id: str, since: str) -> list[BatchRow]:
    """The batches of an audience that were sent from site time *since* on or are unfinished, oldest first.

    Those that were cancelled are left out.
    """
    wanted = select_batches().where(
        batch.c.mailchimp_list_id == list_id,
        batch.c.mailchimp_batch_id.is_not(None),
        or_(batch.c.submitted_at >= since, batch.c.response_processed.in_(OPEN)),
        func.coalesce(batch.c.status, "").not_in(CANCELLED),
    )
    return [read_batch(row) for row in conn.execute(wanted.order_by(batch.c.id))]


_BATCHES = select(
    batch.c.id,
    batch.c.mailchimp_list_id,
    batch.c.mailchimp_batch_id,
    batch.c.status,
    batch.c.response_processed,
    batch.c.finished_operations,
    batch.c.errored_operations,
    batch.c.total_operations,
    batch.c.submitted_at,
    batch.c.completed_at,
)
_UNFINISHED = (
    _BATCHES.where(
        batch.c.mailchimp_list_id.in_(bindparam("list_ids", expanding=True)),
        batch.c.response_processed.in_(OPEN),
        batch.c.mailchimp_batch_id.is_not(None),
        func.coalesce(batch.c.status, "").not_in(CANCELLED),
    )
).order_by(batch.c.id)
"""Built once: the watcher executes it at each check."""


def note_progress(conn: Connection, row_id: int, reported: Batch) -> None:
    """Store the progress of a batch, unless its results are stored already.

    The counts of a batch just submitted are all 0: ours stays then.
    """
    values: dict[str, Any] = {
        "status": reported.status,
        "finished_operations": reported.finished_operations,
        "errored_operations": reported.errored_operations,
    }
    if reported.total_operations:
        values["total_operations"] = reported.total_operations
    conn.execute(
        change(batch)
        .where(
            batch.c.id == row_id,
            func.coalesce(batch.c.status, "").not_in(CANCELLED),
            func.coalesce(batch.c.response_processed, NOT_PROCESSED) != PROCESSED,
        )
        .values(values)
    )
