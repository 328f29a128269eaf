"""The figures that ``make bench`` found last: one JSON file for each part in ``bench/results/``, in the repository.

``bench.report`` writes docs/performance.md from them.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("results")
HISTORY = Path(__file__).with_name("history.jsonl")
"""The ratios of every run, one JSON object a line: ``of_bare`` of the surface, ``of_floor`` of first syncs."""


def save(part: str, found: dict[str, Any]) -> None:
    """Keep what was measured, instead of what was before."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def save_rows(part: str, about: dict[str, Any], rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Keep *rows*, dated, beside those of earlier runs on the same processor that have another *key*."""
    new = [row | {"at": about["at"], "commit": about["commit"]} for row in rows]
    measured = {tuple(row[name] for name in key) for row in new}
    before = load(part) or {"processor": "", "rows": []}
    earlier = before["rows"] if before["processor"] == about["processor"] else []
    kept = [row for row in earlier if tuple(row[name] for name in key) not in measured]
    save(part, about | {"rows": kept + new})


def load(part: str) -> dict[str, Any] | None:
    """What was measured last; None: nothing."""
    file = FOLDER / f"{part}.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else None


def read_history() -> str:
    """The lines of all runs; empty before the first."""
    return HISTORY.read_text("utf-8") if HISTORY.exists() else ""


def add_to_history(run: dict[str, Any]) -> None:
    """Add the ratios of a run."""
    with HISTORY.open("a", encoding="utf-8") as history:
        history.write(json.dumps(run) + "\n")
