"""Custom fields: fields that a site adds to an entity, each a column of the table of its group.

They are called ``custom_N``, N the id in ``civicrm_custom_field``. Callers need the permission ``access all custom
data``; for others they do not exist.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Double, Integer, MetaData, Numeric, Table, func, insert, select, update

from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import BOOLEAN, DATETIME, FLOAT, INT, MONEY, STRING, TEXT, Field, OptionGroup, Type
from civiapi.api.declaration.spec import Request
from civiapi.api.errors import ApiError, Unauthorized
from civiapi.api.parameters.options import integer
from civiapi.api.parameters.params import check_value
from civiapi.api.permissions import unseen_contacts
from civiapi.api.store_errors import no_such_reference
from civiapi.store.databases.column_types import SiteTime, civicrm_long_text, civicrm_text, flag, long_text, row_id
from civiapi.store.schema.tables import custom_field, custom_group, option_group

PERMISSION = "access all custom data"
PREFIX = "custom_"
_NAME = re.compile(r"custom_(\d{1,9})")
_IDENTIFIER = re.compile(r"\w{1,64}")
_TYPES: Mapping[str, Type] = {
    "int": INT, "float": FLOAT, "money": MONEY, "memo": TEXT, "date": DATETIME, "boolean": BOOLEAN, "country": INT,
    "stateprovince": INT, "file": INT, "contactreference": INT, "entityreference": INT,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class CustomField:
    """A custom field: where its values are, and the declaration by which they are checked."""

    id: int
    table_name: str
    column_name: str
    field: Field
    extends: str
    has_several_rows: bool
    is_html: bool
    data_type: str
    """CiviCRM's, in lower case: ``string``, ``country``, ``stateprovince``…"""

    @property
    def name(self) -> str:
        """``custom_N``."""
        return self.field.name

    def hides_contacts(self, request: Request) -> bool:
        """Whether the lists of this field may name contacts that the caller does not see."""
        return self.field.multiple and bool(self.field.fk) and not request.registry.access.sees_everybody

    @property
    def shape(self) -> Hashable:
        """All that determines the SQL of this field."""
        several = self.field.multiple, self.has_several_rows
        return self.name, self.table_name, self.column_name, self.field.type, self.field.fk, *several, self.is_html

    def table(self) -> Table:
        """The table of its group, with this column, outside of the program's own tables."""
        return Table(
            self.table_name,
            MetaData(),
            Column("id", row_id(), primary_key=True, autoincrement=True),
            Column("entity_id", row_id(), nullable=False),
            Column(self.column_name, self._type()),
        )

    def _type(self) -> Any:
        if self.field.multiple or self.field.type == STRING:
            return civicrm_text(255)
        return {
            TEXT: long_text() if self.is_html else civicrm_long_text(),
            BOOLEAN: flag(),
            DATETIME: SiteTime(),
            FLOAT: Double(),
            MONEY: Numeric(20, 2),
        }.get(self.field.type, Integer())


def named(names: Iterable[str]) -> tuple[str, ...]:
    """The names that are of custom fields."""
    return tuple(name for name in names if name.startswith(PREFIX))


def load(conn: Connection, request: Request, names: Iterable[str] | None = None) -> dict[str, CustomField]:
    """The active custom fields of the request's entity that its caller may use: those of *names*, or all."""
    extends = request.entity.extended_by
    if not extends or not request.caller.may(PERMISSION):
        return {}
    return read_fields(conn, extends, names)


def read_fields(conn: Connection, extends: Iterable[str], names: Iterable[str] | None = None) -> dict[str, CustomField]:
    """The active custom fields of these kinds of records: those of *names*, or all; in the order of CiviCRM's forms."""
    field, group = custom_field.c, custom_group.c
    asked = (
        select(
            *(field[name] for name in ("id", "label", "data_type", "html_type", "column_name", "serialize")),
            *(group[name] for name in ("table_name", "extends", "is_multiple")),
            option_group.c.name.label("list"),
        )
        .join(custom_group, group.id == field.custom_group_id)
        .outerjoin(option_group, option_group.c.id == field.option_group_id)
        .where(group.is_active == 1, field.is_active == 1, group.extends.in_(list(extends)))
        .order_by(group.weight, group.id, field.weight, field.id)
    )
    if names is not None:
        asked = asked.where(field.id.in_([int(found[1]) for name in names if (found := _NAME.fullmatch(name))]))
    rows = [_declared(row) for row in conn.execute(asked)]
    return {one.name: one for one in rows if one is not None}


