"""Activity: what was done with contacts (calls, meetings, mailings). Who took part is in ActivityContact.

As in CiviCRM, ``create`` takes the contacts as ``source_contact_id`` (default: the caller's), ``target_contact_id`` and
``assignee_contact_id``, and ``get`` filters by them and returns them. An activity is seen by those who see one of its
contacts, and of its contacts everybody sees those who exist for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from civiapi.api import query
from civiapi.api.call import Caller
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import (
    BOOLEAN,
    DATETIME,
    INT,
    LONGTEXT_BYTES,
    TEXT,
    TIMESTAMP,
    Field,
    OptionGroup,
)
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer
from civiapi.api.permissions import (
    check_edit,
    check_reference,
    contacts_seen,
    may_edit,
    seen,
    unseen_contacts,
)
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema import tables
from entities.actions import crud

activity, activity_contact = tables.activity, tables.activity_contact
ASSIGNEE, SOURCE, TARGET = 1, 2, 3
PARTIES = {"source_contact_id": SOURCE, "target_contact_id": TARGET, "assignee_contact_id": ASSIGNEE}
"""The record types of ``civicrm_activity_contact`` by the parameter that stands for them."""
ANY_PARTY = "contact_id"
STATUSES, TYPES = OptionGroup("activity_status"), OptionGroup("activity_type")


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters, with the contacts that were asked for."""
    params = dict(request.params)
    filters = {name: params.pop(name) for name in (*PARTIES, ANY_PARTY) if params.get(name) is not None}
    for name, value in filters.items():
        ids = _activities_of(conn, request, name, value)
        params["id"] = {"IN": sorted(ids & _given_ids(params["id"]) if "id" in params else ids)}
        if not params["id"]["IN"]:
            return Result(0, unwrapped=True) if request.options.is_count else Result([])
    found = query.get(conn, request.with_only(params))
    wanted = [name for name in PARTIES if name in request.returns or (not request.returns and name in FIRST_PARTY)]
    if wanted and not request.options.is_count:
        _add_parties(conn, request, found.values, wanted)
    return found


def _activities_of(conn: Connection, request: Request, name: str, value: Any) -> set[int]:
    """The activities in which one of these contacts has this part. Raises ``ApiError`` for another operator."""
    column = activity_contact.c.contact_id
    wanted = select(activity_contact.c.activity_id).where(
        in_list(column, sorted(_ids(name, value))), *contacts_seen(request, column)
    )
    if name in PARTIES:
        wanted = wanted.where(activity_contact.c.record_type_id == PARTIES[name])
    return set(conn.execute(wanted).scalars())


def _given_ids(value: Any) -> set[int]:
    return _ids("id", value)


def _ids(name: str, value: Any) -> set[int]:
    """The ids in a filter or a parameter: one, a list, text with commas, or the operators ``=`` (one id) and ``IN``."""
    if isinstance(value, dict) and len(value) == 1:
        operator, operand = next(iter(value.items()))
        if str(operator).upper() not in ("=", "IN"):
            raise ApiError(f"'{name}' is filtered by ids together with contacts, not with '{operator}'", 2000)
        value = operand
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    found = [None if isinstance(part, bool | float | dict | list) else integer(part) for part in parts]
    if not all(found):
        raise ApiError(f"{name} is not a valid integer", 2001, error_field=name)
    return {one for one in found if one}


