"""Open a database and run units of work on it.

A unit is an ordinary function ``fn(conn, *args)`` over a SQLAlchemy Core connection; it is one transaction. It must
keep no state outside the database, because it is repeated when another transaction was in the way.
``store.read`` and ``store.write`` choose where it runs: on SQLite in a thread of aiosqlite (``sqlite.py``), on MariaDB
in a greenlet over asyncmy (``mariadb.py``). Every await on SQLite is a switch to another thread
(about 100 µs), which is why a unit and not a statement is what runs there. ``store.read_inline`` is for reads that are
short for every caller: on SQLite it runs on the event loop's thread, and again on a reader's if it takes too long;
``store.write_at_once`` likewise, while the writer has no unit.

Within a call (``deadline.py``) units never run on the event loop's thread, these two excepted, and are
interrupted at the call's deadline.
"""

from pathlib import Path

from civiapi.store.address import SQLITE, server_address
from civiapi.store.base import Store
from civiapi.store.clock import site_clock
from civiapi.store.databases.mariadb import MariaStore
from civiapi.store.databases.sqlite import SqliteStore

__all__ = ["Store", "open_store"]


async def open_store(url: str, timezone: str = "UTC") -> Store:
    """Open ``sqlite:///path`` or ``mysql://user:password@host/name``; its schema is not checked here.

    Raises ``StoreUnusable`` if it cannot be opened and ``ValueError`` for an address of another kind.
    """
    clock = site_clock(timezone)
    if url.startswith(SQLITE):
        return await SqliteStore.open(Path(url.removeprefix(SQLITE)), clock)
    return await MariaStore.open(server_address(url), clock)
