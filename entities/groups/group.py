"""Group: lists of contacts; their members are in GroupContact.

The name is derived from the title and the new id. Name and title are each unique; an update without ``group_type``
keeps it (CiviCRM clears it); ``member_count`` is only answered when asked for.
"""

import re
import secrets
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from civiapi.api import query
from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, TIMESTAMP, Field, FixedOptions, OptionGroup
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.permissions import contacts_seen
from civiapi.store.civicrm.group_membership import GroupStatus
from civiapi.store.schema import tables
from entities.actions import crud
from entities.groups import nesting

VISIBILITY = FixedOptions.named("User and User Admin Only", "Public Pages")
MAX_STEM = 31  # of a title inside a name

group = tables.group


def get(conn: Connection, request: Request) -> Result:
    """The groups that meet the filters, with ``member_count`` if it is among the columns asked for."""
    found = query.get(conn, request)
    if "member_count" in request.returns and isinstance(found.values, list):
        counts = _member_counts(conn, request, [int(row["id"]) for row in found.values])
        for row in found.values:
            row["member_count"] = str(counts.get(int(row["id"]), 0))
    return found


def _member_counts(conn: Connection, request: Request, ids: list[int]) -> dict[int, int]:
    """The number of undeleted contacts with status Added by group, as far as the caller sees them; absent: none."""
    members, contact = tables.group_contact, tables.contact
    seen = contacts_seen(request, contact.c.id)
    rows = conn.execute(
        select(members.c.group_id, func.count().label("members"))
        .join(contact, contact.c.id == members.c.contact_id)
        .where(members.c.group_id.in_(ids), members.c.status == GroupStatus.ADDED, contact.c.is_deleted == 0, *seen)
        .group_by(members.c.group_id)
    )
    return {row.group_id: row.members for row in rows}


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a group, inside its parents; a new one without a name is named after its title and id."""
    nested = "parents" in given
    parents = nesting.read_parents(conn, given.pop("parents", None), row_id)
    saved_id = _store(conn, request, given, row_id)
    if nested:
        nesting.set_parents(conn, saved_id, parents)
        given["parents"] = ",".join(map(str, parents))
    return saved_id


def _store(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    if row_id is not None:
        given["modified_id"] = given.get("modified_id") or request.caller.contact_id
        return crud.store(conn, request, given, row_id)
    given["frontend_title"] = given.get("frontend_title") or given["title"]
    given["created_id"] = given.get("created_id") or request.caller.contact_id
    if given.get("name"):
        return crud.store(conn, request, given, None)
    given["name"] = secrets.token_hex(16)  # until the id is known, which is the end of the name
    new_id = crud.store(conn, request, given, None)
    given["name"] = name_of(given["title"], new_id)
    conn.execute(update(group).where(group.c.id == new_id).values(name=given["name"]))
    return new_id


def name_of(title: str, group_id: int) -> str:
    """The default name of a group: ``My News`` → ``My_News_7``."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', title)[:MAX_STEM]}_{group_id}"


def remove(conn: Connection, request: Request) -> Result:
    """Delete a group with its memberships and their history."""
    group_id = request.params["id"]
    if conn.execute(select(group.c.id).where(group.c.id == group_id)).first() is None:
        raise ApiError(f"Could not delete group {group_id}")
    nesting.remove_from_nesting(conn, group_id)
    for table in (tables.group_contact, tables.subscription_history):
        conn.execute(delete(table).where(table.c.group_id == group_id))
    conn.execute(delete(group).where(group.c.id == group_id))
    return Result(1)


GROUP = Entity(
    "Group",
    table=group,
    title="Group",
    description="A list of contacts.",
    fields=(
        Field("id", INT, title="Group ID", writable=False),
        Field("name", title="Group Name", max_length=64),
        Field("title", title="Group Title", required_by={"create"}, max_length=255),
        Field("description", TEXT, title="Group Description"),
        Field("source", title="Group Source", max_length=64),
        Field("saved_search_id", INT, title="Saved Search ID"),
        Field("is_active", BOOLEAN, title="Group Enabled", default=1, default_by={"create": 1}),
        Field(
            "visibility",
            title="Group Visibility",
            options=VISIBILITY,
            default="User and User Admin Only",
            max_length=24,
        ),
        Field("group_type", title="Group Type", options=OptionGroup("group_type"), multiple=True, max_length=128),
        Field("cache_date", TIMESTAMP, title="Group Cache Date"),
        Field("refresh_date", TIMESTAMP, title="Next Group Refresh Time"),
        Field("parents", TEXT, title="Group Parents", accepts_nested=True, description="Ids of groups, with commas."),
        Field("children", TEXT, title="Group Children", writable=False),
        Field("is_hidden", BOOLEAN, title="Group is Hidden", default=0),
        Field("is_reserved", BOOLEAN, title="Group is Reserved", default=0),
        Field("created_id", INT, title="Created By Contact ID", fk="Contact"),
        Field("modified_id", INT, title="Modified By Contact ID", fk="Contact"),
        Field("frontend_title", title="Public Group Title", max_length=255),
        Field("frontend_description", TEXT, title="Public Group Description"),
    ),
    actions=(
        Action("get", run=get, short=True, single=True),
        crud.create_action(save),
        Action("delete", run=remove, writes=True, params=(Field("id", INT, required_by={"delete"}),)),
    ),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM", "edit groups"),
        "delete": ("access CiviCRM", "edit groups"),
    },
    label_field="title",
    description_fields=("description",),
)