def _add_parties(conn: Connection, request: Request, rows: Sequence[dict[str, Any]], wanted: Iterable[str]) -> None:
    """Put the contacts into *rows*: the source as one id, the others as lists."""
    by_type = {PARTIES[name]: name for name in wanted}
    linked: dict[tuple[int, int], list[str]] = {}
    parties = select(activity_contact.c.activity_id, activity_contact.c.record_type_id, activity_contact.c.contact_id)
    column = activity_contact.c.contact_id
    for one in conn.execute(
        parties.where(
            in_list(activity_contact.c.activity_id, [int(row["id"]) for row in rows]),
            activity_contact.c.record_type_id.in_(list(by_type)),
            *contacts_seen(request, column),
        ).order_by(activity_contact.c.id)
    ):
        linked.setdefault((one.activity_id, one.record_type_id), []).append(str(one.contact_id))
    for row in rows:
        for kind, name in by_type.items():
            contacts = linked.get((int(row["id"]), kind), [])
            if name != "source_contact_id":
                row[name] = contacts
            elif contacts:
                row[name] = contacts[0]


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store an activity with its contacts; a new one is of now, scheduled, and by the caller where nothing is given."""
    now = request.now()
    given["modified_date"] = now
    parties = _given_parties(request)
    _check_rights(conn, request, parties, row_id)
    if row_id is None:
        given["created_date"] = now
        given["activity_date_time"] = given.get("activity_date_time") or now
        given["status_id"] = given.get("status_id") or lists.match(conn, STATUSES, "Scheduled")
        parties.setdefault("source_contact_id", [request.caller.contact_id] if request.caller.contact_id else [])
    saved = crud.store(conn, request, given, row_id)
    _store_parties(conn, request, saved, parties)
    return saved


def _given_parties(request: Request) -> dict[str, list[int]]:
    given = request.params
    return {
        name: sorted(_ids(name, given[name])) if given[name] not in (None, "", []) else []
        for name in PARTIES
        if name in given
    }


def _check_rights(conn: Connection, request: Request, parties: Mapping[str, Sequence[int]], row_id: int | None) -> None:
    """Raise unless the caller sees the activity and may edit it, and sees the contacts that it is to have."""
    caller = request.caller
    contacts = sorted({one for ids in parties.values() for one in ids})
    if row_id is None:
        for one in contacts:
            check_edit(caller, one)
        if not contacts:
            check_edit(caller, caller.contact_id)
    else:
        check_activity(conn, request, row_id, f"No Activity with id {row_id}")
        check_source(conn, caller, row_id)
        for one in contacts:
            check_edit(caller, one)
    for one in unseen_contacts(conn, request, contacts):
        name = next(name for name, ids in parties.items() if one in ids)
        check_reference(conn, request, name, one)


def check_activity(conn: Connection, request: Request, activity_id: int, absent: str) -> None:
    """Raise ``ApiError`` *absent* for an activity that does not exist for the caller."""
    wanted = select(activity.c.id).where(activity.c.id == activity_id, *seen(request, activity, ACTIVITY))
    if conn.execute(wanted).first() is None:
        check_edit(request.caller, None)  # it may exist for another caller, which this one must not learn
        raise ApiError(absent)


def check_source(conn: Connection, caller: Caller, activity_id: int) -> None:
    """Raise ``Unauthorized`` unless the caller may change this activity: they may change its source or all contacts."""
    if not may_edit(caller, None):
        mine = activity_contact.c.activity_id == activity_id, activity_contact.c.record_type_id == SOURCE
        first = select(activity_contact.c.contact_id).where(*mine).order_by(activity_contact.c.id).limit(1)
        check_edit(caller, conn.execute(first).scalar())


def _store_parties(conn: Connection, request: Request, activity_id: int, parties: Mapping[str, Sequence[int]]) -> None:
    """Replace the contacts of an activity; those that do not exist for the caller stay."""
    for name, contacts in parties.items():
        kind = PARTIES[name]
        mine = activity_contact.c.activity_id == activity_id, activity_contact.c.record_type_id == kind
        conn.execute(delete(activity_contact).where(*mine, *contacts_seen(request, activity_contact.c.contact_id)))
        if contacts:
            rows = [{"activity_id": activity_id, "contact_id": one, "record_type_id": kind} for one in contacts]
            conn.execute(insert(activity_contact), rows)


def remove(conn: Connection, request: Request) -> Result:
    """Delete an activity for good, with its links to contacts."""
    row_id = request.params["id"]
    absent = f"Could not delete entity id {row_id}"
    check_activity(conn, request, row_id, absent)
    check_edit(request.caller, None)
    conn.execute(delete(activity_contact).where(activity_contact.c.activity_id == row_id))
    crud.erase(conn, request, row_id)
    return Result(1)


FIRST_PARTY = ("source_contact_id",)
"""What ``get`` returns without being asked."""
_LISTED = "One id, a list of ids, or ids with commas."
_GET = frozenset({"get"})

ACTIVITY = Entity(
    "Activity",
    table=activity,
    title="Activity",
    description="What was done with contacts, such as a call or a mailing. Seen by those who see one of its contacts.",
    fields=(
        Field("id", INT, title="Activity ID", writable=False),
        Field("source_record_id", INT, title="Source Record"),
        Field(
            "activity_type_id",
            INT,
            title="Activity Type",
            required_by={"create"},
            options=TYPES,
            aliases=("activity_type",),
        ),
        Field("subject", title="Subject", max_length=255, unique_name="activity_subject"),
        Field("activity_date_time", DATETIME, title="Activity Date", aliases=("activity_date",)),
        Field("duration", INT, title="Duration", description="Minutes.", unique_name="activity_duration"),
        Field("location", title="Location", max_length=255, unique_name="activity_location"),
        Field("phone_number", title="Phone Number", max_length=64),
        Field("details", TEXT, title="Details", max_bytes=LONGTEXT_BYTES, unique_name="activity_details"),
        Field("status_id", INT, title="Activity Status", options=STATUSES, aliases=("activity_status",)),
        Field("priority_id", INT, title="Priority"),
        Field("parent_id", INT, title="Parent Activity ID", fk="Activity"),
        Field("is_test", BOOLEAN, title="Test", default=0),
        Field("medium_id", INT, title="Activity Medium"),
        Field("is_auto", BOOLEAN, title="Auto", default=0),
        Field(
            "is_current_revision", BOOLEAN, title="Is this activity a current revision in versioning chain?", default=1
        ),
        Field("result", title="Result", max_length=255),
        Field("is_deleted", BOOLEAN, title="Activity is in the Trash", default=0),
        Field("campaign_id", INT, title="Campaign ID"),
        Field("engagement_level", INT, title="Engagement Index"),
        Field("weight", INT, title="Order"),
        Field("is_star", BOOLEAN, title="Is Starred", default=0),
        Field("created_date", TIMESTAMP, title="Created Date", writable=False),
        Field("modified_date", TIMESTAMP, title="Modified Date", writable=False),
        Field("source_contact_id", INT, title="Source Contact", description="Who did it; by default the caller."),
        Field("target_contact_id", TEXT, title="Target Contacts", description=_LISTED, accepts_nested=True),
        Field("assignee_contact_id", TEXT, title="Assignees", description=_LISTED, accepts_nested=True),
        Field("contact_id", INT, title="Contact", description="Any of its contacts.", fk="Contact", only=_GET),
    ),
    actions=(
        Action("get", run=get, short=True),
        crud.create_action(save),
        Action("delete", run=remove, writes=True, params=(Field("id", INT, required_by={"delete"}),)),
    ),
    own_filters=frozenset({*PARTIES, ANY_PARTY}),
    permissions={
        "default": ("access CiviCRM", "view all activities"),
        "delete": ("access CiviCRM", "delete activities"),
    },
    contact_link=(activity_contact, "activity_id"),
    label_field="subject",
    description_fields=("activity_type_id",),
)
