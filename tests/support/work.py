"""How much work a database has with each statement, in its own units, so that it does not depend on the machine.

On SQLite: steps of its virtual machine, a few a row. On MariaDB: rows that the server read (``Handler_read_…``).
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

STEPS = 10
"""Steps of SQLite's machine for each row that is counted."""

_LIST = re.compile(r"(\?|%s)(, (\?|%s))+")
_READS = "SHOW SESSION STATUS LIKE 'Handler\\_read\\_%%'"


@dataclass
class Work:
    """About how many rows were read for each statement, lists of values left out of its text; and how often it ran."""

    rows: Counter[str] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    """The most for one execution."""

    def add(self, statement: str, rows: int) -> None:
        """Count an execution."""
        short = _LIST.sub(r"\1…", statement)
        self.rows[short] += rows
        self.times[short] += 1
        self.most[short] = max(self.most[short], rows)

    @property
    def total(self) -> int:
        """About how many rows were read for all statements."""
        return self.rows.total()

    def largest(self, count: int = 6) -> str:
        """The statements with most work, for people."""
        return "\n".join(f"{rows} rows, {self.times[one]} times: {one}" for one, rows in self.rows.most_common(count))


@contextmanager
def counted_work() -> Iterator[Work]:
    """Count the work of every statement that is executed in the block, on any connection."""
    found = Work()
    pending: dict[int, tuple[str, int]] = {}

    def before(conn: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        raw: Any = conn.connection.dbapi_connection
        if conn.dialect.name == "sqlite":
            _settle(id(raw))
            raw.set_progress_handler(lambda: _step(id(raw)), STEPS)
            pending[id(raw)] = (statement, 0)
        else:
            pending[id(raw)] = (statement, _rows_read(raw))

    def after(conn: Connection, _cursor: Any, _statement: str, *_: Any) -> None:
        if conn.dialect.name != "sqlite":
            raw: Any = conn.connection.dbapi_connection
            statement, begun = pending.pop(id(raw))
            found.add(statement, _rows_read(raw) - begun - _rows_read(raw, own=True))

    def _step(key: int) -> None:  # SQLite fetches rows as they are asked for, so a statement ends with the next one
        if key in pending:
            statement, steps = pending[key]
            pending[key] = (statement, steps + 1)

    def _settle(key: int) -> None:
        if key in pending:
            found.add(*pending.pop(key))

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "after_cursor_execute", after)
        for key in list(pending):
            _settle(key)


def _rows_read(raw: Any, *, own: bool = False) -> int:
    """The rows that a MariaDB session has read so far; *own*: those that asking for this costs."""
    cursor = raw.cursor()
    try:
        counts = []
        for _ in range(2 if own else 1):
            cursor.execute(_READS)
            counts.append(sum(int(value) for _, value in cursor.fetchall()))
        return counts[-1] - counts[0] if own else counts[0]
    finally:
        cursor.close()
