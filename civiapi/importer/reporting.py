"""What an import says afterwards: how many rows went in, or why none did."""

from collections.abc import Sequence
from dataclasses import dataclass

from civiapi.importer.reading import BadRow


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file's rows: how many were loaded, were there already, got a new id, or were left out.

    ``renumbered`` rows are among the ``loaded``; ``left_out`` ones belong to a row that was imported before and
    deleted since.
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
            parts.append(f"{self.renumbered} of them under a new id, theirs was taken")
        if self.already:
            parts.append(f"{self.already} were there already")
        if self.left_out:
            parts.append(f"{self.left_out} left out, they belong to a row deleted since")
        return f"{self.file}: {self.rows} rows, {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did. ``ignored`` are CSV files whose names mean nothing to it."""

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
        """The report in words, a line a file."""
        words = [str(file) for file in self.files]
        return [*words, *(f"{name}: ignored, no such file is known to an import" for name in self.ignored)]


class ImportRefused(Exception):
    """Nothing was loaded. ``rows`` says what is wrong where; ``complete`` is false if reading stopped at the limit."""

    def __init__(self, rows: Sequence[BadRow], *, complete: bool = True) -> None:
        self.rows = tuple(rows)
        self.complete = complete
        more = "" if complete else "\n(and perhaps more: reading stopped here)"
        super().__init__("Nothing was imported.\n" + "\n".join(map(str, self.rows)) + more)
