"""The health of a connection is one word, that of its worst trouble."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from civiapi.store.civicrm.jobs import Job
from civiapi.store.clock import site_clock
from sync.reports.health import Health, is_late, judge

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
CLOCK = site_clock("Europe/London")
WELL: dict[str, Any] = {
    "stopped": "", "crashed": False, "brake": False, "waiting": "", "interests_gone": [],
    "merge_fields_gone": [], "merge_sources_gone": [], "refused_for_now": False,
    "webhooks": {"ok": True, "why": "", "asked": "2026-01-09 11:00:00"}, "late": "",
    "lastSyncTimeHuman": "11:00:00 09 Jan 2026", "stats": {"mailchimp_updates_pending": 0},
}  # fmt: skip
TROUBLES: list[tuple[Health, dict[str, Any], str]] = [
    (Health.FAILED, {"stopped": "stopped at readyToFetch: no."}, "stopped at readyToFetch: no."),
    (Health.FAILED, {"crashed": "The logs are silent."}, "The logs are silent."),
    (Health.NEEDS_YOU, {"brake": {"sentence": "The brake is on."}}, "The brake is on."),
    (Health.NEEDS_YOU, {"waiting": "It waits for its first sync."}, "It waits for its first sync."),
    (
        Health.NEEDS_YOU,
        {"webhooks": {"ok": False, "why": "The webhook is gone.", "asked": "x"}},
        "The webhook is gone.",
    ),
    (Health.NEEDS_YOU, {"interests_gone": {"i1": "Topics: Pets"}}, "Topics: Pets"),
    (Health.NEEDS_YOU, {"merge_fields_gone": ["BIRTH"]}, "are gone at Mailchimp: BIRTH"),
    (Health.NEEDS_YOU, {"merge_sources_gone": {"CODE": "custom:2"}}, "nothing is sent for them: CODE (custom:2)."),
    (Health.RUNNING, {"is_running": True}, "A sync is running."),
    (Health.LATE, {"late": "The last one was yesterday."}, "The last one was yesterday."),
    (Health.RUNNING, {"stats": {"mailchimp_updates_pending": 3}}, "3 updates"),
    (Health.RETRIES, {"refused_for_now": {"count": 2, "next": "2026-01-10 12:00:00"}}, "2026-01-10 12:00:00"),
]
"""From the most to the least urgent."""


def judged(**trouble: Any) -> tuple[Health, str]:
    is_running = trouble.pop("is_running", False)
    return judge(WELL | trouble, is_running=is_running)


def test_without_any_trouble_it_is_healthy_and_says_when_it_was_synced() -> None:
    assert judged() == (Health.HEALTHY, "Last sync: 11:00:00 09 Jan 2026.")


@pytest.mark.parametrize(("state", "trouble", "why"), TROUBLES)
def test_each_trouble_has_its_state_and_its_fact(state: Health, trouble: dict[str, Any], why: str) -> None:
    found, said = judged(**trouble)
    assert (found, why in said) == (state, True)


def test_of_two_troubles_the_more_urgent_counts() -> None:
    for (state, first, why), (_, second, _) in combinations(TROUBLES, 2):
        found, said = judged(**(second | first))
        assert (found, why in said) == (state, True)


def a_job(frequency: str) -> Job:
    return Job(1, "Sync", frequency, "Mailchimpsync", "fetchandreconcile", "", None, None, is_active=True)


@pytest.mark.parametrize(
    ("frequencies", "age", "late"),
    [
        pytest.param([], timedelta(days=99), False, id="Nothing is scheduled."),
        pytest.param(["Hourly"], timedelta(hours=1, minutes=59), False, id="Hourly, within the hour of slack."),
        pytest.param(["Hourly"], timedelta(hours=2), True, id="Hourly, an hour too late."),
        pytest.param(["Always"], timedelta(hours=1), False, id="Always counts as hourly."),
        pytest.param(["Daily"], timedelta(hours=24, minutes=59), False, id="Daily, within the slack."),
        pytest.param(["Daily"], timedelta(hours=25), True, id="Daily, an hour too late."),
        pytest.param(["Weekly", "Daily"], timedelta(hours=25), True, id="The more frequent job counts."),
        pytest.param(["Hourly"], None, False, id="Never synced: it waits for its first sync."),
    ],
)
def test_late_is_an_hour_after_the_schedule_expected_a_sync(
    frequencies: list[str], age: timedelta | None, late: bool
) -> None:
    last = None if age is None else NOON - age
    assert is_late(last, [a_job(one) for one in frequencies], NOON, CLOCK) is late
