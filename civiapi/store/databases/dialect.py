"""Every difference between SQLite and MariaDB; no other module asks which database it is.

Column types that give the same values on both, upserts, and the settings of a new connection.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import cache
from typing import Any, cast
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import (
    BinaryExpression,
    BindParameter,
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
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator, TypeEngine

from civiapi.store.databases.text_keys import has_key
from civiapi.store.errors import NoSuchReference, NotUnique, StoreBusy, StoreError, StoreUnusable
from civiapi.store.text import collation
from civiapi.store.text.encoded_text import EncodedText, encode_value, is_encoded

UTF8 = collation.NAME

QUICK_CHECK_BYTES = 128 * 1024 * 1024
"""Size up to which a database is checked when a server starts: a fraction of a second."""


def text_column(length: int) -> TypeEngine[str]:
    """A short text that people write; it compares by CiviCRM's collation (on SQLite by ``collation.compare``)."""
    return String(length).with_variant(String(length, collation=UTF8), "sqlite")


def code_column(length: int) -> TypeEngine[str]:
    """A short text that programs write: an id, a status, one of a list of options; case is ignored.

    On SQLite its indexes are compared without a call into Python, which matters for those of the sync. Codes are ASCII,
    so they compare the same on MariaDB, where both kinds of columns have CiviCRM's collation.
    """
    return String(length).with_variant(String(length, collation="NOCASE"), "sqlite")


def long_text() -> TypeEngine[str]:
    """Text without a limit, compared by CiviCRM's collation."""
    return Text().with_variant(Text(collation=UTF8), "sqlite").with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def civicrm_text(length: int) -> TypeEngine[str]:
    """A short text in a table of CiviCRM, which is stored encoded; *length* counts the stored characters."""
    return EncodedText(text_column(length))


def civicrm_long_text() -> TypeEngine[str]:
    """Text without a limit in a table of CiviCRM, which is stored encoded. HTML and serialized values are not."""
    return EncodedText(long_text())


def flag() -> TypeEngine[int]:
    """0 or 1, a number as in CiviCRM and not a boolean."""
    return Integer().with_variant(mysql.TINYINT(1), "mysql", "mariadb")


def row_id() -> TypeEngine[int]:
    """A row id, unsigned on MariaDB so that foreign keys to CiviCRM's tables are accepted."""
    return Integer().with_variant(mysql.INTEGER(10, unsigned=True), "mysql", "mariadb")


def signed() -> TypeEngine[int]:
    """A whole number of 32 bits."""
    return Integer()


def big_number() -> TypeEngine[int]:
    """A whole number of 64 bits."""
    return Integer().with_variant(mysql.BIGINT(), "mysql", "mariadb")


def blob() -> TypeEngine[bytes]:
    """Bytes of any length up to 16 MB."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


class SiteTime(TypeDecorator[str]):
    """A site time as text ``YYYY-MM-DD HH:MM:SS``; on MariaDB a ``datetime`` or ``timestamp``, read as text."""

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
        return value.isoformat(" ", "seconds") if isinstance(value, datetime) else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return None if dialect.name == "sqlite" else super().result_processor(dialect, coltype)  # is text already


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


SIGN = "SET @civicrm_user_id = {}"
SIGN_FOR_DOMAIN = "SET @civicrm_user_id = (SELECT contact_id FROM civicrm_domain ORDER BY id LIMIT 1)"
"""The author of what a session writes, for the triggers of CiviCRM's detailed logging (MariaDB)."""


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


def batches_updates_poorly(conn: Connection) -> bool:
    """Whether the driver sends the updates of an executemany one by one, as on MariaDB; it sends inserts together."""
    return conn.dialect.name != "sqlite"


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


