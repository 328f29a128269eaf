"""The figures that ``make bench`` found last, and what was aimed at: ratios to the floor of the same run, and to PHP.

Figures are one JSON file for each part in ``bench/results/``, in the repository; ``bench.report`` writes
docs/performance.md from them. Nothing fails here: a benchmark reports figures. Those of the PHP extension are from
``shared/baseline/peer-sync.md``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("results")
HISTORY = Path(__file__).with_name("history.jsonl")
"""The ratios of every run, one JSON object a line: ``of_bare`` of the surface, ``of_floor`` of first syncs."""

Row = dict[str, Any]

FLOOR = {"known": 2.5, "new": 2.5, "push": 3.0}
PHP_A_SECOND, PHP_TIMES = {"new": 48, "known": 189}, {"new": 100, "known": 20}
"""Members a second: first syncs of 5,000 and 20,000."""

A_SECOND = {("new", 60_000): 12_000, ("known", 60_000): 24_000, ("new", 20_000): 6_000, ("known", 20_000): 12_000}
"""Members a second of a first sync, by its size: 60,000 on SQLite, 20,000 on MariaDB."""

LARGEST_TO_SMALLEST = {"nothing_changed": 1.2, "incremental": 1.5}
PEAK_MB, PEAK_GROWTH, LAG = 200, 1.3, 3.0


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


@dataclass(frozen=True, slots=True)
class Bar:
    """One aim: *measured* is to stay at or below *bar*, or, where *at_least*, at or above it."""

    what: str
    measured: float
    bar: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it was."""
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar


def bars(rows: Sequence[Row]) -> Iterator[Bar]:
    """Every aim that these rows tell something about."""
    for row in rows:
        yield from _beside_floor(row)
        if "lag" in row:
            p99 = row["lag"]["p99"]
            yield Bar(
                f"Contact.get p99 during a sync of {row['members']:,}: × idle", p99["busy_ms"] / p99["idle_ms"], LAG
            )
    at_once = [row for row in rows if row["latency_ms"] == 0]
    for case, bar in LARGEST_TO_SMALLEST.items():
        yield from _largest_to_smallest(f"{case.replace('_', ' ')}: largest × smallest", bar, _own_ms(at_once, case))
    peaks = _peaks(at_once)
    yield from _largest_to_smallest("peak memory: largest × smallest", PEAK_GROWTH, peaks)
    if peaks:
        yield Bar("peak memory, MB", max(peaks.values()), PEAK_MB)


def _beside_floor(row: Row) -> Iterator[Bar]:
    case, ours = row["case"], row.get("ours", {})
    if case not in FLOOR or "floor" not in row:
        return
    named, latency_free = f"{case}, {row['members']:,}, {row['latency_ms']} ms", row["latency_ms"] == 0
    yield Bar(f"{named}: × floor", ours["wall"] / row["floor"]["wall"], FLOOR[case])
    if latency_free and (case, row["members"]) in A_SECOND:
        yield Bar(f"{named}: a second", ours["rows"] / ours["wall"], A_SECOND[case, row["members"]], at_least=True)
    if case in PHP_TIMES and latency_free:
        times = ours["rows"] / ours["wall"] / PHP_A_SECOND[case]
        yield Bar(f"{named}: × PHP", times, PHP_TIMES[case], at_least=True)


def _own_ms(rows: Sequence[Row], case: str) -> dict[int, float]:
    return {row["members"]: row["ours"]["own_ms"] for row in rows if row["case"] == case}


def _peaks(rows: Sequence[Row]) -> dict[int, float]:
    found: dict[int, float] = {}
    for row in rows:
        if "ours" in row:
            found[row["members"]] = max(found.get(row["members"], 0.0), row["ours"]["peak_mb"])
    return found


def _largest_to_smallest(what: str, bar: float, by_size: dict[int, float]) -> Iterator[Bar]:
    if len(by_size) > 1:
        yield Bar(what, by_size[max(by_size)] / by_size[min(by_size)], bar)
