"""Small charts as numbers for an SVG: lines of points and bars, scaled to a box. Pure; the template draws them.

The box is stretched to the width there is, so nothing in it is text: what the axes say stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 900.0, 200.0


@dataclass(frozen=True, slots=True)
class Line:
    """One series as a path; *dots* where a point stands alone and would not be seen as a line."""

    name: str
    path: str
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One day's bar of one series."""

    series: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Lines:
    """Series over time, from the lowest to the highest value there is."""

    lines: tuple[Line, ...]
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Changes a day: what joined above the zero line, what left below it."""

    bars: tuple[Bar, ...]
    zero: float
    up: int
    down: int


def draw_lines(days: Sequence[Mapping[str, Any]], series: Sequence[str]) -> Lines:
    """The values of each series, one a day; a day without one leaves a gap."""
    values = [day[name] for day in days for name in series if day.get(name) is not None]
    low, high = (min(values), max(values)) if values else (0, 0)
    spread = (high - low) or 1
    pad = HEIGHT * 0.06

    def place(index: int, value: float) -> tuple[float, float]:
        x = WIDTH * index / max(len(days) - 1, 1) if len(days) > 1 else WIDTH / 2
        share = (value - low) / spread if high != low else 0.5
        return round(x, 1), round(HEIGHT - pad - share * (HEIGHT - 2 * pad), 1)

    lines = []
    for name in series:
        path, dots, run = [], [], []
        for index, day in enumerate([*days, {}]):
            value = day.get(name)
            if value is not None:
                run.append(place(index, value))
                continue
            if len(run) == 1:
                dots.append(run[0])
            if len(run) > 1:
                path.append("M" + " L".join(f"{x} {y}" for x, y in run))
            run = []
        lines.append(Line(name, " ".join(path), tuple(dots)))
    return Lines(tuple(lines), low, high)


def draw_bars(days: Sequence[Mapping[str, Any]], joined: Sequence[str], left: Sequence[str]) -> Bars:
    """For each day what joined, upwards, and what left, downwards; the series of a kind stand on one another."""
    up = max((sum(day.get(name) or 0 for name in joined) for day in days), default=0)
    down = max((sum(day.get(name) or 0 for name in left) for day in days), default=0)
    scale = HEIGHT / ((up + down) or 1)
    zero = round(up * scale if up + down else HEIGHT / 2, 1)
    slot = WIDTH / max(len(days), 1)
    bars = []
    for index, day in enumerate(days):
        for names, direction in ((joined, -1), (left, 1)):
            at = zero
            for number, name in enumerate(names):
                size = (day.get(name) or 0) * scale
                if size:
                    series = number if direction < 0 else len(joined) + number
                    top = at - size if direction < 0 else at
                    bars.append(
                        Bar(
                            series,
                            round(index * slot + slot * 0.1, 1),
                            round(top, 1),
                            round(slot * 0.8, 1),
                            round(size, 1),
                        )
                    )
                    at += direction * size
    return Bars(tuple(bars), zero, up, down)
