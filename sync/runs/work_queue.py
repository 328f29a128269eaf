"""The queue of audiences that a sync of several has still to visit, shared by all workers on the database.

A request queues a turn for each audience; every process takes one open turn at a time. A turn is taken by one process;
if that is killed, the turn is open again as soon as its lease on the audience has lapsed. How far an audience has got
is not kept here but in its checkpoint, from which the next taker continues.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from civiapi.store import leases
from civiapi.store.author import Author
from civiapi.store.databases.dialect import upsert
from sync.runs.run import RunRequest
from sync.store.tables import turn

OPEN, TAKEN, DONE = "open", "taken", "done"
_STORED = ("stop_on", "force_restart", "with_data", "confirm")


@dataclass(frozen=True, slots=True)
class Turn:
    """An audience to be visited, and as what."""

    list_id: str
    request: RunRequest


def enqueue(conn: Connection, list_ids: Sequence[str], request: RunRequest, until_ms: int) -> None:
    """Queue a turn for each of these audiences until *until_ms*; one that is taken at present stays its taker's."""
    busy = set(conn.execute(select(turn.c.list_id).where(turn.c.state == TAKEN).with_for_update()).scalars())
    body = orjson.dumps(_as_json(request)).decode()
    fresh = {"state": OPEN, "until_ms": until_ms, "request": body, "taker": "", "taken_ms": 0, "error": None}
    rows = [{"list_id": one, **fresh} for one in list_ids if one not in busy]
    names = [column.name for column in turn.columns if column.name != "list_id"]
    upsert(conn, turn, rows, key=["list_id"], set_=names)


def take(conn: Connection, list_ids: Iterable[str], taker: str, grace_s: float, at_ms: int) -> Turn | None:
    """Take the first open turn, or one whose taker is gone: its process has ended, or it has not taken the lease on the
    audience within *grace_s* seconds."""
    wanted = turn.c.list_id.in_(list(list_ids)), turn.c.state.in_((OPEN, TAKEN)), turn.c.until_ms > at_ms
    for row in conn.execute(select(turn).where(*wanted).order_by(turn.c.list_id)).all():
        is_new = row.state == TAKEN and row.taken_ms >= at_ms - int(grace_s * 1000)
        if (is_new and not leases.is_gone(row.taker)) or leases.is_held(conn, row.list_id, at_ms):
            continue
        as_read = turn.c.state == row.state, turn.c.taken_ms == row.taken_ms, turn.c.taker == row.taker
        taken = conn.execute(
            update(turn)
            .where(turn.c.list_id == row.list_id, *as_read)
            .values(state=TAKEN, taker=taker, taken_ms=max(at_ms, row.taken_ms + 1))
        )
        if taken.rowcount == 1:
            return Turn(row.list_id, _from_json(orjson.loads(row.request), row.until_ms, at_ms))
    return None


def finish(conn: Connection, list_id: str, taker: str, error: str | None) -> None:
    """Mark a turn as done; no effect when another process has taken it since."""
    mine = (turn.c.list_id == list_id, turn.c.taker == taker, turn.c.state == TAKEN)
    conn.execute(update(turn).where(*mine).values(state=DONE, error=error))


def count_unfinished(conn: Connection, list_ids: Iterable[str], at_ms: int) -> int:
    """How many of these audiences' turns are neither done nor expired."""
    wanted = (turn.c.list_id.in_(list(list_ids)), turn.c.state != DONE, turn.c.until_ms > at_ms)
    return len(conn.execute(select(turn.c.list_id).where(*wanted)).all())


def collect(conn: Connection, list_ids: Sequence[str]) -> dict[str, str | None]:
    """The audiences that had their turn, each with its error if it failed; their turns are deleted unless taken."""
    rows = conn.execute(select(turn).where(turn.c.list_id.in_(list_ids))).all()
    conn.execute(delete(turn).where(turn.c.list_id.in_(list_ids), turn.c.state != TAKEN))
    return {row.list_id: row.error for row in rows if row.state != OPEN}


def _as_json(request: RunRequest) -> dict[str, Any]:
    since = request.since.isoformat() if isinstance(request.since, datetime) else request.since
    return {name: getattr(request, name) for name in _STORED} | {"since": since, "by": list(request.by)}


def _from_json(body: dict[str, Any], until_ms: int, at_ms: int) -> RunRequest:
    since = body["since"]
    moment = datetime.fromisoformat(since) if since not in (None, "ever") else since
    known = {name: body[name] for name in _STORED if name in body}  # rows of earlier versions lack some
    by = Author(*body.get("by", ()))
    return RunRequest((until_ms - at_ms) / 1000, moment, by=by, **known)
