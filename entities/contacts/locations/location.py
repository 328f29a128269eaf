"""What the entities of a contact's addresses and phone numbers share: their fields, and which row is primary."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from civiapi.api.declaration.fields import BOOLEAN, INT, Field, OptionTable
from civiapi.api.declaration.spec import Permissions, Request
from civiapi.api.errors import ApiError
from civiapi.store.civicrm.locations import apply_location_rules, default_location_type, primary_flag
from civiapi.store.schema import tables
from entities.actions import crud

# What follows for a contact from a saved (its id) or removed (None) row: (conn, contact id, saved, given, site time).
Rules = Callable[[Connection, int, int | None, Mapping[str, Any], str], None]

PERMISSIONS: Mapping[str, Permissions] = dict.fromkeys(("get", "create", "update", "delete"), ("access CiviCRM",))


def fields_before(title: str) -> tuple[Field, ...]:
    """The id, the contact and the location type of an entity with this title."""
    return (
        Field("id", INT, title=f"{title} ID", writable=False),
        Field("contact_id", INT, title="Contact ID", required_by={"create"}, fk="Contact"),
        Field(
            "location_type_id",
            INT,
            title="Location Type",
            options=OptionTable(tables.location_type, label="display_name"),
        ),
    )


def flags(title: str) -> tuple[Field, ...]:
    """Which row of a contact is primary, and which is for billing."""
    return (
        Field("is_primary", BOOLEAN, title="Is Primary?", default=0),
        Field("is_billing", BOOLEAN, title=f"Is Billing {title}?", default=0),
    )


def stored(conn: Connection, request: Request, row_id: int | None) -> Mapping[str, Any]:
    """The row before it is changed; empty for a new one. Raises ``ApiError`` if there is none of this id."""
    if row_id is None:
        return {}
    table = crud.table_of(request.entity)
    row = conn.execute(select(table).where(table.c.id == row_id)).mappings().first()
    if row is None:
        raise ApiError(f"No {request.entity.name} with id {row_id}")
    return dict(row)


def store(
    conn: Connection,
    request: Request,
    given: dict[str, Any],
    before: Mapping[str, Any],
    rules: Rules | None = None,
) -> int:
    """Store a row and apply *rules* to its contact and the one it was taken from; what they set is added to *given*."""
    table, row_id, now = crud.table_of(request.entity), before.get("id"), request.now()
    apply = rules or plain_rules(request)
    contact_id = given.get("contact_id", before.get("contact_id"))
    given.setdefault("location_type_id", before["location_type_id"] if before else default_location_type(conn))
    moved = before.get("contact_id") != contact_id  # also true of a new row
    if contact_id and (moved or given.get("is_primary") is not None):
        given["is_primary"] = primary_flag(conn, table, contact_id, row_id, given.get("is_primary"))
    saved = crud.store(conn, request, given, row_id)
    if contact_id:
        apply(conn, contact_id, saved, given, now)
    if (old := before.get("contact_id")) and old != contact_id:
        apply(conn, old, None, {}, now)
    return saved


def erase(conn: Connection, request: Request, row_id: int, rules: Rules | None = None) -> None:
    """Remove a row; if it was primary, another one becomes primary."""
    table = crud.table_of(request.entity)
    contact_id = conn.execute(select(table.c.contact_id).where(table.c.id == row_id)).scalar()
    crud.erase(conn, request, row_id)
    if contact_id is not None:
        (rules or plain_rules(request))(conn, contact_id, None, {}, request.now())


def plain_rules(request: Request) -> Rules:
    """The rules of any table of locations."""
    table = crud.table_of(request.entity)

    def apply(conn: Connection, contact_id: int, saved: int | None, given: Mapping[str, Any], now: str) -> None:
        apply_location_rules(conn, table, contact_id, saved, given, now)

    return apply
