"""Many rows to MariaDB as packets of binary values, bound to one prepared statement.

The driver's own executemany writes all values into a text, which the server reads again: a row takes the server 10 µs
more, and us up to 15. What cannot be sent so goes the driver's way (an update another): to a server that is MySQL or
behind a proxy, and rows with a column that is NULL in all of them or has values of several types.

InnoDB is not told how many rows there are, and takes ids for 1, 2, 4… of them, of which the last are left out. Rows
whose ids are to leave none out go in packets of 1 + 2 + 4 … rows.
"""

from collections.abc import Sequence
from typing import Any

from asyncmy.errors import NotSupportedError
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.util import await_

PACKETS = "packets"
"""The execution option of what is sent so: `FEW` packets, or, of an insert, `ADJACENT`, whose ids leave none out."""

FEW, ADJACENT = "few", "adjacent"

OTHERWISE = "otherwise"
"""The execution option that gives other statements for all rows, with their values, where packets cannot be sent."""

MIN_ROWS = 20
"""Fewer are not worth the round trip that prepares the statement."""

MAX_BYTES = 900_000
"""In one statement: every server accepts 1 MB (``max_allowed_packet``)."""

VALUE_BYTES = 10
"""Of a number, and of what says how long a text is."""

Rows = Sequence[Sequence[Any]]


def execute(cursor: Any, statement: str, rows: Rows, context: ExecutionContext) -> bool:
    """Execute a statement for all *rows*; False, with nothing done, where it is not to be sent so.

    Core's event ``do_executemany``. Raises what the driver raises.
    """
    wanted = context.execution_options.get(PACKETS)
    if len(rows) < MIN_ROWS or wanted is None:
        return False
    packets = [packet for part in parts_of(rows) for packet in (_adjacent(part) if wanted == ADJACENT else [part])]
    driver: Any = context.root_connection.connection.driver_connection
    prepared = await_(driver.prepare(statement.replace("%s", "?").replace("%%", "%")))
    try:
        for packet in packets:
            try:
                await_(prepared.execute_bulk(packet))
            except (ValueError, NotSupportedError):  # raised before anything is sent
                if (otherwise := context.execution_options.get(OTHERWISE)) is not None:
                    for text, values in otherwise():
                        context.root_connection.exec_driver_sql(text, values)
                    break
                cursor.executemany(statement, packet)
    finally:
        await_(prepared.close())
    return True


def _adjacent(rows: Rows) -> list[Rows]:
    """*rows* in packets of one less than a power of two, as large as they can be."""
    if not rows:
        return []
    size = (1 << (len(rows) + 1).bit_length() - 1) - 1
    return [rows[:size], *_adjacent(rows[size:])]


def parts_of(rows: Rows, most: int = MAX_BYTES) -> list[Rows]:
    """*rows* in parts of about *most* bytes at most, or of one row."""
    texts = [value for row in rows for value in row if value.__class__ in (str, bytes)]
    size = VALUE_BYTES * len(rows) * len(rows[0])
    size += sum([len(one) if one.isascii() else 4 * len(one) for one in texts])
    if size <= most or len(rows) == 1:
        return [rows]
    half = len(rows) // 2
    return parts_of(rows[:half], most) + parts_of(rows[half:], most)
