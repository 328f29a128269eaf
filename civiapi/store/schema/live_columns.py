"""Which of the declared columns a database has: CiviCRM's tables differ by version.

A database is asked once. What it lacks is named in no statement, is no field of the API, and reads as nothing.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Connection, Engine, Table

from civiapi.store.databases import dialect
from civiapi.store.databases.languages import views_of
from civiapi.store.schema.tables import METADATA

Columns = Mapping[str, frozenset[str]]
_known: "WeakKeyDictionary[Engine, tuple[Columns, Columns]]" = WeakKeyDictionary()
_names: "WeakKeyDictionary[Engine, frozenset[str]]" = WeakKeyDictionary()


def absent_columns(conn: Connection) -> Columns:
    """The declared columns that tables of this database lack, by table; tables that lack none are left out."""
    return _differences(conn)[0]


def demanded_columns(conn: Connection) -> Columns:
    """The columns that are not declared and that a new row must have a value for, by table, likewise."""
    return _differences(conn)[1]


def _differences(conn: Connection) -> tuple[Columns, Columns]:
    found = _known.get(conn.engine)
    if found is None:
        absent, demanded = {}, {}
        for name, there in dialect.foreign_columns(conn).items():
            if (table := METADATA.tables.get(name)) is not None:
                absent[name] = frozenset(table.c.keys()) - frozenset(there)
                demanded[name] = frozenset(column for column, needed in there.items() if needed) - frozenset(
                    table.c.keys()
                )
        found = _filled(absent), _filled(demanded)
        _known[conn.engine] = found
    return found


def _filled(columns: Columns) -> Columns:
    return {table: names for table, names in columns.items() if names}


def absent_names(conn: Connection) -> frozenset[str]:
    """The same as one set of names, ``table.column``, and the views that stand for tables: what statements of this
    database differ by."""
    found = _names.get(conn.engine)
    if found is None:
        absent = {f"{table}.{name}" for table, names in absent_columns(conn).items() for name in names}
        found = frozenset(absent | set(views_of(conn.dialect).values()))
        _names[conn.engine] = found
    return found


def live_columns(conn: Connection, table: Table) -> list[Column[Any]]:
    """The columns of a table that this database has."""
    absent = absent_columns(conn).get(table.name, frozenset())
    return [column for column in table.c if column.name not in absent]


def live_values(conn: Connection, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of *values* by column, those that this database has a place for."""
    absent = absent_columns(conn).get(table.name)
    return {name: value for name, value in values.items() if name not in absent} if absent else dict(values)
