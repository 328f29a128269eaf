"""Our rows for batches: what they mean, and the few ways they are read and moved on. No Mailchimp here.

The table is the extension's. Its rows may have no status (a batch never asked about) and no counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select
from sqlalchemy import update as change

from sync.mailchimp.wire import Batch
from sync.tables import batch

SUBMITTING = "submitting"
ABORTED = "aborted"
ABORTING = "aborting"
"""Ours: called off here, and still to be cancelled at Mailchimp."""

PENDING = "pending"
CALLED_OFF = (ABORTED, ABORTING)
EXPIRED = "expired"
"""Ours: Mailchimp knows the batch no more."""

NOT_PROCESSED, PROCESSING, PROCESSED = 0, 1, 2
"""The values of ``response_processed``."""
OPEN = (NOT_PROCESSED, PROCESSING)


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One of our batches. *batch_id* is Mailchimp's, empty while we do not know it."""

    id: int
    list_id: str
    batch_id: str
    status: str
    processed: int


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


_BATCHES = select(
    batch.c.id,
    batch.c.mailchimp_list_id,
    batch.c.mailchimp_batch_id,
    batch.c.status,
    batch.c.response_processed,
)
_UNFINISHED = (
    _BATCHES.where(
        batch.c.mailchimp_list_id.in_(bindparam("list_ids", expanding=True)),
        batch.c.response_processed.in_(OPEN),
        batch.c.mailchimp_batch_id.is_not(None),
        func.coalesce(batch.c.status, "").not_in(CALLED_OFF),
    )
).order_by(batch.c.id)
"""Made once: the watcher asks it whenever it looks."""


def note_progress(conn: Connection, row_id: int, told: Batch) -> None:
    """Keep how far Mailchimp has got with a batch whose results are not written down yet; later, this is old news.

    The counts of a batch just submitted are all 0: ours stays then.
    """
    values: dict[str, Any] = {
        "status": told.status,
        "finished_operations": told.finished_operations,
        "errored_operations": told.errored_operations,
    }
    if told.total_operations:
        values["total_operations"] = told.total_operations
    conn.execute(
        change(batch)
        .where(
            batch.c.id == row_id,
            func.coalesce(batch.c.status, "").not_in(CALLED_OFF),
            func.coalesce(batch.c.response_processed, NOT_PROCESSED) != PROCESSED,
        )
        .values(values)
    )
