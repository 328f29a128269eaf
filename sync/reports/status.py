"""The status of each linked audience (``Mailchimpsync.getstatus``): stage, log, balance, and problems.

Reads only. Times in and out are site times. Asking Mailchimp about unfinished batches is a separate step, done
without a transaction: ``ask_about_batches``; when Mailchimp does not answer, the stored state is shown.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, select

from civiapi.store.civicrm.jobs import Job, all_jobs, read_parameters
from civiapi.store.clock import SiteClock
from civiapi.store.leases import is_live
from sync.audience import Privacy
from sync.connections.config import Link, read_config
from sync.connections.webhook_health import show_hooks
from sync.data.changes import CONTACTS
from sync.data.sources import find_gone
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import MailchimpError
from sync.model import BatchRow
from sync.reports.campaigns import read_last_import
from sync.reports.health import is_late, judge
from sync.reports.people.causes import count_unmailable
from sync.runs.brake import show_brake
from sync.runs.engine import FAILED, FINISHED
from sync.store.balance import Balance, read_balance
from sync.store.batches import PROCESSED, sent_since, unfinished
from sync.store.members.no_address import WHY, count_no_address
from sync.store.retries import count_retries
from sync.store.runs.checkpoints import BUSY, BUSY_ENTRY, LOCK, READY_TO_FETCH, Checkpoint, load, waits_for_first_sync
from sync.store.runs.data_due import read_marks
from sync.store.sources import show_source
from sync.store.tables import run_log

QUIET_TOO_LONG = timedelta(minutes=30)
UNKNOWN_FAULT = "The last run met a fault of ours; the server's log has it. The next run continues where it was."
WAITING = (
    "Waiting for your first sync: the schedule does not start it. Preview it, then start it on the connection's page, "
    "with fetchandreconcile group_id=… confirm=1, or with civiapi sync."
)
LATE = "The schedule expected a sync by now; the last one: {}."
NO_LOGS = "Possibly crashed? no logs but not in ready state."

log = structlog.get_logger(__name__)


def read_statuses(
    conn: Connection,
    clock: SiteClock,
    now: datetime,
    *,
    base_url: str = "",
    quiet: timedelta = QUIET_TOO_LONG,
    privacy: Privacy = Privacy.KEEP,
) -> dict[str, dict[str, Any]]:
    """The status of every linked audience by list id; *now* is aware. Raises BadConfig.

    *base_url*: where Mailchimp can reach us; *quiet*: how long a sync at work may log nothing; *privacy*: what becomes
    of members that CiviMail would not mail.
    """
    links = read_config(conn).links.values()
    return {
        link.list_id: read_status(conn, link, clock, now, base_url=base_url, quiet=quiet, privacy=privacy)
        for link in links
    }


def read_status(
    conn: Connection,
    link: Link,
    clock: SiteClock,
    now: datetime,
    *,
    base_url: str = "",
    quiet: timedelta = QUIET_TOO_LONG,
    privacy: Privacy = Privacy.KEEP,
) -> dict[str, Any]:
    """The status of one linked audience, its batches left out."""
    checkpoint = load(conn, link.list_id)
    shown = _shown(conn, checkpoint, now)
    stage = shown["locks"][LOCK]
    entries = shown["log"]
    balance = read_balance(conn, link.list_id, link.group_id)
    at_rest = not (balance.mailchimp_updates_pending or balance.to_add_to_mailchimp or balance.to_remove_from_mailchimp)
    last = clock.read(shown["lastSyncTime"])
    status = shown | {
        "log": with_durations(entries, clock),
        "stats": balance.as_dict(),
        "in_sync": stage == READY_TO_FETCH and not checkpoint.is_under_way and at_rest and last is not None,
        "lastSyncTimeHuman": last.astimezone(clock.zone).strftime("%H:%M:%S %d %b %Y") if last else "never",
        "crashed": _crash(checkpoint, stage, balance, clock, now, quiet),
        "brake": show_brake(checkpoint),
        "waiting": WAITING if waits_for_first_sync(conn, link.list_id) else "",
        "cannot_be_mailed": count_unmailable(conn, link.list_id, link.group_id, balance.cannot_subscribe),
        "last_finished": _last_finished(conn, link.list_id, clock),
        "stopped": find_failure(conn, link.list_id),
        "interests_gone": dict(link.gone_interests) or [],  # PHP's empty map
        "merge_fields_gone": list(link.gone_fields),
        "merge_sources_gone": _sources_gone(conn, link) or [],
        "data": _data(conn, link, clock),
        "refused_for_now": _refused_for_now(conn, link.list_id, clock),
        "without_address": _without_address(conn, link.list_id),
        "not_to_be_mailed": _not_to_be_mailed(balance, privacy),
        "one_way": _source(conn, link, clock) if link.one_way else False,
        "campaigns": read_last_import(conn, link.list_id, clock),
        "webhooks": show_hooks(conn, link.list_id, base_url, clock),
    }
    is_running = stage == BUSY
    late = not is_running and is_late(last, _jobs_of(conn, link, clock), now, clock)
    status["late"] = LATE.format(status["lastSyncTimeHuman"]) if late else ""
    health, why = judge(status, is_running=is_running)
    return status | {"health": {"state": health, "why": why}}


def _jobs_of(conn: Connection, link: Link, clock: SiteClock) -> list[Job]:
    """The active scheduled jobs that sync this connection, alone or with all others."""
    return [
        one
        for one in all_jobs(conn, clock)
        if one.is_active
        and is_sync_job(one)
        and read_parameters(one.parameters).get("group_id", str(link.group_id)) == str(link.group_id)
    ]


def is_sync_job(one: Job) -> bool:
    """Whether a scheduled job syncs connections."""
    return (one.entity.lower(), one.action.lower()) == ("mailchimpsync", "fetchandreconcile")


def _data(conn: Connection, link: Link, clock: SiteClock) -> dict[str, Any]:
    """What is sent of members: whether names are, how many merge fields rules fill, and when the last run with data
    began (site time, empty: none yet)."""
    marks = read_marks(conn, link.list_id)
    last = clock.write_epoch(marks[CONTACTS]) if marks and CONTACTS in marks else ""
    return {"names": link.sends_names, "merge_fields": len(link.merge_fields), "last": last}


def _sources_gone(conn: Connection, link: Link) -> dict[str, str]:
    """The merge fields whose sources are gone in CiviCRM, with these: nothing is sent for them."""
    gone = find_gone(conn, {rule.source for rule in link.merge_fields.values()})
    return {tag: str(rule.source) for tag, rule in link.merge_fields.items() if rule.source in gone}


def _source(conn: Connection, link: Link, clock: SiteClock) -> dict[str, Any]:
    """The smart group of a one-way connection: its state, and what the sync does about those who leave it."""
    leavers = "archive" if link.archives_leavers else "unsubscribe"
    return {**show_source(conn, link.group_id, clock), "leavers": leavers}


def _refused_for_now(conn: Connection, list_id: str, clock: SiteClock) -> dict[str, Any] | bool:
    """How many rows Mailchimp refused for now, and when the first of them is sent again (site time); False: none."""
    count, first = count_retries(conn, list_id)
    return {"count": count, "next": clock.write(first) if first is not None else ""} if count else False


def _without_address(conn: Connection, list_id: str) -> dict[str, Any] | bool:
    """How many members have no email address, and what that means; False: none."""
    count = count_no_address(conn, list_id)
    return {"count": count, "why": WHY} if count else False


def _not_to_be_mailed(balance: Balance, privacy: Privacy) -> dict[str, Any] | bool:
    """How many members in the audience CiviCRM would not mail, by reason, and what becomes of them; False: none."""
    count = sum(balance.not_to_be_mailed.values())
    if not count or privacy is Privacy.IGNORE:
        return False
    return {"count": count, **balance.not_to_be_mailed, "on_opt_out": privacy}


def shown_position(conn: Connection, list_id: str, now: datetime) -> dict[str, Any]:
    """The checkpoint as callers see it: ``busy`` while a process syncs the audience, the stage otherwise."""
    return _shown(conn, load(conn, list_id), now)


def _shown(conn: Connection, checkpoint: Checkpoint, now: datetime) -> dict[str, Any]:
    shown = checkpoint.as_status()
    if is_live(conn, checkpoint.list_id, int(now.timestamp() * 1000)):
        shown["locks"] = shown["locks"] | {LOCK: BUSY}
    return shown


def with_durations(entries: Sequence[dict[str, str]], clock: SiteClock) -> list[dict[str, str]]:
    """The log with ``took``: how long until the next entry that reports work; empty where there is none."""
    timed: list[dict[str, str]] = []
    following: datetime | None = None
    for entry in reversed(entries):
        took, time = "", clock.read(entry["time"])
        if is_relevant(entry):
            if following is not None and time is not None:
                took = in_words(following - time)
            following = time or following
        timed.append(entry | {"took": took})
    return timed[::-1]


def _crash(
    checkpoint: Checkpoint, stage: str, balance: Balance, clock: SiteClock, now: datetime, quiet: timedelta
) -> str | bool:
    """``find_crash`` for an audience; where the extension was killed, with what it left undone."""
    crash = find_crash(stage, checkpoint.log, clock, now, quiet) if checkpoint.brake is None else False
    if not crash or not checkpoint.is_held_elsewhere:
        return crash
    remains = what_remains(checkpoint, balance.todo, balance.mailchimp_updates_pending)
    return f"{crash} CiviCRM's extension was stopped while it was at work. {remains}"


def what_remains(checkpoint: Checkpoint, todo: int, updates: int) -> str:
    """What a sync that was stopped in the middle has left, and what follows."""
    offset = checkpoint.fetch.get("offset")
    fetch = f"its fetch stopped at member {offset}, " if isinstance(offset, int) and offset else ""
    return f"What remains: {fetch}{todo} rows to reconcile, {updates} updates not completed; the next sync takes it up."


def find_crash(
    stage: str, entries: Sequence[dict[str, str]], clock: SiteClock, now: datetime, quiet: timedelta = QUIET_TOO_LONG
) -> str | bool:
    """A sentence when a sync under way has been silent for longer than *quiet*, else False."""
    if stage == READY_TO_FETCH:
        return False
    newest = next((entry for entry in reversed(entries) if is_relevant(entry)), None)
    logged_at = clock.read(newest["time"]) if newest else None
    if logged_at is None:
        return NO_LOGS
    if now - logged_at < quiet:
        return False
    return f"The logs have not been updated for about {in_words(now - logged_at)} - this is an unusually long time."


def find_failure(conn: Connection, list_id: str) -> str:
    """Why the last run failed, in a sentence that names the next step; empty where it did not."""
    last = conn.execute(
        select(run_log.c.outcome, run_log.c.error)
        .where(run_log.c.list_id == list_id, run_log.c.undoes.is_(None))
        .order_by(run_log.c.id.desc())
        .limit(1)
    ).first()
    return last.error or UNKNOWN_FAULT if last is not None and last.outcome == FAILED else ""


def _last_finished(conn: Connection, list_id: str, clock: SiteClock) -> str:
    """When the last run that finished did (site time); empty where none is known."""
    finished = (run_log.c.list_id == list_id, run_log.c.outcome == FINISHED, run_log.c.undoes.is_(None))
    at_s = conn.execute(select(run_log.c.ended_s).where(*finished).order_by(run_log.c.id.desc()).limit(1)).scalar()
    return "" if at_s is None else clock.write_epoch(at_s)


def is_relevant(entry: dict[str, str]) -> bool:
    """Whether a log entry reports work, rather than a call that found others at work."""
    return not entry["message"].startswith(BUSY_ENTRY)


def in_words(duration: timedelta) -> str:
    """``45 s`` up to a minute, then ``12 mins``, after an hour ``3 hours``; whole numbers, never less than nothing."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds <= 60:
        return f"{seconds} s"
    return f"{seconds // 60} mins" if seconds <= 3600 else f"{seconds // 3600} hours"