def _declared(row: Any) -> CustomField | None:
    if not (_IDENTIFIER.fullmatch(row.table_name or "") and _IDENTIFIER.fullmatch(row.column_name or "")):
        return None
    kind = row.data_type.lower()
    several = bool(row.serialize) or row.html_type.lower() in ("checkbox", "multi-select")
    declared = Field(
        f"{PREFIX}{row.id}",
        STRING if several else _TYPES.get(kind, STRING),
        title=row.label,
        max_length=255 if kind in ("string", "link") or several else None,
        options=OptionGroup(row.list) if row.list and kind != "boolean" else None,
        multiple=several,
        fk="Contact" if kind == "contactreference" else "",
    )
    is_html = row.html_type.lower() == "richtexteditor"
    return CustomField(
        row.id, row.table_name, row.column_name, declared, row.extends, bool(row.is_multiple), is_html, kind
    )


def given(conn: Connection, request: Request) -> dict[CustomField, Any]:
    """The values of custom fields among the parameters of a ``create``, checked.

    Raises ``ApiError`` for a field that there is not for this caller, or that has several rows a record.
    """
    names = named(request.params)
    if not names:
        return {}
    if not request.caller.may(PERMISSION):
        raise Unauthorized(f"Permission denied to modify {names[0]}; insufficient permission: require {PERMISSION}")
    known, found = load(conn, request, names), {}
    for name in names:
        one = known.get(name)
        if one is None or one.has_several_rows:
            raise ApiError(f"{request.entity.name} has no field '{name}' that can be written", 2000)
        checked = check_value(conn, request, "write", one.field, request.params[name])
        if one.field.fk and request.params[name] is not None:
            checked = _contacts(conn, request, one, checked)
        if checked is not None or request.params[name] is not None:
            found[one] = lists.pack(checked) if isinstance(checked, list) else checked
    return found


def _contacts(conn: Connection, request: Request, one: CustomField, given: Any) -> Any:
    """The value to store: the contacts *given*, and those stored that the caller does not see.

    Raises ``ApiError`` for one that does not exist for the caller, unless they may have read it there, and for what is
    no id.
    """
    several = [] if given is None else given if isinstance(given, list) else [given]
    ids = [check_value(conn, request, "write", Field(one.name, INT), each) for each in several]
    stored = [] if request.id is None else _stored_ids(conn, one, request.id)
    unseen = unseen_contacts(conn, request, [*ids, *stored])
    sees_every = request.registry.access.sees_everybody  # also the ids of contacts that were deleted for good
    for each in ids:
        if each in unseen and not (sees_every and each in stored):
            raise no_such_reference(one.name, each)
    kept = [] if sees_every else [each for each in stored if each in unseen]
    if one.field.multiple:
        return [*several, *map(str, kept)] or None
    return kept[0] if given is None and kept else given


def _stored_ids(conn: Connection, one: CustomField, entity_id: int) -> list[int]:
    """The contacts in a field of a record."""
    table = one.table()
    stored = conn.execute(select(table.c[one.column_name]).where(table.c.entity_id == entity_id)).scalar()
    texts = [] if stored is None else lists.unpack(stored) if one.field.multiple else [stored]
    return [found for text in texts if (found := integer(text)) is not None]


def write(conn: Connection, values: Mapping[CustomField, Any], entity_id: int) -> None:
    """Store the values of a record, which may have none yet."""
    for one, value in values.items():
        table = one.table()
        mine = table.c.entity_id == entity_id
        if conn.execute(select(func.count()).select_from(table).where(mine)).scalar():
            conn.execute(update(table).where(mine).values({one.column_name: value}))
        else:
            conn.execute(insert(table).values({"entity_id": entity_id, one.column_name: value}))
