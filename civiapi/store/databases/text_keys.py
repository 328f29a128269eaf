"""Indexes of texts on SQLite: over a key of the text, which SQLite compares by itself.

To put a text in its place in an index takes a dozen comparisons, and to compare texts by CiviCRM's collation SQLite
calls into Python: 7 µs for each text written, most of the time of a first sync's inserts. So the indexes of text
columns hold ``text_key(column)`` there (`collation.text_key`: one call for each text), and each comparison with such a
column is written with the keys of both sides, which finds the same rows. What compares several values (``IN``,
``BETWEEN``) is not rewritten: use ``in_list``. MariaDB has the collation itself, and none of this.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import BinaryExpression, Column, ColumnElement, Connection, Index, Table, inspect
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from civiapi.store.text import collation

MOSTLY_NULL = {"mostly_null": True}
"""``info`` of an index of a text that few rows have: it holds the text, because there is nothing to compare."""

_SQLITE = sqlite_dialect()
_COMPARISONS = {
    operators.eq: "=",
    operators.ne: "!=",
    operators.lt: "<",
    operators.le: "<=",
    operators.gt: ">",
    operators.ge: ">=",
}


def has_key(element: Any) -> bool:
    """Whether this is a column whose index on SQLite holds keys: a text that people write, in an index of its table."""
    bases = element.base_columns if isinstance(element, Column) else ()
    return any(isinstance(one.table, Table) and _is_indexed(one.table, one.key) for one in bases)


@lru_cache(maxsize=1024)
def _is_indexed(table: Table, key: str) -> bool:
    column = table.c[key]  # an entity may know a column by another name than the database
    is_text = getattr(column.type.dialect_impl(_SQLITE), "collation", None) == collation.NAME
    keyed = (index for index in table.indexes if not index.unique and index.info != MOSTLY_NULL)
    return is_text and any(key in index.columns for index in keyed)


class in_order(FunctionElement[Any]):
    """A column to sort by, as its index has it."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(in_order)
def _plainly(element: in_order, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(in_order, "sqlite")
def _by_key(element: in_order, compiler: SQLCompiler, **kw: Any) -> str:
    [column] = element.clauses
    text = compiler.process(column, **kw)
    return f"text_key({text})" if has_key(column) else text


@compiles(BinaryExpression, "sqlite")
def _compared_by_key(element: BinaryExpression[Any], compiler: SQLCompiler, **kw: Any) -> str:
    sign = _COMPARISONS.get(element.operator)
    if sign is None or not (has_key(element.left) or has_key(element.right)):
        return str(compiler.visit_binary(element, **kw))  # type: ignore[no-untyped-call]
    left, right = compiler.process(element.left, **kw), compiler.process(element.right, **kw)
    return f"text_key({left}) {sign} text_key({right})"


@compiles(CreateIndex, "sqlite")
def _create_over_keys(element: CreateIndex, compiler: DDLCompiler, **kw: Any) -> str:
    index: Index = element.element
    if not any(map(has_key, index.columns)):
        return str(compiler.visit_create_index(element, **kw))  # type: ignore[no-untyped-call]
    quote = compiler.preparer.quote
    parts = [f"text_key({quote(c.name)})" if has_key(c) else quote(c.name) for c in index.columns]
    assert index.table is not None  # noqa: S101  it is one of a declared table
    return f"CREATE INDEX {quote(str(index.name))} ON {quote(index.table.name)} ({', '.join(parts)})"


def index_names(conn: Connection, table: str) -> set[str]:
    """The names of a table's indexes. SQLAlchemy leaves out those of expressions."""
    if conn.dialect.name == "sqlite":
        wanted = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?"
        return set(conn.exec_driver_sql(wanted, (table,)).scalars())
    return {str(index["name"]) for index in inspect(conn).get_indexes(table)}


def drop_index(conn: Connection, table: str, name: str) -> None:
    """Drop an index of ours, if it is there."""
    if name in index_names(conn, table):
        on = "" if conn.dialect.name == "sqlite" else f" ON {table}"
        conn.exec_driver_sql(f"DROP INDEX {name}{on}")


def index_by_keys(conn: Connection, tables: Iterable[Table]) -> None:
    """Make the indexes of texts again, where an earlier version made them of the texts themselves.

    The others, which have the collation, are sorted again: earlier versions had two characters of ASCII out of place.
    """
    if conn.dialect.name != "sqlite":
        return
    wanted = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOT LIKE '%text_key(%'"
    old = set(conn.exec_driver_sql(wanted).scalars())
    for index in [one for table in tables for one in table.indexes]:
        if index.name in old and any(map(has_key, index.columns)):
            conn.exec_driver_sql(f'DROP INDEX "{index.name}"')
            index.create(conn)
    conn.exec_driver_sql(f"REINDEX {collation.NAME}")
