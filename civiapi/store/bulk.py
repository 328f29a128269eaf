"""Many rows from Python at once: the statement compiled by Core, the rows handed to the driver as tuples.

Core's own executemany takes a dictionary a row and processes each value, several times the price of the insert
itself. Columns are named by the table's declaration, values are bound; no text from a caller reaches SQL.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, update
from sqlalchemy.sql.dml import UpdateBase

from civiapi.store.dialect import upsert_statement

Rows = Sequence[tuple[Any, ...]]


def insert_tuples(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Insert *rows*, their values in the order of *columns*, which is the table's."""
    if rows:
        statement = insert(table).values({name: bindparam(f"v_{name}") for name in columns})
        _run(conn, statement, [f"v_{name}" for name in columns], rows)


def upsert_tuples(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, key: Sequence[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* stands, set its columns *set_* instead."""
    if not rows:
        return
    values: dict[str, Any] = {name: bindparam(f"v_{name}") for name in columns}
    statement = upsert_statement(conn.dialect, table, values, key, set_)
    _run(conn, statement, [f"v_{name}" for name in columns], rows)


def update_tuples(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Set *columns* of the rows whose ``id`` is the last value of each tuple."""
    if rows:
        values: dict[str, Any] = {name: bindparam(f"v_{name}") for name in columns}
        statement = update(table).where(table.c.id == bindparam("row_id")).values(values)
        _run(conn, statement, [*(f"v_{name}" for name in columns), "row_id"], rows)


def _run(conn: Connection, statement: UpdateBase, order: Sequence[str], rows: Rows) -> None:
    compiled = statement.compile(dialect=conn.dialect)
    if list(compiled.positiontup or ()) != list(order):
        raise AssertionError("the driver wants the values in another order than the columns were given")
    conn.exec_driver_sql(compiled.string, list(rows))
