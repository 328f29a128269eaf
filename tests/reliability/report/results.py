"""What a soak found, written down for ``docs/reliability.md``."""

import fcntl
import json
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT

FOLDER = ROOT / "docs/reliability-data"


def write_down(
    name: str,
    *,
    title: str,
    what: str,
    columns: list[str],
    rows: list[list[Any]],
    made_by: str,
    seed: int | str | None = None,
) -> Path:
    """Keep a table under this name, and write the report anew with it."""
    from tests.reliability.report.write import main as write_report  # it reads what is kept here

    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    told: dict[str, Any] = {"title": title, "what": what, "columns": columns, "rows": rows, "made_by": made_by}
    if seed is not None:
        told["seed"] = seed
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_report()
    return path


def read_rows(name: str) -> list[list[Any]]:
    """The rows of a table as kept; none where there is no such table yet."""
    path = FOLDER / f"{name}.json"
    return list(json.loads(path.read_text("utf-8"))["rows"]) if path.exists() else []


def write_rows_down(name: str, *, rows: list[list[Any]], order: list[str], **more: Any) -> None:
    """Put rows, told by their first cell, into a table that several tests fill; only rows named in *order* stay."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        merged = {row[0]: row for row in [*read_rows(name), *rows]}
        write_down(name, rows=[merged[one] for one in order if one in merged], **more)


def show(columns: list[str], rows: list[list[Any]]) -> str:
    """The table as text."""
    cells = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
