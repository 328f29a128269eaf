"""GroupContact: the status of contacts in groups.

``create`` takes one or several contacts and groups and answers with counts instead of rows; ``delete`` sets "Removed"
by default; ``get`` with a contact answers in another format, with the dates of joining and leaving. A contact that has
the status already gets no history row, except for a removal.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from civiapi.api import query
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import INT, Field, FixedOptions, OptionTable
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError, MandatoryMissing
from civiapi.api.parameters.options import Options, is_empty
from civiapi.api.parameters.params import check_filter, no_option
from civiapi.api.permissions import check_edit, seen, unseen_contacts
from civiapi.store.civicrm import group_membership
from civiapi.store.civicrm.group_membership import GroupStatus
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema import tables
from civiapi.store.text.encoded_text import cut

STATUS = FixedOptions.named(GroupStatus.ADDED, GroupStatus.REMOVED, GroupStatus.PENDING)
PREFIXES = {GroupStatus.ADDED: "in", GroupStatus.REMOVED: "out", GroupStatus.PENDING: "pending"}

member, history, group = tables.group_contact, tables.subscription_history, tables.group

# The first of several is an alias of the parameter, so that it is not missing.
GROUP_ID = Field(
    "group_id",
    INT,
    title="Group ID",
    required_by={"create"},
    fk="Group",
    options=OptionTable(group),
    aliases=("group_id.1", "group_id_1"),
)
CONTACT_ID = Field(
    "contact_id",
    INT,
    title="Contact ID",
    required_by={"create"},
    fk="Contact",
    aliases=("contact_id.1", "contact_id_1"),
)


# ---- create and delete ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """The membership change that a call requests."""

    group_ids: Sequence[int]
    contact_ids: Sequence[int]
    status: str
    method: str
    tracking: str


def create(conn: Connection, request: Request) -> Result:
    """Set the status of the contacts in the groups; with ``id``, of the contact and group of that row."""
    group_ids, contact_ids = _selected(conn, request)
    if request.id is not None and not group_ids:
        raise ApiError(f"No GroupContact with id {request.id}")
    missing = [name for name, ids in (("group_id", group_ids), ("contact_id", contact_ids)) if not ids]
    if missing:  # an empty list counts as missing, although CiviCRM accepts it
        raise MandatoryMissing(missing)
    return _apply(conn, request, _change(conn, request, group_ids, contact_ids, GroupStatus.ADDED))


def remove(conn: Connection, request: Request) -> Result:
    """Set the status ``Removed``, or with ``skip_undelete`` delete the row."""
    group_ids, contact_ids = _selected(conn, request)
    theirs = and_(member.c.group_id.in_(group_ids), member.c.contact_id.in_(contact_ids), *seen(request, member))
    if not (group_ids and contact_ids) or conn.execute(select(member.c.id).where(theirs).limit(1)).first() is None:
        raise ApiError("Cannot Delete GroupContact")
    for_good = not is_empty(request.params.get("skip_undelete"))
    change = _change(conn, request, group_ids, contact_ids, GroupStatus.DELETED if for_good else GroupStatus.REMOVED)
    return _apply(conn, request, change)


def _change(
    conn: Connection, request: Request, group_ids: Sequence[int], contact_ids: Sequence[int], default: str
) -> MembershipChange:
    asked = request.params.get("status")
    status = default
    if asked and request.action.name == "create":
        found = lists.match(conn, STATUS, asked) if isinstance(asked, str) else None
        if found is None:
            raise no_option("status", asked)
        status = found
    method, tracking = request.params.get("method"), request.params.get("tracking")
    return MembershipChange(
        group_ids,
        contact_ids,
        status,
        method=cut(str(method), 8) if method else "API",  # all that the column holds
        tracking=cut(str(tracking), 255) if tracking else "",
    )


def _selected(conn: Connection, request: Request) -> tuple[list[int], list[int]]:
    """The groups and contacts of a call: those of the row with this id, or all given ones."""
    row_id = _checked(conn, request, Field("id", INT), [request.params.get("id")]) if request.params.get("id") else []
    if row_id:
        theirs = member.c.id == row_id[0], *seen(request, member)
        row = conn.execute(select(member.c.group_id, member.c.contact_id).where(*theirs)).first()
        return ([row.group_id], [row.contact_id]) if row else ([], [])
    found = [_checked(conn, request, field, _named(request.sent, field.name)) for field in (GROUP_ID, CONTACT_ID)]
    return found[0], found[1]


def _named(sent: Mapping[str, Any], name: str) -> list[Any]:
    """Every value under *name*, ``name.1``, ``name_2``…; a value may itself be a list or a map."""
    key = re.compile(rf"{name}(?:[._]\d+)?")
    values: list[Any] = []
    for found, value in sent.items():
        if key.fullmatch(found):
            values += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    return [value for value in values if value not in (None, "")]


def _checked(conn: Connection, request: Request, field: Field, values: list[Any]) -> list[int]:
    """The distinct ids for *values*. Raises ``InvalidValue`` for an invalid id or an unknown group."""
    checked = check_filter(conn, request, field, {"IN": values})["IN"] if values else []
    return list(dict.fromkeys(int(value) for value in checked))


def _apply(conn: Connection, request: Request, change: MembershipChange) -> Result:
    for contact_id in change.contact_ids:
        check_edit(request.caller, contact_id)
    for contact_id in unseen_contacts(conn, request, change.contact_ids):
        raise ApiError(f"contact_id is not valid : {contact_id}", "constraint violation")
    done = total = 0
    for group_id in change.group_ids:
        before = group_membership.current_statuses(conn, group_id, change.contact_ids)
        if change.status in (GroupStatus.ADDED, GroupStatus.PENDING):
            moved = [one for one in change.contact_ids if before.get(one) != change.status]
            counted = len(moved)
        else:
            moved = [one for one in change.contact_ids if change.status == GroupStatus.REMOVED or one in before]
            counted = sum(one in before for one in moved)
        group_membership.set_status(
            conn, group_id, moved, change.status, method=change.method, at=request.now(), tracking=change.tracking
        )
        done += counted
        total += len(change.contact_ids)
    return Result(1, extra=_counts(change.status, total, done))


def _counts(status: str, total: int, done: int) -> dict[str, int]:
    """The counts that ``create`` and ``delete`` answer; as in CiviCRM, deleted rows are not counted."""
    if status in (GroupStatus.ADDED, GroupStatus.PENDING):
        return {"total_count": total, "added": done, "not_added": total - done}
    if status == GroupStatus.DELETED:
        return {"total_count": total, "removed": 0, "not_removed": 0}
    return {"total_count": total, "removed": done, "not_removed": total - done}


# ---- get --------------------------------------------------------------------------------------------------------


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters; for one contact, its groups with date and method of joining."""
    contact_id = request.params.get("contact_id")
    if not isinstance(contact_id, int) or any("." in name for name in request.params):
        return query.get(conn, request)
    rows = _groups_of(conn, request, contact_id)
    return Result(len(rows), unwrapped=True) if request.options.is_count else Result(rows)


