"""What ``System.check`` looks at: the sync's configuration and runs, and scheduled jobs. Asks nobody outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from civiapi.store import jobs, tables
from civiapi.store.clock import SiteClock
from sync.config import Config, read_config
from sync.errors import SyncError
from sync.status import read_statuses

SEVERITIES = {"info": 1, "notice": 2, "warning": 3, "error": 4, "critical": 5}
LATE = timedelta(days=1)  # after which a due job counts as forgotten


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that wants looking after: what, how grave, and the way on."""

    name: str
    title: str
    message: str
    severity: str

    def as_row(self, number: int) -> dict[str, Any]:
        """The finding as ``System.check`` answers it."""
        return {
            "id": number,
            "name": self.name,
            "title": self.title,
            "message": self.message,
            "help": "",
            "severity": self.severity,
            "severity_id": SEVERITIES[self.severity],
            "is_visible": 1,
            "hidden_until": "",
        }


def find(conn: Connection, clock: SiteClock) -> list[Finding]:
    """Everything that wants looking after, the gravest first."""
    found = [*_configuration(conn), *_audiences(conn, clock), *_failing_jobs(conn), *_late_jobs(conn, clock)]
    return sorted(found, key=lambda finding: -SEVERITIES[finding.severity])


def _configuration(conn: Connection) -> Iterator[Finding]:
    config = _config(conn)
    title = "Mailchimp is not linked"
    if config is None:
        words = "The setting mailchimpsync_config cannot be read. Write it again with Mailchimpsync.updateconfig."
        yield Finding("mailchimpsyncConfig", title, words, "error")
    elif not config.links:
        words = "No group is linked with a Mailchimp audience. Link one with Mailchimpsync.updateconfig."
        yield Finding("mailchimpsyncConfig", title, words, "notice")
    else:
        there = set(conn.execute(select(tables.group.c.id)).scalars())
        for link in config.links.values():
            if link.group_id not in there:
                words = f"Audience {link.list_id} is linked with group {link.group_id}, which is gone. Link another."
                yield Finding(f"mailchimpsyncGroup:{link.list_id}", "A linked group is gone", words, "error")


def _config(conn: Connection) -> Config | None:
    try:
        return read_config(conn)
    except SyncError:
        return None


def _audiences(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    config = _config(conn)
    if config is None or not config.links:
        return
    for list_id, status in read_statuses(conn, clock, datetime.now(UTC)).items():
        if not status.get("lastSyncTime"):
            words = f"Audience {list_id} was never synced. Run Mailchimpsync.fetchandreconcile, or see that jobs run."
            yield Finding(f"mailchimpsyncNever:{list_id}", "An audience was never synced", words, "warning")
        elif status["stopped"] or status["crashed"]:
            words = str(status["stopped"] or status["crashed"])
            yield Finding(f"mailchimpsyncStopped:{list_id}", "A sync stopped", words, "warning")


def _failing_jobs(conn: Connection) -> Iterator[Finding]:
    """Active jobs whose last run ended badly."""
    job, log = tables.job, tables.job_log
    ended = log.c.description.like("Finished execution%") | log.c.description.like("Error while executing%")
    last = select(func.max(log.c.id)).where(log.c.job_id.is_not(None), ended).group_by(log.c.job_id)
    rows = conn.execute(
        select(job.c.id, job.c.name, log.c.description)
        .join(log, log.c.job_id == job.c.id)
        .where(job.c.is_active == 1, log.c.id.in_(last))
        .order_by(job.c.name)
    )
    for row in rows:
        if "result: Success" not in row.description:
            words = f"{row.name}: {row.description}"
            yield Finding(f"jobFailed:{row.id}", "A scheduled job failed", words, "warning")


def _late_jobs(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    """Active jobs that should have run a day ago: the scheduler does not run, or another job blocks it."""
    for one in jobs.due_jobs(conn, datetime.now(UTC) - LATE, clock):
        if one.last_run is not None:
            words = f"{one.name} ran last on {clock.write(one.last_run)}. See that [scheduler] enabled is yes."
            yield Finding(f"jobLate:{one.id}", "A scheduled job is late", words, "warning")
