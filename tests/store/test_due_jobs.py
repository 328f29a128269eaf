"""When a scheduled job is due, and how its parameters text is read."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from civiapi.store.civicrm.jobs import Job, is_due, read_parameters
from civiapi.store.clock import site_clock

UTC_SITE = site_clock("UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_job(frequency: str, last_run: str = "", scheduled: str = "", *, active: bool = True) -> Job:
    return Job(
        id=1,
        name="Sync",
        frequency=frequency,
        entity="Mailchimpsync",
        action="Fetchandreconcile",
        parameters="",
        last_run=at(last_run) if last_run else None,
        scheduled=at(scheduled) if scheduled else None,
        is_active=active,
    )


# rule: (job, now, due)
RULES = {
    "a job that never ran is due": (a_job("Yearly"), "2024-01-01 00:00:00", True),
    "an inactive job is never due": (a_job("Always", active=False), "2024-01-01 00:00:00", False),
    "Always is due a second later": (a_job("Always", "2024-01-01 00:00:00"), "2024-01-01 00:00:01", True),
    "Hourly is not due after 59 minutes": (a_job("Hourly", "2024-01-01 00:00:00"), "2024-01-01 00:59:59", False),
    "Hourly is due after an hour": (a_job("Hourly", "2024-01-01 00:00:00"), "2024-01-01 01:00:00", True),
    "Daily is not due on the next day before its hour": (
        a_job("Daily", "2024-01-01 12:00:00"),
        "2024-01-02 11:59:59",
        False,
    ),
    "Daily is due after a day": (a_job("Daily", "2024-01-01 12:00:00"), "2024-01-02 12:00:00", True),
    "Weekly is not due after six days": (a_job("Weekly", "2024-01-01 00:00:00"), "2024-01-07 23:59:59", False),
    "Weekly is due after seven days": (a_job("Weekly", "2024-01-01 00:00:00"), "2024-01-08 00:00:00", True),
    "Monthly is not due a day early": (a_job("Monthly", "2024-01-15 08:00:00"), "2024-02-14 08:00:00", False),
    "Monthly is due on the same day of the next month": (
        a_job("Monthly", "2024-01-15 08:00:00"),
        "2024-02-15 08:00:00",
        True,
    ),
    "Monthly after the 31st is due on a shorter month's last day": (
        a_job("Monthly", "2024-01-31 08:00:00"),
        "2024-02-29 08:00:00",
        True,
    ),
    "Quarter is not due after two months": (a_job("Quarter", "2024-01-15 08:00:00"), "2024-03-15 08:00:00", False),
    "Quarter is due after three months": (a_job("Quarter", "2024-01-15 08:00:00"), "2024-04-15 08:00:00", True),
    "Yearly is not due after 364 days": (a_job("Yearly", "2023-03-01 00:00:00"), "2024-02-28 00:00:00", False),
    "Yearly is due after a year": (a_job("Yearly", "2023-03-01 00:00:00"), "2024-03-01 00:00:00", True),
    "a date set for it makes it due, however recently it ran": (
        a_job("Yearly", "2024-01-01 00:00:00", scheduled="2024-01-01 00:00:10"),
        "2024-01-01 00:00:10",
        True,
    ),
    "a date set in the future holds it back, even if it never ran": (
        a_job("Always", scheduled="2024-02-01 00:00:00"),
        "2024-01-31 23:59:59",
        False,
    ),
    "a frequency nobody knows is never due": (
        a_job("Fortnightly", "2000-01-01 00:00:00"),
        "2024-01-01 00:00:00",
        False,
    ),
}


@pytest.mark.parametrize(("job", "now", "due"), RULES.values(), ids=RULES.keys())
def test_due(job: Job, now: str, due: bool) -> None:
    assert is_due(job, at(now), UTC_SITE) is due


def test_a_daily_job_stays_at_its_hour_when_summer_time_begins() -> None:
    """Berlin, 31 March 2024: the day has 23 hours. 08:00 on the 30th is 07:00 UTC, on the 31st 06:00 UTC."""
    job = a_job("Daily", "2024-03-30 07:00:00")
    assert not is_due(job, at("2024-03-31 05:59:59"), site_clock("Europe/Berlin"))
    assert is_due(job, at("2024-03-31 06:00:00"), site_clock("Europe/Berlin"))


PARAMETERS = {
    "nothing": ("", {}),
    "a line each": ("group_id=3\nmax_time=60", {"group_id": "3", "max_time": "60"}),
    "Windows line ends and blanks around": (" a = 1 \r\nb=2\r\n", {"a": "1", "b": "2"}),
    "an empty value": ("a=\nb=2", {"a": "", "b": "2"}),
    "a line without a sign ends them": ("a=1\nnonsense\nb=2", {"a": "1"}),
    "a line with two signs ends them": ("a=1\nb=2=3\nc=4", {"a": "1"}),
    "a line without a name ends them": ("=1\nb=2", {}),
}


@pytest.mark.parametrize(("text", "expected"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_parameters(text: str, expected: dict[str, str]) -> None:
    assert read_parameters(text) == expected


@pytest.mark.parametrize(
    ("zone", "begin", "hours"),
    [
        ("Europe/Berlin", "2026-10-24 22:10:00", 8),
        ("Europe/Berlin", "2026-03-28 22:10:00", 8),
        ("America/New_York", "2026-11-01 03:40:00", 8),
        ("Australia/Lord_Howe", "2026-04-04 12:10:00", 8),
        ("UTC", "2026-10-24 22:10:00", 8),
    ],
)
def test_an_hourly_job_runs_once_an_hour_when_the_clocks_are_changed_too(zone: str, begin: str, hours: int) -> None:
    """Its last run is stored as the site's time, of which one hour comes twice."""
    clock = site_clock(zone)
    job, runs = a_job("Hourly", begin), [at(begin)]
    for minute in range(1, hours * 60 + 1):
        now = at(begin) + timedelta(minutes=minute)
        if is_due(job, now, clock):
            job = replace(job, last_run=clock.read(clock.write(now)))
            runs.append(now)
    gaps = {(later - earlier).total_seconds() / 60 for earlier, later in itertools.pairwise(runs)}
    assert min(gaps) >= 30
    assert max(gaps) <= 120
    assert hours - 1 <= len(runs) <= hours + 2
