"""Translates references between rows into ids of the database.

In a folder with ``contacts.csv``, ``contact_id`` refers to rows of that file; without it, to contacts of the database.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from civiapi.importer import history
from civiapi.importer.reading import BadRow, Line
from civiapi.importer.sheets import TARGETS, Column, Sheet
from civiapi.store.text.collation import sort_key

Report = Callable[[Sequence[BadRow]], None]
GONE = 0  # a reference to a row that was imported and deleted since


@dataclass(slots=True)
class References:
    """Translates references. ``unreadable``: files with an invalid header; references to them are no errors."""

    conn: Connection
    source: str
    files: frozenset[str]
    unreadable: set[str] = field(default_factory=set)
    names: dict[str, int] = field(default_factory=dict)  # of the rows of tags.csv, by `sort_key`

    def translate(self, sheet: Sheet, columns: Sequence[Column], lines: list[Line], report: Report) -> list[Line]:
        """Replace references by ids of the database; rows with a dangling one are reported and left out."""
        referring = {(c.target, c.by_name): c for c in columns if c.refers and not c.later}.values()
        meant = [
            (column, [line for line in lines if _uses(column, line)]) for column in referring
        ]  # before any is changed
        lost = set()
        for column, users in meant:
            found = self.find(column, {str(line.row[column.target]) for line in users})
            for line in users:
                value = line.row[column.target]
                there = found.get(_key(column, value))
                if there is None:
                    report([BadRow(sheet.file, line.number, self._missing(column, value))])
                    lost.add(line.number)
                else:
                    line.row[column.target] = there if there or column.target in sheet.identity else None
        return [line for line in lines if line.number not in lost]

    def _missing(self, column: Column, value: object) -> str:
        where = f"{column.refers}.csv" if column.refers in self.files else "the database"
        return f"{column.name} '{value}' refers to no row of {where}"

    def find(self, column: Column, values: set[str]) -> dict[str, int]:
        """The ids of *values* (names by ``sort_key``): ``GONE`` for a deleted row, absent if there never was one."""
        if column.refers in self.unreadable:
            return dict.fromkeys((_key(column, value) for value in values), GONE)
        if column.by_name:
            return self._by_name(column, values)
        if column.refers not in self.files:
            return {str(number): number for number in self._alive(column, {int(value) for value in values})}
        ids = history.ids_of(self.conn, self.source, column.refers, list(values))
        alive = self._alive(column, set(ids.values()))
        return {key: number if number in alive else GONE for key, number in ids.items()}

    def _by_name(self, column: Column, values: set[str]) -> dict[str, int]:
        table = TARGETS[column.refers]
        rows = self.conn.execute(select(table.c.id, table.c.name).where(table.c.name.in_(values)))
        found = {sort_key(row.name): row.id for row in rows}
        own = {name: self.names[name] for name in map(sort_key, values) if name in self.names}
        alive = self._alive(column, set(own.values()))
        return found | {name: number if number in alive else GONE for name, number in own.items()}

    def _alive(self, column: Column, ids: set[int]) -> set[int]:
        table = TARGETS[column.refers]
        return set(self.conn.execute(select(table.c.id).where(table.c.id.in_(ids - {GONE}))).scalars())


def _uses(column: Column, line: Line) -> bool:
    value = line.row[column.target]
    return value is not None and isinstance(value, str) == column.by_name


def _key(column: Column, value: object) -> str:
    return sort_key(str(value)) if column.by_name else str(value)
