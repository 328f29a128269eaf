"""From a folder of CSV files to checked rows, one at a time. No database.

A file is read twice and never held: once by ``survey`` (what is there, the largest ids, a digest of everything),
once by ``read_rows``. Bytes that are not UTF-8 spoil their row, not the reading of the rest.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

from civiapi.importer.sheets import SHEETS, Column, Row, Sheet, site_time


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be loaded, where it stands (line 1 is the heading, 0 the whole file) and why.

    ``key`` is what the row is called in its file, if that much could be read.
    """

    file: str
    line: int
    reason: str
    key: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@dataclass(slots=True)
class Line:
    """A row that reads well: where it stands, its key in the file, its values by the table's columns.

    ``digest`` is of what identifies it, once its references mean rows of this database.
    """

    number: int
    key: str
    row: Row
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder: its sheet, how many rows it holds, its largest id."""

    path: Path
    sheet: Sheet
    rows: int
    largest_id: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What the folder holds. ``source`` is a digest of all of it: the same data has the same one, wherever it lies."""

    files: tuple[Found, ...]
    ignored: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Times:
    """How times are read and written: the moment of the import, the zone of the file's times, the site's zone."""

    now: str
    read_in: ZoneInfo
    site: ZoneInfo


def survey(folder: Path) -> Survey:
    """Look at every file that an import knows, in the order they are loaded. Raises ``OSError``."""
    present = {path.name for path in folder.iterdir() if path.is_file()}
    digest = hashlib.blake2b(digest_size=16)
    files = []
    for sheet in SHEETS:
        if sheet.file in present:
            digest.update(sheet.file.encode())
            files.append(_look_at(folder / sheet.file, sheet, digest))
    known = {found.path.name for found in files}
    ignored = sorted(name for name in present - known if name.lower().endswith(".csv"))
    return Survey(tuple(files), tuple(ignored), digest.hexdigest())


def _look_at(path: Path, sheet: Sheet, digest: "hashlib.blake2b") -> Found:
    with path.open("rb") as raw:
        for block in iter(lambda: raw.read(1 << 16), b""):
            digest.update(block)
    rows = largest = 0
    with _open(path) as stream:
        reader = csv.reader(stream)
        heading = next(reader, [])
        place = heading.index("id") if "id" in heading else -1
        for cells in _cells(reader):
            rows += bool(cells)
            if 0 <= place < len(cells) and cells[place].isascii() and cells[place].isdigit() and len(cells[place]) < 11:
                largest = max(largest, int(cells[place]))
    return Found(path, sheet, rows, largest)


def _open(path: Path) -> TextIO:
    return path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _cells(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows up to where the file stops being CSV; ``read_rows`` is the one that says where that is."""
    try:
        yield from reader
    except csv.Error:
        return


def read_heading(path: Path, sheet: Sheet) -> tuple[list[Column], list[BadRow]]:
    """The file's columns in order, and what is wrong with them. The first is empty if anything is."""
    try:
        with _open(path) as stream:
            names = [name.strip() for name in next(csv.reader(stream, strict=True), [])]
    except csv.Error as error:
        return [], [BadRow(sheet.file, 1, f"the heading cannot be read: {error}")]
    problems = [f"there is no column '{name}'" for name in _missing(names, sheet)] if names else ["the file is empty"]
    for place, name in enumerate(names):
        if _undecodable(name):
            problems.append("the heading is not UTF-8")
        elif sheet.column(name) is None:
            problems.append(f"unknown column '{name}'")
        elif name in names[:place]:
            problems.append(f"column '{name}' is there twice")
    if problems:
        return [], [BadRow(sheet.file, 1, problem) for problem in problems]
    return [column for name in names if (column := sheet.column(name))], []


def _missing(names: list[str], sheet: Sheet) -> list[str]:
    required = [column.name for column in sheet.columns if column.required or column.expected]
    if sheet.needs_id:
        required.insert(0, "id")
    return [name for name in required if name not in names]


def read_rows(path: Path, sheet: Sheet, columns: list[Column], times: Times) -> Iterator[Line | BadRow]:
    """Every row of the file, good or bad, in order. *columns* come from ``read_heading``."""
    with _open(path) as stream:
        reader = csv.reader(stream, strict=True)
        next(reader)
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(sheet.file, start, f"the row cannot be read: {error}")
                continue
            if cells:
                yield _read_row(start, cells, sheet, columns, times)


def _read_row(number: int, cells: list[str], sheet: Sheet, columns: list[Column], times: Times) -> Line | BadRow:
    if len(cells) != len(columns):
        return BadRow(sheet.file, number, f"has {len(cells)} values, the heading has {len(columns)} columns")
    row: Row = {}
    problems: list[str] = []
    for column, cell in zip(columns, cells, strict=True):
        try:
            value = _read_cell(column, cell.strip(), times)
        except ValueError as error:
            problems.append(f"{column.name} {error}")
            continue
        if value is not None or column.target not in row:
            row[column.target] = value
    if not problems:
        try:
            key = _key(row, sheet)
            sheet.finish(row, times.now)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return BadRow(sheet.file, number, "; ".join(problems), key=str(row.get("id") or ""))
    return Line(number, key, row)


def _read_cell(column: Column, cell: str, times: Times) -> object:
    if _undecodable(cell):
        raise ValueError("is not UTF-8")
    if "\0" in cell:
        raise ValueError("holds a zero byte")
    if not cell:
        if column.required:
            raise ValueError("is missing")
        return column.default
    value = column.read(cell)
    return site_time(value, read_in=times.read_in, site=times.site) if isinstance(value, datetime) else value


def _key(row: Row, sheet: Sheet) -> str:
    """What the row is called in its file: its id, or a digest of what identifies it."""
    if row.get("id") is not None:
        return str(row["id"])
    if sheet.needs_id or "id" in row:
        raise ValueError("id is missing")
    return digest_of(row.get(name) for name in sheet.identity)


def digest_of(values: Iterable[object]) -> str:
    """32 hexadecimal digits that stand for these values."""
    words = "\x1f".join("" if value is None else str(value) for value in values)
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def _undecodable(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)
