"""Every difference between SQLite and MariaDB. Nothing else asks which database it is.

Column types that must look alike from both, upserts, and what has to be said to a connection when it opens.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    bindparam,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator, TypeEngine

from civiapi.store.clock import SITE_FORMAT
from civiapi.store.errors import NoSuchReference, NotUnique, StoreBusy, StoreError, StoreUnusable

UTF8 = "utf8mb4_unicode_ci"

LOOKED_THROUGH = 128 * 1024 * 1024
"""Bytes of a database that are looked through as a server starts: a fraction of a second."""


def text_column(length: int) -> TypeEngine[str]:
    """A short text that compares without regard to case, as CiviCRM's collation does (ASCII letters on SQLite)."""
    return String(length).with_variant(String(length, collation="NOCASE"), "sqlite")


def long_text() -> TypeEngine[str]:
    """Text without a limit, case-insensitive like the short kind."""
    return Text().with_variant(Text(collation="NOCASE"), "sqlite").with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def flag() -> TypeEngine[int]:
    """0 or 1 as CiviCRM keeps it, a number and not a boolean."""
    return Integer().with_variant(mysql.TINYINT(1), "mysql", "mariadb")


def row_id() -> TypeEngine[int]:
    """CiviCRM's row numbers: unsigned there, so that foreign keys to its tables are accepted."""
    return Integer().with_variant(mysql.INTEGER(10, unsigned=True), "mysql", "mariadb")


def big_number() -> TypeEngine[int]:
    """A whole number of 64 bits."""
    return Integer().with_variant(mysql.BIGINT(), "mysql", "mariadb")


def blob() -> TypeEngine[bytes]:
    """Bytes of any length up to 16 MB."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


class SiteTime(TypeDecorator[str]):
    """A site time as text ``YYYY-MM-DD HH:MM:SS``; MariaDB keeps a ``datetime`` or ``timestamp`` and we read text."""

    impl = String(19)
    cache_ok = True

    def __init__(self, *, timestamp: bool = False) -> None:
        super().__init__()
        self.timestamp = timestamp

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.TIMESTAMP() if self.timestamp else mysql.DATETIME())
        return dialect.type_descriptor(String(19))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.strftime(SITE_FORMAT) if isinstance(value, datetime) else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return None if dialect.name == "sqlite" else super().result_processor(dialect, coltype)  # text there already


class SiteDate(TypeDecorator[str]):
    """A date as text ``YYYY-MM-DD``."""

    impl = String(10)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(mysql.DATE() if dialect.name in ("mysql", "mariadb") else String(10))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.isoformat() if isinstance(value, date) else value


def upsert_statement(
    dialect: Dialect, table: Table, values: dict[str, Any], key: Iterable[str], set_: Iterable[str]
) -> Insert:
    """An insert of *values* that, where a row with the same *key* stands, sets its columns *set_* instead."""
    if dialect.name == "sqlite":
        lite = sqlite.insert(table).values(values)
        return lite.on_conflict_do_update(index_elements=list(key), set_={n: lite.excluded[n] for n in set_})
    maria = mysql.insert(table).values(values)
    return maria.on_duplicate_key_update({n: maria.inserted[n] for n in set_})


def upsert(
    conn: Connection, table: Table, rows: Sequence[dict[str, Any]], *, key: Iterable[str], set_: Iterable[str]
) -> None:
    """Insert *rows*; where a row with the same *key* stands, set its columns *set_* instead."""
    if rows:
        conn.execute(_upserting(conn.dialect.name == "sqlite", table, tuple(key), tuple(set_)), list(rows))


@cache
def _upserting(is_sqlite: bool, table: Table, key: tuple[str, ...], set_: tuple[str, ...]) -> Insert:
    """Made once: a stage saves its position with every commit."""
    if is_sqlite:
        lite = sqlite.insert(table)
        return lite.on_conflict_do_update(index_elements=list(key), set_={n: lite.excluded[n] for n in set_})
    maria = mysql.insert(table)
    return maria.on_duplicate_key_update({n: maria.inserted[n] for n in set_})


@contextmanager
def alone(conn: Connection, name: str, *, seconds: int = 120) -> Iterator[None]:
    """Let one process at a time into the block; on MariaDB, what it wrote is committed before the next comes in.

    On SQLite a writer is alone anyway. A Galera cluster keeps such locks on each node apart.
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


