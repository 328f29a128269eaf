"""Scheduled jobs in CiviCRM's tables: when a job is due, and the log of its runs. Runs no job.

Times in ``civicrm_job`` and ``civicrm_job_log`` are site times. Whether a job is due is decided on the site's wall
clock, so that a daily job keeps its hour across summer time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dateutil.relativedelta import relativedelta
from sqlalchemy import Connection, Row, insert, select, update

from civiapi.store.clock import SiteClock
from civiapi.store.schema.live_columns import live_columns, live_values
from civiapi.store.schema.tables import job, job_log
from civiapi.store.text.encoded_text import cut

ALWAYS = "Always"
HOURLY = "Hourly"
PERIODS: dict[str, relativedelta] = {  # on the wall clock
    "Daily": relativedelta(days=1),
    "Weekly": relativedelta(weeks=1),
    "Monthly": relativedelta(months=1),
    "Quarter": relativedelta(months=3),
    "Yearly": relativedelta(years=1),
}
MAX_DESCRIPTION = 240
LATEST = datetime(9999, 1, 1)
CURRENT_DOMAIN = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A row of ``civicrm_job``: the call, its frequency, and its last run (aware UTC)."""

    id: int
    name: str
    frequency: str
    entity: str
    action: str
    parameters: str
    last_run: datetime | None
    scheduled: datetime | None
    is_active: bool

    @property
    def command(self) -> str:
        """The call as the job log shows it."""
        return f"Entity: {self.entity} Action: {self.action}"


def is_due(one: Job, now: datetime, clock: SiteClock) -> bool:
    """Whether the job is to run at *now* (aware). A scheduled date takes precedence; an inactive job is never due.

    CiviCRM docs, scheduled jobs: a job that never ran is due; else ``last_run`` plus its period must have passed.
    """
    if not one.is_active:
        return False
    if one.scheduled is not None:
        return one.scheduled <= now
    if one.last_run is None or one.frequency == ALWAYS:
        return True
    if one.frequency == HOURLY:
        return _an_hour_later(one.last_run, now, clock) <= now
    period = PERIODS.get(one.frequency)
    if period is None:
        return False
    wall = one.last_run.astimezone(clock.zone).replace(tzinfo=None)
    return _later(wall, period) <= now.astimezone(clock.zone).replace(tzinfo=None)


def _an_hour_later(last_run: datetime, now: datetime, clock: SiteClock) -> datetime:
    """The end of the hour since the last run. A site time of the hour that is repeated when summer time ends is the
    later of the two where that has passed: read as the earlier, the job would be due at once after each run."""
    again = last_run.astimezone(clock.zone).replace(fold=1).astimezone(UTC)
    return _later(again if again <= now else last_run, timedelta(hours=1))


def _later(moment: datetime, period: timedelta | relativedelta) -> datetime:
    """The end of a period, at most the year 9999: a job may have any date in an old database."""
    try:
        return min(moment + period, LATEST.replace(tzinfo=moment.tzinfo))
    except (OverflowError, ValueError):
        return LATEST.replace(tzinfo=moment.tzinfo)


def next_run(one: Job, now: datetime, clock: SiteClock) -> datetime | None:
    """When the job will be due (aware): *now* if it is, ``None`` if it never will be."""
    if is_due(one, now, clock):
        return now
    if not one.is_active:
        return None
    if one.scheduled is not None:
        return one.scheduled
    if one.last_run is None:
        return now
    if one.frequency == HOURLY:
        return _an_hour_later(one.last_run, now, clock)
    period = PERIODS.get(one.frequency)
    if period is None:
        return None
    wall = _later(one.last_run.astimezone(clock.zone).replace(tzinfo=None), period)
    return wall.replace(tzinfo=clock.zone).astimezone(UTC)


def read_parameters(text: str) -> dict[str, str]:
    """The parameters of a job: a line ``key=value`` each; the first line that is anything else ends them."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if not sign or "=" in value or not key.strip():
            break
        found[key.strip()] = value.strip()
    return found


def find_job(conn: Connection, job_id: int, clock: SiteClock) -> Job | None:
    """The job with this id."""
    row = conn.execute(select(*live_columns(conn, job)).where(job.c.id == job_id)).first()
    return _job(row, clock) if row else None


def all_jobs(conn: Connection, clock: SiteClock, domain_id: int = CURRENT_DOMAIN) -> list[Job]:
    """The jobs of the domain, by name."""
    rows = conn.execute(
        select(*live_columns(conn, job)).where(job.c.domain_id == domain_id).order_by(job.c.name, job.c.id)
    )
    return [_job(row, clock) for row in rows]


def due_jobs(conn: Connection, now: datetime, clock: SiteClock, domain_id: int = CURRENT_DOMAIN) -> list[Job]:
    """The jobs of the domain that are due at *now*, by name."""
    rows = conn.execute(
        select(*live_columns(conn, job))
        .where(job.c.domain_id == domain_id, job.c.is_active == 1)
        .order_by(job.c.name, job.c.id)
    )
    return [one for row in rows if is_due(one := _job(row, clock), now, clock)]


def _job(row: Row[tuple[object, ...]], clock: SiteClock) -> Job:
    return Job(
        id=row.id,
        name=row.name or "",
        frequency=row.run_frequency or "",
        entity=row.api_entity or "",
        action=row.api_action or "",
        parameters=row.parameters or "",
        last_run=clock.read(row.last_run),
        scheduled=clock.read(row.scheduled_run_date),
        is_active=bool(row.is_active),
    )


def note_start(conn: Connection, one: Job, at: str) -> None:
    """Record the start of a run at *at*; clears the job's scheduled date."""
    changes = {"last_run": at} | ({"scheduled_run_date": None} if one.scheduled is not None else {})
    conn.execute(update(job).where(job.c.id == one.id).values(changes))
    write_log(conn, f"Starting execution of {one.name}", at, one)


def note_end(conn: Connection, one: Job, description: str, at: str) -> None:
    """Record the end of a run with its outcome."""
    if values := live_values(conn, job, {"last_run_end": at}):
        conn.execute(update(job).where(job.c.id == one.id).values(values))
    write_log(conn, description, at, one)


def write_log(
    conn: Connection, description: str, at: str, one: Job | None = None, domain_id: int = CURRENT_DOMAIN
) -> None:
    """Add a row to the job log. A long description is cut, and complete in ``data``."""
    shown, whole = cut(description, MAX_DESCRIPTION), None
    if shown != description:
        shown, whole = shown + " (...)", f"Full message:\n{description}"
    exists = one is not None and conn.execute(select(job.c.id).where(job.c.id == one.id)).first() is not None
    conn.execute(
        insert(job_log).values(
            domain_id=domain_id,
            run_time=at,
            job_id=one.id if one is not None and exists else None,  # a job may delete itself
            name=one.name if one is not None else None,
            command=cut(one.command, 255) if one is not None else None,
            description=shown,
            data=whole,
        )
    )
