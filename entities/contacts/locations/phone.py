"""Phone: a contact's phone numbers, of which one is primary."""

import re
from typing import Any

from sqlalchemy import Connection

from civiapi.api.declaration.fields import INT, Field, OptionGroup
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.schema import tables
from entities.actions import crud
from entities.contacts.locations import location

PHONE_TYPE = OptionGroup("phone_type")


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a phone number with its digits; the rules add to *given*, which ``create`` answers."""
    if "phone" in given:
        given["phone_numeric"] = re.sub(r"[^0-9]", "", given["phone"] or "")
    return location.store(conn, request, given, location.stored(conn, request, row_id))


PHONE = Entity(
    "Phone",
    table=tables.phone,
    title="Phone",
    description="A phone number of a contact.",
    fields=(
        *location.fields_before("Phone"),
        *location.flags("Phone"),
        Field("mobile_provider_id", INT, title="Mobile Provider", options=OptionGroup("mobile_provider")),
        Field("phone", title="Phone", required_by={"create"}, max_length=32),
        Field("phone_ext", title="Phone Extension", max_length=16),
        Field(
            "phone_numeric",
            title="Phone Numeric",
            description="The digits of the number.",
            max_length=32,
            writable=False,
        ),
        Field("phone_type_id", INT, title="Phone Type", options=PHONE_TYPE, aliases=("phone_type",)),
    ),
    actions=crud.actions(save, location.erase),
    permissions=location.PERMISSIONS,
    contact_field="contact_id",
    label_field="contact_id.sort_name",
    description_fields=("phone",),
)
