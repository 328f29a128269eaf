"""The checks of ``System.check``: configuration, last syncs, scheduled jobs. Makes no remote calls."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from civiapi.alerts import records as alerts
from civiapi.store.civicrm import jobs
from civiapi.store.clock import SiteClock
from civiapi.store.schema import tables
from sync.reports.checks import CAMPAIGNS, CONFIG, FIELDS, HOOKS, LATE, Finding, Severity, configuration, last_syncs
from sync.reports.status import is_sync_job

JOB_LATE = timedelta(days=1)
AHEAD = timedelta(hours=1)
"""How far a last run may be ahead of us: another machine's clock, or another reading of a repeated hour."""
TITLES = {
    CONFIG: "Mailchimp is not linked",
    alerts.UNDELIVERED: "An alert could not be delivered",
    "mailchimpsyncBrake": "The brake stopped a sync",
    "mailchimpsyncGroup": "A linked group cannot be used",
    "mailchimpsyncShared": "A group is linked twice",
    "mailchimpsyncInterest": "An interest or a permission that is linked with a group is not synced",
    CAMPAIGNS: "Campaigns could not be imported",
    HOOKS: "A webhook is missing at Mailchimp",
    LATE: "A sync is late",
    FIELDS: "What fills a merge field is gone",
    "mailchimpsyncNever": "An audience was never synced",
    "mailchimpsyncStopped": "A sync stopped",
    "jobFailed": "A scheduled job failed",
    "jobLate": "A scheduled job is late",
}
"""Headings of findings, by the part of the code before the colon."""


def find(conn: Connection, clock: SiteClock, now: datetime, quiet: timedelta) -> Iterator[Finding]:
    """Every finding, those that are OK included; *now* is aware, *quiet* how long a sync at work may log nothing."""
    yield from configuration(conn, clock)
    syncs = list(last_syncs(conn, clock, now, quiet))
    yield from syncs
    yield from _failed_jobs(conn)
    is_sync_late = any(one.code.startswith(f"{LATE}:") for one in syncs)
    yield from _late_jobs(conn, clock, now, is_sync_late=is_sync_late)
    yield from alerts.undelivered(conn)


def rows(conn: Connection, clock: SiteClock, quiet: timedelta) -> list[dict[str, Any]]:
    """The findings that need attention as ``System.check`` answers them, the most severe first."""
    found = [one for one in find(conn, clock, datetime.now(UTC), quiet) if one.severity >= Severity.NOTICE]
    found.sort(key=lambda one: -one.severity)
    return [_row(one, number) for number, one in enumerate(found)]


def _row(finding: Finding, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": finding.code,
        "title": TITLES[finding.code.partition(":")[0]],
        "message": f"{finding.sentence} {finding.remedy}".strip(),
        "help": "",
        "severity": finding.severity.name.lower(),
        "severity_id": int(finding.severity),
        "is_visible": 1,
        "hidden_until": "",
    }


def _failed_jobs(conn: Connection) -> Iterator[Finding]:
    """Active jobs whose last run failed."""
    job, log = tables.job, tables.job_log
    ended = log.c.description.like("Finished execution%") | log.c.description.like("Error while executing%")
    last = select(func.max(log.c.id)).where(log.c.job_id.is_not(None), ended).group_by(log.c.job_id)
    ends = conn.execute(
        select(job.c.id, job.c.name, log.c.description)
        .join(log, log.c.job_id == job.c.id)
        .where(job.c.is_active == 1, log.c.id.in_(last))
        .order_by(job.c.name)
    )
    for row in ends:
        if "result: Success" not in row.description:
            sentence = f"Job “{row.name}” failed: {row.description}"
            yield Finding(f"jobFailed:{row.id}", Severity.WARNING, sentence, "The log on the Jobs screen has it.")


def _late_jobs(conn: Connection, clock: SiteClock, now: datetime, *, is_sync_late: bool) -> Iterator[Finding]:
    """Jobs that have been due for a day: no scheduler runs, or another job blocks it.

    *is_sync_late*: a finding says so of what the jobs that sync should have done, and they are left out here.
    """
    remedy = "Run civiapi serve with [scheduler] enabled = yes."
    for one in jobs.all_jobs(conn, clock):
        if not one.is_active:
            yield Finding(f"jobDisabled:{one.id}", Severity.OK, f"Job “{one.name}” is disabled.")
        elif one.last_run is None:
            yield Finding(f"jobNeverRun:{one.id}", Severity.INFO, f"Job “{one.name}” has not run yet.", remedy)
        else:
            last = f"Job “{one.name}” last ran on {clock.write(one.last_run)}"
            if one.last_run - now > AHEAD:
                start = "It runs again after that time only: start it once (Jobs, or Job.execute)."
                yield Finding(f"jobLate:{one.id}", Severity.WARNING, f"{last}, which is in the future.", start)
                continue
            if is_sync_late and is_sync_job(one):
                continue
            if jobs.is_due(one, now - JOB_LATE, clock):
                yield Finding(f"jobLate:{one.id}", Severity.WARNING, f"{last} and is late.", remedy)
            else:
                yield Finding(f"job:{one.id}", Severity.OK, f"{last}.")
