"""Rows from Python, one or many at once: the statement compiled by Core, the rows handed to the driver as tuples.

Core's own executemany takes a dictionary a row and processes each value, three times the price of the insert itself.
Statements are compiled once for each connection's dialect.
Columns are named by the table's declaration and values are bound: they must be as the driver takes them, but for
encoded text, which is encoded here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, func, insert, null, select, update
from sqlalchemy.sql.dml import UpdateBase

from civiapi.store.databases.bulk_binding import ADJACENT, FEW, MAX_BYTES, MIN_ROWS, OTHERWISE, PACKETS, parts_of
from civiapi.store.databases.compiled_query import run_by_driver
from civiapi.store.databases.dialect import binds_many_rows, joined_update, runs_in_thread, upsert_statement
from civiapi.store.schema.live_columns import absent_columns, live_values
from civiapi.store.text.encoded_text import encode_rows, is_encoded

AT_ONCE = 500
ROWS_A_STRETCH = 200
"""Rows of one executemany: the event loop goes first between two statements."""

MAX_VALUES = 700
"""Values of one statement that inserts several rows on SQLite, which reads and writes the highest id of the table for
each statement. As long a statement as is kept (`statements.LONG_TEXT`)."""

LONGEST_STATUS = 20
"""Characters of a status or a time. What is longer and indexed is an address, a name or somebody's id."""

Rows = Sequence[tuple[Any, ...]]


def insert_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, adjacent: bool = False) -> None:
    """Insert *rows*, each with its values in the order of *columns*; columns that are not there are left out.

    *adjacent*: the ids leave none out (`bulk_binding`), which takes a little longer on MariaDB.
    """
    if rows:
        absent = absent_columns(conn).get(table.name, frozenset())
        if not absent.isdisjoint(columns):
            places = [place for place, name in enumerate(columns) if name not in absent]
            columns, rows = [columns[place] for place in places], [tuple(row[p] for p in places) for row in rows]
        statement = _inserting(conn.dialect, table, tuple(columns))
        _run(conn, statement, _as_stored(table, columns, rows), {PACKETS: ADJACENT if adjacent else FEW})


