"""get, create and delete from a declaration; an entity passes functions for its own rules."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update
from sqlalchemy.types import TypeEngine

from civiapi.api import query
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import DATE, DATES, INT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result, Run
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import is_empty
from civiapi.api.permissions import CONTACT_TABLE, check_new_owner, check_old_owner, check_subject
from civiapi.store.databases.compiled_query import Binder
from civiapi.store.schema.live_columns import demanded_columns, live_values
from civiapi.store.text.encoded_text import decode, is_encoded

# Stores a row: (conn, request, values by column, id of the row to update or None) → the row's id.
Save = Callable[[Connection, Request, dict[str, Any], int | None], int]
# Removes an existing row: (conn, request, id).
Remove = Callable[[Connection, Request, int], None]


GET = Action("get", run=query.get, short=True, single=True)


def actions(save: Save | None = None, remove: Remove | None = None, *, get: Run = query.get) -> tuple[Action, ...]:
    """get, create and delete of an entity with a table; *save* and *remove* apply its own rules."""
    return (Action("get", run=get, short=True, single=True), create_action(save), delete_action(remove))


def create_action(save: Save | None = None) -> Action:
    """``create``: insert, or update where an id is given."""

    def create(conn: Connection, request: Request) -> Result:
        given = columns_given(request)
        check_owners(conn, request, given)
        row_id = (save or store)(conn, request, given, request.id)
        return Result([created_row(conn, request, row_id, given)])

    return Action("create", run=create, writes=True)


def check_owners(conn: Connection, request: Request, given: Mapping[str, Any]) -> None:
    """Raise ``ApiError`` unless the caller may write for the contact that owns the row, and for the one that will."""
    entity, row_id = request.entity, request.id
    owner, kind = entity.contact_field, entity.contact_table_field
    if not owner:
        return
    if row_id is not None:
        check_old_owner(conn, request, row_id, f"No {entity.name} with id {row_id}")
    if row_id is not None and owner not in given and (not kind or kind not in given):
        return
    after: Mapping[str, Any] = given
    if kind and row_id is not None:  # one of the two is as it was
        table = table_of(entity)
        before = conn.execute(select(table.c[owner], table.c[kind]).where(table.c.id == row_id)).mappings().one()
        after = {**before, **given}
    if kind and str(after.get(kind)).lower() != CONTACT_TABLE:
        check_subject(conn, request, owner, str(after.get(kind)), after[owner])
    else:
        check_new_owner(conn, request, owner, after.get(owner))


def delete_action(remove: Remove | None = None) -> Action:
    """``delete`` by id."""

    def run(conn: Connection, request: Request) -> Result:
        row_id, absent = request.params["id"], f"Could not delete entity id {request.params['id']}"
        table = table_of(request.entity)
        if request.entity.contact_field:
            check_old_owner(conn, request, row_id, absent)
        elif conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
            raise ApiError(absent)
        (remove or erase)(conn, request, row_id)
        return Result(1)

    return Action("delete", run=run, writes=True, params=(Field("id", INT, required_by={"delete"}),))


def table_of(entity: Entity) -> Any:
    """The table of an entity that has one."""
    assert entity.table is not None, f"{entity.name} has no table"  # noqa: S101  a declaration's mistake
    return entity.table


def columns_given(request: Request) -> dict[str, Any]:
    """The columns that the parameters set, with their stored values."""
    given: dict[str, Any] = {}
    for field in request.entity.written:
        if field.name in request.params:
            value = request.params[field.name]
            given[field.name] = lists.pack(value) if field.multiple and isinstance(value, list) else value
    return given


def store(conn: Connection, request: Request, given: Mapping[str, Any], row_id: int | None) -> int:
    """Insert a row, or update the one with this id. Raises ``ApiError`` if there is no such row."""
    table = table_of(request.entity)
    if row_id is None:
        check_insert(conn, table)
        key = conn.execute(insert(table), without_nulls(conn, table, given)).inserted_primary_key
        return int(key[0]) if key else 0
    if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise ApiError(f"No {request.entity.name} with id {row_id}", 0)
    if values := without_nulls(conn, table, given, zero=True):
        conn.execute(update(table).where(table.c.id == row_id).values(values))
    return row_id


def check_insert(conn: Connection, table: Any) -> None:
    """Raise ``ApiError`` where new rows need a value for a column that no declaration has: CiviCRM makes them."""
    if unknown := demanded_columns(conn).get(table.name):
        names = ", ".join(sorted(unknown))
        raise ApiError(
            f"New rows of {table.name} need a value for {names}, which only CiviCRM knows; create them there"
        )


def without_nulls(conn: Connection, table: Any, given: Mapping[str, Any], *, zero: bool = False) -> dict[str, Any]:
    """*given* without NULLs for NOT NULL columns: these get their default. Columns that are not there are left out."""
    values = live_values(conn, table, given)
    for name in [name for name, value in values.items() if value is None and not table.c[name].nullable]:
        default = table.c[name].server_default
        if zero and default is not None:
            values[name] = default.arg if isinstance(default.arg, str) else default.arg.text
        else:
            del values[name]
    return values


def erase(conn: Connection, request: Request, row_id: int) -> None:
    """Remove the row."""
    table = table_of(request.entity)
    conn.execute(delete(table).where(table.c.id == row_id))


def created_row(conn: Connection, request: Request, row_id: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of ``create``: the values given, all other columns ``""``, dates compact (contract 4.3).

    ``options.reload`` adds the row as ``get`` reads it.
    """
    row: dict[str, Any] = {"id": str(row_id)}
    for field in request.entity.fields:
        if field.name != "id" and request.entity.column(field.name) is not None:
            row[field.name] = _echo(field, given.get(field.name), table_of(request.entity).c[field.name].type)
    if not is_empty(request.options.raw.get("reload")):
        row |= fresh_row(conn, request, row_id)
    return row


def _echo(field: Field, value: Any, stored: TypeEngine[Any]) -> Any:
    if value is None:
        return ""
    if is_encoded(stored) and isinstance(value, str):  # it may have been sent encoded
        value = decode(value)
    if field.multiple and isinstance(value, str):
        return lists.unpack(value)
    if field.type in DATES and isinstance(value, str):
        compact = value.replace("-", "").replace(":", "").replace(" ", "")
        return compact if field.type == DATE else compact.ljust(14, "0")
    return str(value)


def fresh_row(conn: Connection, request: Request, row_id: int) -> dict[str, Any]:
    """The row in the table, with ``""`` for empty columns."""
    entity = request.entity
    compiled = query.compiled_query(
        conn, ("fresh", entity.name, request.registry.access.key), partial(_whole_row, request)
    )
    [found] = query.texts(compiled, compiled.rows(conn, [row_id], request.caller.contact_id))
    row: dict[str, Any] = dict(zip(compiled.keys, found, strict=True))
    for name in entity.several:
        if row.get(name):
            row[name] = lists.unpack(row[name])
    return row


def _whole_row(request: Request, bind: Binder) -> tuple[Select[Any], tuple[str, ...]]:
    registry, entity, table = request.registry, request.entity, table_of(request.entity)
    readable = {field.name: query.readable(registry, entity, table, field.name) for field in entity.fields}
    columns = {name: column for name, column in readable.items() if column is not None}
    return select(*columns.values()).where(table.c.id == bind()), tuple(columns)
