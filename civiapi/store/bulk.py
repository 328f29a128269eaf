"""Many rows from Python at once: the statement compiled by Core, the rows handed to the driver as tuples.

Core's own executemany takes a dictionary a row and processes each value, three times the price of the insert itself.
Columns are named by the table's declaration and values are bound: they must be as the driver takes them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, update
from sqlalchemy.sql.dml import UpdateBase

from civiapi.store.dialect import joined_update, one_by_one, upsert_statement

AT_ONCE = 500

Rows = Sequence[tuple[Any, ...]]


def insert_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Insert *rows*, each with its values in the order of *columns*."""
    if rows:
        _run(conn, insert(table).values(_bound(columns)), columns, rows)


def upsert_rows(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, key: Sequence[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* stands, set its columns *set_* instead."""
    if rows:
        _run(conn, upsert_statement(conn.dialect, table, _bound(columns), key, set_), columns, rows)


def update_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Set *columns* of the rows whose ``id`` is the last value of each tuple."""
    if rows and one_by_one(conn):
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            words = joined_update(conn.dialect, table, columns, len(part))
            conn.exec_driver_sql(words, tuple(value for row in part for value in row))
    elif rows:
        statement = update(table).where(table.c.id == bindparam("v_id")).values(_bound(columns))
        _run(conn, statement, [*columns, "id"], rows)


def _bound(columns: Sequence[str]) -> dict[str, Any]:
    return {name: bindparam(f"v_{name}") for name in columns}


def _run(conn: Connection, statement: UpdateBase, columns: Sequence[str], rows: Rows) -> None:
    compiled = statement.compile(dialect=conn.dialect)
    given = [f"v_{name}" for name in columns]
    wanted = list(compiled.positiontup or ())
    if wanted != given:  # Core puts columns in the table's order
        places = [given.index(name) for name in wanted]
        rows = [tuple(row[place] for place in places) for row in rows]
    conn.exec_driver_sql(compiled.string, list(rows))
