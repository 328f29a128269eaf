"""What ``Mailchimpsync.getstatus`` says of each linked audience: stage, log, balance, and whether something is amiss.

Reads only. Times in and out are site times. Asking Mailchimp about unfinished batches is a separate step, done
without a transaction: ``ask_about_batches``; when Mailchimp does not answer, what we last knew is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, func, select

from civiapi.store.clock import SiteClock
from sync.batch_rows import CALLED_OFF, OPEN
from sync.brake import show_brake
from sync.claims import is_live
from sync.config import Link, read_config
from sync.engine import FAILED
from sync.hook_health import show_hooks
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import MailchimpError
from sync.positions import LOCK, READY_TO_FETCH, Position, load
from sync.stats import read_balance
from sync.stored import read_time
from sync.tables import batch, run_log

BUSY = "busy"
BUSY_ENTRY = "Called but locks say process already busy."
QUIET_TOO_LONG = timedelta(minutes=30)
UNKNOWN_FAULT = "The last run met a fault of ours; the server's log has it. The next run continues where it was."
NO_LOGS = "Possibly crashed? no logs but not in ready state."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that we still wait for, as last told. *id* is our row, *batch_id* Mailchimp's."""

    id: int
    list_id: str
    batch_id: str
    status: str
    finished: int
    errored: int
    total: int
    processed: int

    def as_dict(self) -> dict[str, Any]:
        """The batch as ``getstatus`` shows it."""
        return {
            "id": self.id,
            "mailchimp_list_id": self.list_id,
            "mailchimp_batch_id": self.batch_id,
            "status": self.status,
            "finished_operations": self.finished,
            "errored_operations": self.errored,
            "total_operations": self.total,
            "response_processed": self.processed,
        }


def read_statuses(
    conn: Connection, clock: SiteClock, now: datetime, *, base_url: str = ""
) -> dict[str, dict[str, Any]]:
    """The status of every linked audience by list id; *now* is aware. Raises BadConfig.

    *base_url*: where Mailchimp can reach us.
    """
    config = read_config(conn)
    return {link.list_id: read_status(conn, link, clock, now, base_url=base_url) for link in config.links.values()}


def read_status(conn: Connection, link: Link, clock: SiteClock, now: datetime, *, base_url: str = "") -> dict[str, Any]:
    """The status of one linked audience, its batches left out."""
    position = load(conn, link.list_id)
    shown = _shown(conn, position, now)
    stage = shown["locks"][LOCK]
    entries = shown["log"]
    balance = read_balance(conn, link.list_id, link.group_id)
    at_rest = not (balance.mailchimp_updates_pending or balance.to_add_to_mailchimp or balance.to_remove_from_mailchimp)
    last = read_time(clock, shown["lastSyncTime"])
    return shown | {
        "log": with_durations(entries, clock),
        "stats": balance.as_dict(),
        "in_sync": stage == READY_TO_FETCH and at_rest and last is not None,
        "lastSyncTimeHuman": last.astimezone(clock.zone).strftime("%H:%M:%S %d %b %Y") if last else "never",
        "crashed": find_crash(stage, entries, clock, now) if position.brake is None else False,
        "brake": show_brake(position),
        "stopped": find_failure(conn, link.list_id),
        "webhooks": show_hooks(conn, link.list_id, base_url, clock),
    }


def shown_position(conn: Connection, list_id: str, now: datetime) -> dict[str, Any]:
    """How far a sync has got, as callers are shown it: ``busy`` while somebody is at work, the stage otherwise."""
    return _shown(conn, load(conn, list_id), now)


def _shown(conn: Connection, position: Position, now: datetime) -> dict[str, Any]:
    shown = position.as_status()
    if is_live(conn, position.list_id, int(now.timestamp() * 1000)):
        shown["locks"] = shown["locks"] | {LOCK: BUSY}
    return shown


