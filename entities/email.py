"""Email: a contact's addresses. One of them is primary, at most one is for bulk mail; holds are dated.

The rules about primary, bulk mail and holds live in ``civiapi/store/contacts.py``, which the sync shares.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from civiapi.access import check_edit
from civiapi.errors import ApiError
from civiapi.request import Request
from civiapi.spec import BOOLEAN, DATETIME, INT, TEXT, Entity, Field, FixedOptions, OptionTable
from civiapi.store import contacts, tables
from entities import crud

ON_HOLD = FixedOptions.of("No", "On Hold Bounce", "On Hold Opt Out")


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store an address; what the rules added to *given* is what ``create`` answers."""
    before = _before(conn, row_id)
    contact_id = given.get("contact_id") or before.get("contact_id")
    check_edit(request.caller, before.get("contact_id") or contact_id)
    now = request.now()
    if given.get("email"):
        given["email"] = given["email"].strip().lower()
    if row_id is None:
        given.setdefault("location_type_id", contacts.default_location_type(conn))
        given.setdefault("on_hold", 0)
    else:
        given.setdefault("location_type_id", before["location_type_id"])
    given |= contacts.hold_dates(before, given, now)
    moved = before.get("contact_id") != contact_id  # also true of a new address
    if contact_id and (moved or given.get("is_primary") is not None):
        given["is_primary"] = contacts.primary_flag(conn, contact_id, row_id, given.get("is_primary"))
    saved = crud.store(conn, request, given, row_id)
    if contact_id:
        contacts.settle_addresses(conn, contact_id, saved, given, now)
    if (old := before.get("contact_id")) and old != contact_id:
        contacts.settle_addresses(conn, old, None, {}, now)
    return saved


def _before(conn: Connection, row_id: int | None) -> Mapping[str, Any]:
    if row_id is None:
        return {}
    row = conn.execute(select(tables.email).where(tables.email.c.id == row_id)).mappings().first()
    if row is None:
        raise ApiError(f"No Email with id {row_id}")
    return dict(row)


def remove(conn: Connection, request: Request, row_id: int) -> None:
    """Remove an address; where it was the primary one, another takes its place."""
    contact_id = conn.execute(select(tables.email.c.contact_id).where(tables.email.c.id == row_id)).scalar()
    check_edit(request.caller, contact_id)
    crud.erase(conn, request, row_id)
    if contact_id is not None:
        contacts.settle_addresses(conn, contact_id, None, {}, request.now())


EMAIL = Entity(
    "Email",
    table=tables.email,
    title="Email",
    description="An e-mail address of a contact.",
    fields=(
        Field("id", INT, title="Email ID", keeps=False),
        Field("contact_id", INT, title="Contact ID", required_by={"create"}, fk="Contact"),
        Field(
            "location_type_id",
            INT,
            title="Location Type",
            options=OptionTable(tables.location_type, label="display_name"),
        ),
        Field("email", title="Email", required_by={"create"}, max_length=254),
        Field("is_primary", BOOLEAN, title="Is Primary?", default=0),
        Field("is_billing", BOOLEAN, title="Is Billing Email?", default=0),
        Field("on_hold", INT, title="On Hold", options=ON_HOLD, default=0),
        Field("is_bulkmail", BOOLEAN, title="Use for Bulk Mail", default=0),
        Field("hold_date", DATETIME, title="Hold Date"),
        Field("reset_date", DATETIME, title="Reset Date"),
        Field("signature_text", TEXT, title="Signature Text"),
        Field("signature_html", TEXT, title="Signature Html"),
    ),
    actions=crud.actions(save, remove),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM",),
        "update": ("access CiviCRM",),
        "delete": ("access CiviCRM",),
    },
    contact_field="contact_id",
    label_field="contact_id.sort_name",
    description_fields=("email",),
)
