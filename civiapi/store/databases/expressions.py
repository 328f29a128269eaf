"""SQL expressions that SQLite and MariaDB write differently: lists, addresses, searches, sorting and times."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import orjson
from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    LargeBinary,
    String,
    Text,
    bindparam,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator, TypeEngine

from civiapi.store.databases.text_keys import has_key
from civiapi.store.text.collation import NAME as UTF8
from civiapi.store.text.encoded_text import encode_value, is_encoded


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


class as_code(FunctionElement[str]):
    """An expression that compares as ``code_column`` does: on SQLite it has no collation of the columns in it."""

    inherit_cache = True
    type = String()


@compiles(as_code)
def _as_it_is(element: as_code, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(as_code, "sqlite")
def _without_case(element: as_code, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} COLLATE NOCASE)"


class _DriverList(TypeDecorator[Any]):
    """Values of a list, each of type *of*, as one parameter of MariaDB's driver, which writes them in brackets."""

    impl = Text
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return tuple(encode_value(value) if is_encoded(self.of) else value)


class _JsonList(_DriverList):
    """The same as one JSON text."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return orjson.dumps(super().process_bind_param(value, dialect)).decode()


class _Condition(ColumnElement[bool]):
    """A condition that both databases take as it is, also beside others: SQLAlchemy would compare it with 1."""

    type = Boolean()

    def self_group(self, against: Any = None) -> "_Condition":
        return self


class in_list(_Condition):
    """The column's value is one of a list, however long.

    The list is one parameter, or SQLAlchemy would write the statement anew for every list. SQLite is given one JSON
    text: with several parameters it would compile the statement again, which takes four times as long as finding the
    rows. MariaDB looks the values up in an index at any length (`session_statements`).
    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's way of telling what a cached statement depends on
        ("column", InternalTraversal.dp_clauseelement),
        ("values", InternalTraversal.dp_clauseelement),
        ("is_empty", InternalTraversal.dp_boolean),
    ]

    def __init__(self, column: ColumnElement[Any], values: Collection[Any]) -> None:
        self.column = column
        self.values = bindparam(None, list(values), type_=column.type, expanding=True)
        self.is_empty = not values


@compiles(in_list)
def _in_brackets(element: in_list, compiler: SQLCompiler, **kw: Any) -> str:
    if element.is_empty:
        return "(1 = 0)"  # MariaDB reads no empty brackets
    column = compiler.process(element.column, **kw)
    return f"{column} IN {_packed(element, _DriverList(element.column.type), compiler, **kw)}"


@compiles(in_list, "sqlite")
def _as_one_text(element: in_list, compiler: SQLCompiler, **kw: Any) -> str:
    listed = _packed(element, _JsonList(element.column.type), compiler, **kw)
    return _in_json(element.column, listed, "IN", compiler, **kw)


def _packed(element: in_list, type_: TypeEngine[Any], compiler: SQLCompiler, **kw: Any) -> str:
    """The values as one parameter in the same place of the statement."""
    return compiler.process(bindparam(element.values.key, element.values.value, type_=type_), **kw)


def _in_json(column: ColumnElement[Any], listed: str, operator: str, compiler: SQLCompiler, **kw: Any) -> str:
    mine, theirs = compiler.process(column, **kw), "value"
    if has_key(column):
        mine, theirs = f"text_key({mine})", "text_key(value)"
    return f"{mine} {operator} (SELECT {theirs} FROM json_each({listed}))"  # noqa: S608  compiled, no value in it


class in_values(_Condition):
    """The column's value is, or with *negated* is not, one of a list, which is one parameter.

    So the statement does not depend on the length of the list. ``fill_lists`` puts the list in when it is executed.
    """

    inherit_cache = False

    def __init__(self, column: ColumnElement[Any], values: BindParameter[Any], *, negated: bool = False) -> None:
        self.column = column
        self.values = bindparam(values.key, type_=column.type, required=True)
        self.negated = negated


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
    if tuple not in map(type, values):
        return text, tuple(values)
    if conn.dialect.name == "sqlite":
        return text, tuple([orjson.dumps(v).decode() if v.__class__ is tuple else v for v in values])
    first, *rest = text.split(f"{_LIST}%s")
    lengths = [len(value) for value in values if value.__class__ is tuple]
    filled = [f"{', '.join(['%s'] * count)}{part}" for count, part in zip(lengths, rest, strict=True)]
    flat = [one for value in values for one in (value if value.__class__ is tuple else (value,))]
    return "".join([first, *filled]), tuple(flat)


class same_address(_Condition):
    """Two email addresses are the same but for upper and lower case.

    CiviCRM's collation also holds addresses of different people to be equal (josé@ and jose@, straße@ and strasse@).
    So the column is compared as its index has it, and what is found exactly. SQLite's LOWER knows ASCII letters only.
    With *by_index* false, where another index finds the few rows, they are only compared exactly.
    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's way of telling what a cached statement depends on
        ("column", InternalTraversal.dp_clauseelement),
        ("other", InternalTraversal.dp_clauseelement),
        ("by_index", InternalTraversal.dp_boolean),
    ]

    def __init__(self, column: ColumnElement[Any], other: ColumnElement[Any] | str, *, by_index: bool = True) -> None:
        self.column = column
        self.by_index = by_index
        self.other = bindparam(None, other, type_=column.type) if isinstance(other, str) else other


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


class is_undated(_Condition):
    """A column for times or dates holds something that is none, such as ``0000-00-00 00:00:00``."""

    inherit_cache = False

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.column = column


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
    """Columns, also of bytes, as one text that compares by CiviCRM's collation; NULL is an empty text."""

    inherit_cache = True
    type = Text()


@compiles(loose_text)
def _joined_bytes(element: loose_text, compiler: SQLCompiler, **kw: Any) -> str:
    parts = (f"coalesce(CAST({compiler.process(one, **kw)} AS TEXT), '')" for one in element.clauses)
    return f"(({' || '.join(parts)}) COLLATE {UTF8})"


@compiles(loose_text, "mysql")
@compiles(loose_text, "mariadb")
def _joined_and_collated(element: loose_text, compiler: SQLCompiler, **kw: Any) -> str:
    parts = (f"coalesce(CONVERT({compiler.process(one, **kw)} USING utf8mb4), '')" for one in element.clauses)
    return f"(concat({', '.join(parts)}) COLLATE {UTF8})"


class epoch(FunctionElement[int]):
    """UTC seconds since 1970 of a ``timestamp`` column; 0 or NULL where it holds none."""

    inherit_cache = True


@compiles(epoch, "sqlite")
def _epoch_sqlite(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **kw)}) AS INTEGER)"


@compiles(epoch)
def _epoch_mariadb(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"UNIX_TIMESTAMP({compiler.process(element.clauses, **kw)})"
