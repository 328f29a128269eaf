"""Writes ``docs/reliability.md`` from what tests found: ``python -m tests.reliability.report.write``.

It reads ``docs/reliability-data/*.json``, which soaks and ``tests.reliability.report.evidence`` write, and adds
nothing: what no test found does not go in. `make reliability` runs the tests first.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.reliability.report.results import FOLDER
from tests.support.processes import ROOT

REPORT = ROOT / "docs" / "reliability.md"
KEYS = {"title", "what", "columns", "rows", "made_by"}
MAY_HAVE = {"seed"}
ORDER = (
    "crash",
    "convergence",
    "frozen",
    "fuzz",
    "claims-leases",
    "claims-webhooks",
    "claims-database",
    "claims-hostile-requests",
    "claims-hostile-clients",
    "claims-hostile-readers",
    "claims-hostile-pages",
    "claims-traps",
)
"""Tables whose name begins so come in this order; any other comes before the claims."""

HEAD = """# Reliability: what was tried, how often, what failed

Written by `python -m tests.reliability.report.write` from what the tests found; `make reliability` runs
them again. Nothing here is said by hand. Each table names what made it.
"""


def read_results(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Every table by its file's name, in the order of the report. Raises ValueError for a file that is no table."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json"), key=place):
        told = json.loads(path.read_text("utf-8"))
        if not isinstance(told, dict) or not KEYS <= told.keys() <= KEYS | MAY_HAVE:
            raise ValueError(f"{path.name} has {sorted(told)}, a table has {sorted(KEYS)}")
        if any(len(row) != len(told["columns"]) for row in told["rows"]):
            raise ValueError(f"{path.name} has a row that is not as long as its columns")
        found[path.stem] = told
    return found


def place(path: Path) -> tuple[float, str, int, str]:
    """Where a table comes in the report; numbers at the end of a name count as numbers."""
    name, _, number = path.stem.rpartition("-")
    known = (float(at) for at, begin in enumerate(ORDER) if path.stem.startswith(begin))
    middle = ORDER.index("claims-leases") - 0.5
    return next(known, middle), name, int(number) if number.isdigit() else 0, path.stem


def render(results: dict[str, dict[str, Any]]) -> str:
    """The report as Markdown."""
    parts = [HEAD]
    for told in results.values():
        seed = f" Seed: {told['seed']}." if told.get("seed") not in (None, "") else ""
        parts.append(f"## {told['title']}\n\n{told['what']}\n\nMade by `{told['made_by']}`.{seed}\n")
        parts.append(table(told["columns"], told["rows"]))
    return "\n".join(parts)


def table(columns: list[Any], rows: list[list[Any]]) -> str:
    """A Markdown table; a cell that is a list is one line an entry."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell(one) for one in line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """One value as it may stand in a table."""
    if isinstance(value, list):
        return "<br>".join(f"`{one}`" for one in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write the report; 1 where there is nothing to report."""
    results = read_results()
    if not results:
        print(f"There is nothing in {FOLDER}; run make reliability.", file=sys.stderr)
        return 1
    REPORT.write_text(render(results), "utf-8")
    print(f"Wrote {REPORT.relative_to(ROOT)}: {len(results)} tables.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
