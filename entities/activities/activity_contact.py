"""ActivityContact: which contact took part in an activity, as its source, a target or an assignee."""

from typing import Any

from sqlalchemy import Connection, select

from civiapi.api.declaration.fields import INT, Field, FixedOptions, Option
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.schema import tables
from entities.actions import crud
from entities.activities.activity import ASSIGNEE, SOURCE, TARGET, check_source

RECORD_TYPES = FixedOptions(
    (
        Option(str(ASSIGNEE), "Activity Assignees", "Activity Assignees"),
        Option(str(SOURCE), "Activity Source", "Added By"),
        Option(str(TARGET), "Activity Targets", "With Contact"),
    )
)


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a link between an activity that the caller sees and a contact; its source decides who may change it."""
    link, before = tables.activity_contact, {}
    if row_id is not None:
        before = dict(conn.execute(select(link).where(link.c.id == row_id)).mappings().one())
    after = {**before, **given}
    if after.get("record_type_id") == SOURCE and after != before:
        check_source(conn, request.caller, after["activity_id"])
    return crud.store(conn, request, given, row_id)


ACTIVITY_CONTACT = Entity(
    "ActivityContact",
    table=tables.activity_contact,
    title="Activity Contact",
    description="A contact of an activity: its source, a target or an assignee. Seen by those who see the contact.",
    fields=(
        Field("id", INT, title="Activity Contact ID", writable=False),
        Field("activity_id", INT, title="Activity ID", required_by={"create"}, fk="Activity"),
        Field("contact_id", INT, title="Contact ID", required_by={"create"}, fk="Contact"),
        Field("record_type_id", INT, title="Record Type ID", options=RECORD_TYPES),
    ),
    actions=crud.actions(save),
    permissions={
        "default": ("access CiviCRM", "view all activities"),
        "delete": ("access CiviCRM", "delete activities"),
    },
    contact_field="contact_id",
)
