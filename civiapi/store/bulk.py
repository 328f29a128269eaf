"""Many rows from Python at once: the statement compiled by Core, the rows handed to the driver as tuples.

Core's own executemany takes a dictionary a row and processes each value, three times the price of the insert itself.
Statements are compiled once for each connection's dialect.
Columns are named by the table's declaration and values are bound: they must be as the driver takes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, insert, update
from sqlalchemy.sql.dml import UpdateBase

from civiapi.store.courtesy import give_way
from civiapi.store.dialect import beside_the_loop, joined_update, one_by_one, upsert_statement

AT_ONCE = 500
ROWS_A_STRETCH = 200
"""Rows that are written before whoever answers calls is given way to."""

Rows = Sequence[tuple[Any, ...]]


def insert_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Insert *rows*, each with its values in the order of *columns*."""
    if rows:
        _run(conn, _inserting(conn.dialect, table, tuple(columns)), rows)


def upsert_rows(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, key: Sequence[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* stands, set its columns *set_* instead."""
    if rows:
        _run(conn, _upserting(conn.dialect, table, tuple(columns), tuple(key), tuple(set_)), rows)


def update_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Set *columns* of the rows whose ``id`` is the last value of each tuple."""
    if rows and one_by_one(conn):
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            words = joined_update(conn.dialect, table, columns, len(part))
            conn.exec_driver_sql(words, tuple(value for row in part for value in row))
    elif rows:
        _run(conn, _updating(conn.dialect, table, tuple(columns)), rows)


@dataclass(frozen=True, slots=True)
class _Written:
    """A statement as the driver takes it. *places*: where in a row each of its values stands; None: as they come."""

    words: str
    places: tuple[int, ...] | None


@lru_cache(maxsize=256)
def _inserting(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _Written:
    return _written(dialect, insert(table).values(_bound(columns)), columns)


@lru_cache(maxsize=256)
def _upserting(
    dialect: Dialect, table: Table, columns: tuple[str, ...], key: tuple[str, ...], set_: tuple[str, ...]
) -> _Written:
    return _written(dialect, upsert_statement(dialect, table, _bound(columns), key, set_), columns)


@lru_cache(maxsize=256)
def _updating(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _Written:
    statement = update(table).where(table.c.id == bindparam("v_id")).values(_bound(columns))
    return _written(dialect, statement, (*columns, "id"))


def _bound(columns: Iterable[str]) -> dict[str, Any]:
    return {name: bindparam(f"v_{name}") for name in columns}


def _written(dialect: Dialect, statement: UpdateBase, columns: tuple[str, ...]) -> _Written:
    compiled = statement.compile(dialect=dialect)
    given = [f"v_{name}" for name in columns]
    wanted = list(compiled.positiontup or ())  # Core puts columns in the table's order
    return _Written(compiled.string, None if wanted == given else tuple(given.index(name) for name in wanted))


def _run(conn: Connection, statement: _Written, rows: Rows) -> None:
    if statement.places is not None:
        rows = list(map(itemgetter(*statement.places), rows))
    stretch = ROWS_A_STRETCH if beside_the_loop(conn) else len(rows)
    for start in range(0, len(rows), stretch):
        if start:
            give_way()
        conn.exec_driver_sql(statement.words, list(rows[start : start + stretch]))
