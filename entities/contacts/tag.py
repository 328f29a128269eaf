"""Tag: a label for contacts."""

from typing import Any

from sqlalchemy import Connection

from civiapi.api.declaration.fields import BOOLEAN, DATETIME, INT, Field, FixedOptions
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.schema import tables
from entities.actions import crud

USED_FOR = FixedOptions.named("civicrm_contact", "civicrm_activity", "civicrm_case", "civicrm_file")


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a tag, with defaults for a new one."""
    if row_id is None:
        given["label"] = given.get("label") or given["name"]
        given["used_for"] = given.get("used_for") or "civicrm_contact"
        given["created_date"] = given.get("created_date") or request.now()
        given["created_id"] = given.get("created_id") or request.caller.contact_id
    return crud.store(conn, request, given, row_id)


TAG = Entity(
    "Tag",
    table=tables.tag,
    title="Tag",
    description="A label for contacts.",
    fields=(
        Field("id", INT, title="Tag ID", writable=False),
        Field("name", title="Tag Name", required_by={"create"}, max_length=64),
        Field("label", title="Tag Label", max_length=64),
        Field("description", title="Description", max_length=255),
        Field("parent_id", INT, title="Parent Tag ID", fk="Tag"),
        Field("is_selectable", BOOLEAN, title="Display Tag?", default=1),
        Field("is_reserved", BOOLEAN, title="Reserved", default=0),
        Field("is_tagset", BOOLEAN, title="Tagset", default=0),
        Field("used_for", title="Used For", max_length=64, options=USED_FOR, comma_separated=True),
        Field("created_id", INT, title="Tag Created By", fk="Contact"),
        Field("color", title="Color", max_length=255),
        Field("created_date", DATETIME, title="Tag Created Date"),
    ),
    actions=crud.actions(save),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM", "manage tags"),
        "delete": ("access CiviCRM", "manage tags"),
    },
    label_field="name",
)
