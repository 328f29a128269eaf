"""GroupContact: who stands where in which group.

Not a plain entity. ``create`` takes one or several contacts and groups and answers with counts, never with a row;
``delete`` means "Removed" unless told otherwise; ``get`` with a contact answers in another shape, with the dates of
joining and leaving. What trips people up: someone who stands there already is left alone and gets no history row, but
a removal is always written down.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from civiapi import options as lists
from civiapi.access import visible
from civiapi.errors import ApiError, InvalidValue, MandatoryMissing
from civiapi.params import check_filter
from civiapi.request import Request, is_empty
from civiapi.spec import INT, Action, Entity, Field, FixedOptions, OptionTable, Result
from civiapi.store import groups, tables
from entities import crud

STATUS = FixedOptions.words("Added", "Removed", "Pending")
PREFIXES = {"Added": "in", "Removed": "out", "Pending": "pending"}

member, history, group, contact = tables.group_contact, tables.subscription_history, tables.group, tables.contact

# The first of several is the parameter itself, so that it is not called missing.
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
class Change:
    """A membership change as it was asked for."""

    group_ids: Sequence[int]
    contact_ids: Sequence[int]
    status: str
    method: str
    tracking: str | None


def create(conn: Connection, request: Request) -> Result:
    """Put the contacts into a status in the groups; with ``id``, the contact and group of that row."""
    group_ids, contact_ids = _meant(conn, request)
    if request.id is not None and not group_ids:
        raise ApiError(f"No GroupContact with id {request.id}")
    missing = [name for name, ids in (("group_id", group_ids), ("contact_id", contact_ids)) if not ids]
    if missing:  # an empty list is none, though CiviCRM's own check lets it pass
        raise MandatoryMissing(missing)
    return _apply(conn, request, _change(conn, request, group_ids, contact_ids, "Added"))


def remove(conn: Connection, request: Request) -> Result:
    """Put them into ``Removed``, or with ``skip_undelete`` take the row away."""
    group_ids, contact_ids = _meant(conn, request)
    theirs = and_(member.c.group_id.in_(group_ids), member.c.contact_id.in_(contact_ids))
    if not (group_ids and contact_ids) or conn.execute(select(member.c.id).where(theirs).limit(1)).first() is None:
        raise ApiError("Cannot Delete GroupContact")
    for_good = not is_empty(request.params.get("skip_undelete"))
    change = _change(conn, request, group_ids, contact_ids, "Deleted" if for_good else "Removed")
    return _apply(conn, request, change)


def _change(
    conn: Connection, request: Request, group_ids: Sequence[int], contact_ids: Sequence[int], default: str
) -> Change:
    asked = request.params.get("status")
    status = default
    if asked and request.action.name == "create":
        found = lists.match(conn, STATUS, asked) if isinstance(asked, str) else None
        if found is None:
            raise InvalidValue(f"'{asked}' is not a valid option for field status", 2001, error_field="status")
        status = found
    method, tracking = request.params.get("method"), request.params.get("tracking")
    return Change(
        group_ids,
        contact_ids,
        status,
        method=str(method)[:8] if method else "API",  # all that the column holds
        tracking=str(tracking)[:255] if tracking else None,
    )


def _meant(conn: Connection, request: Request) -> tuple[list[int], list[int]]:
    """The groups and contacts of a call: those of the row with this id, or every one named."""
    row_id = _checked(conn, request, Field("id", INT), [request.params.get("id")]) if request.params.get("id") else []
    if row_id:
        row = conn.execute(select(member.c.group_id, member.c.contact_id).where(member.c.id == row_id[0])).first()
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
    """The ids that *values* mean, each once. Raises ``InvalidValue`` for what is no id, or no group."""
    checked = check_filter(conn, request, field, {"IN": values})["IN"] if values else []
    return list(dict.fromkeys(int(value) for value in checked))


def _apply(conn: Connection, request: Request, change: Change) -> Result:
    for contact_id in _unknown(conn, change.contact_ids):
        raise ApiError(f"contact_id is not valid : {contact_id}", "constraint violation")
    done = total = 0
    for group_id in change.group_ids:
        before = groups.standings(conn, group_id, change.contact_ids)
        if change.status in ("Added", "Pending"):
            moved = [one for one in change.contact_ids if before.get(one) != change.status]
            counted = len(moved)
        else:
            moved = [one for one in change.contact_ids if change.status == "Removed" or one in before]
            counted = sum(one in before for one in moved)
        groups.set_status(
            conn, group_id, moved, change.status, method=change.method, at=request.now(), tracking=change.tracking
        )
        done += counted
        total += len(change.contact_ids)
    return Result(1, extra=_counts(change.status, total, done))


def _counts(status: str, total: int, done: int) -> dict[str, int]:
    """What ``create`` and ``delete`` answer; of rows taken away CiviCRM counts nothing."""
    if status in ("Added", "Pending"):
        return {"total_count": total, "added": done, "not_added": total - done}
    if status == "Deleted":
        return {"total_count": total, "removed": 0, "not_removed": 0}
    return {"total_count": total, "removed": done, "not_removed": total - done}


def _unknown(conn: Connection, contact_ids: Sequence[int]) -> list[int]:
    known: set[int] = set()
    for start in range(0, len(contact_ids), groups.CHUNK):
        part = contact_ids[start : start + groups.CHUNK]
        known.update(conn.execute(select(contact.c.id).where(contact.c.id.in_(part))).scalars())
    return [one for one in contact_ids if one not in known]


# ---- get --------------------------------------------------------------------------------------------------------


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters; for one contact, that contact's groups with when and how they came to it."""
    contact_id = request.params.get("contact_id")
    if not isinstance(contact_id, int) or any("." in name for name in request.params):
        return crud.get(conn, request)
    rows = _groups_of(conn, request, contact_id)
    return Result(len(rows), bare=True) if request.options.is_count else Result(rows)


