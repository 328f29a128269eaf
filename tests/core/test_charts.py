"""Charts as numbers: what lands where in the box, gaps, lone points, and days on which nothing happened."""

from typing import Any

import pytest

from civiapi.ui.charts import HEIGHT, WIDTH, draw_bars, draw_lines
from civiapi.ui.parts import did, duration

SERIES = ("mailchimp", "civicrm")
JOINED, LEFT = ("joined_civicrm", "joined_mailchimp"), ("left_civicrm", "left_mailchimp")


def a_day(mailchimp: int | None = None, civicrm: int | None = None, **changes: int) -> dict[str, Any]:
    none = dict.fromkeys((*JOINED, *LEFT), 0)
    return {"date": "2026-01-31", "mailchimp": mailchimp, "civicrm": civicrm, **none, **changes}


def points(path: str) -> list[list[float]]:
    return [[float(number) for number in step.split()] for step in path.replace("M", " L").split("L") if step.strip()]


def test_lines_go_from_one_edge_to_the_other_and_higher_numbers_stand_higher() -> None:
    chart = draw_lines([a_day(10, 30), a_day(20, 30), a_day(30, 10)], SERIES)
    assert (chart.low, chart.high) == (10, 30)
    mailchimp, civicrm = (points(line.path) for line in chart.lines)
    assert [x for x, _ in mailchimp] == [0, WIDTH / 2, WIDTH]
    assert mailchimp[0][1] > mailchimp[1][1] > mailchimp[2][1]
    assert civicrm[0] == [0, mailchimp[2][1]]


def test_days_without_a_number_leave_a_gap_and_a_lone_day_is_a_dot() -> None:
    line = draw_lines([a_day(1), a_day(2), a_day(), a_day(3)], SERIES).lines[0]
    assert line.path.count("M") == 1
    assert len(line.dots) == 1
    assert line.dots[0][0] == WIDTH


def test_a_flat_line_runs_through_the_middle() -> None:
    line = draw_lines([a_day(7), a_day(7)], SERIES).lines[0]
    assert {y for _, y in points(line.path)} == {HEIGHT / 2}


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


def test_a_run_says_what_it_did_and_leaves_out_what_it_did_not() -> None:
    counts = {"readyToFetch": {"members": 12000, "changed": 0}, "readyToReconcileQueue": {"left_group": 2}}
    assert did(counts) == "Fetch members: 12,000 members; Reconcile: 2 left group"
    assert did({"readyToFetch": {"members": 0}}) == "Nothing had changed."