def insert_row(conn: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert one row and return its id; columns that are not there are left out."""
    values = live_values(conn, table, values)
    columns = tuple(values)
    statement = _inserting(conn.dialect, table, columns)
    [row] = _as_stored(table, columns, [tuple(values.values())])
    if statement.places is not None:
        row = itemgetter(*statement.places)(row)
    if runs_in_thread(conn):  # where Core takes longer than the insert
        return int(run_by_driver(conn, statement.sql, row, _row_id))
    return int(conn.exec_driver_sql(statement.sql, row).lastrowid)


_row_id = attrgetter("lastrowid")


def insert_numbered(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> range:
    """Insert *rows* and return their ids in order; an empty range where rows of others are or may come among them."""
    return insert_after(conn, table, columns, rows, adjacent=True)[1]


def insert_after(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, adjacent: bool
) -> tuple[int, range]:
    """Insert *rows*; the highest id before, after which theirs come, and what ``insert_numbered`` returns.

    *adjacent*: theirs follow it, if nobody else inserts.
    """
    before = int(conn.execute(select(func.max(table.c.id))).scalar() or 0)
    if not rows:
        return before, range(0)
    insert_rows(conn, table, columns, rows, adjacent=adjacent)
    new = select(func.min(table.c.id), func.max(table.c.id)).where(table.c.id > before)
    first, last = conn.execute(new).one()
    ids = range(first, last + 1)
    return before, ids if len(ids) == len(rows) else range(0)


def upsert_rows(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows, *, key: Sequence[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* exists, update its columns *set_*."""
    if rows:
        upserting = _upserting(conn.dialect, table, tuple(columns), tuple(key), tuple(set_))
        _run(conn, upserting, _as_stored(table, columns, rows), {PACKETS: FEW})


def update_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Set *columns* of the rows whose ``id`` is the last value of each tuple."""
    rows = _as_stored(table, columns, rows)
    if not rows:
        return
    if runs_in_thread(conn):
        _run(conn, _updating(conn.dialect, table, tuple(columns), ()), rows, {})
    elif len(rows) >= MIN_ROWS and binds_many_rows(conn):
        _update_by_packets(conn, table, columns, rows)
    else:
        for sql, values in _joined(conn, table, columns, rows):
            conn.exec_driver_sql(sql, values)


def _update_by_packets(conn: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """Columns that become NULL in all rows stand in the statement, because a packet names the type of each value."""
    otherwise = partial(_joined, conn, table, columns, rows)
    given = [any(value is not None for value in values) for values in zip(*rows, strict=True)]
    if not all(given):
        places = [place for place, is_given in enumerate(given) if is_given]
        rows = [tuple(row[place] for place in places) for row in rows]
    bound = tuple(name for name, is_given in zip(columns, given, strict=False) if is_given)
    emptied = tuple(name for name in columns if name not in bound)
    _run(conn, _updating(conn.dialect, table, bound, emptied), rows, {PACKETS: FEW, OTHERWISE: otherwise})


def _joined(
    conn: Connection, table: Table, columns: Sequence[str], rows: Rows
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Statements that update up to 500 rows each, with their values."""
    pieces = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
    for part in (part for piece in pieces for part in parts_of(piece, MAX_BYTES // 2)):  # escaped, it is longer
        yield joined_update(conn.dialect, table, columns, len(part)), tuple(chain.from_iterable(part))


def _as_stored(table: Table, columns: Sequence[str], rows: Rows) -> Rows:
    places = _encoded_places(table, tuple(columns))
    return encode_rows(rows, places) if places else rows


@lru_cache(maxsize=512)
def _encoded_places(table: Table, columns: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(place for place, name in enumerate(columns) if is_encoded(table.c[name].type))


@dataclass(frozen=True, slots=True)
class _CompiledStatement:
    """A compiled statement. *places*: the index in a row for each of its values; None: in order.

    *several*: the same insert for *count* rows; 0: it has none.
    """

    sql: str
    places: tuple[int, ...] | None
    several: str = ""
    count: int = 0


@lru_cache(maxsize=256)
def _inserting(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _CompiledStatement:
    statement = _written(dialect, insert(table).values(_bound(columns)), columns)
    return _for_several(dialect, table, statement, len(columns))


@lru_cache(maxsize=256)
def _upserting(
    dialect: Dialect, table: Table, columns: tuple[str, ...], key: tuple[str, ...], set_: tuple[str, ...]
) -> _CompiledStatement:
    statement = _written(dialect, upsert_statement(dialect, table, _bound(columns), key, set_), columns)
    return _for_several(dialect, table, statement, len(columns))


@lru_cache(maxsize=256)
def _updating(dialect: Dialect, table: Table, columns: tuple[str, ...], emptied: tuple[str, ...]) -> _CompiledStatement:
    values = _bound(columns) | {name: null() for name in emptied}
    return _written(dialect, update(table).where(table.c.id == bindparam("v_id")).values(values), (*columns, "id"))


def _bound(columns: Iterable[str]) -> dict[str, Any]:
    return {name: bindparam(f"v_{name}") for name in columns}


def _written(dialect: Dialect, statement: UpdateBase, columns: tuple[str, ...]) -> _CompiledStatement:
    compiled = statement.compile(dialect=dialect)
    given = [f"v_{name}" for name in columns]
    wanted = list(compiled.positiontup or ())  # Core puts columns in the table's order
    return _CompiledStatement(compiled.string, None if wanted == given else tuple(given.index(name) for name in wanted))


def _is_appended_to(table: Table) -> bool:
    """Whether new rows stand beside one another in all indexes, which hold numbers, times and statuses alone.

    SQLite copies each page that a statement of several rows changes to a temporary file first, to take back that
    statement. In an index of texts each row is on another page: of a first sync of 60,000 members three quarters of
    the three gigabytes it wrote were such copies.
    """
    indexed = (column.type for index in table.indexes for column in index.columns)
    return not any((getattr(one, "length", None) or 0) > LONGEST_STATUS for one in indexed)


def _for_several(dialect: Dialect, table: Table, statement: _CompiledStatement, values: int) -> _CompiledStatement:
    """An insert of rows of so many *values*, on SQLite with its text for several where that is faster."""
    if dialect.name != "sqlite" or not _is_appended_to(table):
        return statement
    one, count = f"({', '.join('?' * values)})", max(1, MAX_VALUES // values)
    head, _, tail = statement.sql.partition(f" VALUES {one}")
    return replace(statement, several=f"{head} VALUES {', '.join([one] * count)}{tail}", count=count)


def _run(conn: Connection, statement: _CompiledStatement, rows: Rows, options: dict[str, Any]) -> None:
    if statement.places is not None:
        rows = list(map(itemgetter(*statement.places), rows))
    if not runs_in_thread(conn):
        conn.exec_driver_sql(statement.sql, list(rows), execution_options=options)
        return
    done = 0
    while statement.count and len(rows) - done >= statement.count:
        some = rows[done : done + statement.count]
        conn.exec_driver_sql(statement.several, tuple(chain.from_iterable(some)))
        done += statement.count
    for start in range(done, len(rows), ROWS_A_STRETCH):
        conn.exec_driver_sql(statement.sql, list(rows[start : start + ROWS_A_STRETCH]))
