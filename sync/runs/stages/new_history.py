"""Walks CiviCRM's history from the watermark of the previous run on, past what the sync itself wrote.

Rows are not always committed in the order of their ids (MariaDB), so the watermark stays behind the newest rows, and
before ids that may still be used; the next run reads those again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, func, select

from civiapi.store.schema.tables import subscription_history
from sync.runs.run import Step
from sync.store.runs.own_rows import gaps, own_history

LAG_SECONDS = 600
"""Newer history may still get older rows, from a transaction that began before and commits later."""


def fix_horizon(conn: Connection, step: Step) -> None:
    """Store up to which history row this run reads, and the watermark from which the next one begins."""
    history, begin = subscription_history.c, step.checkpoint.history_id
    horizon = conn.execute(select(func.max(history.id)).where(history.id > begin)).scalar() or begin
    settled = step.audience.clock.write_epoch(step.at.timestamp() - LAG_SECONDS)
    mark = horizon
    for after, upto, following in gaps(own_history(conn, step.audience.list_id, begin), begin, horizon):
        if following is not None and following.at <= settled:
            continue
        old = select(history.id).where(history.id > after, history.id <= upto, history.date <= settled)
        mark = conn.execute(old.order_by(history.id.desc()).limit(1)).scalar() or after
        if mark < upto or following is not None:
            break
        mark = horizon
    step.checkpoint.parameters = replace(step.parameters, history_upto=horizon, history_mark=mark)


def next_history(
    conn: Connection, step: Step, after: int, columns: Sequence[Column[Any]], *which: ColumnElement[bool], size: int
) -> tuple[Sequence[Row[Any]], int | None]:
    """The next rows of history that the sync did not write itself and that meet the conditions *which*, at most *size*;
    and after which id to continue, None at the end of this run's history."""
    history = subscription_history.c
    for begin, end, _ in gaps(own_history(conn, step.audience.list_id, after), after, step.parameters.history_upto):
        upto = min(end, begin + step.sizes.scanned_ids_per_unit)
        wanted = select(history.id, *columns).where(history.id > begin, history.id <= upto, *which)
        rows = conn.execute(wanted.order_by(history.id).limit(size)).all()
        return rows, rows[-1].id if len(rows) == size else upto
    return [], None
