"""JobLog: the log of scheduled jobs."""

from civiapi.api.declaration.fields import INT, LONGTEXT_BYTES, TEXT, TIMESTAMP, Field
from civiapi.api.declaration.spec import Entity
from civiapi.store.schema import tables
from entities.actions import crud

JOB_LOG = Entity(
    "JobLog",
    table=tables.job_log,
    title="Job Log",
    description="The log of scheduled jobs, newest last.",
    fields=(
        Field("id", INT, title="Job Log ID", writable=False),
        Field("domain_id", INT, title="Domain ID", default_by={"create": 1}, fk="Domain"),
        Field("run_time", TIMESTAMP, title="Timestamp"),
        Field("job_id", INT, title="Job ID", fk="Job"),
        Field("name", title="Job Name", max_length=255),
        Field("command", title="Command", max_length=255),
        Field("description", title="Description", max_length=255),
        Field("data", TEXT, title="Extended Data", max_bytes=LONGTEXT_BYTES),
    ),
    actions=crud.actions(),
)