ONE_VIEW = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
"""Said to MariaDB at the start of a transaction that only reads."""


def session_statements(zone: ZoneInfo, lock_wait_s: int, idle_s: int) -> list[str]:
    """What a MariaDB session is told when it begins: its zone, how long to wait for locks, to refuse what does not fit.

    A server may be set to cut texts that are too long and to take dates that are none; both would be silent losses.
    A transaction that nobody has spoken in for *idle_s* (its process is frozen, its machine gone) is undone, and its
    locks with it; MySQL has no such thing and reads that part as a comment.
    """
    return [
        f"SET NAMES utf8mb4 COLLATE {UTF8}",  # what is no column compares as CiviCRM's columns do
        f"SET time_zone = {session_zone(zone)}",
        f"SET innodb_lock_wait_timeout = {lock_wait_s} /*M!100300 , idle_transaction_timeout = {idle_s} */",
        "SET sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    ]


def session_zone(zone: ZoneInfo) -> str:
    """SQL for the zone a session tells times in: by name where the server knows it, else the offset of today."""
    offset = datetime.now(zone).strftime("%z")
    plain = f"{offset[:3]}:{offset[3:5]}"
    if zone.key.upper() == "UTC":
        return f"'{plain}'"
    name = re.sub(r"[^A-Za-z0-9_+/-]", "", zone.key)
    return f"IF(CONVERT_TZ('2026-01-01 00:00:00', '+00:00', '{name}') IS NULL, '{plain}', '{name}')"


def zone_trouble(conn: Connection, zone: ZoneInfo) -> str:
    """Why the database cannot tell times in this zone exactly, or nothing.

    CiviCRM's ``timestamp`` columns are kept in UTC and told in the session's zone. A server without time zone tables
    knows only offsets, and by one of those the other half of the year is an hour off.
    """
    year = datetime.now(zone).year
    offsets = {datetime(year, month, 1, tzinfo=zone).utcoffset() for month in range(1, 13)}
    if conn.dialect.name == "sqlite" or len(offsets) == 1:
        return ""
    known = conn.exec_driver_sql("SELECT CONVERT_TZ('2026-01-01 00:00:00', '+00:00', %s)", (zone.key,)).scalar()
    load = "mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql"
    return "" if known else f"the server has no time zone tables for {zone.key}; load them ({load})"


def one_by_one(conn: Connection) -> bool:
    """Whether the driver sends the updates of an executemany one after another, each a trip to the server.

    On MariaDB it does; inserts it sends together on both.
    """
    return conn.dialect.name != "sqlite"


def beside_the_loop(conn: Connection) -> bool:
    """Whether work on the database is done in a thread of its own: on SQLite. On MariaDB the loop does it itself."""
    return conn.dialect.name == "sqlite"


def joined_update(dialect: Dialect, table: Table, columns: Sequence[str], count: int) -> str:
    """SQL for MariaDB that sets *columns* of *count* rows, each given as its values in their order, then its ``id``."""
    quote = dialect.identifier_preparer.quote
    first = ", ".join(f"%s AS v{place}" for place in range(len(columns) + 1))
    more = " UNION ALL SELECT " + ", ".join(["%s"] * (len(columns) + 1))
    sets = ", ".join(f"t.{quote(name)} = v.v{place}" for place, name in enumerate(columns))
    joined = f"(SELECT {first}{more * (count - 1)}) AS v ON t.id = v.v{len(columns)}"
    return f"UPDATE {quote(table.name)} AS t JOIN {joined} SET {sets}"  # noqa: S608  names of ours


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column as a value that SQLite does not look up in an index (a leading ``+``; MariaDB ignores it).

    Nobody gathers statistics on our SQLite files, so its planner cannot know that a group or an audience is most of
    a table. Where a better index is at hand, this keeps it from the worse one.
    """
    return UnaryExpression(column, operator=custom_op("+"))


class _JsonList(TypeDecorator[Any]):
    """Values of a list as one JSON text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return orjson.dumps(value).decode()


class among(ColumnElement[bool]):
    """The column's value is one of a list, of some hundred at a time: ``IN``, with the list as SQLite reads it fastest.

    To SQLite it is handed as one JSON text. As parameters, SQLAlchemy writes the statement anew for every list and
    SQLite reads it anew, which costs four times what finding the rows does.
    """

    inherit_cache = True
    type = Boolean()
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's way of telling what a cached statement depends on
        ("column", InternalTraversal.dp_clauseelement),
        ("values", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, column: ColumnElement[Any], values: Collection[Any]) -> None:
        self.column = column
        self.values = bindparam(None, list(values), type_=column.type, expanding=True)

    def self_group(self, against: Any = None) -> "among":
        return self


@compiles(among)
def _as_parameters(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.column.in_(element.values), **kw))


