"""What strtotime-like texts mean. The clock stands at Wednesday 31 January 2024, 10:20:30 UTC."""

from datetime import UTC, datetime

import pytest
import time_machine

from civiapi.api.parameters import dates
from civiapi.store.clock import site_clock

NOW = datetime(2024, 1, 31, 10, 20, 30, tzinfo=UTC)
TEXTS = {
    "now": "2024-01-31 10:20:30",
    "NOW": "2024-01-31 10:20:30",
    "today": "2024-01-31 00:00:00",
    "midnight": "2024-01-31 00:00:00",
    "noon": "2024-01-31 12:00:00",
    "yesterday": "2024-01-30 00:00:00",
    "tomorrow": "2024-02-01 00:00:00",
    "yesterday noon": "2024-01-30 12:00:00",
    "noon tomorrow": "2024-02-01 12:00:00",
    "tomorrow 15:30": "2024-02-01 15:30:00",
    "-2 hours": "2024-01-31 08:20:30",
    "+1 week": "2024-02-07 10:20:30",
    "+1 week 2 days": "2024-02-09 10:20:30",
    "2 days ago": "2024-01-29 10:20:30",
    "3 months ago": "2023-10-31 10:20:30",
    "+1 month": "2024-03-02 10:20:30",  # 31 February runs over, as in PHP
    "next month": "2024-03-02 10:20:30",
    "last year": "2023-01-31 10:20:30",
    "+2 weekdays": "2024-02-02 10:20:30",
    "last monday": "2024-01-29 00:00:00",
    "last wednesday": "2024-01-24 00:00:00",
    "next wednesday": "2024-02-07 00:00:00",
    "wednesday": "2024-01-31 00:00:00",
    "friday": "2024-02-02 00:00:00",
    "next friday": "2024-02-02 00:00:00",
    "this friday": "2024-02-02 00:00:00",
    "monday next week": "2024-02-12 00:00:00",
    "first day of next month": "2024-02-01 10:20:30",
    "last day of february": "2024-02-29 00:00:00",
    "first monday of january 2025": "2025-01-06 00:00:00",
    "last friday of next month": "2024-02-23 00:00:00",
    "20191211": "2019-12-11 00:00:00",
    "20191211153000": "2019-12-11 15:30:00",
    "20191211T153000": "2019-12-11 15:30:00",
    "2019-12-11": "2019-12-11 00:00:00",
    "2019-12-11 15:30": "2019-12-11 15:30:00",
    "2019-12-11 15:30:05": "2019-12-11 15:30:05",
    "2019-12-11 3pm": "2019-12-11 15:00:00",
    "2019-12-11 12:30 am": "2019-12-11 00:30:00",
    "2019-12-11T15:30:00+00:00": "2019-12-11 15:30:00",
    "2019-12-11T15:30:00Z": "2019-12-11 15:30:00",
    "2019-12-11T15:30:00.123456Z": "2019-12-11 15:30:00",
    "2019-12-11T15:30:00+02:00": "2019-12-11 13:30:00",
    "2019-12-11 15:30:00 -0500": "2019-12-11 20:30:00",
    "2019-12-11 15:30:00 EST": "2019-12-11 20:30:00",
    "2019-12-11 15:30:00 Europe/Berlin": "2019-12-11 14:30:00",
    "2019-12-11 +1 day": "2019-12-12 00:00:00",
    "2019/12/11": "2019-12-11 00:00:00",
    "12/11/2019": "2019-12-11 00:00:00",
    "11-12-2019": "2019-12-11 00:00:00",
    "11.12.2019": "2019-12-11 00:00:00",
    "2019-12": "2019-12-01 00:00:00",
    "2019-W50-3": "2019-12-11 00:00:00",
    "11 December 2019": "2019-12-11 00:00:00",
    "11 Dec 2019 15:30": "2019-12-11 15:30:00",
    "Dec 11, 2019": "2019-12-11 00:00:00",
    "December 11th 2019": "2019-12-11 00:00:00",
    "Wed, 11 Dec 2019 15:30:00 +0000": "2019-12-11 15:30:00",
    "Dec 2019": "2019-12-01 00:00:00",
    "15:30": "2024-01-31 15:30:00",
    "@1576078200": "2019-12-11 15:30:00",
}
NO_DATES = (
    "", " ", "not a date", "2026-13-45", "2026-01-02%", "2023-02-30", "1767323045", "20261345", "12/45/2019", "25:00",
    "now now2", "5abc", "10:10 11:11", "2019-12-11 2020-01-01", "x" * 200, "+99999999999999 years", "@" + "9" * 12,
    "\x00",
)  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), TEXTS.items(), ids=[f"{t!r} is {m}" for t, m in TEXTS.items()])
def test_a_text_names_a_moment(text: str, meant: str) -> None:
    with time_machine.travel(NOW, tick=False):
        assert str(dates.parse(text, site_clock("UTC"))) == meant


@pytest.mark.parametrize("text", NO_DATES, ids=[f"{t[:25]!r} is no date" for t in NO_DATES])
def test_a_text_that_names_no_moment(text: str) -> None:
    with time_machine.travel(NOW, tick=False):
        assert dates.parse(text, site_clock("UTC")) is None


def test_a_text_without_a_zone_is_in_the_site_s_zone_and_one_with_a_zone_is_brought_there() -> None:
    berlin = site_clock("Europe/Berlin")
    with time_machine.travel(NOW, tick=False):
        assert str(dates.parse("now", berlin)) == "2024-01-31 11:20:30"
        assert str(dates.parse("2019-12-11 15:30", berlin)) == "2019-12-11 15:30:00"
        assert str(dates.parse("2019-12-11T15:30:00Z", berlin)) == "2019-12-11 16:30:00"
        assert str(dates.parse("@1576078200", berlin)) == "2019-12-11 16:30:00"


def test_a_number_is_read_as_its_digits() -> None:
    assert str(dates.parse(20191211, site_clock("UTC"))) == "2019-12-11 00:00:00"