class unindexed(FunctionElement[Any]):
    """The column as a value for which no index is used.

    Databases do not know beforehand that a group or an audience is most of a table: our SQLite files have no
    statistics, and MariaDB's are of another day. Where a better index exists, this excludes the worse one.
    """

    name = "unindexed"
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unindexed)
def _as_expression(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    return f"({column} + 0)" if isinstance(element.type, Integer) else f"CONCAT({column})"


@compiles(unindexed, "sqlite")
def _with_plus(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(+{compiler.process(element.clauses, **kw)})"


class _JsonList(TypeDecorator[Any]):
    """Values of a list, each of type *of*, as one JSON text."""

    impl = Text
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return orjson.dumps(encode_value(value) if is_encoded(self.of) else value).decode()


class in_list(ColumnElement[bool]):
    """The column's value is one of a list, however long.

    SQLite is given one JSON text: with parameters, SQLAlchemy writes the statement for every list and SQLite compiles
    it, which takes four times as long as finding the rows. MariaDB is given parameters, and looks them up in an index
    at any length (`session_statements`).
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

    def self_group(self, against: Any = None) -> "in_list":
        return self


@compiles(in_list)
def _as_parameters(element: in_list, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.column.in_(element.values), **kw))


@compiles(in_list, "sqlite")
def _as_one_text(element: in_list, compiler: SQLCompiler, **kw: Any) -> str:
    of = _JsonList(element.column.type)
    packed = bindparam(element.values.key, element.values.value, type_=of)  # the same place of the statement
    return _in_json(element.column, compiler.process(packed, **kw), "IN", compiler, **kw)


def _in_json(column: ColumnElement[Any], listed: str, operator: str, compiler: SQLCompiler, **kw: Any) -> str:
    mine, theirs = compiler.process(column, **kw), "value"
    if has_key(column):
        mine, theirs = f"text_key({mine})", "text_key(value)"
    return f"{mine} {operator} (SELECT {theirs} FROM json_each({listed}))"  # noqa: S608  compiled, no value in it


class in_values(ColumnElement[bool]):
    """The column's value is, or with *negated* is not, one of a list, which is one parameter.

    So the statement does not depend on the length of the list. ``fill_lists`` puts the list in when it is executed.
    """

    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], values: BindParameter[Any], *, negated: bool = False) -> None:
        self.column = column
        self.values = bindparam(values.key, type_=column.type, required=True)
        self.negated = negated

    def self_group(self, against: Any = None) -> "in_values":
        return self


_LIST = "/* list */"


@compiles(in_values)
def _as_place_for_many(element: in_values, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed = compiler.process(element.column, **kw), compiler.process(element.values, **kw)
    return f"{column} {'NOT IN' if element.negated else 'IN'} ({_LIST}{listed})"


@compiles(in_values, "sqlite")
def _as_place_for_one_text(element: in_values, compiler: SQLCompiler, **kw: Any) -> str:
    listed = compiler.process(element.values, **kw)
    return _in_json(element.column, listed, "NOT IN" if element.negated else "IN", compiler, **kw)


def fill_lists(conn: Connection, text: str, values: list[Any]) -> tuple[str, tuple[Any, ...]]:
    """A compiled statement and its values, of which tuples are lists of ``in_values``, as the driver takes them."""
    if not any(value.__class__ is tuple for value in values):
        return text, tuple(values)
    if conn.dialect.name == "sqlite":
        return text, tuple([orjson.dumps(v).decode() if v.__class__ is tuple else v for v in values])
    first, *rest = text.split(f"{_LIST}%s")
    lengths = [len(value) for value in values if value.__class__ is tuple]
    filled = [f"{', '.join(['%s'] * count)}{part}" for count, part in zip(lengths, rest, strict=True)]
    flat = [one for value in values for one in (value if value.__class__ is tuple else (value,))]
    return "".join([first, *filled]), tuple(flat)


class same_address(ColumnElement[bool]):
    """Two email addresses are the same but for upper and lower case.

    CiviCRM's collation also holds addresses of different people to be equal (josé@ and jose@, straße@ and strasse@).
    So the column is compared as its index has it, and what is found exactly. SQLite's LOWER knows ASCII letters only.
    With *by_index* false, where another index finds the few rows, they are only compared exactly.
    """

    inherit_cache = True
    type = Boolean()
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's way of telling what a cached statement depends on
        ("column", InternalTraversal.dp_clauseelement),
        ("other", InternalTraversal.dp_clauseelement),
        ("by_index", InternalTraversal.dp_boolean),
    ]

    def __init__(self, column: ColumnElement[Any], other: ColumnElement[Any] | str, *, by_index: bool = True) -> None:
        self.column = column
        self.by_index = by_index
        self.other = bindparam(None, other, type_=column.type) if isinstance(other, str) else other

    def self_group(self, against: Any = None) -> "same_address":
        return self


@compiles(same_address)
def _by_index_then_exactly(element: same_address, compiler: SQLCompiler, **kw: Any) -> str:
    column, other = compiler.process(element.column, **kw), compiler.process(element.other, **kw)
    exactly = f"CAST(LOWER({column}) AS BINARY) = CAST(LOWER({other}) AS BINARY)"
    if not element.by_index:
        return f"({exactly})"
    known: Mapping[str, str] = getattr(compiler.dialect, _COLLATIONS, {})
    mine, theirs = (known.get(str(one), "") for one in (element.column, element.other))
    alike = other if mine == theirs or not theirs else f"CONVERT({other} USING {mine.partition('_')[0]}) COLLATE {mine}"
    return f"({column} = {alike} AND {exactly})"


_COLLATIONS = "civiapi_collations"
ADDRESS_COLUMNS = (
    "SELECT CONCAT(table_name, '.', column_name), collation_name FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND (table_name, column_name) IN "
    "(('civicrm_email', 'email'), ('civicrm_mailchimpsync_cache', 'mailchimp_email'))"
)


def note_collations(dialect: Dialect, rows: Iterable[tuple[str, str]]) -> None:
    """Remember the collations of the columns that hold addresses (the rows of ``ADDRESS_COLUMNS``).

    Where tables have different ones, the server refuses to compare their columns unless it is told how.
    """
    setattr(dialect, _COLLATIONS, dict(rows))


@compiles(same_address, "sqlite")
def _by_index_then_in_bytes(element: same_address, compiler: SQLCompiler, **kw: Any) -> str:
    column, other = compiler.process(element.column, **kw), compiler.process(element.other, **kw)
    ours = f"lower_of_any({column}) = lower_of_any({other})"  # ASCII is compared by SQLite itself, which is faster
    exactly = f"(LOWER({column}) = LOWER({other}) OR {ours})"  # a function's value: no collation
    if not element.by_index:
        return exactly
    alike = f"text_key({column}) = text_key({other})" if has_key(element.column) else f"{column} = {other}"
    return f"({alike} AND {exactly})"


class unlikely(FunctionElement[int]):
    """A hint to SQLite that few rows meet a condition; MariaDB has statistics."""

    name = "unlikely"
    inherit_cache = True
    type = Integer()  # a Boolean would be compared with 1, without an index


@compiles(unlikely)
def _plainly(element: unlikely, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(unlikely, "sqlite")
def _with_likelihood(element: unlikely, compiler: SQLCompiler, **kw: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **kw)}, 0.0001)"


class is_undated(ColumnElement[bool]):
    """A column for times or dates holds something that is none, such as ``0000-00-00 00:00:00``."""

    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.column = column

    def self_group(self, against: Any = None) -> "is_undated":
        return self


@compiles(is_undated)
def _without_day(element: is_undated, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.column, **kw)
    return f"(MONTH({column}) = 0 OR DAYOFMONTH({column}) = 0)"


@compiles(is_undated, "sqlite")
def _not_read_as_date(element: is_undated, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.column, **kw)
    return f"({column} IS NOT NULL AND {column} != '' AND datetime({column}) IS NULL)"


class joined_bytes(FunctionElement[bytes]):
    """Bytes one after the other."""

    inherit_cache = True
    type = LargeBinary()


@compiles(joined_bytes)
def _concatenated(element: joined_bytes, compiler: SQLCompiler, **kw: Any) -> str:
    return f"concat({compiler.process(element.clauses, **kw)})"


@compiles(joined_bytes, "sqlite")
def _joined_as_blob(element: joined_bytes, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({' || '.join(compiler.process(one, **kw) for one in element.clauses)} AS BLOB)"


class begins_like(FunctionElement[bool]):
    """``column LIKE pattern`` for a pattern that begins with text.

    MariaDB finds the rows in an index. SQLite, whose LIKE is a function of ours, is given the range to look in.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], pattern: Any) -> None:
        super().__init__(column.like(pattern))

    def self_group(self, against: Any = None) -> "begins_like":
        return self


