"""A plain connection to MariaDB for the floor (``bench.floor_sync``): asyncmy, called as sqlite3 is.

No SQLAlchemy and no pool. Many rows are sent in statements of a thousand, as a careful program would.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import asyncmy
from sqlalchemy import make_url

AT_ONCE = 1000
SESSION = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci",
    "SET sql_mode = 'PIPES_AS_CONCAT'",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
)


class Rows:
    """What a statement found, all of it."""

    def __init__(self, found: Sequence[Any], lastrowid: int) -> None:
        self._found = list(found)
        self.lastrowid = lastrowid

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)

    def fetchone(self) -> Any:
        """The next row; None: no more."""
        return self._found.pop(0) if self._found else None

    def fetchmany(self, count: int) -> list[Any]:
        """The next rows."""
        part, self._found = self._found[:count], self._found[count:]
        return part


class PlainConnection:
    """A connection with the methods of sqlite3's that the floor uses."""

    def __init__(self, url: str) -> None:
        parts = make_url(url)
        self._loop = asyncio.new_event_loop()
        self._db = self._loop.run_until_complete(
            asyncmy.connect(host=parts.host, port=parts.port or 3306, user=parts.username, db=parts.database)
        )
        for statement in SESSION:
            self.execute(statement)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement; its values stand as ``?``."""
        return self._loop.run_until_complete(self._execute(statement.replace("?", "%s"), values))

    async def _execute(self, statement: str, values: Sequence[Any]) -> Rows:
        async with self._db.cursor() as cursor:
            await cursor.execute(statement, tuple(values) or None)
            return Rows(await cursor.fetchall() if cursor.description else (), cursor.lastrowid)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows, or set one column of rows by their id, in a few statements."""
        for part in _batched(rows):
            values = [value for row in part for value in row]
            self.execute(_for_many(statement, len(part)), values)

    def cursor(self) -> "PlainConnection":
        """Itself: what was found is read at once, so that other statements can follow."""
        return self

    def close(self) -> None:
        """Close it."""
        self._db.close()
        self._loop.close()


def _batched(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    listed = list(rows)
    for start in range(0, len(listed), AT_ONCE):
        yield listed[start : start + AT_ONCE]


def _for_many(statement: str, count: int) -> str:
    if statement.startswith("INSERT"):
        head, _, row = statement.partition(" VALUES ")
        return f"{head} VALUES {', '.join([row] * count)}"
    head, _, change = statement.partition(" SET ")  # UPDATE t SET c = ? WHERE id = ?
    column = change.partition(" = ")[0]
    pairs = "SELECT ? AS v, ? AS i" + " UNION ALL SELECT ?, ?" * (count - 1)
    return f"{head} AS t JOIN ({pairs}) AS x ON t.id = x.i SET t.{column} = x.v"
