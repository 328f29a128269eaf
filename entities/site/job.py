"""Job: an API call that runs on a schedule. ``execute`` runs due jobs; the scheduler calls the same action."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from civiapi.api import query
from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, TIMESTAMP, Field, FixedOptions, Option
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.store import leases
from civiapi.store.civicrm import jobs
from civiapi.store.schema import tables
from civiapi.store.schema.live_columns import live_columns
from civiapi.store.text.encoded_text import cut
from entities.actions import crud
from entities.site import job_runner

FREQUENCIES = FixedOptions(
    tuple(
        Option(value, value, label)
        for value, label in (
            ("Yearly", "Yearly"),
            ("Quarter", "Quarterly"),
            ("Monthly", "Monthly"),
            ("Weekly", "Weekly"),
            ("Daily", "Daily"),
            ("Hourly", "Hourly"),
            ("Always", "Every time cron job is run"),
        )
    )
)


async def execute(request: Request, ctx: Context) -> Result:
    """Run every due job, or the one with this id in any case. Answers 1 even if jobs failed."""
    job_id = request.id
    if job_id is None:
        await job_runner.run_due(ctx.api)
    elif (one := await ctx.read(jobs.find_job, job_id, ctx.clock)) is None:
        raise ApiError(f"There is no job with id {job_id}")
    elif await ctx.read(job_runner.belongs_to_civicrm, ctx.api, one):
        raise ApiError(f"{one.name} calls {one.entity}.{one.action}, which only CiviCRM answers; its own cron runs it")
    else:
        await job_runner.run_job(ctx.api, job_id, forced=True)
    return Result(1)


def clone(conn: Connection, request: Request) -> Result:
    """Copy a job under another name, as one that has never run; answers like ``get``."""
    table = tables.job
    row = conn.execute(select(*live_columns(conn, table)).where(table.c.id == request.params["id"])).mappings().first()
    if row is None:
        raise ApiError(f"There is no job with id {request.params['id']}")
    fresh = {"name": cut(f"{row['name']} - Copy", 255), "last_run": None, "last_run_end": None}
    values: dict[str, Any] = {name: value for name, value in row.items() if name != "id"} | fresh
    new_id = crud.store(conn, request, values, None)
    return query.get(conn, request.with_params(id=new_id))


def get_schedule(conn: Connection, request: Request) -> Result:
    """The next run of each job and whether it is running, by name."""
    now, clock, job_id = datetime.now(UTC), request.clock, request.id
    found = jobs.all_jobs(conn, clock)
    rows = []
    for one in found:
        if job_id is not None and one.id != job_id:
            continue
        due = jobs.next_run(one, now, clock)
        rows.append(
            {
                "id": one.id,
                "next_run": clock.write(due) if due else "",
                "is_due": due is not None and due <= now,
                "is_running": leases.is_held(conn, job_runner.lease_name(one.id), leases.now_ms()),
            }
        )
    return Result(rows)


JOB = Entity(
    "Job",
    table=tables.job,
    title="Job",
    description="An API call that runs on a schedule.",
    fields=(
        Field("id", INT, title="Job ID", writable=False),
        Field("domain_id", INT, title="Domain ID", default_by={"create": 1}, fk="Domain"),
        Field("run_frequency", title="Job Frequency", required_by={"create"}, options=FREQUENCIES, max_length=8),
        Field("last_run", TIMESTAMP, title="Last Run"),
        Field("last_run_end", TIMESTAMP, title="Last Run End"),
        Field("scheduled_run_date", TIMESTAMP, title="Scheduled Run Date"),
        Field("name", title="Job Name", required_by={"create"}, max_length=255),
        Field("description", title="Job Description", max_length=255),
        Field("api_entity", title="API Entity", required_by={"create"}, max_length=255),
        Field("api_action", title="API Action", required_by={"create"}, max_length=255),
        Field("parameters", TEXT, title="Job Parameters", description="A line key=value each."),
        Field("is_active", BOOLEAN, title="Job Is Active?", default=1, default_by={"create": 1}),
    ),
    actions=(
        *crud.actions(),
        Action(
            "execute",
            run_async=execute,
            long_running=True,
            params=(Field("id", INT, title="Job ID", description="Run this one, due or not."),),
            title="Run what is due",
        ),
        Action(
            "getschedule",
            run=get_schedule,
            permission="get",
            params=(Field("id", INT, title="Job ID", description="Only this one."),),
            title="When each job runs next, and whether it is running",
        ),
        Action("clone", run=clone, writes=True, params=(Field("id", INT, required_by={"clone"}),)),
    ),
    label_field="name",
)
