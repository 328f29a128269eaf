"""Selects that are compiled once and then run by the driver, without Core's work for each execution and result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Dialect, Integer, Select, String, bindparam
from sqlalchemy.exc import DBAPIError

from civiapi.store.databases.expressions import fill_lists, in_values
from civiapi.store.databases.statements import begin_statement, note_statement
from civiapi.store.text.encoded_text import encode_value, is_encoded

T = TypeVar("T")

_ME = "me"
ME = bindparam(_ME, required=True, type_=Integer())
"""The place of the caller's contact id, so that callers with the same rights share a select."""


@dataclass(frozen=True, slots=True)
class CompiledQuery:
    """A compiled select: its text, the order of its values, and the names of its columns.

    ``order`` has indexes into the call's values followed by the ``constants`` of the statement and the caller's
    contact. A value that is a tuple is a list (``expressions.fill_lists``). ``encoded`` are the values that are
    compared with encoded text (``store/text/encoded_text.py``), ``decoded`` the columns that may hold such text.
    """

    text: str
    order: tuple[int, ...]
    constants: tuple[Any, ...]
    keys: tuple[str, ...]
    encoded: tuple[int, ...]
    decoded: tuple[int, ...]

    def rows(self, conn: Connection, values: Sequence[Any], me: int | None = None) -> Sequence[Sequence[Any]]:
        """The rows of the driver, without Core's result, which takes 40 µs for the metadata of 40 columns (measured).

        *me* is the caller's contact. Raises ``DBAPIError`` as Core does.
        """
        every = [*values, *self.constants, me]
        for place in self.encoded:
            every[place] = encode_value(every[place])
        text, parameters = fill_lists(conn, self.text, [every[i] for i in self.order])
        return run_by_driver(conn, text, parameters, _all_rows)


_all_rows = methodcaller("fetchall")


def run_by_driver(conn: Connection, text: str, parameters: Sequence[Any], take: Callable[[Any], T]) -> T:
    """What *take* takes of the driver's cursor once it has executed a statement. Raises ``DBAPIError`` as Core does."""
    begin_statement(conn)
    note_statement(conn, text, parameters)
    cursor = conn.connection.cursor()
    try:
        cursor.execute(text, parameters)
        return take(cursor)
    except conn.dialect.loaded_dbapi.Error as error:
        raise _as_core(conn, text, error) from error
    except BaseException:
        if conn.dialect.is_async:  # cancelled: the answer is still to come, and nobody else may get it
            conn.invalidate()  # on SQLite nothing is to come, and the store has this one connection to write
        raise
    finally:
        cursor.close()


def _as_core(conn: Connection, text: str, error: Exception) -> BaseException:
    """A driver's error as Core would raise it, so that the store can decide about a retry."""
    lost = conn.dialect.is_disconnect(error, conn.connection.dbapi_connection, None)  # type: ignore[arg-type]
    if lost:  # Core meets it as well, and gives up this connection and those that are as old; or at least this one
        conn.exec_driver_sql("SELECT 1")
        conn.invalidate(error)
    base = conn.dialect.loaded_dbapi.Error
    return DBAPIError.instance(
        text, None, error, base, hide_parameters=True, connection_invalidated=lost, dialect=conn.dialect
    )


class Binder:
    """Makes bind parameters, p0, p1…, in the order of the values."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> BindParameter[Any]:
        self.count += 1
        return bindparam(f"p{self.count - 1}", required=True)

    def among(self, column: ColumnElement[Any], *, negated: bool) -> ColumnElement[bool]:
        """The column's value is, or is not, one of a list, which is the next value."""
        return in_values(column, self(), negated=negated)


def compile_query(dialect: Dialect, statement: Select[Any], bind: Binder, keys: tuple[str, ...]) -> CompiledQuery:
    """*statement*, whose values are placed by *bind* and whose columns are called *keys*, for any connection."""
    compiled = statement.compile(dialect=dialect)
    places = {f"p{n}": n for n in range(bind.count)} | {_ME: -1}
    constants: list[Any] = []
    for name in compiled.positiontup or ():
        if name not in places:
            places[name] = bind.count + len(constants)
            constants.append(compiled.params[name])
    order = tuple(places[name] for name in compiled.positiontup or ())
    encoded = [places[name] for name, bound in compiled.binds.items() if name in places and is_encoded(bound.type)]
    never = String, Integer  # plain text and numbers
    decoded = [place for place, one in enumerate(statement.selected_columns) if not isinstance(one.type, never)]
    return CompiledQuery(str(compiled), order, tuple(constants), keys, tuple(encoded), tuple(decoded))
