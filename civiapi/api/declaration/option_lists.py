"""Option lists: the values of a coded field and their names (contract 3.4, getoptions)."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, select

from civiapi.api.declaration.fields import FixedOptions, Option, OptionGroup, Options, OptionTable
from civiapi.store.schema.tables import option_group, option_value

CACHE_SECONDS = 30.0  # after which the change of another process is seen; lists change rarely
SEPARATOR = "\x01"


class _List(NamedTuple):
    """A list as it was read, cached until this monotonic time."""

    until: float
    choices: tuple[Option, ...]
    labels: Mapping[str, str]


_Lists = dict[Options, _List]
_cache: "WeakKeyDictionary[Engine, _Lists]" = WeakKeyDictionary()


def load(conn: Connection, options: Options) -> tuple[Option, ...]:
    """The choices of a list in display order. The rows of a table are not cached."""
    if isinstance(options, FixedOptions):
        return options.choices
    if isinstance(options, OptionTable):
        return tuple(_read(conn, options))
    return _cached(conn, options).choices


def _cached(conn: Connection, options: OptionGroup) -> _List:
    lists = _cache.setdefault(conn.engine, {})
    found = lists.get(options)
    if found is None or found.until < time.monotonic():
        choices = tuple(_read(conn, options))
        found = _List(time.monotonic() + CACHE_SECONDS, choices, {one.value: one.label for one in choices})
        lists[options] = found
    return found


def forget(conn: Connection) -> None:
    """Read the lists of this database again, as one is being changed here."""
    _cache.pop(conn.engine, None)


def _read(conn: Connection, options: OptionGroup | OptionTable) -> list[Option]:
    if isinstance(options, OptionTable):
        columns = options.table.c
        asked = select(columns.id, columns[options.name], columns[options.label]).order_by(columns[options.label])
        return [Option(str(value), name or "", label or name or "") for value, name, label in conn.execute(asked)]
    rows = conn.execute(
        select(option_value.c[options.key], option_value.c.name, option_value.c.label)
        .join(option_group, option_group.c.id == option_value.c.option_group_id)
        .where(option_group.c.name == options.name, option_value.c.is_active == 1)
        .order_by(option_value.c.weight, option_value.c.label)
    )
    return [Option(value, name or label, label) for value, name, label in rows]


def match(conn: Connection, options: Options, value: Any) -> str | None:
    """The stored value for a value, name or label (in any case). ``None``: no such choice."""
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if isinstance(options, OptionTable):
        return _match_row(conn, options, text)
    choices = load(conn, options)
    for choice in choices:
        if choice.value == text:
            return text
    lowered = text.strip().lower()
    for choice in choices:
        if lowered in (choice.name.lower(), choice.label.lower(), choice.value.lower()):
            return choice.value
    return None


def _match_row(conn: Connection, options: OptionTable, text: str) -> str | None:
    """The id of the row with this id, else this name, else this label."""
    columns = options.table.c
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = conn.execute(select(columns.id).where(columns.id == int(text))).scalar()
        if found is not None:
            return str(found)
    for column in (columns[options.name], columns[options.label]):
        found = conn.execute(select(columns.id).where(column == text.strip()).order_by(columns.id).limit(1)).scalar()
        if found is not None:
            return str(found)
    return None


def labels(conn: Connection, options: Options) -> Mapping[str, str]:
    """Stored value to label."""
    if not isinstance(options, OptionGroup):
        return {choice.value: choice.label for choice in load(conn, options)}
    return _cached(conn, options).labels


def pack(values: list[str]) -> str | None:
    """Several values as stored in one column."""
    return f"{SEPARATOR}{SEPARATOR.join(values)}{SEPARATOR}" if values else None


def unpack(text: str) -> list[str]:
    """The values in a column with several."""
    return text.strip(SEPARATOR).split(SEPARATOR)
