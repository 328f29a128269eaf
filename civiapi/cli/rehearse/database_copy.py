"""A copy of the site's database as a SQLite file, for a rehearsal. The original is only read.

A SQLite database is copied by ``civiapi backup``. Of a MariaDB the tables of CiviCRM that a sync reads are copied page
by page, which needs the right to read them and no other, so no second database on its server.
"""

import asyncio
from pathlib import Path

from sqlalchemy import Connection, inspect

from civiapi.maintenance.backup import back_up
from civiapi.settings import DatabaseSettings
from civiapi.store.address import SQLITE
from civiapi.store.databases.sqlite import SqliteStore
from civiapi.store.engine import open_store
from civiapi.store.schema.live_columns import live_columns
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import METADATA
from civiapi.store.scratch import TableCopy, copy_table

FILE = "rehearsal.sqlite"
UNREAD = {"civicrm_job_log", "civicrm_activity", "civicrm_activity_contact", "civicrm_note"}
"""Tables that no sync reads, and that can be large."""


async def copy_database(database: DatabaseSettings, folder: Path) -> DatabaseSettings:
    """Copy the database into *folder*, with today's schema; returns where it is. Raises ``StoreError``."""
    target = folder / FILE
    if database.file is not None:
        await asyncio.to_thread(back_up, database.url, target)
    else:
        await _copy_tables(database, target)
    copied = DatabaseSettings(f"{SQLITE}{target}", database.timezone)
    store = await open_store(copied.url, copied.timezone)
    try:
        await migrate(store, adopt=True)
    finally:
        await store.close()
    return copied


async def _copy_tables(database: DatabaseSettings, target: Path) -> None:
    source = await open_store(database.url, database.timezone)
    try:
        copy = await SqliteStore.open(target, source.clock)
        try:
            await copy.disable_durability()
            await copy.write(METADATA.create_all)
            for part in await source.read(_parts):
                await copy_table(source, copy, part)
        finally:
            await copy.close()
    finally:
        await source.close()


def _parts(conn: Connection) -> list[TableCopy]:
    """CiviCRM's tables that are there, with those of their columns that are: it may be an older version's."""
    there = set(inspect(conn).get_table_names())
    return [
        TableCopy(table, table.c.id, columns=[column.name for column in live_columns(conn, table)])
        for table in METADATA.sorted_tables
        if table.name in there - UNREAD
        and table.name.startswith("civicrm_")
        and not table.name.startswith("civicrm_mailchimpsync_")
    ]


def describe(database: DatabaseSettings) -> str:
    """The database in words, without a password."""
    return str(database.file) if database.file is not None else database.url.rpartition("@")[2]