def _test_of(element: begins_like) -> BinaryExpression[bool]:
    [test] = element.clauses
    return cast(BinaryExpression[bool], test)


@compiles(begins_like)
def _as_like(element: begins_like, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_test_of(element), **kw)


@compiles(begins_like, "sqlite")
def _in_range(element: begins_like, compiler: SQLCompiler, **kw: Any) -> str:
    test = _test_of(element)
    like = compiler.process(test, **kw)
    if not has_key(test.left):
        return like
    key, pattern = f"text_key({compiler.process(test.left, **kw)})", compiler.process(test.right, **kw)
    return f"({like} AND {key} >= text_key(like_low({pattern})) AND {key} <= text_key(like_high({pattern})))"


class loose_text(FunctionElement[str]):
    """Columns, also of bytes, as one text that LIKE searches case-insensitively; NULL is an empty text."""

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


_UNIQUE = re.compile(r"UNIQUE constraint|Duplicate entry|\b1062\b", re.I)
_REFERENCE = re.compile(r"FOREIGN KEY constraint|foreign key constraint fails|\b145[12]\b|\b121[67]\b", re.I)
# 1213 deadlock (on Galera also a commit that another node was ahead of), 1205 lock wait, 1040 and 1203 too many
# connections, 1047 a node that is not ready
_BUSY = re.compile(r"database (table )?is locked|^\((1213|1205|1040|1203|1047)\b|Deadlock", re.I)
_LOST = re.compile(r"\b(2006|2013|2003|2055|1927|1317)\b|Lost connection|server has gone away|Connection.*closed", re.I)