def batches_of_run(conn: Connection, list_id: str, clock: SiteClock) -> list[BatchRow]:
    """The batches of an audience's present run, or else of its last, and older ones that are unfinished."""
    checkpoint = load(conn, list_id)
    began = checkpoint.parameters.started if checkpoint.parameters is not None else checkpoint.last_started
    since = datetime.fromtimestamp(began, UTC) if began is not None else None
    return sent_since(conn, list_id, clock.write(since)) if since is not None else unfinished(conn, [list_id])


async def ask_about_batches(client: MailchimpClient, known: Sequence[BatchRow]) -> list[BatchRow]:
    """These batches with their current state at Mailchimp; as stored where it cannot be read, or is known already."""
    current = []
    for row in known:
        if row.processed == PROCESSED:
            current.append(row)
            continue
        try:
            found = await client.find_batch(row.batch_id)
        except MailchimpError as error:
            log.warning("the state of a batch cannot be read from Mailchimp", batch_id=row.batch_id, error=str(error))
            found = None
        current.append(
            replace(
                row,
                status=found.status,
                finished=found.finished_operations,
                errored=found.errored_operations,
                total=found.total_operations,
            )
            if found
            else row
        )
    return current


def with_batches(status: dict[str, Any], batches: Sequence[BatchRow]) -> dict[str, Any]:
    """A status with these batches and their sums; as it was where there are none."""
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
        "batches": {one.batch_id: _batch_dict(one) for one in batches},
    }


def _batch_dict(row: BatchRow) -> dict[str, Any]:
    """A batch as ``getstatus`` shows it."""
    return {
        "id": row.id,
        "mailchimp_list_id": row.list_id,
        "mailchimp_batch_id": row.batch_id,
        "status": row.status,
        "submitted_at": row.submitted_at or "",
        "completed_at": row.completed_at or "",
        "finished_operations": row.finished,
        "errored_operations": row.errored,
        "total_operations": row.total,
        "response_processed": row.processed,
    }
