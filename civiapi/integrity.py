"""Looks a database over: is everything in it that must always be true? Changes nothing.

Each check is a function of a connection that gives findings, with the way to mend in each. What a running server
mends by itself is said so. References are read from the declared tables, so a new table is looked at without a word
here; what only the sync knows about its rows is in ``sync/integrity.py``.
"""

# ruff: noqa: S608  SQL here is advice for people
import os
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, ForeignKey, func, inspect, select

import sync.tables  # noqa: F401  registers the sync's tables
from civiapi.store.dialect import complaints
from civiapi.store.engine import open_store
from civiapi.store.errors import StoreUnusable
from civiapi.store.migrate import STEPS, read_version
from civiapi.store.tables import METADATA
from sync import integrity

EXAMPLES = 5
SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is well, and if not how to mend it."""

    what: str
    well: bool
    mend: str = ""


async def check_database(url: str, timezone: str = "UTC") -> list[Finding]:
    """Everything there is to find in the database at *url*; its schema is left as it is. Raises ``StoreError``."""
    if url.startswith(SQLITE) and not os.path.isfile(url.removeprefix(SQLITE)):  # noqa: ASYNC240
        raise StoreUnusable(
            f"There is no database at {url.removeprefix(SQLITE)}; the first command that uses it makes it."
        )
    store = await open_store(url, timezone)
    try:
        return await store.read(look_over)
    finally:
        await store.close()


def look_over(conn: Connection) -> list[Finding]:
    """All findings, in the order in which they are worth mending."""
    there = set(inspect(conn).get_table_names())
    found = list(_storage(conn, sorted(there & set(METADATA.tables))))
    version = read_version(conn)
    if version < len(STEPS):
        words = "Back it up (civiapi backup FILE); the next command that uses it brings it up to date."
        return [*found, Finding(f"schema version {version} of {len(STEPS)}", False, words)]
    found.append(Finding(f"schema version {version}", True))
    found += _references(conn, there)
    for check in integrity.CHECKS:
        wrong = [Finding(what, False, mend) for what, mend in check(conn)]
        found += wrong or [Finding((check.__doc__ or "").partition(".")[0], True)]
    return found


def _storage(conn: Connection, tables: list[str]) -> Iterator[Finding]:
    wrong = complaints(conn, tables)
    if not wrong:
        yield Finding("storage", True)
    for text in wrong:
        words = "Stop the server and put a backup in its place; `sqlite3 FILE .recover` saves what can be read."
        yield Finding(f"storage: {text}", False, words)


def _references(conn: Connection, there: set[str]) -> list[Finding]:
    """Every foreign key of every declared table that is there."""
    keys = [key for table in METADATA.sorted_tables if table.name in there for key in table.foreign_keys]
    wrong = [found for key in keys if (found := _reference(conn, key, there)) is not None]
    return wrong or [Finding(f"{len(keys)} references between tables", True)]


def _reference(conn: Connection, key: ForeignKey, there: set[str]) -> Finding | None:
    child, parent = key.parent, key.column
    names = {column["name"] for column in inspect(conn).get_columns(child.table.name)}
    if parent.table.name not in there or child.name not in names:
        return None
    above = parent.table.alias()  # a table may point at itself
    missing: tuple[ColumnElement[bool], ...] = (
        child.is_not(None),
        ~select(above.c[parent.name]).where(above.c[parent.name] == child).correlate(child.table).exists(),
    )
    count = conn.execute(select(func.count()).select_from(child.table).where(*missing)).scalar_one()
    if not count:
        return None
    lost = conn.execute(select(child).where(*missing).distinct().order_by(child).limit(EXAMPLES)).scalars()
    # One select more than it takes: MariaDB reads no table that it is changing.
    gone = f"{child.name} NOT IN (SELECT {parent.name} FROM (SELECT {parent.name} FROM {parent.table.name}) AS theirs)"
    if key.ondelete == "SET NULL":
        mend = f"UPDATE {child.table.name} SET {child.name} = NULL WHERE {gone}"
    else:
        mend = f"DELETE FROM {child.table.name} WHERE {child.name} IS NOT NULL AND {gone}"
    shown = ", ".join(str(one) for one in lost)
    what = f"{count} row(s) of {child.table.name} whose {child.name} names nothing: {shown}"
    return Finding(what, False, f"Back up, then run: {mend};")
