"""Which audiences a sync of all of them has still to visit, so that every worker on the database takes a share.

Whoever asks for all audiences writes a turn for each and then works on turns like everybody else, one audience at a
time; workers look for open turns by themselves. A turn is taken by one process; if that is killed, the turn is open
again as soon as its claim on the audience has lapsed. Nothing here says how far an audience has got: that is its
position, and a turn taken again goes on from there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, delete, or_, select, update

from civiapi.store.dialect import upsert
from sync import claims
from sync.stages.base import RunRequest
from sync.tables import turn

OPEN, TAKEN, DONE = "open", "taken", "done"


@dataclass(frozen=True, slots=True)
class Turn:
    """An audience to be visited, until when (UTC milliseconds), and as what."""

    list_id: str
    until_ms: int
    request: RunRequest


def ask(conn: Connection, list_ids: Sequence[str], request: RunRequest, until_ms: int) -> None:
    """Let each of these audiences have a turn until *until_ms*; one that is taken just now is left to its taker."""
    busy = set(conn.execute(select(turn.c.list_id).where(turn.c.state == TAKEN).with_for_update()).scalars())
    words = orjson.dumps(_as_json(request)).decode()
    fresh = {"state": OPEN, "until_ms": until_ms, "request": words, "taker": "", "taken_ms": 0, "error": None}
    rows = [{"list_id": one, **fresh} for one in list_ids if one not in busy]
    names = [column.name for column in turn.columns if column.name != "list_id"]
    upsert(conn, turn, rows, key=["list_id"], set_=names)


def take(conn: Connection, list_ids: Iterable[str], taker: str, grace_s: float, at_ms: int) -> Turn | None:
    """Take the first turn that nobody has, or whose taker is gone (no claim on the audience for *grace_s* seconds)."""
    free = or_(turn.c.state == OPEN, (turn.c.state == TAKEN) & (turn.c.taken_ms < at_ms - int(grace_s * 1000)))
    wanted = turn.c.list_id.in_(list(list_ids))
    rows = conn.execute(select(turn).where(wanted, free, turn.c.until_ms > at_ms).order_by(turn.c.list_id)).all()
    for row in rows:
        if claims.is_held(conn, row.list_id, at_ms):
            continue
        taken = conn.execute(
            update(turn)
            .where(turn.c.list_id == row.list_id, turn.c.taken_ms == row.taken_ms, turn.c.taker == row.taker, free)
            .values(state=TAKEN, taker=taker, taken_ms=max(at_ms, row.taken_ms + 1))
        )
        if taken.rowcount == 1:
            return Turn(row.list_id, row.until_ms, _from_json(orjson.loads(row.request), row.until_ms, at_ms))
    return None


def finish(conn: Connection, list_id: str, taker: str, error: str | None) -> None:
    """The turn was had; nothing happens when somebody else has taken it since."""
    mine = (turn.c.list_id == list_id, turn.c.taker == taker, turn.c.state == TAKEN)
    conn.execute(update(turn).where(*mine).values(state=DONE, error=error))


def waiting(conn: Connection, list_ids: Iterable[str], at_ms: int) -> int:
    """How many of these audiences' turns are not over."""
    wanted = (turn.c.list_id.in_(list(list_ids)), turn.c.state != DONE, turn.c.until_ms > at_ms)
    return len(conn.execute(select(turn.c.list_id).where(*wanted)).all())


def collect(conn: Connection, list_ids: Sequence[str]) -> dict[str, str | None]:
    """The audiences that had their turn, with what went wrong, and no turn of any of them that is not going on."""
    rows = conn.execute(select(turn).where(turn.c.list_id.in_(list_ids))).all()
    conn.execute(delete(turn).where(turn.c.list_id.in_(list_ids), turn.c.state != TAKEN))
    return {row.list_id: row.error for row in rows if row.state != OPEN}


def _as_json(request: RunRequest) -> dict[str, Any]:
    since = request.since.isoformat() if isinstance(request.since, datetime) else request.since
    return {
        "since": since,
        "stop_on": request.stop_on,
        "force_restart": request.force_restart,
        "with_data": request.with_data,
        "confirm": request.confirm,
    }


def _from_json(words: dict[str, Any], until_ms: int, at_ms: int) -> RunRequest:
    since = words["since"]
    moment = datetime.fromisoformat(since) if since not in (None, "ever") else since
    return RunRequest(
        (until_ms - at_ms) / 1000,
        moment,
        words["stop_on"],
        words["force_restart"],
        words["with_data"],
        bool(words.get("confirm")),  # one of an older program has none
    )
