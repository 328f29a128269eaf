"""What was aimed at, beside what was measured: ratios to the floor of the same run, and to what the PHP extension does.

Nothing fails here: a benchmark reports figures. The PHP figures are those of ``shared/baseline/peer-sync.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

FLOOR = {"known": 2.5, "new": 2.5, "push": 3.0}
PHP_A_SECOND, PHP_TIMES = {"new": 48, "known": 189}, {"new": 100, "known": 20}
"""Members a second: first syncs of 5,000 and 20,000."""

A_SECOND = {("new", 60_000): 12_000, ("known", 60_000): 24_000, ("new", 20_000): 6_000, ("known", 20_000): 12_000}
"""Members a second of a first sync, by its size: 60,000 on SQLite, 20,000 on MariaDB."""

LARGEST_TO_SMALLEST = {"nothing_changed": 1.2, "incremental": 1.5}
PEAK_MB, PEAK_GROWTH, LAG = 200, 1.3, 3.0


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