def with_durations(entries: Sequence[dict[str, str]], clock: SiteClock) -> list[dict[str, str]]:
    """The log with ``took``: how long until the next entry that tells of work; empty where there is none to come."""
    timed: list[dict[str, str]] = []
    following: datetime | None = None
    for entry in reversed(entries):
        took, time = "", read_time(clock, entry["time"])
        if is_relevant(entry):
            if following is not None and time is not None:
                took = in_words(following - time)
            following = time or following
        timed.append(entry | {"took": took})
    return timed[::-1]


def find_crash(stage: str, entries: Sequence[dict[str, str]], clock: SiteClock, now: datetime) -> str | bool:
    """A sentence when a sync under way has been silent for too long, else False."""
    if stage == READY_TO_FETCH:
        return False
    newest = next((entry for entry in reversed(entries) if is_relevant(entry)), None)
    spoke = read_time(clock, newest["time"]) if newest else None
    if spoke is None:
        return NO_LOGS
    if now - spoke < QUIET_TOO_LONG:
        return False
    return f"The logs have not been updated for about {in_words(now - spoke)} - this is an unusually long time."


def find_failure(conn: Connection, list_id: str) -> str:
    """Why the last run could not go on, in a sentence that names the way on; empty when nothing stands in its way."""
    last = conn.execute(
        select(run_log.c.outcome, run_log.c.error)
        .where(run_log.c.list_id == list_id)
        .order_by(run_log.c.id.desc())
        .limit(1)
    ).first()
    return last.error or UNKNOWN_FAULT if last is not None and last.outcome == FAILED else ""


def is_relevant(entry: dict[str, str]) -> bool:
    """Whether a log entry tells of work, rather than of a call that found others at work."""
    return not entry["message"].startswith(BUSY_ENTRY)


def in_words(duration: timedelta) -> str:
    """``45 s`` up to a minute, then ``12 mins``, after an hour ``3 hours``; whole numbers, never less than nothing."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds <= 60:
        return f"{seconds} s"
    return f"{seconds // 60} mins" if seconds <= 3600 else f"{seconds // 3600} hours"


def unfinished_batches(conn: Connection) -> list[OpenBatch]:
    """Batches that Mailchimp has and whose results we have not dealt with, oldest first."""
    rows = conn.execute(
        select(batch)
        .where(
            batch.c.response_processed.in_(OPEN),
            batch.c.mailchimp_batch_id.is_not(None),
            func.coalesce(batch.c.status, "").not_in(CALLED_OFF),
        )
        .order_by(batch.c.id)
    )
    return [
        OpenBatch(
            row.id,
            row.mailchimp_list_id or "",
            row.mailchimp_batch_id,
            row.status or "",
            row.finished_operations or 0,
            row.errored_operations or 0,
            row.total_operations or 0,
            row.response_processed or 0,
        )
        for row in rows
    ]


async def ask_about_batches(client: MailchimpClient, known: Sequence[OpenBatch]) -> list[OpenBatch]:
    """These batches as Mailchimp tells them now; as we know them where it does not say."""
    told = []
    for row in known:
        try:
            found = await client.find_batch(row.batch_id)
        except MailchimpError as error:
            log.warning("Mailchimp did not say how a batch stands", batch_id=row.batch_id, error=str(error))
            found = None
        told.append(
            OpenBatch(
                row.id,
                row.list_id,
                row.batch_id,
                found.status,
                found.finished_operations,
                found.errored_operations,
                found.total_operations,
                row.processed,
            )
            if found
            else row
        )
    return told


def with_batches(status: dict[str, Any], batches: Sequence[OpenBatch]) -> dict[str, Any]:
    """A status with its unfinished batches and their sums; as it was where there are none."""
    if not batches:
        return status
    finished, total = sum(one.finished for one in batches), sum(one.total for one in batches)
    sums = {
        "batch_errored_operations": sum(one.errored for one in batches),
        "batch_finished_operations": finished,
        "batch_total_operations": total,
        "batch_pending_operations": total - finished,
    }
    return status | {
        "stats": status["stats"] | sums,
        "batches": {one.batch_id: one.as_dict() for one in batches},
    }
