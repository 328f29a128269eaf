"""What a connection does differently on SQLite and MariaDB: settings of a session, upserts, locks and self-checks.

With ``column_types``, ``expressions`` and ``driver_errors`` this is every difference between the two; no module outside
this package asks which database it is.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from secrets import token_hex
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Connection,
    Dialect,
    Index,
    Insert,
    Table,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError

from civiapi.store.databases.languages import views_of
from civiapi.store.text.collation import NAME as UTF8
from civiapi.store.text.encoded_text import FOUR_BYTES

QUICK_CHECK_BYTES = 128 * 1024 * 1024
"""Size up to which a database is checked when a server starts: a fraction of a second."""


def upsert_statement(
    dialect: Dialect, table: Table, values: dict[str, Any], key: Iterable[str], set_: Iterable[str]
) -> Insert:
    """An insert of *values* that updates the columns *set_* where a row with the same *key* exists."""
    if dialect.name == "sqlite":
        lite = sqlite.insert(table).values(values)
        return lite.on_conflict_do_update(index_elements=list(key), set_={n: lite.excluded[n] for n in set_})
    maria = mysql.insert(table).values(values)
    return maria.on_duplicate_key_update({n: maria.inserted[n] for n in set_})


def upsert(
    conn: Connection, table: Table, rows: Sequence[dict[str, Any]], *, key: Iterable[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* exists, update its columns *set_*."""
    if rows:
        conn.execute(_upserting(conn.dialect.name == "sqlite", table, tuple(key), tuple(set_)), list(rows))


@cache
def _upserting(is_sqlite: bool, table: Table, key: tuple[str, ...], set_: tuple[str, ...]) -> Insert:
    """Cached: a stage saves its position with every commit."""
    if is_sqlite:
        lite = sqlite.insert(table)
        return lite.on_conflict_do_update(index_elements=list(key), set_={n: lite.excluded[n] for n in set_})
    maria = mysql.insert(table)
    return maria.on_duplicate_key_update({n: maria.inserted[n] for n in set_})


@contextmanager
def migration_lock(conn: Connection, name: str, *, seconds: int = 120) -> Iterator[None]:
    """Run the block in one process at a time; on MariaDB its writes are committed before the next one enters.

    SQLite has one writer anyway. In a Galera cluster the lock holds on one node only.
    """
    if conn.dialect.name == "sqlite":
        yield
        return
    conn.exec_driver_sql("SELECT GET_LOCK(CONCAT(%s, '.', DATABASE()), %s)", (name, seconds)).scalar()
    try:
        yield
        conn.exec_driver_sql("COMMIT")
    finally:
        conn.exec_driver_sql("SELECT RELEASE_LOCK(CONCAT(%s, '.', DATABASE()))", (name,)).scalar()


ISOLATE = "SET SESSION TRANSACTION ISOLATION LEVEL {}"
"""MariaDB's statement for the isolation of this session's next transactions."""


def connection_id(conn: Connection) -> int:
    """MariaDB's number of a connection, as KILL takes it; known to the driver without asking the server."""
    raw: Any = conn.connection.dbapi_connection
    return int(raw.driver_connection.thread_id())


DOMAINS_CONTACT = "(SELECT contact_id FROM civicrm_domain ORDER BY id LIMIT 1)"
"""SQL for the author of what a sync writes."""


def sign(author: str) -> str:
    """MariaDB's statement for the *author* (SQL) of what a session writes from now on, for CiviCRM's detailed logging.

    Its triggers note a connection as well, by which CiviCRM shows and reverts what was changed together: here another
    for each author, as sessions are used in turn.
    """
    return f"SET @civicrm_user_id = {author}, @uniqueID = '{token_hex(8)}'"


