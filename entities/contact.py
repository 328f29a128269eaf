"""Contact: people, households and organizations; what create and delete do besides storing a row (contract 8.1)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from civiapi import options as lists
from civiapi.access import check_edit
from civiapi.errors import ApiError, MandatoryMissing
from civiapi.request import Request, is_empty
from civiapi.spec import BOOLEAN, INT, Action, Entity, Field, Result
from civiapi.store import contacts, tables
from entities import contact_get, crud
from entities.contact_fields import FIELDS, HOUSEHOLD, INDIVIDUAL, ORGANIZATION, PREFIX, SUFFIX

_NAMED_BY = {
    INDIVIDUAL: ("first_name", "last_name", "email", "display_name"),
    HOUSEHOLD: ("household_name",),
    ORGANIZATION: ("organization_name",),
}
_OFF = frozenset({"i:0;", "b:0;", 's:1:"0";', "0"})  # a setting switched off, as CiviCRM keeps it


def create(conn: Connection, request: Request) -> Result:
    """Insert a contact, or change the one whose id is given. The answer holds the whole row."""
    given = crud.columns_given(request)
    before = _before(conn, request)
    _check_names(request, given, before)
    if not is_empty(request.params.get("dupe_check")):
        _refuse_duplicate(conn, request)
    _set_employer(conn, request, given)
    addresses = [] if before else _addresses(request.params.get("email"))
    _set_names(conn, given, before, addresses)
    contact_id = _store(conn, given, before, request.now())
    for position, address in enumerate(addresses):
        _add_address(conn, contact_id, address, request.now(), first=position == 0)
    row = {"id": str(contact_id), **crud.fresh_row(conn, request, contact_id)}
    if not contact_get.sees_keys(request.with_params(id=contact_id)):
        row["api_key"] = ""
    return Result([row])


def _before(conn: Connection, request: Request) -> Mapping[str, Any]:
    """The stored row to be changed; empty for a new contact."""
    if request.id is None:
        return {}
    row = conn.execute(select(tables.contact).where(tables.contact.c.id == request.id)).mappings().first()
    if row is None:
        raise ApiError(f"Contact id {request.id} not found.")
    check_edit(request.caller, request.id)
    return dict(row)


def _check_names(request: Request, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    kind = given.get("contact_type")
    wanted = _NAMED_BY.get(kind or "", ())
    if not wanted or any(not is_empty(request.params.get(name)) or not is_empty(before.get(name)) for name in wanted):
        return
    raise MandatoryMissing([wanted[0] if len(wanted) == 1 else f"one of ({', '.join(wanted)})"])


def _refuse_duplicate(conn: Connection, request: Request) -> None:
    """CiviCRM's stock rules for unattended entry: people by address, the others by name and address."""
    kind = request.params.get("contact_type")
    addresses = [block["email"] for block in _addresses(request.params.get("email"))]
    if not addresses:
        return
    contact, email = tables.contact.c, tables.email.c
    asked = (
        select(contact.id)
        .distinct()
        .join(tables.email, email.contact_id == contact.id)
        .where(contact.is_deleted == 0, contact.contact_type == kind, email.email.in_(addresses))
        .order_by(contact.id)
    )
    if kind in (HOUSEHOLD, ORGANIZATION):
        name = _NAMED_BY[kind][0]
        asked = asked.where(contact[name] == request.params.get(name))
    if request.id is not None:
        asked = asked.where(contact.id != request.id)
    if found := [str(row[0]) for row in conn.execute(asked)]:
        raise ApiError(f"Found matching contacts: {','.join(found)}", "duplicate", ids=found)


def _set_employer(conn: Connection, request: Request, given: dict[str, Any]) -> None:
    """An employer by id or name; the organization is made if there is none of that name. Its name is kept beside it."""
    contact = tables.contact
    name = request.params.get("current_employer")
    if name and "employer_id" not in given:
        known = select(contact.c.id).where(
            contact.c.contact_type == ORGANIZATION, contact.c.is_deleted == 0, contact.c.organization_name == name
        )
        given["employer_id"] = conn.execute(known.order_by(contact.c.id)).scalar()
        if given["employer_id"] is None:
            made = {"contact_type": ORGANIZATION, "organization_name": name, "display_name": name, "sort_name": name}
            given["employer_id"] = _store(conn, made, {}, request.now())
    if "employer_id" in given:
        employer = select(contact.c.organization_name).where(contact.c.id == given["employer_id"])
        given["organization_name"] = conn.execute(employer).scalar() if given["employer_id"] else None


def _addresses(email: Any) -> list[dict[str, Any]]:
    """The addresses given with a new contact: one as text, or a list of blocks."""
    if isinstance(email, list):
        blocks = [one if isinstance(one, Mapping) else {"email": one} for one in email]
        return [{**one, "email": str(one["email"]).strip().lower()} for one in blocks if one.get("email")]
    return [{"email": email.strip().lower()}] if isinstance(email, str) and email.strip() else []


