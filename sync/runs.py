"""The run log: a line for each run of an audience, from its beginning to how it ended.

A line that was never ended is of a run that is at work or was killed: only a live claim on the audience tells.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from civiapi.store.clock import SiteClock
from sync import claims
from sync.tables import run_log

RUNNING, CRASHED = "running", "crashed"


def open_entry(conn: Connection, list_id: str) -> int:
    """Begin a line of the run log; lines that were never ended are of runs that were killed."""
    unended = (run_log.c.list_id == list_id, run_log.c.ended_s.is_(None))
    now = claims.now_ms() // 1000
    conn.execute(update(run_log).where(*unended).values(outcome=CRASHED, ended_s=now))
    made = conn.execute(insert(run_log).values(list_id=list_id, started_s=now))
    key = made.inserted_primary_key
    return int(key[0]) if key else 0


def close_entry(
    conn: Connection, entry: int, outcome: str, counts: Mapping[str, Mapping[str, int]], error: str | None
) -> None:
    """Write down how a run ended: *counts* is what each stage did, *error* the sentence where it failed."""
    conn.execute(
        update(run_log)
        .where(run_log.c.id == entry, run_log.c.ended_s.is_(None))  # whoever took over has called it crashed already
        .values(ended_s=claims.now_ms() // 1000, outcome=outcome, counts=orjson.dumps(counts).decode(), error=error)
    )


def read_runs(
    conn: Connection, groups: Mapping[str, int], clock: SiteClock, at_ms: int, *, limit: int, offset: int
) -> list[dict[str, Any]]:
    """The runs of these audiences (list id → group), newest first; *limit* 0: all. Times are site times."""
    wanted = select(run_log).where(run_log.c.list_id.in_(list(groups))).order_by(run_log.c.id.desc())
    rows = conn.execute(wanted.limit(limit or 2**31).offset(offset)).all()
    unended = {row.list_id for row in rows if row.ended_s is None}
    live = {list_id for list_id in unended if claims.is_live(conn, list_id, at_ms)}
    return [
        {
            "id": row.id,
            "list_id": row.list_id,
            "group_id": groups[row.list_id],
            "started": _site_time(clock, row.started_s),
            "ended": _site_time(clock, row.ended_s),
            "took_s": None if row.ended_s is None else max(0, row.ended_s - row.started_s),
            "outcome": row.outcome or (RUNNING if row.list_id in live else CRASHED),
            "counts": orjson.loads(row.counts) if row.counts else {},
            "error": row.error,
        }
        for row in rows
    ]


def _site_time(clock: SiteClock, seconds: int | None) -> str | None:
    return None if seconds is None else clock.write(datetime.fromtimestamp(seconds, UTC))
