"""The report of a rehearsal: an HTML page to read, and CSV files with everybody. Only their owner may read them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civiapi.cli.rehearse.export_folder import LoadedExport
from civiapi.cli.rehearse.rehearsal import Rehearsed, Stage, changes, failing
from civiapi.http.csv_rows import PLAN_COLUMNS, csv_row, safe_cell
from civiapi.runtime.private_files import open_private
from civiapi.runtime.wording import many
from civiapi.ui.core.templates import number
from civiapi.ui.status.tiles import ONE

HTML, CHANGES, FAILURES, LEFT_OUT = "report.html", "changes.csv", "failures.csv", "left-out.csv"
STATUSES = {"Added": "in the group", "Removed": "removed", "Pending": "pending", "": "never there"}
FAILED_COLUMNS = ("list_id", "group_id", "contact_id", "name", "email", "reason")


@dataclass(frozen=True, slots=True)
class Report:
    """Writes the files of a report into *folder*, which must be there."""

    folder: Path
    source: str
    """The database that was copied, in words."""
    export_folder: Path
    export: LoadedExport
    rows: int
    """How many people of each kind the page lists."""

    async def write(self, stage: Stage, done: Sequence[Rehearsed]) -> None:
        """Write all files. Raises ``OSError``."""
        await self._write_changes(stage, done)
        await self._write_failures(stage, done)
        with open_private(self.folder / LEFT_OUT) as out:
            writer = csv.writer(out)
            writer.writerow(("file", "line", "reason"))
            writer.writerows((safe_cell(one.file), one.line, safe_cell(one.reason)) for one in self.export.bad)
        with open_private(self.folder / HTML) as out:
            out.writelines(_template().generate(self._context(done)))

    async def _write_changes(self, stage: Stage, done: Sequence[Rehearsed]) -> None:
        with open_private(self.folder / CHANGES) as out:
            writer = csv.writer(out)
            writer.writerow(("list_id", "group_id", *PLAN_COLUMNS))
            for one in done:
                async for people in changes(stage, one):
                    pair = one.pair
                    writer.writerows((pair.list_id, pair.group_id, *csv_row(person, PLAN_COLUMNS)) for person in people)

    async def _write_failures(self, stage: Stage, done: Sequence[Rehearsed]) -> None:
        with open_private(self.folder / FAILURES) as out:
            writer = csv.writer(out)
            writer.writerow(FAILED_COLUMNS)
            for one in done:
                async for rows in failing(stage, one):
                    writer.writerows(_failed_row(one, row) for row in rows)

    def _context(self, done: Sequence[Rehearsed]) -> dict[str, Any]:
        return {
            "done": done,
            "source": self.source,
            "export_folder": self.export_folder,
            "export": self.export,
            "left_out": self.export.bad[: self.rows],
            "others": [one for one in self.export.files if one not in {found.pair.list_id for found in done}],
            "rows": self.rows,
            "made": datetime.now().astimezone(),
            "labels": ONE,
            "statuses": STATUSES,
            "files": {"changes": CHANGES, "failures": FAILURES, "left_out": LEFT_OUT},
        }


def _failed_row(one: Rehearsed, row: dict[str, Any]) -> list[str]:
    person = (row.get(name) for name in ("civicrm_contact_id", "civicrm_display_name", "mailchimp_email", "errors"))
    values = (one.pair.list_id, one.pair.group_id, *person)
    return [safe_cell(value) for value in values]


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"number": number, "many": many}
    return made.get_template("report.html")
