"""Charts as numbers: what lands where in the box, gaps, lone points, and days on which nothing happened."""

from typing import Any

import pytest

from civiapi.ui.status.charts import HEIGHT, WIDTH, draw_bars, draw_lines
from civiapi.ui.status.fragments import duration, step_counts
from sync.runs.progress import summarize_run

SERIES = ("mailchimp", "civicrm")
JOINED, LEFT = ("joined_civicrm", "joined_mailchimp"), ("left_civicrm", "left_mailchimp")


def a_day(mailchimp: int | None = None, civicrm: int | None = None, **changes: int) -> dict[str, Any]:
    none = dict.fromkeys((*JOINED, *LEFT), 0)
    return {"date": "2026-01-31", "mailchimp": mailchimp, "civicrm": civicrm, **none, **changes}


def points(path: str) -> list[list[float]]:
    return [[float(number) for number in step.split()] for step in path.replace("M", " L").split("L") if step.strip()]


def test_lines_stand_on_an_axis_from_zero_with_round_grid_lines() -> None:
    chart = draw_lines([a_day(10, 30), a_day(20, 30), a_day(30, 10)], SERIES)
    assert (chart.low, chart.high, chart.base) == (10, 30, 0)
    assert [tick.value for tick in chart.ticks] == [0, 10, 20, 30]
    assert (chart.ticks[0].y, chart.ticks[-1].y, chart.ticks[0].percent) == (HEIGHT, 0, 100)
    mailchimp, civicrm = (points(line.path) for line in chart.lines)
    assert [x for x, _ in mailchimp] == [WIDTH / 6, WIDTH / 2, WIDTH * 5 / 6]  # the middle of each day
    assert [y for _, y in mailchimp] == [pytest.approx(HEIGHT * share, abs=0.1) for share in (2 / 3, 1 / 3, 0)]
    assert civicrm[0][1] == mailchimp[2][1]


def test_an_axis_far_from_zero_is_broken_and_says_where_it_begins() -> None:
    chart = draw_lines([a_day(9_000, 9_040), a_day(9_100, 9_040)], SERIES)
    assert 0 < chart.base <= 9_000
    assert chart.ticks[0].value == chart.base
    assert chart.ticks[-1].value >= 9_100
    assert len(chart.ticks) <= 8


def test_days_without_a_number_leave_a_gap_and_a_lone_day_is_a_dot() -> None:
    line = draw_lines([a_day(1), a_day(2), a_day(), a_day(3)], SERIES).lines[0]
    assert line.path.count("M") == 1
    assert len(line.dots) == 1
    assert line.dots[0][0] == WIDTH * 7 / 8


@pytest.mark.parametrize("days", [[], [a_day()], [a_day(5, 5)]], ids=["no day", "no number", "one day"])
def test_too_little_to_draw_draws_nothing_wrong(days: list[dict[str, Any]]) -> None:
    chart = draw_lines(days, SERIES)
    assert all(line.path == "" for line in chart.lines)
    assert draw_bars(days, JOINED, LEFT).bars == ()


def test_bars_stand_on_the_zero_line_and_on_one_another() -> None:
    chart = draw_bars([a_day(joined_civicrm=3, joined_mailchimp=1, left_mailchimp=4)], JOINED, LEFT)
    assert (chart.up, chart.down, chart.zero) == (4, 4, HEIGHT / 2)
    first, second, below = chart.bars
    assert first.y + first.height == chart.zero
    assert second.y + second.height == first.y
    assert (below.y, below.height) == (chart.zero, HEIGHT / 2)
    assert [one.series for one in chart.bars] == [0, 1, 3]
    assert [tick.value for tick in chart.ticks] == [-4, -2, 0, 2, 4]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.2, "less than 1 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (360_000, "100 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_run_says_what_it_changed_and_leaves_out_what_it_did_not() -> None:
    counts = {
        "readyToFetch": {"members": 12000, "changed": 0},
        "readyToReconcileQueue": {"left": 2, "joined": 1200, "updates": 9},
        "readyToSubmitUpdates": {"updates": 1, "left": 7},
    }
    assert summarize_run(counts) == "1,200 joined the group, 2 left the group, 1 update sent"
    assert summarize_run({"readyToFetch": {"members": 0}}) == "No changes"
    assert step_counts(counts)[0] == ("Fetch members", "12,000 members")
