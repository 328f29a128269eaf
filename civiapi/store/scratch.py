"""A database for a while: copies of some tables in a file of its own, worked on by the same functions, thrown away.

Rows are copied page by page, in order of a key, from any store; writers of the original go on meanwhile, so nothing
refuses a row whose relative was not there yet when it was copied.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, select

from civiapi.store.bulk import insert_rows
from civiapi.store.clock import SiteClock
from civiapi.store.engine import SqliteStore, Store
from civiapi.store.tables import METADATA

PAGE = 5000


@dataclass(frozen=True, slots=True)
class Part:
    """What is copied of a table: these columns (default: all) of the rows that meet *where*, in order of *key*."""

    table: Table
    key: Column[Any]
    where: Sequence[ColumnElement[bool]] = ()
    columns: Sequence[str] = ()


@asynccontextmanager
async def scratch_store(clock: SiteClock) -> AsyncIterator[Store]:
    """An empty store with every table there is, in a folder that only we can read; gone when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="civiapi-scratch-"))
    try:
        store = await SqliteStore.open(folder / "scratch.sqlite", clock)
        try:
            await store.relax()
            await store.write(METADATA.create_all)
            yield store
        finally:
            await store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def copy_part(source: Store, target: Store, part: Part) -> int:
    """Copy rows from one store to another, a page at a time; returns how many."""
    names = list(part.columns) or [column.name for column in part.table.columns]
    after, copied = None, 0
    while True:
        rows, after = await source.read(_read_page, part, names, after)
        if rows:
            await target.write(insert_rows, part.table, names, rows)
        copied += len(rows)
        if after is None:
            return copied


def _read_page(conn: Connection, part: Part, names: Sequence[str], after: Any) -> tuple[list[tuple[Any, ...]], Any]:
    wanted = select(*(part.table.c[name] for name in names), part.key).where(*part.where)
    if after is not None:
        wanted = wanted.where(part.key > after)
    rows = [tuple(row) for row in conn.execute(wanted.order_by(part.key).limit(PAGE))]
    return [row[:-1] for row in rows], rows[-1][-1] if len(rows) == PAGE else None
