"""Charts as coordinates for an SVG, which the template draws. Pure.

The SVG is stretched to the available width, so it contains no text: labels are HTML beside it, placed by the share of
the height at which a grid line is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 900.0, 200.0
BREAK_BELOW = 5
"""The axis begins at 0 unless the values differ by less than this part of the highest."""

STEPS = 4
"""About how many grid lines a chart has."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line: its value, its place in the SVG, and that place as a percentage from the top."""

    value: int
    y: float

    @property
    def percent(self) -> float:
        """Its place from the top, in percent of the height."""
        return round(100 * self.y / HEIGHT, 2)


@dataclass(frozen=True, slots=True)
class Line:
    """One series as a path; *dots* are isolated points, which a line would not show."""

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
    """Series over time. The axis begins at 0, or at *base* where all values are far above it: a break, to be marked."""

    lines: tuple[Line, ...]
    low: int
    high: int
    base: int = 0
    ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Changes per day: additions above the zero line, removals below it."""

    bars: tuple[Bar, ...]
    zero: float
    up: int
    down: int
    ticks: tuple[Tick, ...] = ()


def step_of(spread: float) -> int:
    """The distance of grid lines over a range of values: 1, 2 or 5 times a power of ten, at least 1."""
    rough = max(spread / STEPS, 1)
    power = 10 ** math.floor(math.log10(rough))
    return int(next(size * power for size in (1, 2, 5, 10) if size * power >= rough))


def draw_lines(days: Sequence[Mapping[str, Any]], series: Sequence[str]) -> Lines:
    """A line for each series, one value per day; a missing value leaves a gap."""
    values = [day[name] for day in days for name in series if day.get(name) is not None]
    low, high = (min(values), max(values)) if values else (0, 0)
    starts_at_zero = high - low >= high / BREAK_BELOW
    step = step_of(high if starts_at_zero else max(high - low, 1))
    base = 0 if starts_at_zero else max((low // step - 1) * step, 0)
    top = max((math.ceil(high / step)) * step, base + step)

    def height(value: float) -> float:
        return round(HEIGHT * (1 - (value - base) / (top - base)), 1)

    lines = [_line(days, name, height) for name in series]
    ticks = tuple(Tick(value, height(value)) for value in range(base, top + 1, step))
    return Lines(tuple(lines), low, high, base, ticks)


def _line(days: Sequence[Mapping[str, Any]], name: str, height: Any) -> Line:
    path, dots, run = [], [], []
    for index, day in enumerate([*days, {}]):
        value = day.get(name)
        if value is not None:
            x = WIDTH * (index + 0.5) / len(days)
            run.append((round(x, 1), height(value)))
            continue
        if len(run) == 1:
            dots.append(run[0])
        if len(run) > 1:
            path.append("M" + " L".join(f"{x} {y}" for x, y in run))
        run = []
    return Line(name, " ".join(path), tuple(dots))


def draw_bars(days: Sequence[Mapping[str, Any]], joined: Sequence[str], left: Sequence[str]) -> Bars:
    """For each day the additions upwards and the removals downwards, the series of each direction stacked."""
    up = max((sum(day.get(name) or 0 for name in joined) for day in days), default=0)
    down = max((sum(day.get(name) or 0 for name in left) for day in days), default=0)
    step = step_of(up + down)
    top, bottom = math.ceil(up / step) * step, math.ceil(down / step) * step
    scale = HEIGHT / ((top + bottom) or 1)
    zero = round(top * scale if top + bottom else HEIGHT / 2, 1)
    slot = WIDTH / max(len(days), 1)
    bars = []
    for index, day in enumerate(days):
        for names, direction in ((joined, -1), (left, 1)):
            at = zero
            for number, name in enumerate(names):
                size = (day.get(name) or 0) * scale
                if size:
                    series = number if direction < 0 else len(joined) + number
                    x, y = index * slot + slot * 0.15, at - size if direction < 0 else at
                    bars.append(Bar(series, round(x, 1), round(y, 1), round(slot * 0.7, 1), round(size, 1)))
                    at += direction * size
    ticks = tuple(Tick(value, round(zero - value * scale, 1)) for value in range(-bottom, top + 1, step))
    return Bars(tuple(bars), zero, up, down, ticks)
