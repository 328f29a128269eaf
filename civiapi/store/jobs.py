"""Scheduled jobs as CiviCRM keeps them: when one is due, and what is written down around a run. Runs nothing.

Times in ``civicrm_job`` and ``civicrm_job_log`` are site times. Whether a job is due is decided on the site's wall
clock, so that a daily job stays at its hour when summer time begins.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dateutil.relativedelta import relativedelta
from sqlalchemy import Connection, Row, insert, select, update

from civiapi.store.clock import SiteClock
from civiapi.store.tables import job, job_log

ALWAYS = "Always"
HOURLY = "Hourly"
PERIODS: dict[str, relativedelta] = {  # on the wall clock
    "Daily": relativedelta(days=1),
    "Weekly": relativedelta(weeks=1),
    "Monthly": relativedelta(months=1),
    "Quarter": relativedelta(months=3),
    "Yearly": relativedelta(years=1),
}
LONGEST_DESCRIPTION = 240
CURRENT_DOMAIN = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A row of ``civicrm_job``: what is called, how often, and when it last was (aware UTC)."""

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
        """The call in the words of the job log."""
        return f"Entity: {self.entity} Action: {self.action}"


def is_due(one: Job, now: datetime, clock: SiteClock) -> bool:
    """Whether the job is to run at *now* (aware). A date set for it goes before everything; an idle job is never due.

    CiviCRM docs, scheduled jobs: a job that never ran is due; else ``last_run`` plus its period must have passed.
    """
    if not one.is_active:
        return False
    if one.scheduled is not None:
        return one.scheduled <= now
    if one.last_run is None or one.frequency == ALWAYS:
        return True
    if one.frequency == HOURLY:
        return one.last_run + timedelta(hours=1) <= now
    period = PERIODS.get(one.frequency)
    if period is None:
        return False
    wall = one.last_run.astimezone(clock.zone).replace(tzinfo=None)
    return wall + period <= now.astimezone(clock.zone).replace(tzinfo=None)


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
        return one.last_run + timedelta(hours=1)
    period = PERIODS.get(one.frequency)
    if period is None:
        return None
    wall = one.last_run.astimezone(clock.zone).replace(tzinfo=None) + period
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
    row = conn.execute(select(job).where(job.c.id == job_id)).first()
    return _job(row, clock) if row else None


def all_jobs(conn: Connection, clock: SiteClock, domain_id: int = CURRENT_DOMAIN) -> list[Job]:
    """The jobs of the domain, by name."""
    rows = conn.execute(select(job).where(job.c.domain_id == domain_id).order_by(job.c.name, job.c.id))
    return [_job(row, clock) for row in rows]


def due_jobs(conn: Connection, now: datetime, clock: SiteClock, domain_id: int = CURRENT_DOMAIN) -> list[Job]:
    """The jobs of the domain that are to run at *now*, by name."""
    rows = conn.execute(
        select(job).where(job.c.domain_id == domain_id, job.c.is_active == 1).order_by(job.c.name, job.c.id)
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
    """The job's run begins: it ran at *at*, and the date that was set for it is used up."""
    changes = {"last_run": at} | ({"scheduled_run_date": None} if one.scheduled is not None else {})
    conn.execute(update(job).where(job.c.id == one.id).values(changes))
    write_log(conn, f"Starting execution of {one.name}", at, one)


def note_end(conn: Connection, one: Job, description: str, at: str) -> None:
    """The job's run is over, with what is to be said of it."""
    conn.execute(update(job).where(job.c.id == one.id).values(last_run_end=at))
    write_log(conn, description, at, one)


def write_log(
    conn: Connection, description: str, at: str, one: Job | None = None, domain_id: int = CURRENT_DOMAIN
) -> None:
    """Add a row to the job log. A long description is cut; the whole of it goes into ``data``."""
    words, whole = description, None
    if len(description) > LONGEST_DESCRIPTION:
        words, whole = description[:LONGEST_DESCRIPTION] + " (...)", f"Full message:\n{description}"
    exists = one is not None and conn.execute(select(job.c.id).where(job.c.id == one.id)).first() is not None
    conn.execute(
        insert(job_log).values(
            domain_id=domain_id,
            run_time=at,
            job_id=one.id if one is not None and exists else None,  # a job may delete itself
            name=one.name if one is not None else None,
            command=one.command[:255] if one is not None else None,
            description=words,
            data=whole,
        )
    )
