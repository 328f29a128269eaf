"""The result of an import: how many rows were loaded, or why none."""

from collections.abc import Sequence
from dataclasses import dataclass

from civiapi.importer.reading import BadRow
from civiapi.runtime.wording import many


@dataclass(frozen=True, slots=True)
class FileReport:
    """The rows of one file: how many were loaded, existed already, got a new id, or were left out.

    ``renumbered`` rows are among the ``loaded``; ``left_out`` ones refer to a row that was imported before and deleted
    since.
    """

    file: str
    rows: int
    loaded: int = 0
    already: int = 0
    renumbered: int = 0
    left_out: int = 0

    def __str__(self) -> str:
        parts = [f"{self.loaded} loaded"]
        if self.renumbered:
            parts.append(f"{self.renumbered} of them with a new id because theirs was taken")
        if self.already:
            parts.append(f"{self.already} existed already")
        if self.left_out:
            parts.append(f"{self.left_out} left out because they refer to a deleted row")
        return f"{self.file}: {many(self.rows, 'row')}, {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import. ``ignored``: CSV files with unknown names."""

    files: tuple[FileReport, ...]
    ignored: tuple[str, ...] = ()

    @property
    def loaded(self) -> int:
        """Rows that are new in the database."""
        return sum(file.loaded for file in self.files)

    @property
    def renumbered(self) -> int:
        """Rows that got a new id because theirs was taken."""
        return sum(file.renumbered for file in self.files)

    def lines(self) -> list[str]:
        """The report as text, one line per file."""
        return [*map(str, self.files), *(f"{name}: ignored, unknown file name" for name in self.ignored)]


class ImportRefused(Exception):
    """Nothing was imported. ``rows`` are the errors; ``complete`` is false if reading stopped at the limit."""

    def __init__(self, rows: Sequence[BadRow], *, complete: bool = True) -> None:
        self.rows = tuple(rows)
        self.complete = complete
        more = "" if complete else "\n(there may be more errors; reading stopped here)"
        super().__init__("Nothing was imported.\n" + "\n".join(map(str, self.rows)) + more)
