"""Contact: people, households and organizations; the rules of create and delete (contract 8.1)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from civiapi.api.declaration.fields import BOOLEAN, INT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.envelope import TextRows
from civiapi.api.errors import ApiError, InvalidValue, MandatoryMissing, Unauthorized
from civiapi.api.parameters import custom_fields
from civiapi.api.parameters.custom_fields import CustomField
from civiapi.api.parameters.options import integer, is_empty
from civiapi.api.parameters.params import check_length, is_missing
from civiapi.api.permissions import CONTACT_TABLE, check_change, check_edit, denial, seen
from civiapi.store.civicrm import contact_names, contacts, employers
from civiapi.store.civicrm.locations import default_location_type
from civiapi.store.databases.bulk import insert_row
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema import tables
from civiapi.store.schema.live_columns import live_columns
from civiapi.store.text.encoded_text import encode
from entities.actions import crud
from entities.contacts import contact_get
from entities.contacts.contact_fields import FIELDS, HOUSEHOLD, INDIVIDUAL, KNOWN_ELSEWHERE, ORGANIZATION
from entities.contacts.contact_import import IMPORT

_NAMED_BY = {
    INDIVIDUAL: ("first_name", "last_name", "email", "display_name"),
    HOUSEHOLD: ("household_name",),
    ORGANIZATION: ("organization_name",),
}
_EMAIL = next(one for one in FIELDS if one.name == "email")
OWN_RECORD = "This contact record is linked to the currently logged in user account - and cannot be deleted."
_OFF = frozenset({"i:0;", "b:0;", 's:1:"0";', "0"})  # stored values of a setting that is off


def create(conn: Connection, request: Request) -> Result:
    """Insert a contact, or update the one whose id is given. The answer contains the whole row."""
    given = crud.columns_given(request)
    customs = custom_fields.given(conn, request)
    before = _before(conn, request)
    _check_changes(request, given, before)
    _check_names(request, given, before)
    if not is_empty(request.params.get("dupe_check")):
        _refuse_duplicate(conn, request)
    _set_employer(conn, request, given, before)
    addresses = [] if before else _addresses(request.params.get("email"))
    _set_names(conn, request, given, before, addresses)
    _check_custom_types(customs, given.get("contact_type") or before.get("contact_type"))
    now = request.now()
    contact_id = _store(conn, given, before, now)
    _relate_employer(conn, contact_id, given, before)
    custom_fields.write(conn, customs, contact_id)
    for position, address in enumerate(addresses):
        _add_address(conn, contact_id, address, now, first=position == 0)
    return Result(TextRows([{"id": str(contact_id), **crud.fresh_row(conn, request, contact_id)}]))


def _check_custom_types(customs: Mapping[CustomField, Any], kind: Any) -> None:
    """Refuse custom fields of another type of contact."""
    for one in customs:
        if one.extends not in ("Contact", kind):
            raise ApiError(f"{one.name} is a field of contacts of type {one.extends}", 2000)


def _before(conn: Connection, request: Request) -> Mapping[str, Any]:
    """The stored row; empty for a new contact."""
    if request.id is None:
        return {}
    check_edit(request.caller, request.id)
    contact = tables.contact
    stored = select(*live_columns(conn, contact)).where(contact.c.id == request.id, *seen(request, contact))
    row = conn.execute(stored).mappings().first()
    if row is None:
        raise ApiError(f"Contact id {request.id} not found.")
    return dict(row)


def _check_changes(request: Request, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Refuse the changes that ask for a permission of their own, and one's own deletion."""
    for field in request.entity.change_guarded:
        if field.name in given:
            check_change(request.caller, field, given[field.name], before.get(field.name), is_new=not before)
    if given.get("is_deleted") and before and request.id == request.caller.contact_id:
        raise ApiError(OWN_RECORD)