def _other_filters(conn: Connection, request: Request) -> list[ColumnElement[bool]]:
    """A condition for the filters that ``_wanted`` does not read."""
    plain = {"contact_id", *_WANTED}
    others = [name for name in request.entity.by_name if name in request.params and name not in plain]
    odd = [one for name in _WANTED if isinstance(one := request.params.get(name), dict) and "IN" not in one]
    if not others and not odd:
        return []
    found = query.get(conn, replace(request, returns=("id",), options=Options(limit=0)))
    return [in_list(member.c.id, [int(row["id"]) for row in found.values])]


def _groups_of(conn: Connection, request: Request, contact_id: int) -> list[dict[str, Any]]:
    columns = (member.c.id, member.c.group_id, member.c.status, group.c.title, group.c.visibility, group.c.is_hidden)
    theirs = [member.c.contact_id == contact_id, *_wanted(request), *seen(request, member)]
    theirs += _other_filters(conn, request)
    usual = and_(group.c.is_active == 1, group.c.is_hidden == 0, group.c.saved_search_id.is_(None))
    found = conn.execute(
        select(*columns).join(group, group.c.id == member.c.group_id).where(*theirs, usual).order_by(member.c.id)
    ).all()
    latest = _latest_history(conn, contact_id, [row.group_id for row in found])
    return [_row(row, contact_id, latest) for row in found]


_WANTED = ("group_id", "status", "id")


def _wanted(request: Request) -> list[ColumnElement[bool]]:
    """Conditions from the plain and IN filters on group, status and id; ``Added`` unless a status or an id is given."""
    conditions: list[ColumnElement[bool]] = []
    for name in _WANTED:
        value = request.params.get(name)
        if isinstance(value, dict) and "IN" in value:
            conditions.append(member.c[name].in_(value["IN"]))
        elif value is not None and not isinstance(value, dict):
            conditions.append(member.c[name] == value)
    return conditions


def _latest_history(conn: Connection, contact_id: int, group_ids: Sequence[int]) -> dict[tuple[int, str], Any]:
    """The latest history row of each group and status."""
    last = (
        select(func.max(history.c.id))
        .where(history.c.contact_id == contact_id, history.c.group_id.in_(group_ids))
        .group_by(history.c.group_id, history.c.status)
    )
    rows = conn.execute(select(history).where(history.c.id.in_(last)))
    return {(row.group_id, row.status): row for row in rows}


def _row(row: Any, contact_id: int, latest: Mapping[tuple[int, str], Any]) -> dict[str, Any]:
    shown = {
        "id": row.id,
        "group_id": row.group_id,
        "contact_id": contact_id,
        "status": row.status,
        "title": row.title,
        "visibility": row.visibility,
        "is_hidden": row.is_hidden,
    }
    if (prefix := PREFIXES.get(row.status)) and (change := latest.get((row.group_id, row.status))):
        shown |= {f"{prefix}_date": change.date, f"{prefix}_method": change.method}
    if row.status == GroupStatus.REMOVED and (joined := latest.get((row.group_id, GroupStatus.ADDED))):
        shown["date_added"] = joined.date
    return shown


_MORE = (
    Field("method", title="Method", description="How the change came about; at most 8 characters.", default="API"),
    Field("tracking", title="Tracking", max_length=255),
)
_SELECTED = (Field("id", INT), Field("group_id", INT, fk="Group"), Field("contact_id", INT, fk="Contact"))

GROUP_CONTACT = Entity(
    "GroupContact",
    table=member,
    title="Group Contact",
    description="The status of contacts in groups.",
    fields=(
        Field("id", INT, title="Group Contact ID", writable=False),
        GROUP_ID,
        CONTACT_ID,
        Field(
            "status", title="Group Contact Status", max_length=8, options=STATUS, default_by={"get": GroupStatus.ADDED}
        ),
        Field("location_id", INT, title="Group Contact Location ID"),
        Field("email_id", INT, title="Email ID", fk="Email"),
        *_MORE,
    ),
    actions=(
        Action("get", run=get),
        Action("create", run=create, writes=True, validated=False),
        Action(
            "delete",
            run=remove,
            writes=True,
            validated=False,
            params=(*_SELECTED, Field("skip_undelete", title="Delete the row"), *_MORE),
        ),
    ),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM", "edit all contacts"),
        "delete": ("access CiviCRM", "edit all contacts"),
    },
    contact_field="contact_id",
)
