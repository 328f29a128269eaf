"""Writes validated rows to the database, file by file and chunk by chunk, in the transaction of the caller.

Errors are collected and raised at the end, which rolls everything back. Ids in the files are those of the source;
``civiapi_import`` maps them to ids here. Rows are compared only after their references are translated: the address of a
known contact is the same row only if it still belongs to that contact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, func, select, update

from civiapi.importer import history
from civiapi.importer.classify import Classified, classify
from civiapi.importer.post_import import finish
from civiapi.importer.reading import BadRow, Found, Line, Survey, Times, read_heading, read_rows
from civiapi.importer.references import References
from civiapi.importer.reporting import FileReport, ImportRefused, ImportReport
from civiapi.importer.sheets import Column, Row, Sheet
from civiapi.store.civicrm.contact_names import conventions, new_contact_columns
from civiapi.store.civicrm.contacts import new_hash
from civiapi.store.databases.bulk import insert_rows
from civiapi.store.schema.tables import location_type
from civiapi.store.text.collation import sort_key

CHUNK = 1000
MAX_ERRORS = 100  # invalid rows listed before reading stops


def load(conn: Connection, survey: Survey, times: Times) -> ImportReport:
    """Load all files of the survey. Raises ``ImportRefused``; the transaction must then be rolled back."""
    if history.is_imported(conn, survey.source):
        files = [FileReport(found.sheet.file, found.rows, already=found.rows) for found in survey.files]
        return ImportReport(tuple(files), survey.ignored)
    loader = _Loader(conn, survey, times)
    try:
        files = [loader.load_file(found) for found in survey.files]
    except _TooMany as error:
        raise ImportRefused(loader.bad, complete=False) from error
    if loader.bad:
        raise ImportRefused(loader.bad)
    finish(conn, survey.source, times.now)
    return ImportReport(tuple(files), survey.ignored)


class _TooMany(Exception):
    """The limit of invalid rows is reached."""


@dataclass(slots=True)
class _Ids:
    """Ids for new rows: their own plus ``shift``, or the next free one if it is taken or missing."""

    next: int
    shift: int = 0

    def give(self, own: int | None, taken: set[int]) -> int:
        if own is not None and (self.shift or own not in taken):
            return own + self.shift
        self.next += 1
        return self.next - 1


@dataclass(slots=True)
class _Counts:
    loaded: int = 0
    already: int = 0
    renumbered: int = 0
    left_out: int = 0


class _Loader:
    def __init__(self, conn: Connection, survey: Survey, times: Times) -> None:
        self.conn = conn
        self.source = survey.source
        self.times = times
        self.links = References(conn, survey.source, frozenset(found.sheet.name for found in survey.files))
        self.bad: list[BadRow] = []
        self.location_type = conn.execute(
            select(location_type.c.id).order_by(location_type.c.is_default.desc(), location_type.c.id).limit(1)
        ).scalar()

    def report(self, problems: Sequence[BadRow]) -> None:
        self.bad += problems
        if len(self.bad) >= MAX_ERRORS:
            raise _TooMany

    def load_file(self, found: Found) -> FileReport:
        """Load one file; the files it refers to are loaded already."""
        sheet = found.sheet
        columns, problems = read_heading(found.path, sheet)
        if problems:
            self.links.unreadable.add(sheet.name)
            self.report(problems)
            return FileReport(sheet.file, found.rows)
        ids = self.ids_for(found, columns)
        counts = _Counts()
        for lines in self.chunks(found, columns):
            fresh = self.without_repeats(sheet, lines)
            self.write(sheet, classify(self.links, sheet, columns, fresh, self.report), ids, counts)
        self.refer_to_own_rows(found, columns)
        return FileReport(sheet.file, found.rows, counts.loaded, counts.already, counts.renumbered, counts.left_out)

    def ids_for(self, found: Found, columns: list[Column]) -> _Ids:
        """The first new id. In an ordered sheet, one taken id shifts all ids, so that their order stays."""
        largest = self.conn.execute(select(func.max(found.sheet.table.c.id))).scalar() or 0
        if found.sheet.ordered and largest and self.collides(found, columns):
            return _Ids(found.largest_id + largest + 1, shift=largest)
        return _Ids(max(largest, found.largest_id) + 1)

    def collides(self, found: Found, columns: list[Column]) -> bool:
        """Whether the id of a new row is taken. Errors are reported when the file is read again."""
        rows = read_rows(found.path, found.sheet, columns, self.times)
        while part := list(islice(rows, CHUNK)):
            lines = [row for row in part if isinstance(row, Line)]
            if classify(self.links, found.sheet, columns, lines, lambda problems: None).taken:
                return True
        return False

    def chunks(self, found: Found, columns: list[Column]) -> Iterator[list[Line]]:
        """The valid rows. Invalid ones are reported and their keys stored, so that references to them are no errors."""
        rows = read_rows(found.path, found.sheet, columns, self.times)
        while part := list(islice(rows, CHUNK)):
            bad = [row for row in part if isinstance(row, BadRow)]
            if keys := {row.key for row in bad if row.key}:
                keys -= history.keys_of(self.conn, self.source, found.sheet.name, list(keys))
                history.remember(self.conn, self.source, found.sheet.name, [(key, "", 0, 0) for key in keys])
            self.report(bad)
            yield [row for row in part if isinstance(row, Line)]

    def without_repeats(self, sheet: Sheet, lines: list[Line]) -> list[Line]:
        """Those whose key has not been in the file before."""
        seen = history.keys_of(self.conn, self.source, sheet.name, [line.key for line in lines])
        kept = []
        for line in lines:
            if line.key in seen:
                what = f"id {line.key}" if "id" in line.row else "the same row"
                self.report([BadRow(sheet.file, line.number, f"{what} is repeated")])
            else:
                seen.add(line.key)
                kept.append(line)
        return kept

    def write(self, sheet: Sheet, rows: Classified, ids: _Ids, counts: _Counts) -> None:
        """Insert the new rows of a chunk, and store the id of each row."""
        remembered = [(line.key, "", 0, 0) for line in rows.orphans]
        remembered += [(line.key, line.digest, here, 0) for line, here in rows.known]
        for line in rows.new:
            own = line.row.get("id")
            line.row["id"] = ids.give(own, rows.taken)
            counts.renumbered += own is not None and own != line.row["id"]
            remembered.append((line.key, line.digest, line.row["id"], 1))
            self.site_defaults(sheet, line.row)
        later = {column.name for column in sheet.columns if column.later}
        columns = sorted({name for line in rows.new for name in line.row} - later)
        insert_rows(self.conn, sheet.table, columns, [tuple(map(line.row.get, columns)) for line in rows.new])
        history.remember(self.conn, self.source, sheet.name, remembered)
        if sheet.name == "tags":
            named = [*rows.known, *((line, line.row["id"]) for line in rows.new)]
            self.links.names |= {sort_key(line.row["name"]): here for line, here in named}
        counts.loaded += len(rows.new)
        counts.already += len(rows.known)
        counts.left_out += len(rows.orphans)

    def site_defaults(self, sheet: Sheet, row: Row) -> None:
        """Defaults that depend on this site."""
        if sheet.name == "contacts":
            row["hash"] = row.get("hash") or new_hash()
            for name, value in new_contact_columns(conventions(self.conn), row, None).items():
                row[name] = value if row.get(name) is None else row[name]
        elif sheet.name == "emails":
            row["location_type_id"] = row.get("location_type_id") or self.location_type

    def refer_to_own_rows(self, found: Found, columns: list[Column]) -> None:
        """Fill the columns that refer to rows of the same file, after all rows exist."""
        for column in columns:
            if not column.later:
                continue
            rows = read_rows(found.path, found.sheet, columns, self.times)
            while part := list(islice(rows, CHUNK)):
                lines = [row for row in part if isinstance(row, Line) and row.row[column.name] is not None]
                self.fill(found.sheet, column, lines)

    def fill(self, sheet: Sheet, column: Column, lines: list[Line]) -> None:
        targets = self.links.find(column, {str(line.row[column.name]) for line in lines})
        made = history.made_of(self.conn, self.source, sheet.name, [line.key for line in lines])
        for line in lines:
            target = targets.get(str(line.row[column.name]))
            if target is None:
                problem = f"{column.name} '{line.row[column.name]}' refers to no row of {sheet.file}"
                self.report([BadRow(sheet.file, line.number, problem)])
            elif target and line.key in made:
                here = sheet.table.c.id == made[line.key]
                self.conn.execute(update(sheet.table).where(here).values({column.name: target}))
