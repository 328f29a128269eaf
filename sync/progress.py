"""How far a sync has got, in numbers, for whoever watches it from any process: ``Mailchimpsync.getprogress``.

Kept in the audience's position (``positions``), so it is written by the very commits it tells of and costs no
statement of its own. What is counted of a stage is in `UNITS`; its total is what the stage found there was to do.
The rate is that of the present run in the present stage: time in which nobody worked counts for nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from civiapi.store.clock import SiteClock
from sync import claims, positions
from sync.config import Link
from sync.positions import READY_TO_FETCH, STAGES, Position

UNITS: Mapping[str, str] = {
    "readyToFetch": "members",
    "readyToFixContactIds": "rows",
    "readyToCreateNewContactsFromMailchimp": "created",
    "readyToProcessEmailChanges": "rows",
    "readyToCleanUpDuplicates": "rows",
    "readyToAddCiviOnly": "added",
    "readyToCheckForGroupChanges": "marked",
    "readyToCheckForDataUpdates": "rows",
    "readyToReconcileQueue": "rows",
    "readyToSubmitUpdates": "updates",
}


def note(position: Position, stage: str, counts: Mapping[str, int], total: int | None, began_ms: int) -> None:
    """Add what a bit of work in *stage* did; *total* where it found out, *began_ms* when this run of the sync began."""
    known = position.progress
    all_counts = known.get("counts") or {}
    before = all_counts.get(stage) or {}
    now = claims.now_ms()
    pace = known.get("pace") or {}
    if pace.get("stage") != stage or pace.get("run") != began_ms:
        since = known["updated"] if pace.get("run") == began_ms else began_ms
        pace = {"stage": stage, "run": began_ms, "since": since, "from": before.get(UNITS[stage], 0)}
    position.progress = {
        "counts": {**all_counts, stage: {**before, **{k: before.get(k, 0) + n for k, n in counts.items()}}},
        "totals": (known.get("totals") or {}) | ({stage: total} if total is not None else {}),
        "pace": pace,
        "began": known.get("began") or began_ms,
        "updated": now,
    }


def done_of(position: Position, stage: str) -> int:
    """How much of a stage is done, over all runs of this sync."""
    counts = (position.progress.get("counts") or {}).get(stage) or {}
    return int(counts.get(UNITS[stage], 0))


def total_of(position: Position, stage: str) -> int | None:
    """How much there is to do in a stage, never less than what is done; None where nobody knows."""
    total = (position.progress.get("totals") or {}).get(stage)
    return None if total is None else max(int(total), done_of(position, stage))


def read_progress(conn: Connection, link: Link, clock: SiteClock, at_ms: int) -> dict[str, Any]:
    """The progress of one linked audience; times are site times, durations seconds."""
    position = positions.load(conn, link.list_id)
    known, stage = position.progress, position.stage
    is_under_way = stage != READY_TO_FETCH or position.question is not None
    done = done_of(position, stage) if is_under_way else 0
    total = total_of(position, stage) if is_under_way else None
    rate = _rate(known, stage, done)
    return {
        "list_id": link.list_id,
        "group_id": link.group_id,
        "running": claims.is_live(conn, link.list_id, at_ms),
        "stage": stage,
        "stages": list(STAGES),
        "stage_index": STAGES.index(stage),
        "done": done,
        "total": total,
        "rate_per_s": rate,
        "seconds_left": round((total - done) / rate) if total is not None and rate else None,
        "started": _site_time(clock, known.get("began")),
        "updated": _site_time(clock, known.get("updated")),
        "counts": {name: (known.get("counts") or {})[name] for name in STAGES if name in (known.get("counts") or {})},
    }


def _rate(known: Mapping[str, Any], stage: str, done: int) -> float | None:
    """Things a second in the present stage and run; None before there is anything to tell by."""
    pace = known.get("pace") or {}
    seconds = (known.get("updated", 0) - pace.get("since", 0)) / 1000
    if pace.get("stage") != stage or seconds <= 0 or done <= pace["from"]:
        return None
    return float(round((done - pace["from"]) / seconds, 1))


def _site_time(clock: SiteClock, ms: int | None) -> str | None:
    return None if ms is None else clock.write(datetime.fromtimestamp(ms / 1000, UTC))
