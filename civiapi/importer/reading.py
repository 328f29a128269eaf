"""Reads a folder of CSV files as validated rows, one at a time. No database.

Each file is read twice and never held in memory: by ``survey`` (largest ids, a digest of everything) and by
``read_rows``. Bytes that are not UTF-8 make their row invalid, not the file.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

from civiapi.importer.cells import site_time
from civiapi.importer.sheets import SHEETS, Column, Row, Sheet


@dataclass(frozen=True, slots=True)
class BadRow:
    """An invalid row: its line (1 is the header, 0 the whole file) and the reason.

    ``key`` identifies the row in its file, if it could be read.
    """

    file: str
    line: int
    reason: str
    key: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@dataclass(slots=True)
class Line:
    """A valid row: its line, its key in the file, its values by the columns of the table.

    ``digest``: of its identity, after its references are translated.
    """

    number: int
    key: str
    row: Row
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder: its sheet, number of rows and largest id."""

    path: Path
    sheet: Sheet
    rows: int
    largest_id: int


@dataclass(frozen=True, slots=True)
class Survey:
    """The files of a folder. ``source`` is a digest of their content, independent of their place."""

    files: tuple[Found, ...]
    ignored: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Times:
    """The time of the import, the zone of times in the files, and the zone of the site."""

    now: str
    read_in: ZoneInfo
    site: ZoneInfo


def survey(folder: Path) -> Survey:
    """Survey the files that an import reads, in the order they are loaded. Raises ``OSError``."""
    present = {path.name for path in folder.iterdir() if path.is_file()}
    digest = hashlib.blake2b(digest_size=16)
    files = []
    for sheet in SHEETS:
        if sheet.file in present:
            digest.update(sheet.file.encode())
            files.append(_survey_file(folder / sheet.file, sheet, digest))
    known = {found.path.name for found in files}
    ignored = sorted(name for name in present - known if name.lower().endswith(".csv"))
    return Survey(tuple(files), tuple(ignored), digest.hexdigest())


def _survey_file(path: Path, sheet: Sheet, digest: "hashlib.blake2b") -> Found:
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
    """The rows up to the first CSV error; ``read_rows`` reports it."""
    try:
        yield from reader
    except csv.Error:
        return


def read_heading(path: Path, sheet: Sheet) -> tuple[list[Column], list[BadRow]]:
    """The columns of the file in order, or no columns and the errors."""
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
            problems.append(f"column '{name}' is repeated")
    if problems:
        return [], [BadRow(sheet.file, 1, problem) for problem in problems]
    return [column for name in names if (column := sheet.column(name))], []


def _missing(names: list[str], sheet: Sheet) -> list[str]:
    return [name for name in sheet.required if name not in names]


def read_rows(path: Path, sheet: Sheet, columns: list[Column], times: Times) -> Iterator[Line | BadRow]:
    """Every row of the file, valid or not, in order. *columns* come from ``read_heading``."""
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
        return BadRow(sheet.file, number, uneven(cells, columns))
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


def uneven(cells: Sized, heading: Sized) -> str:
    """The reason why a row of another length than its heading is invalid."""
    return f"has {len(cells)} values, the heading has {len(heading)} columns"


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
    """The key of the row in its file: its id, or a digest of its identity."""
    if row.get("id") is not None:
        return str(row["id"])
    if sheet.needs_id or "id" in row:
        raise ValueError("id is missing")
    return digest_of(row.get(name) for name in sheet.identity)


def digest_of(values: Iterable[object]) -> str:
    """A digest of these values (32 hexadecimal digits)."""
    text = "\x1f".join("" if value is None else str(value) for value in values)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _undecodable(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)
