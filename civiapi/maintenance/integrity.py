"""Checks of a database: is everything in it that must always be true? Changes nothing.

References are read from the declared tables, so a new table needs no change here; what only the sync knows about its
rows is in ``sync/reports/integrity.py``. Each finding names the repair, or says that a running server makes it.
"""

# ruff: noqa: S608  SQL here is advice for people
import os
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, ForeignKey, func, inspect, select

import sync.store.tables  # noqa: F401  registers the sync's tables
from civiapi.store.address import SQLITE
from civiapi.store.databases.column_types import SiteDate, SiteTime
from civiapi.store.databases.dialect import complaints
from civiapi.store.databases.expressions import is_undated
from civiapi.store.engine import open_store
from civiapi.store.errors import StoreUnusable
from civiapi.store.schema.migrations import MIGRATIONS, read_version
from civiapi.store.schema.tables import METADATA
from sync.reports import integrity
from sync.reports.checks import Finding, Severity

EXAMPLES = 5


async def check_database(url: str, timezone: str = "UTC") -> list[Finding]:
    """All findings in the database at *url*; its schema is left as it is. Raises ``StoreError``."""
    if url.startswith(SQLITE) and not os.path.isfile(url.removeprefix(SQLITE)):  # noqa: ASYNC240
        raise StoreUnusable(f"There is no database at {url.removeprefix(SQLITE)}.")
    store = await open_store(url, timezone)
    try:
        return await store.read(check_rows)
    finally:
        await store.close()


def check_rows(conn: Connection) -> list[Finding]:
    """All findings, in the order in which to repair them."""
    there = set(inspect(conn).get_table_names())
    found = list(_storage(conn, sorted(there & set(METADATA.tables))))
    version = read_version(conn)
    if version < len(MIGRATIONS):
        sentence = f"The schema has version {version} of {len(MIGRATIONS)}."
        remedy = "Back it up (civiapi backup FILE); the next command that uses the database upgrades it."
        return [*found, Finding("schema", Severity.ERROR, sentence, remedy)]
    found.append(Finding("schema", Severity.OK, f"The schema has version {version}."))
    found += _references(conn, there)
    found += _undated(conn, there)
    for check in integrity.CHECKS:
        wrong = [Finding(check.__name__, Severity.ERROR, what, repair) for what, repair in check(conn)]
        found += wrong or [Finding(check.__name__, Severity.OK, f"{(check.__doc__ or '').partition('.')[0]}.")]
    return found


def _storage(conn: Connection, tables: list[str]) -> Iterator[Finding]:
    wrong = complaints(conn, tables)
    if not wrong:
        yield Finding("storage", Severity.OK, "The storage is intact.")
    for text in wrong:
        remedy = "Stop the server and restore a backup; `sqlite3 FILE .recover` saves what can be read."
        yield Finding("storage", Severity.ERROR, f"The storage is damaged: {text}", remedy)


def _references(conn: Connection, there: set[str]) -> list[Finding]:
    """Every foreign key of every declared table that exists."""
    keys = [key for table in METADATA.sorted_tables if table.name in there for key in table.foreign_keys]
    wrong = [found for key in keys if (found := _reference(conn, key, there)) is not None]
    return wrong or [Finding("references", Severity.OK, f"All {len(keys)} references between tables hold.")]


def _undated(conn: Connection, there: set[str]) -> list[Finding]:
    """Rows whose times are not known; that is no error, as nothing fails because of them."""
    found: list[Finding] = []
    for table in (table for table in METADATA.sorted_tables if table.name in there):
        names = {column["name"] for column in inspect(conn).get_columns(table.name)}
        for column in table.columns:
            if isinstance(column.type, SiteTime | SiteDate) and column.name in names:
                found += _undated_in(conn, column)
    return found or [Finding("times", Severity.OK, "Every time can be read.")]


def _undated_in(conn: Connection, column: Column[Any]) -> Iterator[Finding]:
    table = column.table
    [key] = list(table.primary_key)[:1]
    count = conn.execute(select(func.count()).select_from(table).where(is_undated(column))).scalar_one()
    if count:
        few = select(key).where(is_undated(column)).order_by(key).limit(EXAMPLES)
        ids = ", ".join(str(one) for one in conn.execute(few).scalars())
        yield Finding(
            f"time:{column}",
            Severity.OK,
            f"{count} row(s) of {table.name} whose {column.name} is not known (0000-00-00): {key.name} {ids}. "
            "It counts as long ago; nothing fails because of it.",
        )


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
    # The inner select is a derived table: MariaDB does not read a table that the statement changes.
    gone = f"{child.name} NOT IN (SELECT {parent.name} FROM (SELECT {parent.name} FROM {parent.table.name}) AS theirs)"
    if key.ondelete == "SET NULL":
        repair = f"UPDATE {child.table.name} SET {child.name} = NULL WHERE {gone}"
    else:
        repair = f"DELETE FROM {child.table.name} WHERE {child.name} IS NOT NULL AND {gone}"
    sentence = f"{count} row(s) of {child.table.name} whose {child.name} does not exist: {', '.join(map(str, lost))}"
    return Finding(f"reference:{child}", Severity.ERROR, sentence, f"Back up, then run: {repair};")
