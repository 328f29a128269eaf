"""A MariaDB database in the place of `Memory`: every unit is run by the product's own store, in a loop of its own.

That loop is a real one, because the histories' own never waits for a socket and stands still meanwhile, as time does.
The server's clock shows the histories' time to each unit.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy import Connection

from civiapi.store.clock import site_clock
from civiapi.store.databases.mariadb import MariaStore
from tests.support.mariadb_server import Server

T = TypeVar("T")

DATABASE = "histories"
SHOWN = "shown"
"""The time that a connection shows."""


class MariaMemory:
    """One MariaDB database, which begins anew with each history."""

    is_shared = True

    def __init__(self, server: Server) -> None:
        self._server = server
        self._copies = 0
        server.sql(f"CREATE DATABASE {DATABASE}")
        self._loop = asyncio.new_event_loop()
        url = server.url(DATABASE).replace("mysql://", "mysql+asyncmy://")
        self._store: MariaStore = self._run(MariaStore.open(url, site_clock("UTC")))

    def unit(self, fn: Callable[..., T], *args: Any, reads: bool = False, **kwargs: Any) -> T:
        """Run *fn* in one transaction."""
        run = self._store.read if reads else self._store.write
        return self._run(run(_on_time, time.time(), fn, args, kwargs))

    def script(self, statements: dict[str, list[str]]) -> None:
        """Run what is written for MariaDB."""
        self.unit(lambda conn: [conn.exec_driver_sql(one).close() for one in statements["mariadb"]])

    def rows(self, *statements: str) -> list[list[tuple[Any, ...]]]:
        """What each statement reads."""
        return self.unit(
            lambda conn: [[tuple(row) for row in conn.exec_driver_sql(one)] for one in statements], reads=True
        )

    def copy(self) -> str:
        """What stands here now, to begin with another time."""
        self._copies += 1
        name = f"{DATABASE}_{self._copies}"
        tables = [row[0] for row in self.rows("SHOW TABLES")[0]]
        made = [f"CREATE TABLE {name}.`{one}` LIKE {DATABASE}.`{one}`" for one in tables]
        made += [f"INSERT INTO {name}.`{one}` SELECT * FROM {DATABASE}.`{one}`" for one in tables]
        self._server.sql("; ".join([f"CREATE DATABASE {name}", "SET foreign_key_checks = 0", *made]))
        return name

    def restore(self, kept: str) -> None:
        """Put everything back to what *kept* holds; ids go on from where they were."""

        def put_back(conn: Connection) -> None:
            conn.exec_driver_sql("SET foreign_key_checks = 0, @restoring = 1")
            for (name,) in conn.exec_driver_sql("SHOW TABLES").all():
                conn.exec_driver_sql(f"DELETE FROM `{name}`")
                conn.exec_driver_sql(f"INSERT INTO `{name}` SELECT * FROM {kept}.`{name}`")
            conn.exec_driver_sql("SET foreign_key_checks = 1, @restoring = NULL")

        self.unit(put_back)

    def close(self) -> None:
        """End the connections."""
        self._run(self._store.close())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* to its end while the loop of the histories, if it runs, stands still: a thread takes longer."""
        histories = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(work)
        finally:
            asyncio._set_running_loop(histories)


def _on_time(conn: Connection, at: float, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    if conn.info.get(SHOWN) != at:
        conn.exec_driver_sql(f"SET timestamp = {at:.6f}")
        conn.info[SHOWN] = at
    return fn(conn, *args, **kwargs)
