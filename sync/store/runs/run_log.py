"""The run log: a line for each run of an audience, from its beginning to how it ended.

An entry without an end is of a run that is in progress or was killed: only a current lease on the audience shows which.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from civiapi.store import leases
from civiapi.store.author import Author
from civiapi.store.clock import SiteClock
from sync.audience import Audience
from sync.store.events import BY_SYNC
from sync.store.tables import run_log

RUNNING, CRASHED = "running", "crashed"


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: *counts* is what each stage did, *error* the sentence where it failed, *log* its lines."""

    outcome: str
    counts: Mapping[str, Mapping[str, int]]
    error: str | None = None
    log: Sequence[Mapping[str, str]] = ()


def open_entry(conn: Connection, audience: Audience, by: Author = BY_SYNC, *, undoes: int | None = None) -> int:
    """Begin a line of the run log that *by* asked for, *undoes*: of a run that takes that one back; returns its id.

    Lines that were never ended are of runs that were killed.
    """
    unended = (run_log.c.list_id == audience.list_id, run_log.c.ended_s.is_(None))
    now = leases.now_ms() // 1000
    conn.execute(update(run_log).where(*unended).values(outcome=CRASHED, ended_s=now))
    who = {"contact_id": by.contact_id, "author": by.name[:64]}
    linked = orjson.dumps(audience.linked).decode()
    row = {"list_id": audience.list_id, "started_s": now, "undoes": undoes, "linked": linked, **who}
    made = conn.execute(insert(run_log).values(row))
    key = made.inserted_primary_key
    return int(key[0]) if key else 0


def linked_then(conn: Connection, audience: Audience, run_id: int) -> Mapping[str, int]:
    """The groups that were linked when a run of this audience began (`Audience.linked`); an earlier version did not
    note them: those that are linked now."""
    known = conn.execute(select(run_log.c.linked).where(run_log.c.id == run_id)).scalar()
    return orjson.loads(known) if known else audience.linked


def close_entry(conn: Connection, entry: int, ended: RunEnd) -> None:
    """Write down how a run ended."""
    conn.execute(
        update(run_log)
        .where(run_log.c.id == entry, run_log.c.ended_s.is_(None))  # the next holder has marked it as crashed already
        .values(
            ended_s=leases.now_ms() // 1000,
            outcome=ended.outcome,
            counts=orjson.dumps(ended.counts).decode(),
            error=ended.error,
            log=orjson.dumps(list(ended.log)).decode(),
        )
    )


def read_runs(
    conn: Connection,
    groups: Mapping[str, int],
    clock: SiteClock,
    at_ms: int,
    *,
    limit: int,
    offset: int,
    run_id: int | None = None,
) -> list[dict[str, Any]]:
    """The runs of these audiences (list id → group), or one of them, newest first; *limit* 0: all. With site times."""
    wanted = select(run_log).where(run_log.c.list_id.in_(list(groups))).order_by(run_log.c.id.desc())
    if run_id is not None:
        wanted = wanted.where(run_log.c.id == run_id)
    rows = conn.execute(wanted.limit(limit or 2**31).offset(offset)).all()
    ended = outcomes(conn, rows, at_ms)
    return [
        {
            "id": row.id,
            "list_id": row.list_id,
            "group_id": groups[row.list_id],
            "started": _site_time(clock, row.started_s),
            "ended": _site_time(clock, row.ended_s),
            "took_s": None if row.ended_s is None else max(0, row.ended_s - row.started_s),
            "outcome": ended[row.id],
            "counts": orjson.loads(row.counts) if row.counts else {},
            "error": row.error,
            "undoes": row.undoes,
            "undone_by": row.undone_by,
        }
        for row in rows
    ]


def outcomes(conn: Connection, rows: Iterable[Row[Any]], at_ms: int) -> dict[int, str]:
    """How each of these runs ended, by id: ``running`` where it has not, ``crashed`` where it never will."""
    rows = list(rows)
    unended = {row.list_id for row in rows if row.ended_s is None}
    live = {list_id for list_id in unended if leases.is_live(conn, list_id, at_ms)}
    return {row.id: row.outcome or (RUNNING if row.list_id in live else CRASHED) for row in rows}


def _site_time(clock: SiteClock, seconds: int | None) -> str | None:
    return None if seconds is None else clock.write_epoch(seconds)