def is_busy(error: Exception) -> bool:
    """Whether another transaction was in the way, so that the unit can be repeated."""
    return bool(_BUSY.search(_message(error)))


def is_lost(error: SQLAlchemyError) -> bool:
    """Whether the connection was lost."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated or _LOST.search(str(error.orig)))


_UNUSABLE = {
    "is locked": "it is locked by another process",
    "readonly": "it is read-only",
    "read-only option": "it is read-only",
    "read_only": "it is read-only",
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


def _message(error: Exception) -> str:
    """The driver's message; SQLAlchemy's text contains the SQL."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def translate(error: Exception) -> StoreError:
    """The ``StoreError`` for an exception of the driver or SQLAlchemy; its text contains no SQL and no value."""
    text = _message(error)
    if isinstance(error, IntegrityError) or _UNIQUE.search(text) or _REFERENCE.search(text):
        if _UNIQUE.search(text):
            return NotUnique("already exists")
        return NoSuchReference("constraint violation")
    if is_busy(error):
        return StoreBusy("the database is locked by another process; try again")
    if reason := why_unusable(error):
        return StoreUnusable(f"The database cannot be used: {reason}.")
    return StoreError("database error")


def why_unusable(error: Exception) -> str:
    """Why a database cannot be used at all, as text after a colon; ``""`` for any other error."""
    text = _message(error).lower()
    return next((reason for sign, reason in _UNUSABLE.items() if sign.lower() in text), "")


def foreign_columns(conn: Connection) -> dict[str, set[str]]:
    """The columns of each table, where others may have made them; nothing on SQLite, whose tables are all ours."""
    if conn.dialect.name == "sqlite":
        return {}
    found: dict[str, set[str]] = {}
    wanted = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    for table, column in conn.exec_driver_sql(wanted):
        found.setdefault(table, set()).add(column)
    return found


NARROW_COLUMNS = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() "
    "AND character_set_name IN ('utf8', 'utf8mb3') AND table_name LIKE 'civicrm\\_%%'"
)
"""The columns of tables made before CiviCRM used utf8mb4: the server refuses characters of four bytes in them."""

_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|REPLACE)\b", re.IGNORECASE)
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")


def narrowed(statement: str, parameters: Any) -> Any:
    """The parameters of a statement that writes, without the characters that utf8mb3 cannot hold."""
    if not _WRITES.match(statement):
        return parameters
    return _narrow(parameters)


def _narrow(value: Any) -> Any:
    if value.__class__ is str:
        return value if value.isascii() else _FOUR_BYTES.sub("", value)
    if isinstance(value, list | tuple):
        return type(value)(map(_narrow, value))
    return {key: _narrow(one) for key, one in value.items()} if isinstance(value, dict) else value


def table_collations(conn: Connection) -> list[tuple[str, str]]:
    """Each table of CiviCRM's with its collation; nothing on SQLite."""
    if conn.dialect.name == "sqlite":
        return []
    wanted = (
        "SELECT table_name, table_collation FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND table_collation IS NOT NULL AND table_name LIKE 'civicrm\\_%%' ORDER BY table_name"
    )
    return [(name, collation) for name, collation in conn.exec_driver_sql(wanted)]


class epoch(FunctionElement[int]):
    """UTC seconds since 1970 of a ``timestamp`` column; 0 or NULL where it holds none."""

    inherit_cache = True


@compiles(epoch, "sqlite")
def _epoch_sqlite(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **kw)}) AS INTEGER)"


@compiles(epoch)
def _epoch_mariadb(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"UNIX_TIMESTAMP({compiler.process(element.clauses, **kw)})"