def session_statements(zone: ZoneInfo, lock_wait_s: int, idle_s: int) -> list[str]:
    """The settings of a new MariaDB session: collation, time zone, lock time-outs and strict mode.

    Without strict mode a server may silently cut texts and accept invalid dates. A transaction idle for *idle_s* (its
    process is frozen, its machine gone) is rolled back, so that its locks end; MySQL reads that part as a comment.
    MariaDB would turn a list of 1000 values into a temporary table, without the index: the threshold prevents that.
    It would answer NOT EXISTS for a few rows by reading a whole audience, where its statistics are those of a day
    before a bulk load: ``exists_to_in`` off has it look each row up.
    """
    return [
        f"SET NAMES utf8mb4 COLLATE {UTF8}",  # literals compare like CiviCRM's columns
        f"SET time_zone = {session_zone(zone)}",
        f"SET innodb_lock_wait_timeout = {lock_wait_s} /*M!100300 , idle_transaction_timeout = {idle_s} */"
        " /*M!100318 , in_predicate_conversion_threshold = 0 */ /*M!100012 , optimizer_switch = 'exists_to_in=off' */",
        "SET sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    ]


def session_zone(zone: ZoneInfo) -> str:
    """SQL for the time zone of a session: its name where the server knows it, else today's offset."""
    offset = datetime.now(zone).strftime("%z")
    plain = f"{offset[:3]}:{offset[3:5]}"
    if zone.key.upper() == "UTC":
        return f"'{plain}'"
    name = re.sub(r"[^A-Za-z0-9_+/-]", "", zone.key)
    return f"IF(CONVERT_TZ('2026-01-01 00:00:00', '+00:00', '{name}') IS NULL, '{plain}', '{name}')"


def zone_trouble(conn: Connection, zone: ZoneInfo) -> str:
    """Why the database cannot convert times to this zone exactly; ``""`` if it can.

    CiviCRM's ``timestamp`` columns are stored in UTC and read in the session's zone. A server without time zone tables
    knows only offsets, which are an hour off for half of the year.
    """
    year = datetime.now(zone).year
    offsets = {datetime(year, month, 1, tzinfo=zone).utcoffset() for month in range(1, 13)}
    if conn.dialect.name == "sqlite" or len(offsets) == 1:
        return ""
    known = conn.exec_driver_sql("SELECT CONVERT_TZ('2026-01-01 00:00:00', '+00:00', %s)", (zone.key,)).scalar()
    load = "mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql"
    return "" if known else f"the server has no time zone tables for {zone.key}; load them ({load})"


def binds_many_rows(conn: Connection) -> bool:
    """Whether the server takes many rows for one prepared statement (`bulk_binding`), as MariaDB does and MySQL not."""
    return bool(getattr(conn.dialect, "is_mariadb", False))


def runs_in_thread(conn: Connection) -> bool:
    """Whether units run in a thread of their own, as on SQLite; on MariaDB they run on the loop's thread."""
    return conn.dialect.name == "sqlite"


def joined_update(dialect: Dialect, table: Table, columns: Sequence[str], count: int) -> str:
    """SQL for MariaDB that sets *columns* of *count* rows, each given as its values in their order, then its ``id``."""
    quote = dialect.identifier_preparer.quote
    first = ", ".join(f"%s AS v{place}" for place in range(len(columns) + 1))
    more = " UNION ALL SELECT " + ", ".join(["%s"] * (len(columns) + 1))
    sets = ", ".join(f"t.{quote(name)} = v.v{place}" for place, name in enumerate(columns))
    joined = f"(SELECT {first}{more * (count - 1)}) AS v ON t.id = v.v{len(columns)}"
    return f"UPDATE {quote(table.name)} AS t JOIN {joined} SET {sets}"  # noqa: S608  names of ours


def text_columns(conn: Connection, table: Table) -> list[str]:
    """The columns that SQLite compares by CiviCRM's collation."""
    types = {column.name: column.type.dialect_impl(conn.dialect) for column in table.columns}
    return [name for name, one in types.items() if getattr(one, "collation", None) == UTF8]


def recollated(conn: Connection, table: Table) -> str:
    """The CREATE TABLE for an SQLite table whose text columns an earlier version made NOCASE; "" if it has none."""
    if conn.dialect.name != "sqlite":
        return ""
    look = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?"
    found = str(conn.exec_driver_sql(look, (table.name,)).scalar() or "")
    changed = found
    for name in text_columns(conn, table):
        changed = re.sub(rf'([\s,(]"?{name}"? \w+(?:\(\d+\))? COLLATE )"?NOCASE"?', rf"\g<1>{UTF8}", changed)
    return "" if changed == found else changed


def recollate(conn: Connection, table: Table, sql: str) -> None:
    """Put *sql* in place of an SQLite table's CREATE TABLE, and make its indexes again.

    SQLite has no ALTER for collations; its documentation allows to edit the text where rows are stored the same.
    """
    version = int(conn.exec_driver_sql("PRAGMA schema_version").scalar_one())
    conn.exec_driver_sql("PRAGMA writable_schema = ON")
    conn.exec_driver_sql("UPDATE sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?", (sql, table.name))
    conn.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")  # other connections read the schema again
    conn.exec_driver_sql("PRAGMA writable_schema = RESET")  # so does this one
    conn.exec_driver_sql(f'REINDEX "{table.name}"')


def insert_new(conn: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert *rows*, except those whose key exists."""
    if not rows:
        return
    statement = (
        sqlite.insert(table).on_conflict_do_nothing()
        if conn.dialect.name == "sqlite"
        else mysql.insert(table).prefix_with("IGNORE")
    )
    conn.execute(statement, list(rows))


def change_mark(conn: Connection) -> tuple[int, ...] | None:
    """A value that changes with every change of the database; None on MariaDB, which has no such value.

    Only values of the same connection can be compared.
    """
    if conn.dialect.name != "sqlite":
        return None
    others = conn.exec_driver_sql("PRAGMA data_version").scalar_one()
    ours = conn.exec_driver_sql("SELECT total_changes()").scalar_one()
    return others, ours


def complaints(conn: Connection, tables: Sequence[str]) -> list[str]:
    """Defects that the database's own check finds in *tables* (SQLite: in the whole file); reads all of it."""
    if conn.dialect.name == "sqlite":
        return [str(row[0]) for row in conn.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
    found = conn.exec_driver_sql("CHECK TABLE " + ", ".join(f"`{name}`" for name in tables)).mappings().all()
    return [
        f"{row['Table']}: {row['Msg_text']}" for row in found if str(row["Msg_type"]).lower() in ("error", "warning")
    ]


def is_damaged(conn: Connection, up_to: int = QUICK_CHECK_BYTES) -> bool:
    """Whether a quick check finds an SQLite file of at most *up_to* bytes corrupt; a larger one is not checked."""
    if conn.dialect.name != "sqlite":
        return False
    pages, size = (int(conn.exec_driver_sql(f"PRAGMA page_{one}").scalar_one()) for one in ("count", "size"))
    return pages * size <= up_to and str(conn.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()) != "ok"


def last_row_id(conn: Connection, table: Table) -> int:
    """The highest id ever assigned in a table, whether or not that row still exists."""
    if conn.dialect.name == "sqlite":
        found = conn.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).scalar()
        return int(found or 0)
    found = conn.exec_driver_sql(
        "SELECT AUTO_INCREMENT FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
        (table.name,),
    ).scalar()
    return int(found or 1) - 1


def foreign_columns(conn: Connection) -> dict[str, dict[str, bool]]:
    """The columns of each table (of the view that stands for it), where others may have made them; nothing on SQLite,
    whose tables are all ours.

    True: a new row must have a value for it.
    """
    if conn.dialect.name == "sqlite":
        return {}
    found: dict[str, dict[str, bool]] = {}
    wanted = (
        "SELECT table_name, column_name, is_nullable = 'NO' AND column_default IS NULL AND extra NOT LIKE '%%auto%%' "
        "AND extra NOT LIKE '%%generated%%' FROM information_schema.columns WHERE table_schema = DATABASE()"
    )
    for table, column, is_demanded in conn.exec_driver_sql(wanted):
        found.setdefault(table, {})[column] = bool(is_demanded)
    for table, view in views_of(conn.dialect).items():
        found[table] = found.pop(view, {})  # one that is broken has none
    return found


NARROW_COLUMN = (
    "SELECT 1 FROM information_schema.columns WHERE table_schema = COALESCE(%s, DATABASE()) "
    "AND character_set_name IN ('utf8', 'utf8mb3') "
    "AND (table_name LIKE 'civicrm\\_%%' OR table_name LIKE 'log\\_civicrm\\_%%') LIMIT 1"
)
"""A column of tables made before CiviCRM used utf8mb4: the server refuses characters of four bytes in it. What is
written to CiviCRM's tables goes on to those of its detailed logging, by triggers, and fails with them."""

LOG_TRIGGERS = (
    "SELECT action_statement FROM information_schema.triggers "
    "WHERE event_object_schema = DATABASE() AND event_object_table = 'civicrm_contact'"
)
_LOG_TABLE = re.compile(r"(?:`([^`]+)`|([\w$-]+))\s*\.\s*`?log_civicrm_contact\b")


def log_database(statements: Iterable[Any]) -> str:
    """The database that CiviCRM's detailed logging is in, as these triggers (`LOG_TRIGGERS`) name it; ``""``: none."""
    found = next((match for one in statements if (match := _LOG_TABLE.search(str(one)))), None)
    return (found[1] or found[2]) if found else ""


def has_narrow_column(cursor: Any) -> bool:
    """Whether tables of CiviCRM's, or those that its changes are logged in, have columns in utf8mb3."""
    cursor.execute(LOG_TRIGGERS)
    logs = log_database(statement for (statement,) in cursor.fetchall()) or None
    for database in dict.fromkeys((None, logs)):
        cursor.execute(NARROW_COLUMN, (database,))
        if cursor.fetchone() is not None:
            return True
    return False


_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|REPLACE)\b", re.IGNORECASE)
_NARROW = "civiapi_is_narrow"


def note_narrow(dialect: Dialect) -> None:
    """Remember that this database has columns without characters of four bytes."""
    setattr(dialect, _NARROW, True)


def is_narrow(conn: Connection) -> bool:
    """Whether what is written to this database goes without characters of four bytes."""
    return bool(getattr(conn.dialect, _NARROW, False))


def narrowed(statement: str, parameters: Any) -> Any:
    """The parameters of a statement that writes, without the characters that utf8mb3 cannot hold."""
    if not _WRITES.match(statement):
        return parameters
    return _narrow(parameters)


def _narrow(value: Any) -> Any:
    if value.__class__ is str:
        return value if value.isascii() else FOUR_BYTES.sub("", value)
    if isinstance(value, list | tuple):
        return type(value)(map(_narrow, value))
    return {key: _narrow(one) for key, one in value.items()} if isinstance(value, dict) else value


MAX_KEY_BYTES, MAX_KEY_CHARACTERS = 767, 191
LONG_COLUMNS = (
    "SELECT columns.column_name FROM information_schema.columns JOIN information_schema.tables "
    "USING (table_schema, table_name) WHERE columns.table_schema = DATABASE() AND columns.table_name = %s "
    "AND columns.character_octet_length > %s AND tables.row_format IN ('Compact', 'Redundant')"
)


def create_index(conn: Connection, table: str, index: Index) -> None:
    """Create an index, not a unique one, of a *table* that may be older than its server.

    The rows of such tables are in a format in which an index takes `MAX_KEY_BYTES` of a column: it has the beginning of
    a longer text then.
    """
    names = [column.name for column in index.columns]
    is_mariadb = conn.dialect.name != "sqlite"
    long = set(conn.exec_driver_sql(LONG_COLUMNS, (table, MAX_KEY_BYTES)).scalars()) if is_mariadb else set()
    if not long.intersection(names):
        index.create(conn)
        return
    parts = (f"`{name}`({MAX_KEY_CHARACTERS})" if name in long else f"`{name}`" for name in names)
    conn.exec_driver_sql(f"CREATE INDEX `{index.name}` ON `{table}` ({', '.join(parts)})")


def table_collations(conn: Connection) -> list[tuple[str, str]]:
    """Each table of CiviCRM's with its collation, those of its detailed logging too; nothing on SQLite."""
    if conn.dialect.name == "sqlite":
        return []
    wanted = (
        "SELECT table_name, table_collation FROM information_schema.tables "
        "WHERE table_schema = COALESCE(%s, DATABASE()) AND table_collation IS NOT NULL AND table_name LIKE %s "
        "ORDER BY table_name"
    )
    logs = log_database(conn.exec_driver_sql(LOG_TRIGGERS).scalars()) or None
    asked = ((None, "civicrm\\_%"), (logs, "log\\_civicrm\\_%"))
    return [(name, collation) for one in asked for name, collation in conn.exec_driver_sql(wanted, one)]


_TRIALS = {
    "SELECT": "SELECT 1 FROM {table} LIMIT 0",
    "INSERT": "EXPLAIN INSERT IGNORE INTO {table} SELECT * FROM {table}",
    "UPDATE": "EXPLAIN UPDATE {table} SET {column} = {column}",
    "DELETE": "EXPLAIN DELETE FROM {table} WHERE {column} IS NULL",
}
"""A statement for each right, which needs it and changes nothing."""


def lacking_rights(conn: Connection, table: Table) -> list[str]:
    """The rights that the database's user lacks on a table, by trying each; nothing on SQLite, which has none."""
    if conn.dialect.name == "sqlite":
        return []
    lacking = []
    for right, trial in _TRIALS.items():
        try:
            conn.exec_driver_sql(trial.format(table=f"`{table.name}`", column=f"`{next(iter(table.c)).name}`"))
        except DBAPIError as error:
            denied = str(error.orig).partition(" command denied to user ")
            if not denied[1]:
                raise
            if right in denied[0]:  # else it is SELECT, which the others need too
                lacking.append(right)
    return lacking
