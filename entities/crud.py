"""get, create and delete made from a declaration. An entity with rules of its own passes functions that know them."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from civiapi import options as lists
from civiapi import query
from civiapi.envelope import scalar
from civiapi.errors import ApiError
from civiapi.request import Request, is_empty
from civiapi.spec import DATE, DATES, INT, Action, Entity, Field, Result, Run

# Stores a row: (conn, request, values by column, id of the row to change or None) → the row's id.
Save = Callable[[Connection, Request, dict[str, Any], int | None], int]
# Removes a row that exists: (conn, request, id).
Remove = Callable[[Connection, Request, int], None]


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters."""
    return query.get(conn, request)


GET = Action("get", run=get)


def actions(save: Save | None = None, remove: Remove | None = None, *, get: Run = get) -> tuple[Action, ...]:
    """The three plain actions of an entity with a table, with its own rules for storing and removing a row."""
    return (Action("get", run=get), create_action(save), delete_action(remove))


def create_action(save: Save | None = None) -> Action:
    """``create``: insert, or update where an id is given."""

    def create(conn: Connection, request: Request) -> Result:
        given = columns_given(request)
        row_id = (save or store)(conn, request, given, request.id)
        return Result([created_row(conn, request, row_id, given)])

    return Action("create", run=create, writes=True)


def delete_action(remove: Remove | None = None) -> Action:
    """``delete`` by id."""

    def run(conn: Connection, request: Request) -> Result:
        row_id = request.params["id"]
        table = table_of(request.entity)
        if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
            raise ApiError(f"Could not delete entity id {row_id}")
        (remove or erase)(conn, request, row_id)
        return Result(1)

    return Action("delete", run=run, writes=True, params=(Field("id", INT, required_by={"delete"}),))


def table_of(entity: Entity) -> Any:
    """The table of an entity that has one."""
    assert entity.table is not None, f"{entity.name} has no table"  # noqa: S101  a declaration's mistake
    return entity.table


def columns_given(request: Request) -> dict[str, Any]:
    """The columns that the parameters set, as the store keeps them."""
    entity = request.entity
    given: dict[str, Any] = {}
    for field in entity.fields:
        if (
            field.keeps
            and field.name != "id"
            and field.name in request.params
            and entity.column(field.name) is not None
        ):
            value = request.params[field.name]
            given[field.name] = lists.pack(value) if field.multiple and isinstance(value, list) else value
    return given


def store(conn: Connection, request: Request, given: Mapping[str, Any], row_id: int | None) -> int:
    """Insert a row, or change the one with this id. Raises ``ApiError`` for an id that is not there."""
    table = table_of(request.entity)
    if row_id is None:
        key = conn.execute(insert(table), without_nulls(table, given)).inserted_primary_key
        return int(key[0]) if key else 0
    if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise ApiError(f"No {request.entity.name} with id {row_id}", 0)
    if values := without_nulls(table, given, zero=True):
        conn.execute(update(table).where(table.c.id == row_id).values(values))
    return row_id


def without_nulls(table: Any, given: Mapping[str, Any], *, zero: bool = False) -> dict[str, Any]:
    """*given* without NULLs for columns that cannot hold them: left to their default, or set to 0 in an update."""
    out = {}
    for name, value in given.items():
        column = table.c[name]
        if value is not None or column.nullable:
            out[name] = value
        elif zero and column.server_default is not None:
            out[name] = column.server_default.arg.text
    return out


def erase(conn: Connection, request: Request, row_id: int) -> None:
    """Remove the row."""
    table = table_of(request.entity)
    conn.execute(delete(table).where(table.c.id == row_id))


def created_row(conn: Connection, request: Request, row_id: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The row that ``create`` answers: what was given, every other column ``""``, dates compact (contract 4.3).

    ``options.reload`` adds the row as ``get`` reads it.
    """
    row: dict[str, Any] = {"id": str(row_id)}
    for field in request.entity.fields:
        if field.name != "id" and request.entity.column(field.name) is not None:
            row[field.name] = _echo(field, given.get(field.name))
    if not is_empty(request.options.raw.get("reload")):
        row |= fresh_row(conn, request, row_id)
    return row


def _echo(field: Field, value: Any) -> Any:
    if value is None:
        return ""
    if field.multiple and isinstance(value, str):
        return lists.unpack(value)
    if field.type in DATES and isinstance(value, str):
        compact = value.replace("-", "").replace(":", "").replace(" ", "")
        return compact if field.type == DATE else compact.ljust(14, "0")
    return str(value)


def fresh_row(conn: Connection, request: Request, row_id: int) -> dict[str, Any]:
    """The row as it stands in the table, every empty column ``""``."""
    table = table_of(request.entity)
    names = [f.name for f in request.entity.fields if request.entity.column(f.name) is not None]
    plan = query.planned(
        conn,
        ("fresh", request.entity.name),
        lambda bind: (select(*[table.c[name] for name in names]).where(table.c.id == bind()), tuple(names)),
    )
    found = plan.rows(conn, [row_id])[0]
    row: dict[str, Any] = {}
    for name, value in zip(names, found, strict=True):
        packed = request.entity.by_name[name].multiple and isinstance(value, str)
        row[name] = "" if value is None else lists.unpack(value) if packed else scalar(value)
    return row
