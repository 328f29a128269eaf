"""Note: what somebody wrote about a contact, or about a row of another table; a private one is its author's."""

from typing import Any

from sqlalchemy import Connection

from civiapi.api.declaration.fields import INT, TEXT, TIMESTAMP, Field, FixedOptions, Option
from civiapi.api.declaration.spec import Entity, Request
from civiapi.api.permissions import CONTACT_TABLE
from civiapi.store.civicrm.locations import touch
from civiapi.store.schema import tables
from entities.actions import crud

PRIVACY = FixedOptions((Option("0", "None", "None"), Option("1", "Author Only", "Author Only")))


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a note; a new one is of now, and of the caller where no author is given."""
    now = request.now()
    given["modified_date"] = now
    if row_id is None:
        given["contact_id"] = given.get("contact_id") or request.caller.contact_id
        given["note_date"] = given.get("note_date") or now
        given["created_date"] = now
    saved = crud.store(conn, request, given, row_id)
    if row_id is None and given["entity_table"].lower() == CONTACT_TABLE:
        touch(conn, [given["entity_id"]], now)
    return saved


NOTE = Entity(
    "Note",
    table=tables.note,
    title="Note",
    description="A note about a contact or about a row of another table.",
    fields=(
        Field("id", INT, title="Note ID", writable=False),
        Field(
            "entity_table",
            title="Note Entity",
            max_length=64,
            required_by={"create"},
            default_by={"create": CONTACT_TABLE},
            description="The table that the note is about; contacts by default.",
        ),
        Field("entity_id", INT, title="Note Entity ID", required_by={"create"}),
        Field("note", TEXT, title="Note", required_by={"create"}),
        Field("contact_id", INT, title="Created By Contact ID", fk="Contact"),
        Field("note_date", TIMESTAMP, title="Note Date"),
        Field("created_date", TIMESTAMP, title="Created Date", writable=False),
        Field("modified_date", TIMESTAMP, title="Modified Date", writable=False),
        Field("subject", title="Subject", max_length=255),
        Field("privacy", title="Privacy", max_length=255, options=PRIVACY, default="0"),
    ),
    actions=crud.actions(save),
    permissions=dict.fromkeys(("get", "create", "update", "delete"), ("access CiviCRM",)),
    contact_field="entity_id",
    contact_table_field="entity_table",
    private=("privacy", "contact_id", "view all notes"),
    label_field="subject",
    description_fields=("note",),
)