def _check_names(request: Request, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    kind = given.get("contact_type")
    wanted = _NAMED_BY.get(kind or "", ())
    if not wanted or not all(is_missing(request.params.get(name)) and is_missing(before.get(name)) for name in wanted):
        return
    raise MandatoryMissing([wanted[0] if len(wanted) == 1 else f"one of ({', '.join(wanted)})"])


def _refuse_duplicate(conn: Connection, request: Request) -> None:
    """CiviCRM's default rules for unsupervised input: individuals by address, others by name and address."""
    kind = request.params.get("contact_type")
    addresses = [block["email"] for block in _addresses(request.params.get("email"))]
    if not addresses:
        return
    contact, email = tables.contact.c, tables.email.c
    asked = (
        select(contact.id)
        .distinct()
        .join(tables.email, email.contact_id == contact.id)
        .where(contact.is_deleted == 0, contact.contact_type == kind, in_list(email.email, addresses))
        .where(*seen(request, tables.contact))
        .order_by(contact.id)
    )
    if kind in (HOUSEHOLD, ORGANIZATION):
        name = _NAMED_BY[kind][0]
        asked = asked.where(contact[name] == request.params.get(name))
    if request.id is not None:
        asked = asked.where(contact.id != request.id)
    if found := [str(row[0]) for row in conn.execute(asked)]:
        raise ApiError(f"Found matching contacts: {','.join(found)}", "duplicate", ids=found)


def _set_employer(conn: Connection, request: Request, given: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Set an employer by id or name, for a person with its name; an organization of a new name is created."""
    contact = tables.contact
    name = request.params.get("current_employer")
    if name and "employer_id" not in given:
        known = select(contact.c.id).where(
            contact.c.contact_type == ORGANIZATION,
            contact.c.is_deleted == 0,
            contact.c.organization_name == name,
            *seen(request, contact),
        )
        given["employer_id"] = conn.execute(known.order_by(contact.c.id)).scalar()
        if given["employer_id"] is None:
            if not request.caller.may("add contacts"):
                raise Unauthorized(denial("current_employer", ("add contacts",)) + f", as there is no “{name}”")
            made: dict[str, Any] = {"contact_type": ORGANIZATION, "organization_name": name}
            made |= contact_names.new_contact_columns(contact_names.conventions(conn), made, None)
            given["employer_id"] = _store(conn, made, {}, request.now())
    if "employer_id" in given and (given.get("contact_type") or before.get("contact_type")) == INDIVIDUAL:
        employer = select(contact.c.organization_name).where(contact.c.id == given["employer_id"])
        given["organization_name"] = conn.execute(employer).scalar() if given["employer_id"] else None


def _relate_employer(conn: Connection, contact_id: int, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """What an employer, or an employer's new name, changes besides the contact."""
    now = {**before, **given}
    if now.get("contact_type") == INDIVIDUAL and now.get("employer_id") != before.get("employer_id"):
        employers.relate_employer(conn, contact_id, now.get("employer_id"), before.get("employer_id"))
    name = now.get("organization_name")
    if before and now.get("contact_type") == ORGANIZATION and name and name != before.get("organization_name"):
        employers.name_employer(conn, contact_id, name)


def _addresses(email: Any) -> list[dict[str, Any]]:
    """The addresses of a new contact: one as text, or a list of maps. Raises ``InvalidValue``."""
    if isinstance(email, list):
        blocks = [one if isinstance(one, Mapping) else {"email": one} for one in email]
        return [_address(one) for one in blocks if one.get("email")]
    return [{"email": email.strip().lower()}] if isinstance(email, str) and email.strip() else []


def _address(block: Mapping[str, Any]) -> dict[str, Any]:
    """One address of a list, checked as far as it is stored."""
    address = str(block["email"]).strip().lower()
    check_length(_EMAIL, encode(address))
    for name in ("location_type_id", "on_hold"):
        if not is_empty(given := block.get(name)) and integer(given) is None:
            raise InvalidValue(f"{name} is not a valid integer", 2001, error_field=name, type="integer")
    return {**block, "email": address}


def _set_names(
    conn: Connection,
    request: Request,
    given: dict[str, Any],
    before: Mapping[str, Any],
    addresses: list[dict[str, Any]],
) -> None:
    """Set what CiviCRM works out of the new and the stored parts: names, greetings and what a new contact has."""
    site, now = contact_names.conventions(conn), {**before, **given}
    address = _primary_address(conn, before, addresses) if now.get("contact_type") == INDIVIDUAL else None
    if not before:
        worked_out = contact_names.new_contact_columns(site, now, address)
    else:
        worked_out = contact_names.name_columns(site, now, address) | contact_names.greeting_columns(site, now)
    if not is_empty(request.params.get("skip_greeting_processing")):
        worked_out = {name: value for name, value in worked_out.items() if not name.startswith(contact_names.GREETINGS)}
    given.update(worked_out)


def _primary_address(conn: Connection, before: Mapping[str, Any], addresses: list[dict[str, Any]]) -> str | None:
    """The primary address of a contact, or what will be that of a new one."""
    if not before:
        chosen = [block for block in addresses if not is_empty(block.get("is_primary"))] or addresses
        return chosen[0]["email"] if chosen else None
    email = tables.email.c
    found = select(email.email).where(email.contact_id == before["id"], email.is_primary == 1)
    return conn.execute(found.order_by(email.id)).scalar()


def _store(conn: Connection, given: Mapping[str, Any], before: Mapping[str, Any], now: str) -> int:
    values = crud.without_nulls(conn, tables.contact, given, zero=bool(before)) | {"modified_date": now}
    if before:
        conn.execute(update(tables.contact).where(tables.contact.c.id == before["id"]).values(values))
        return int(before["id"])
    values = {"hash": contacts.new_hash()} | values | {"created_date": now}
    return insert_row(conn, tables.contact, values)


def _add_address(conn: Connection, contact_id: int, block: Mapping[str, Any], now: str, *, first: bool) -> None:
    row = {
        "contact_id": contact_id,
        "location_type_id": block.get("location_type_id") or default_location_type(conn),
        "email": block["email"],
        "is_primary": int(first or not is_empty(block.get("is_primary"))),
        "is_bulkmail": int(not is_empty(block.get("is_bulkmail"))),
        "on_hold": block.get("on_hold") or 0,
    }
    row |= contacts.hold_dates({}, row, now)
    email_id = insert_row(conn, tables.email, row)
    if not first:  # the first is primary, and the contact is already named after it
        contacts.apply_address_rules(conn, contact_id, email_id, row, now)


def remove(conn: Connection, request: Request) -> Result:
    """Move a contact to the trash, restore it (``restore``), or delete it permanently (``skip_undelete``)."""
    contact, row_id = tables.contact, request.params["id"]
    if row_id == request.caller.contact_id:
        raise ApiError(OWN_RECORD)
    check_edit(request.caller, row_id)
    if conn.execute(select(contact.c.id).where(contact.c.id == row_id, *seen(request, contact))).first() is None:
        raise ApiError("Could not delete contact")
    restore = not is_empty(request.params.get("restore"))
    if not restore:
        conn.execute(delete(tables.uf_match).where(tables.uf_match.c.contact_id == row_id))
    if not restore and (not is_empty(request.params.get("skip_undelete")) or not _has_trash(conn)):
        for table in (tables.entity_tag, tables.note):
            conn.execute(delete(table).where(table.c.entity_table == CONTACT_TABLE, table.c.entity_id == row_id))
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
    actions=(
        Action("get", run=contact_get.get, short=True, single=True),
        Action("create", run=create, writes=True, short=True),
        DELETE,
        IMPORT,
    ),
    permissions={
        "get": (),
        "create": ("access CiviCRM", "add contacts"),
        "update": (),
        "delete": ("access CiviCRM", "delete contacts"),
    },
    matched_loosely=frozenset({"sort_name", "display_name"}),
    own_filters=contact_get.OWN_FILTERS,
    known_elsewhere=KNOWN_ELSEWHERE,
    extended_by=frozenset({"Contact", INDIVIDUAL, HOUSEHOLD, ORGANIZATION}),
    label_field="sort_name",
    description_fields=("email",),
    contact_field="id",
)
