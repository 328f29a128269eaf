"""The progress of a sync in numbers, for every process: ``Mailchimpsync.getprogress``.

Stored in the audience's checkpoint, so it is written by the same commits and costs no statement. `UNITS` says what is
counted in a stage; the total is what the stage found to do. The rate is that of the present run in the present stage,
so that time between runs does not count.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from civiapi.runtime.wording import many
from civiapi.store import leases
from civiapi.store.clock import SiteClock
from sync.connections.config import Link
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import READY_TO_FETCH, STAGES, Checkpoint

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

CHANGES = (
    ("readyToCreateNewContactsFromMailchimp", "created", "contact created", "contacts created"),
    ("readyToReconcileQueue", "joined", "joined the group", "joined the group"),
    ("readyToReconcileQueue", "left", "left the group", "left the group"),
    ("readyToSubmitUpdates", "updates", "update sent", "updates sent"),
)
"""What a run changed: stage, name of the count, and the words for one and for several."""


def summarize_run(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What a run changed, in one line: contacts made, people who joined or left, updates sent."""
    found = [
        many(count, one, several)
        for stage, name, one, several in CHANGES
        if (count := (counts or {}).get(stage, {}).get(name, 0))
    ]
    return ", ".join(found) or "No changes"


def note(checkpoint: Checkpoint, stage: str, counts: Mapping[str, int], total: int | None, began_ms: int) -> None:
    """Add what a unit of work in *stage* did; *total* where it was counted, *began_ms* when this run began."""
    known = checkpoint.progress
    all_counts = known.get("counts") or {}
    before = all_counts.get(stage) or {}
    now = leases.now_ms()
    pace = known.get("pace") or {}
    if pace.get("stage") != stage or pace.get("run") != began_ms:
        since = known["updated"] if pace.get("run") == began_ms else began_ms
        pace = {"stage": stage, "run": began_ms, "since": since, "from": before.get(UNITS[stage], 0)}
    checkpoint.progress = {
        "counts": {**all_counts, stage: {**before, **{k: before.get(k, 0) + n for k, n in counts.items()}}},
        "totals": (known.get("totals") or {}) | ({stage: total} if total is not None else {}),
        "pace": pace,
        "began": known.get("began") or began_ms,
        "updated": now,
    }


def done_of(checkpoint: Checkpoint, stage: str) -> int:
    """How much of a stage is done, over all runs of this sync."""
    counts = (checkpoint.progress.get("counts") or {}).get(stage) or {}
    return int(counts.get(UNITS[stage], 0))


def total_of(checkpoint: Checkpoint, stage: str) -> int | None:
    """How much there is to do in a stage, never less than what is done; None where it is not known."""
    total = (checkpoint.progress.get("totals") or {}).get(stage)
    return None if total is None else max(int(total), done_of(checkpoint, stage))


def read_progress(conn: Connection, link: Link, clock: SiteClock, at_ms: int) -> dict[str, Any]:
    """The progress of one linked audience; times are site times, durations seconds."""
    checkpoint = checkpoints.load(conn, link.list_id)
    known, stage = checkpoint.progress, checkpoint.stage
    is_under_way = stage != READY_TO_FETCH or checkpoint.parameters is not None
    done = done_of(checkpoint, stage) if is_under_way else 0
    total = total_of(checkpoint, stage) if is_under_way else None
    rate = _rate(known, stage, done)
    return {
        "list_id": link.list_id,
        "group_id": link.group_id,
        "running": leases.is_live(conn, link.list_id, at_ms),
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
    """Units per second in the present stage and run; None before the first."""
    pace = known.get("pace") or {}
    seconds = (known.get("updated", 0) - pace.get("since", 0)) / 1000
    if pace.get("stage") != stage or seconds <= 0 or done <= pace["from"]:
        return None
    return float(round((done - pace["from"]) / seconds, 1))


def _site_time(clock: SiteClock, ms: int | None) -> str | None:
    return None if ms is None else clock.write_epoch(ms / 1000)