@compiles(among, "sqlite")
def _as_one_text(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    packed = bindparam(element.values.key, element.values.value, type_=_JsonList())  # the same place of the statement
    column, listed = compiler.process(element.column, **kw), compiler.process(packed, **kw)
    return f"{column} IN (SELECT value FROM json_each({listed}))"  # noqa: S608  compiled, no value in it


class rare(FunctionElement[int]):
    """A condition that few rows meet, whatever SQLite's statistics say of its column (MariaDB looks for itself)."""

    name = "rare"
    inherit_cache = True
    type = Integer()  # a Boolean would be compared with 1, and no index be used


@compiles(rare)
def _plainly(element: rare, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(rare, "sqlite")
def _with_likelihood(element: rare, compiler: SQLCompiler, **kw: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **kw)}, 0.0001)"


class loose_text(FunctionElement[str]):
    """Columns, bytes among them, as one text that LIKE searches without regard to case; nothing is an empty text."""

    inherit_cache = True
    type = Text()


@compiles(loose_text)
def _joined_bytes(element: loose_text, compiler: SQLCompiler, **kw: Any) -> str:
    parts = (f"coalesce(CAST({compiler.process(one, **kw)} AS TEXT), '')" for one in element.clauses)
    return f"({' || '.join(parts)})"


@compiles(loose_text, "mysql")
@compiles(loose_text, "mariadb")
def _joined_and_collated(element: loose_text, compiler: SQLCompiler, **kw: Any) -> str:
    parts = (f"coalesce(CONVERT({compiler.process(one, **kw)} USING utf8mb4), '')" for one in element.clauses)
    return f"(concat({', '.join(parts)}) COLLATE {UTF8})"


