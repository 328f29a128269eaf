"""Write the figures of the documents from ``bench/results/``: ``python -m bench.report``, as ``make bench`` does.

Each stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``, with both databases side by side.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import results
from bench.results import PHP_A_SECOND, bars
from bench.sync import TITLES

ROOT = Path(__file__).parents[1]
PERFORMANCE = "docs/performance.md"
PAGES = ("README.md", PERFORMANCE, "docs/scaling.md")
DATABASES = {"sqlite": "SQLite", "mariadb": "MariaDB"}
NOT_MEASURED = "–"
Found = dict[str, Any]


def surface() -> str:
    """Requests a second of each call, over REST and JSON-RPC."""
    measured = {name: results.load(f"surface-{name}") for name in DATABASES}
    by_row = {
        name: {(row["call"], row["over"], row["at_once"]): row for row in found["rows"]}
        for name, found in measured.items()
        if found
    }
    keys = list(dict.fromkeys(key for rows in by_row.values() for key in rows))
    head = ["Call", "Over", "At once"]
    for title in DATABASES.values():
        head += [f"{title}, a second", "of bare", "of the driver"]
    lines = []
    for key in keys:
        line = [key[0], key[1], str(key[2])]
        for name in DATABASES:
            row = by_row.get(name, {}).get(key)
            line += (
                [f"{row['per_second']:,}", f"{row['of_bare']:.2f}", f"{row['of_driver']:.2f}"]
                if row
                else [NOT_MEASURED] * 3
            )
        lines.append(line)
    return _table(head, lines, numbers_from=2) + _measured_on(measured)


def syncs() -> str:
    """First syncs, pushes, and the runs that find little, by their size."""
    measured = {name: results.load(f"sync-{name}") for name in DATABASES}
    by_row = {
        name: {
            (row["case"], row["members"], row["latency_ms"]): row
            for row in found["rows"]
            if "cpu" in row.get("ours", {})
        }
        for name, found in measured.items()
        if found
    }
    keys = {key for rows in by_row.values() for key in rows}
    head = ["Case", "Members", "A page takes"]
    for title in DATABASES.values():
        head += [f"{title}, wall", "a second", "× floor, wall", "× floor, CPU", "our own part", "peak"]
    lines = []
    for key in sorted(keys, key=lambda key: (key[2], list(TITLES).index(key[0]), key[1])):
        line = [TITLES[key[0]], f"{key[1]:,}", f"{key[2]} ms"]
        for name in DATABASES:
            line += _of_sync(by_row.get(name, {}).get(key))
        lines.append(line)
    return _table(head, lines, numbers_from=1) + _measured_on(measured)


def _of_sync(row: Found | None) -> list[str]:
    if row is None:
        return [NOT_MEASURED] * 6
    ours, floor = row["ours"], row.get("floor")
    beside = [f"{ours[what] / floor[what]:.2f}" if floor else NOT_MEASURED for what in ("wall", "cpu")]
    own = f"{ours['own_ms']:.0f} ms" if "own_ms" in ours else NOT_MEASURED
    return [f"{ours['wall']:.1f} s", _per_second(row), *beside, own, f"{ours['peak_mb']:.0f} MB"]


def questions() -> str:
    """What a page or a caller waits for while an audience is large."""
    lines = []
    measured = {"sqlite": results.load("sync-sqlite")}
    for row in (measured["sqlite"] or {"rows": []})["rows"]:
        for name, one in row.get("ours", {}).get("reads", {}).items():
            lines.append([name, f"{row['members']:,}", f"{one['middle_ms']} ms", f"{one['worst_ms']} ms"])
    return _table(["Question, on SQLite", "Members", "Middle", "Worst"], lines, numbers_from=1) + _measured_on(measured)


def lags() -> str:
    """How long a caller waits while a first sync runs, and whoever asks a bare handler at the same time."""
    measured = {name: results.load(f"sync-{name}") for name in DATABASES}
    lines = []
    for name, title in DATABASES.items():
        for row in (measured[name] or {"rows": []})["rows"]:
            for share, pair in row.get("lag", {}).items():
                cells = [cell for one in (pair, row["bare"][share]) for cell in _idle_and_busy(one)]
                lines.append([title, f"{row['members']:,}", share, *cells])
    head = ["Database", "Members", "Of the calls", "idle", "during a sync", "×", "bare: idle", "during a sync", "×"]
    return _table(head, lines, numbers_from=1)


def _idle_and_busy(pair: Found) -> list[str]:
    idle, busy = pair["idle_ms"], pair["busy_ms"]
    return [f"{idle:.1f} ms", f"{busy:.1f} ms", f"{busy / idle:.1f}"]


def aims() -> str:
    """What was aimed at, and whether it was met."""
    lines = []
    for name, title in DATABASES.items():
        for bar in bars((results.load(f"sync-{name}") or {"rows": []})["rows"]):
            limit = f"{'≥' if bar.at_least else '≤'} {bar.bar:g}"
            lines.append([title, bar.what, f"{bar.measured:.2f}", limit, "yes" if bar.is_met else "**no**"])
    return _table(["Database", "Aim", "Measured", "Bar", "Met"], lines, numbers_from=2)


def beside_php() -> str:
    """First syncs by what is known of the members, beside those of the PHP extension."""
    lines = []
    for case, who in (("new", "new to CiviCRM"), ("known", "known to CiviCRM")):
        ours = [
            f"{_per_second(_row(name, case, members))} ({members:,} on {DATABASES[name]})"
            for name, members in (("sqlite", 60_000), ("mariadb", 20_000))
        ]
        lines.append(
            f"- First sync, members {who}: mailchimpsync {PHP_A_SECOND[case]} a second; civiapi {' and '.join(ours)}.\n"
        )
    return "".join(lines)


def ten_million() -> str:
    """How long ten million members take one worker, at the rate of the largest first sync on MariaDB."""
    row = max(_rows("mariadb", "new"), key=lambda row: int(row["members"]), default=None)
    if row is None:
        return "Not measured on MariaDB.\n"
    rate, minutes = _per_second(row), 10_000_000 * row["ours"]["wall"] / row["ours"]["rows"] / 60
    return (
        f"One worker brought {row['members']:,} new members into a MariaDB on the same two cores at {rate} a\n"
        f"second: 10,000,000 take it {minutes:.0f} minutes.\n"
    )


def _rows(database: str, case: str) -> list[Found]:
    measured = results.load(f"sync-{database}") or {"rows": []}
    return [row for row in measured["rows"] if row["case"] == case and row["latency_ms"] == 0]


def _row(database: str, case: str, members: int) -> Found | None:
    return next((row for row in _rows(database, case) if row["members"] == members), None)


def _per_second(row: Found | None) -> str:
    return f"{row['ours']['rows'] / row['ours']['wall']:,.0f}" if row else NOT_MEASURED


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], *, numbers_from: int) -> str:
    rule = ["---" if place < numbers_from else "---:" for place in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))


def _measured_on(measured: dict[str, Found | None]) -> str:
    return "".join(
        f"\n{DATABASES[name]}: {' and '.join(_runs(found))}, {found['cpus']} cores, {found['processor']}, "
        f"Python {found['python']}, load before {found['load_before']}.\n"
        for name, found in measured.items()
        if found
    )


def _runs(found: Found) -> list[str]:
    """When and with which commits these rows were measured, in order."""
    return sorted(
        {f"{row.get('at', found['at'])} (commit {row.get('commit', found['commit'])})" for row in found["rows"]}
    )


SECTIONS: dict[str, Callable[[], str]] = {
    "surface": surface,
    "syncs": syncs,
    "lags": lags,
    "questions": questions,
    "aims": aims,
    "beside_php": beside_php,
    "ten_million": ten_million,
}
SECTION = re.compile(r"<!-- figures: (\w+) -->.*?<!-- end -->", re.DOTALL)


def written(page: str) -> str:
    """The page with each section's figures as they are in ``bench/results/``. Raises KeyError for an unknown one."""
    return SECTION.sub(lambda found: f"<!-- figures: {found[1]} -->\n\n{SECTIONS[found[1]]()}\n<!-- end -->", page)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(written(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
