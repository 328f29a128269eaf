"""Email: a contact's addresses. One is primary, at most one is for bulk mail; holds have dates.

The rules are in ``civiapi/store/civicrm/contacts.py``, which the sync shares.
"""

from typing import Any

from sqlalchemy import Connection

from civiapi.api.declaration.fields import BOOLEAN, DATETIME, INT, TEXT, Field, FixedOptions
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.civicrm import contacts
from civiapi.store.schema import tables
from entities.actions import crud
from entities.contacts.locations import location

ON_HOLD = FixedOptions.of("No", "On Hold Bounce", "On Hold Opt Out")


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store an address; the rules add to *given*, which ``create`` answers."""
    before = location.stored(conn, request, row_id)
    if given.get("email"):
        given["email"] = given["email"].strip().lower()
    if row_id is None:
        given.setdefault("on_hold", 0)
    given |= contacts.hold_dates(before, given, request.now())
    return location.store(conn, request, given, before, contacts.apply_address_rules)


def remove(conn: Connection, request: Request, row_id: int) -> None:
    """Remove an address; if it was primary, another becomes primary."""
    location.erase(conn, request, row_id, contacts.apply_address_rules)


EMAIL = Entity(
    "Email",
    table=tables.email,
    title="Email",
    description="An e-mail address of a contact.",
    fields=(
        *location.fields_before("Email"),
        Field("email", title="Email", required_by={"create"}, max_length=254),
        *location.flags("Email"),
        Field("on_hold", INT, title="On Hold", options=ON_HOLD, default=0),
        Field("is_bulkmail", BOOLEAN, title="Use for Bulk Mail", default=0),
        Field("hold_date", DATETIME, title="Hold Date"),
        Field("reset_date", DATETIME, title="Reset Date"),
        Field("signature_text", TEXT, title="Signature Text"),
        Field("signature_html", TEXT, title="Signature Html"),
    ),
    actions=crud.actions(save, remove),
    permissions=location.PERMISSIONS,
    contact_field="contact_id",
    label_field="contact_id.sort_name",
    description_fields=("email",),
)