def insert_new(conn: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert *rows*, leaving out those whose key is taken."""
    if not rows:
        return
    statement = (
        sqlite.insert(table).on_conflict_do_nothing()
        if conn.dialect.name == "sqlite"
        else mysql.insert(table).prefix_with("IGNORE")
    )
    conn.execute(statement, list(rows))


def change_mark(conn: Connection) -> tuple[int, ...] | None:
    """A value that differs once anything in the database was changed since; None where the database has no such thing.

    Compare marks of one and the same connection only. SQLite counts the commits of others and our own changed rows.
    """
    if conn.dialect.name != "sqlite":
        return None
    others = conn.exec_driver_sql("PRAGMA data_version").scalar_one()
    ours = conn.exec_driver_sql("SELECT total_changes()").scalar_one()
    return others, ours


def complaints(conn: Connection, tables: Sequence[str]) -> list[str]:
    """What the database itself finds wrong with how it keeps *tables* (SQLite: with its whole file); reads it all."""
    if conn.dialect.name == "sqlite":
        return [str(row[0]) for row in conn.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
    found = conn.exec_driver_sql("CHECK TABLE " + ", ".join(f"`{name}`" for name in tables)).mappings().all()
    return [
        f"{row['Table']}: {row['Msg_text']}" for row in found if str(row["Msg_type"]).lower() in ("error", "warning")
    ]


def is_damaged(conn: Connection, up_to: int = LOOKED_THROUGH) -> bool:
    """Whether a file of at most *up_to* bytes is corrupt, looked through quickly; a larger one is believed."""
    if conn.dialect.name != "sqlite":
        return False
    pages, size = (int(conn.exec_driver_sql(f"PRAGMA page_{one}").scalar_one()) for one in ("count", "size"))
    return pages * size <= up_to and str(conn.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()) != "ok"


def last_row_id(conn: Connection, table: Table) -> int:
    """The highest id a table ever gave out, whether or not that row is still there."""
    if conn.dialect.name == "sqlite":
        found = conn.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).scalar()
        return int(found or 0)
    found = conn.exec_driver_sql(
        "SELECT AUTO_INCREMENT FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
        (table.name,),
    ).scalar()
    return int(found or 1) - 1


_UNIQUE = re.compile(r"UNIQUE constraint|Duplicate entry|\b1062\b", re.I)
_REFERENCE = re.compile(r"FOREIGN KEY constraint|foreign key constraint fails|\b145[12]\b|\b121[67]\b", re.I)
# 1213 deadlock (on Galera also a commit that another node was ahead of), 1205 lock wait, 1040 and 1203 too many
# connections, 1047 a node that is not ready
_BUSY = re.compile(r"database (table )?is locked|^\((1213|1205|1040|1203|1047)\b|Deadlock", re.I)
_LOST = re.compile(r"\b(2006|2013|2003|2055|1927|1317)\b|Lost connection|server has gone away|Connection.*closed", re.I)


def is_busy(error: Exception) -> bool:
    """Another transaction stood in the way; the same unit may be run again from its start."""
    return bool(_BUSY.search(_words(error)))


def is_lost(error: SQLAlchemyError) -> bool:
    """The connection went away under the unit."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated or _LOST.search(str(error.orig)))


_UNUSABLE = {
    "is locked": "it is locked by another process",
    "readonly": "it is read-only",
    "unable to open": "it cannot be opened",
    "disk is full": "the disk is full",
    "malformed": "it is corrupt; restore a backup (civiapi backup makes them)",
    "not a database": "the file is not a database",
    "disk I/O error": "the disk cannot be read or written",
    "Access denied": "the user name or password is refused",
    "Unknown database": "there is no such database",
    "Can't connect": "the server does not answer",
    "getaddrinfo": "the server does not answer",
}


def _words(error: Exception) -> str:
    """What the driver said; SQLAlchemy's own text would have the SQL in it."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def translate(error: Exception) -> StoreError:
    """Our own exception for a driver's or SQLAlchemy's; its text names no SQL and no value."""
    text = _words(error)
    if isinstance(error, IntegrityError) or _UNIQUE.search(text) or _REFERENCE.search(text):
        if _UNIQUE.search(text):
            return NotUnique("already exists")
        return NoSuchReference("constraint violation")
    if is_busy(error):
        return StoreBusy("the database is locked by another process; try again")
    if words := why_unusable(error):
        return StoreUnusable(f"The database cannot be used: {words}.")
    return StoreError("database error")


def why_unusable(error: Exception) -> str:
    """What keeps a database from being used at all, in words that follow a colon; ``""`` for anything else."""
    text = _words(error).lower()
    return next((words for sign, words in _UNUSABLE.items() if sign.lower() in text), "")
