"""OptionGroup and OptionValue: the lists of choices of coded fields, such as genders and phone types."""

from typing import Any

from sqlalchemy import Connection, Integer, cast, func, select

from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, Field, OptionTable
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.schema import tables
from civiapi.store.text.encoded_text import cut
from entities.actions import crud

option_value = tables.option_value
MAX_NAME = 255


def save_group(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a list; one without a title is called by its name."""
    if row_id is None:
        given["title"] = given.get("title") or given["name"]
    lists.forget(conn)
    return crud.store(conn, request, given, row_id)


def save_value(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a choice; a new one gets the next number and place in its list, and its label as its name."""
    if row_id is None:
        theirs = option_value.c.option_group_id == given["option_group_id"]
        if given.get("value") in (None, ""):
            number = func.max(cast(option_value.c.value, Integer))
            given["value"] = str((conn.execute(select(number).where(theirs)).scalar() or 0) + 1)
        if given.get("weight") is None:
            given["weight"] = (conn.execute(select(func.max(option_value.c.weight)).where(theirs)).scalar() or 0) + 1
        if not given.get("name") and given["label"]:
            given["name"] = cut(given["label"], MAX_NAME)
    lists.forget(conn)
    return crud.store(conn, request, given, row_id)


def remove(conn: Connection, request: Request, row_id: int) -> None:
    """Remove a list or a choice."""
    lists.forget(conn)
    crud.erase(conn, request, row_id)


OPTION_GROUP = Entity(
    "OptionGroup",
    table=tables.option_group,
    title="Option Group",
    description="A list of choices; the choices are in OptionValue.",
    fields=(
        Field("id", INT, title="Option Group ID", writable=False),
        Field("name", title="Option Group Name", required_by={"create"}, max_length=64),
        Field("title", title="Option Group Title", max_length=255),
        Field("description", TEXT, title="Option Group Description"),
        Field("data_type", title="Data Type for this option group", max_length=128),
        Field("is_reserved", BOOLEAN, title="Option Group Is Reserved", default=1),
        Field("is_active", BOOLEAN, title="Enabled", default=1),
        Field("is_locked", BOOLEAN, title="Option Group Is Locked", default=0),
    ),
    actions=crud.actions(save_group, remove),
    permissions={"get": ("access CiviCRM",)},
    label_field="title",
)

OPTION_VALUE = Entity(
    "OptionValue",
    table=option_value,
    title="Option Value",
    description="One choice of a list.",
    fields=(
        Field("id", INT, title="Option Value ID", writable=False),
        Field(
            "option_group_id",
            INT,
            title="Option Group ID",
            required_by={"create"},
            fk="OptionGroup",
            options=OptionTable(tables.option_group),
        ),
        Field("label", title="Option Label", required_by={"create"}, max_length=512),
        Field("value", title="Option Value", max_length=512),
        Field("name", title="Option Name", max_length=MAX_NAME),
        Field("grouping", title="Option Grouping Name", max_length=255),
        Field("filter", INT, title="Filter", default=0),
        Field("is_default", BOOLEAN, title="Option is Default?", default=0),
        Field("weight", INT, title="Order"),
        Field("description", TEXT, title="Option Description"),
        Field("is_optgroup", BOOLEAN, title="Option is Header?", default=0),
        Field("is_reserved", BOOLEAN, title="Option is Reserved?", default=0),
        Field("is_active", BOOLEAN, title="Enabled", default=1),
        Field("component_id", INT, title="Component ID"),
        Field("domain_id", INT, title="Domain ID", fk="Domain"),
        Field("visibility_id", INT, title="Option Visibility"),
        Field("icon", title="Icon", max_length=255),
        Field("color", title="Color", max_length=255),
    ),
    actions=crud.actions(save_value, remove),
    permissions={"get": ("access CiviCRM",)},
    label_field="label",
    list_sort="weight",
)