def _groups_of(conn: Connection, request: Request, contact_id: int) -> list[dict[str, Any]]:
    columns = (member.c.id, member.c.group_id, member.c.status, group.c.title, group.c.visibility, group.c.is_hidden)
    theirs = [member.c.contact_id == contact_id, *_wanted(request)]
    if (seen := visible(request.caller, member.c.contact_id)) is not None:
        theirs.append(seen)
    usual = and_(group.c.is_active == 1, group.c.is_hidden == 0, group.c.saved_search_id.is_(None))
    found = conn.execute(
        select(*columns).join(group, group.c.id == member.c.group_id).where(*theirs, usual).order_by(member.c.id)
    ).all()
    words = _last_words(conn, contact_id, [row.group_id for row in found])
    return [_shown(row, contact_id, words) for row in found]


def _wanted(request: Request) -> list[ColumnElement[bool]]:
    """Conditions from the plain and IN filters on group, status and id; ``Added`` unless a status or an id is given."""
    conditions: list[ColumnElement[bool]] = []
    for name in ("group_id", "status", "id"):
        value = request.params.get(name)
        if isinstance(value, dict) and "IN" in value:
            conditions.append(member.c[name].in_(value["IN"]))
        elif value is not None and not isinstance(value, dict):
            conditions.append(member.c[name] == value)
    return conditions


def _last_words(conn: Connection, contact_id: int, group_ids: Sequence[int]) -> dict[tuple[int, str], Any]:
    """The latest history row of each group and status."""
    last = (
        select(func.max(history.c.id))
        .where(history.c.contact_id == contact_id, history.c.group_id.in_(group_ids))
        .group_by(history.c.group_id, history.c.status)
    )
    rows = conn.execute(select(history).where(history.c.id.in_(last)))
    return {(row.group_id, row.status): row for row in rows}


def _shown(row: Any, contact_id: int, words: Mapping[tuple[int, str], Any]) -> dict[str, Any]:
    shown = {
        "id": row.id,
        "group_id": row.group_id,
        "contact_id": contact_id,
        "status": row.status,
        "title": row.title,
        "visibility": row.visibility,
        "is_hidden": row.is_hidden,
    }
    if (prefix := PREFIXES.get(row.status)) and (word := words.get((row.group_id, row.status))):
        shown |= {f"{prefix}_date": word.date, f"{prefix}_method": word.method}
    if row.status == "Removed" and (joined := words.get((row.group_id, "Added"))):
        shown["date_added"] = joined.date
    return shown


_MORE = (
    Field("method", title="Method", description="How the change came about; at most 8 characters.", default="API"),
    Field("tracking", title="Tracking", max_length=255),
)
_MEANT = (Field("id", INT), Field("group_id", INT, fk="Group"), Field("contact_id", INT, fk="Contact"))

GROUP_CONTACT = Entity(
    "GroupContact",
    table=member,
    title="Group Contact",
    description="Who stands where in which group.",
    fields=(
        Field("id", INT, title="Group Contact ID", keeps=False),
        GROUP_ID,
        CONTACT_ID,
        Field("status", title="Group Contact Status", max_length=8, options=STATUS, default_by={"get": "Added"}),
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
            params=(*_MEANT, Field("skip_undelete", title="Take the row away"), *_MORE),
        ),
    ),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM", "edit all contacts"),
        "delete": ("access CiviCRM", "edit all contacts"),
    },
    contact_field="contact_id",
)
