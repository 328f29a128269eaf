"""Classifies the rows of a chunk: known, invalid or new. Reads the database, changes nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from civiapi.importer import history
from civiapi.importer.reading import BadRow, Line, digest_of
from civiapi.importer.references import GONE, References, Report
from civiapi.importer.sheets import Column, Sheet
from civiapi.store.schema.tables import imported
from civiapi.store.text.collation import sort_key


@dataclass(slots=True)
class Classified:
    """The rows of a chunk by what to do with them."""

    known: list[tuple[Line, int]] = field(default_factory=list)  # exist, with this id
    orphans: list[Line] = field(default_factory=list)  # refer to a row deleted since
    new: list[Line] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)  # ids of new rows that other rows have


def classify(links: References, sheet: Sheet, columns: list[Column], lines: list[Line], report: Report) -> Classified:
    """Translate the references of the rows and classify each row."""
    result = Classified()
    rows = []
    for line in links.translate(sheet, columns, lines, report):
        if any(line.row.get(name) == GONE for name in sheet.identity):
            result.orphans.append(line)
        else:
            line.digest = identity_of(sheet, line.row)
            rows.append(line)
    earlier = history.rows_of(links.conn, sheet.name, [line.key for line in rows])
    rows = _known(rows, result, lambda line: earlier.get((line.key, line.digest)))
    if sheet.natural:
        rows = _by_natural_key(links, sheet, rows, result, report)
    rows = _by_id(links.conn, sheet, rows, result)
    result.new = _without_clashes(links.conn, sheet, rows, report) if sheet.unique else rows
    return result


def identity_of(sheet: Sheet, row: dict[str, Any]) -> str:
    """A digest of the columns that identify a row."""
    return digest_of(row.get(name) for name in sheet.identity)


def _known(rows: Iterable[Line], result: Classified, find: Callable[[Line], int | None]) -> list[Line]:
    rest = []
    for line in rows:
        if (here := find(line)) is not None:
            result.known.append((line, here))
        else:
            rest.append(line)
    return rest


def _by_natural_key(
    links: References, sheet: Sheet, rows: list[Line], result: Classified, report: Report
) -> list[Line]:
    """A row with an equal natural key in the database is known, unless this import created it."""
    table, first = sheet.table, sheet.table.c[sheet.natural[0]]
    columns = [table.c.id, *(table.c[name] for name in sheet.natural)]
    found = links.conn.execute(select(*columns).where(first.in_({line.row[sheet.natural[0]] for line in rows})))
    there = {_same(row[1:]): row[0] for row in found}
    own = links.conn.execute(
        select(imported.c.new_id).where(
            imported.c.source == links.source,
            imported.c.entity == sheet.name,
            imported.c.made == 1,
            imported.c.new_id.in_(set(there.values())),
        )
    )
    repeated = {key for key, number in there.items() if number in set(own.scalars())} if there else set()
    kept = []
    for line in rows:
        nature = _same(line.row[name] for name in sheet.natural)
        if nature in repeated:
            key = " and ".join(sheet.natural) if len(sheet.natural) < 3 else "content"
            report([BadRow(sheet.file, line.number, f"{key} is repeated")])
            continue
        if nature not in there:
            repeated.add(nature)
        kept.append(line)
    return _known(kept, result, lambda line: there.get(_same(line.row[name] for name in sheet.natural)))


def _same(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sort_key(str(value)) for value in values)


def _by_id(conn: Connection, sheet: Sheet, rows: list[Line], result: Classified) -> list[Line]:
    """A row with the same id and content in the database is known; other ids in use are taken."""
    columns = [sheet.table.c.id, *(sheet.table.c[name] for name in sheet.identity)]
    ids = [line.row["id"] for line in rows if "id" in line.row]
    found = conn.execute(select(*columns).where(sheet.table.c.id.in_(ids))) if ids else ()
    holders = {row.id: identity_of(sheet, dict(row._mapping)) for row in found}
    rest = _known(
        rows,
        result,
        lambda line: i if (i := line.row.get("id")) and holders.get(i) == line.digest else None,
    )
    result.taken = {line.row["id"] for line in rest if line.row.get("id") in holders}
    return rest


def _without_clashes(conn: Connection, sheet: Sheet, rows: list[Line], report: Report) -> list[Line]:
    """The rows whose unique column no other row has."""
    column = sheet.table.c[sheet.unique]
    values = {line.row.get(sheet.unique) for line in rows} - {None}
    found = conn.execute(select(column, sheet.table.c.id).where(column.in_(values))) if values else ()
    owners = {sort_key(row[0]): f"row {row[1]} of the database" for row in found}
    kept = []
    for line in rows:
        value = line.row.get(sheet.unique)
        if value is not None and sort_key(value) in owners:
            owner = owners[sort_key(value)]
            report([BadRow(sheet.file, line.number, f"{sheet.unique} '{value}' already belongs to {owner}")])
            continue
        if value is not None:
            owners[sort_key(value)] = f"line {line.number}"
        kept.append(line)
    return kept
