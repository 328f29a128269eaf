"""What databases' drivers keep of statements, bounded by size.

SQLAlchemy keeps compiled statements with the values they were first executed with, and Python's sqlite3 keeps prepared
ones with the values they were last executed with: both by number, not by size. A caller chooses texts and lists, so
large ones must not stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.util import LRUCache

COMPILED_KEPT = 1_000
MAX_COMPILED_TEXT = 20_000  # characters of a compiled statement that is kept
MAX_COMPILED_VALUE = 2_000  # characters or elements of a value kept with it: lists of a set statement are

LONG_TEXT = 4_000
"""Characters of a statement, or of a value, from which on it is counted."""

_SIZED = frozenset({str, bytes})

KEPT_BYTES = "kept_bytes"

PREPARED_FACTOR = 80
"""Bytes that SQLite uses for each character of a prepared statement with many parameters (measured)."""


class CompiledCache(LRUCache[Any, Any]):
    """SQLAlchemy's cache of compiled statements, without those that hold something large."""

    def __init__(self) -> None:
        super().__init__(COMPILED_KEPT)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(compiled.string or "") <= MAX_COMPILED_TEXT and not any(map(_is_large, _first_values(compiled))):
            super().__setitem__(key, compiled)


def _first_values(compiled: Any) -> list[Any]:
    binds: Mapping[str, Any] = getattr(compiled, "binds", {})
    return [bind.value for bind in binds.values()]


def _is_large(value: Any) -> bool:
    return isinstance(value, str | bytes | Sequence) and len(value) > MAX_COMPILED_VALUE


BEFORE = "before"
"""Key in a connection's ``info``: what is to be called before each statement, which it may forbid."""


def begin_statement(conn: Connection) -> None:
    """To be called before each statement of a unit."""
    if (before := conn.info.get(BEFORE)) is not None:
        before()


def note_statement(conn: Connection, text: str, parameters: Any) -> None:
    """Count what the driver will keep of a statement, as ``KEPT_BYTES`` in the connection's ``info``."""
    if kept := kept_bytes(text, parameters):
        conn.info[KEPT_BYTES] = conn.info.get(KEPT_BYTES, 0) + kept


def kept_bytes(text: str, parameters: Any) -> int:
    """About how many bytes the driver keeps of an executed statement; 0 where it is small.

    *parameters*: one row of values, or the rows of an executemany, of which the last stays.
    """
    total = len(text) * PREPARED_FACTOR if len(text) > LONG_TEXT else 0
    if parameters.__class__ is not tuple:
        if parameters and isinstance(parameters, list):
            parameters = parameters[-1]
        parameters = parameters.values() if isinstance(parameters, Mapping) else parameters or ()
    for value in parameters:
        if value.__class__ in _SIZED and len(value) > LONG_TEXT:
            total += len(value)
    return total
