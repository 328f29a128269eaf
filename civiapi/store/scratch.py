"""A temporary database with copies of some tables, used by the same functions as the original and then deleted.

Rows are copied page by page in order of a key, from any store. The original may change meanwhile, so references
between the copies are not checked.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, select

from civiapi.store.base import Store
from civiapi.store.clock import SiteClock
from civiapi.store.databases.bulk import insert_rows
from civiapi.store.databases.sqlite import SqliteStore
from civiapi.store.schema.migrations import create_tables
from civiapi.store.schema.tables import METADATA

PAGE = 5000


@dataclass(frozen=True, slots=True)
class TableCopy:
    """The part of a table to copy: these columns (default: all) of the rows that meet *where*, in order of *key*."""

    table: Table
    key: Column[Any]
    where: Sequence[ColumnElement[bool]] = ()
    columns: Sequence[str] = ()


@asynccontextmanager
async def scratch_store(clock: SiteClock) -> AsyncIterator[Store]:
    """An empty store with all tables, in a folder that only this user can read; deleted when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="civiapi-scratch-"))
    try:
        store = await SqliteStore.open(folder / "scratch.sqlite", clock)
        try:
            await store.disable_durability()
            await store.write(create_tables, METADATA.sorted_tables)
            yield store
        finally:
            await store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def copy_table(source: Store, target: Store, part: TableCopy) -> int:
    """Copy rows from one store to another, page by page; returns their number."""
    names = list(part.columns) or [column.name for column in part.table.columns]
    after, copied = None, 0
    while True:
        rows, after = await source.read(_read_page, part, names, after)
        if rows:
            await target.write(insert_rows, part.table, names, rows)
        copied += len(rows)
        if after is None:
            return copied


def _read_page(
    conn: Connection, part: TableCopy, names: Sequence[str], after: Any
) -> tuple[list[tuple[Any, ...]], Any]:
    wanted = select(*(part.table.c[name] for name in names), part.key).where(*part.where)
    if after is not None:
        wanted = wanted.where(part.key > after)
    rows = [tuple(row) for row in conn.execute(wanted.order_by(part.key).limit(PAGE))]
    return [row[:-1] for row in rows], rows[-1][-1] if len(rows) == PAGE else None
