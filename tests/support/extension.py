"""The mailchimpsync extension 1.0 beside us on CiviCRM's database: what it stores in each state it may be met in.

It is written from its stored formats, and works on the database from outside any store of ours, as PHP would. With it:
CiviCRM's detailed logging, which is triggers that copy rows into ``log_civicrm_…``, and whole tables to compare.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import phpserialize

from civiapi.store.clock import site_clock
from tests.support.civicrm import ZONE, php
from tests.support.databases import sql

BUSY = "busy"
BUSY_LINE = "Called but locks say process already busy. Will not do anything."
KNOWN_STAGES = (
    "readyToFetch",
    "readyToFixContactIds",
    "readyToCreateNewContactsFromMailchimp",
    "readyToCleanUpDuplicates",
    "readyToAddCiviOnly",
    "readyToCheckForGroupChanges",
    "readyToReconcileQueue",
    "readyToSubmitUpdates",
)
LOGGED = {
    "civicrm_contact": ("id", "display_name", "is_deleted"),
    "civicrm_email": ("id", "contact_id", "email"),
    "civicrm_group_contact": ("id", "group_id", "contact_id", "status"),
}

Tables = dict[str, list[list[str]]]


@dataclass(frozen=True)
class Extension:
    """The extension on the database at *url*, for one audience."""

    url: str
    list_id: str

    @property
    def database(self) -> str:
        return self.url.rpartition("/")[2]

    def status(self) -> dict[str, Any]:
        """The stored status of the audience."""
        found = sql("SELECT HEX(data) FROM civicrm_mailchimpsync_status", database=self.database)
        loaded: dict[str, Any] = phpserialize.loads(bytes.fromhex(found[0][0]), decode_strings=True)
        return loaded

    def lock(self) -> str:
        """The stored lock."""
        return str(self.status()["locks"]["fetchAndReconcile"])

    def store(self, lock: str, line: str = "fetchAndReconcile: begin", *, minutes_ago: float = 0, **more: Any) -> None:
        """Store a lock with a log line of so long ago, and *more* of the status (``fetch``, ``lastSyncTime``)."""
        status = self.status() | more
        time = site_clock(ZONE).write(datetime.now(UTC) - timedelta(minutes=minutes_ago))
        log = [*status["log"].values(), {"time": time, "message": line}]
        status |= {"locks": {"fetchAndReconcile": lock}, "log": dict(enumerate(log))}
        packed = php(status).encode().hex()
        sql(
            f"UPDATE civicrm_mailchimpsync_status SET data = UNHEX('{packed}') WHERE list_id = '{self.list_id}'",
            database=self.database,
        )

    def is_at_work(self, *, minutes_ago: float = 0) -> None:
        """It holds the lock, and wrote its newest line so long ago; or it was killed then."""
        self.store(BUSY, minutes_ago=minutes_ago)

    def was_killed_in_a_page(self, offset: int, *, since: str = "", minutes_ago: float = 90) -> None:
        """It was killed while it fetched: the lock is held, and the fetch is at *offset*."""
        self.store(BUSY, f"Fetched {offset}", minutes_ago=minutes_ago, fetch={"since": since, "offset": offset})

    def ran_out_of_time(self, offset: int, *, since: str = "", last_sync: str) -> None:
        """It stopped in the middle of fetching, with the start of this very run stored as the last sync."""
        fetch = {"since": since, "offset": offset}
        self.store("readyToFetch", f"Fetched {offset}", minutes_ago=90, fetch=fetch, lastSyncTime=last_sync)

    def starts(self) -> bool:
        """Do what its ``fetchAndReconcile`` does first; whether it would begin. An unknown stage ends it."""
        lock = self.lock()
        if lock == BUSY:
            self.store(BUSY, BUSY_LINE)
            return False
        assert lock in KNOWN_STAGES, f"Unknown state {lock}"
        return True


def log_in_detail(url: str, *, database: str = "", charset: str = "utf8mb4") -> None:
    """Switch CiviCRM's detailed logging on for a few tables; into another *database* of the server, in a *charset*."""
    where = f"`{database}`." if database else ""
    for table, columns in LOGGED.items():
        listed = ", ".join(f"`{name}`" for name in columns)
        statements = [
            f"CREATE TABLE {where}log_{table} AS SELECT {listed} FROM {table} WHERE 0",
            f"ALTER TABLE {where}log_{table} CONVERT TO CHARACTER SET {charset}",
            f"ALTER TABLE {where}log_{table} ADD log_date timestamp NOT NULL DEFAULT current_timestamp(), "
            "ADD log_conn_id varchar(17), ADD log_user_id int, ADD log_action varchar(10)",
        ]
        for action, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            values = ", ".join(f"{row}.`{name}`" for name in columns)
            statements.append(
                f"CREATE TRIGGER {table}_log_{action.lower()} AFTER {action} ON {table} FOR EACH ROW "
                f"INSERT INTO {where}log_{table} ({listed}, log_conn_id, log_user_id, log_action) "
                f"VALUES ({values}, @uniqueID, @civicrm_user_id, '{action.lower()}')"
            )
        sql(*statements, database=url.rpartition("/")[2])


def authors(url: str, table: str) -> list[tuple[str, str]]:
    """What the log of a table has: each action with its author."""
    rows = sql(f"SELECT log_action, log_user_id FROM log_{table}", database=url.rpartition("/")[2])
    return [(action, author) for action, author in rows]


def logged_connections(url: str, table: str) -> list[tuple[str, str]]:
    """What the log of a table has: the author and the connection of each action."""
    rows = sql(f"SELECT log_user_id, log_conn_id FROM log_{table}", database=url.rpartition("/")[2])
    return [(author, connection) for author, connection in rows]


def rows_of(url: str, *, but: Iterable[str] = ()) -> Tables:
    """Every row of every table that is not ours."""
    name = url.rpartition("/")[2]
    listed = sql(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'")
    theirs = [table for [table] in listed if not table.startswith("civiapi_") and table not in set(but)]
    return {table: sql(f"SELECT * FROM `{table}`", database=name) for table in theirs}


def changed(before: Tables, after: Tables) -> set[str]:
    """The tables whose rows differ."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
