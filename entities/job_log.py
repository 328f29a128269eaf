"""JobLog: what scheduled jobs said."""

from civiapi.spec import INT, TEXT, TIMESTAMP, Entity, Field
from civiapi.store import tables
from entities import crud

JOB_LOG = Entity(
    "JobLog",
    table=tables.job_log,
    title="Job Log",
    description="What scheduled jobs said, newest last.",
    fields=(
        Field("id", INT, title="Job Log ID", keeps=False),
        Field("domain_id", INT, title="Domain ID", default_by={"create": 1}, fk="Domain"),
        Field("run_time", TIMESTAMP, title="Timestamp"),
        Field("job_id", INT, title="Job ID", fk="Job"),
        Field("name", title="Job Name", max_length=255),
        Field("command", title="Command", max_length=255),
        Field("description", title="Description", max_length=255),
        Field("data", TEXT, title="Extended Data"),
    ),
    actions=crud.actions(),
)