def _set_names(
    conn: Connection, given: dict[str, Any], before: Mapping[str, Any], addresses: list[dict[str, Any]]
) -> None:
    """Work out display name and sort name from the new and the stored parts."""
    now = {**before, **given}
    kind = now.get("contact_type")
    if kind == INDIVIDUAL:
        prefix = lists.labels(conn, PREFIX).get(str(now.get("prefix_id") or ""), "")
        suffix = lists.labels(conn, SUFFIX).get(str(now.get("suffix_id") or ""), "")
        display, sort = contacts.individual_names(now.get("first_name"), now.get("last_name"), prefix, suffix)
        fallback = _fallback(conn, given, before, addresses)
        given["display_name"], given["sort_name"] = display or fallback, sort or display or fallback
    elif (part := {HOUSEHOLD: "household_name", ORGANIZATION: "organization_name"}.get(kind or "")) and now.get(part):
        given["display_name"] = given["sort_name"] = now[part][: contacts.NAME_LIMIT]


def _fallback(
    conn: Connection, given: Mapping[str, Any], before: Mapping[str, Any], addresses: list[dict[str, Any]]
) -> str | None:
    """What to call someone without a name: the primary address, else the display name given or kept."""
    if before:
        email = tables.email.c
        found = conn.execute(
            select(email.email).where(email.contact_id == before["id"], email.is_primary == 1)
        ).scalar()
    else:
        chosen = [block for block in addresses if not is_empty(block.get("is_primary"))] or addresses
        found = chosen[0]["email"] if chosen else None
    name = found or given.get("display_name") or before.get("display_name")
    return name[: contacts.NAME_LIMIT] if name else None


def _store(conn: Connection, given: Mapping[str, Any], before: Mapping[str, Any], now: str) -> int:
    values = crud.without_nulls(tables.contact, given, zero=bool(before)) | {"modified_date": now}
    if before:
        conn.execute(update(tables.contact).where(tables.contact.c.id == before["id"]).values(values))
        return int(before["id"])
    values = {"hash": contacts.new_hash()} | values | {"created_date": now}
    key = conn.execute(insert(tables.contact), values).inserted_primary_key
    return int(key[0]) if key else 0


def _add_address(conn: Connection, contact_id: int, block: Mapping[str, Any], now: str, *, first: bool) -> None:
    row = {
        "contact_id": contact_id,
        "location_type_id": block.get("location_type_id") or contacts.default_location_type(conn),
        "email": block["email"],
        "is_primary": int(first or not is_empty(block.get("is_primary"))),
        "is_bulkmail": int(not is_empty(block.get("is_bulkmail"))),
        "on_hold": block.get("on_hold") or 0,
    }
    row |= contacts.hold_dates({}, row, now)
    key = conn.execute(insert(tables.email), row).inserted_primary_key
    if not first:  # a first address needs nothing settled: it is primary, and the contact is named after it already
        contacts.settle_addresses(conn, contact_id, key[0] if key else None, row, now)


def remove(conn: Connection, request: Request) -> Result:
    """Put a contact into the trash, take it out again (``restore``), or delete it for good (``skip_undelete``)."""
    contact, row_id = tables.contact, request.params["id"]
    if conn.execute(select(contact.c.id).where(contact.c.id == row_id)).first() is None:
        raise ApiError("Could not delete contact")
    if row_id == request.caller.contact_id:
        raise ApiError("This contact record is linked to the currently logged in user account - and cannot be deleted.")
    restore = not is_empty(request.params.get("restore"))
    if not restore:
        conn.execute(delete(tables.uf_match).where(tables.uf_match.c.contact_id == row_id))
    if not restore and (not is_empty(request.params.get("skip_undelete")) or not _has_trash(conn)):
        of_contact = tables.entity_tag.c.entity_table == "civicrm_contact", tables.entity_tag.c.entity_id == row_id
        conn.execute(delete(tables.entity_tag).where(*of_contact))
        conn.execute(delete(contact).where(contact.c.id == row_id))
    else:
        changed = {"is_deleted": int(not restore), "modified_date": request.now()}
        conn.execute(update(contact).where(contact.c.id == row_id).values(changed))
    return Result(1)


def _has_trash(conn: Connection) -> bool:
    """Whether the site keeps deleted contacts (setting ``contact_undelete``)."""
    asked = select(tables.setting.c.value).where(tables.setting.c.name == "contact_undelete")
    return conn.execute(asked).scalar() not in _OFF


DELETE = Action(
    "delete",
    run=remove,
    writes=True,
    params=(
        Field("id", INT, title="Contact ID", required_by={"delete"}),
        Field("skip_undelete", BOOLEAN, title="Delete for Good"),
        Field("restore", BOOLEAN, title="Take out of the Trash"),
    ),
)

CONTACT = Entity(
    "Contact",
    table=tables.contact,
    title="Contact",
    description="A person, a household or an organization.",
    fields=FIELDS,
    actions=(Action("get", run=contact_get.get), Action("create", run=create, writes=True), DELETE),
    permissions={
        "get": (),
        "create": ("access CiviCRM", "add contacts"),
        "update": (),
        "delete": ("access CiviCRM", "delete contacts"),
    },
    unique={"UI_external_identifier": ("external_identifier",)},
    label_field="sort_name",
    description_fields=("email",),
    contact_field="id",
)
