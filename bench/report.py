"""Write the figures of docs/performance.md from ``bench/results/``: ``python -m bench.report``, as ``make bench`` does.

Each table stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``, with both databases side by side.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import results
from bench.results import bars
from bench.sync import TITLES

PAGE = Path(__file__).parents[1] / "docs/performance.md"
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
    return [f"{ours['wall']:.1f} s", f"{ours['rows'] / ours['wall']:,.0f}", *beside, own, f"{ours['peak_mb']:.0f} MB"]


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
}


def written(page: str) -> str:
    """The page with each section's figures as they are in ``bench/results/``."""
    for name, render in SECTIONS.items():
        begin, end = f"<!-- figures: {name} -->", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{render()}\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Write the page."""
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
