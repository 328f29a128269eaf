"""The health of a connection in one word, from its status. Pure: no SQL, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from civiapi.store.civicrm.jobs import ALWAYS, HOURLY, Job, is_due
from civiapi.store.clock import SiteClock
from sync.audience import interest_kinds

SLACK = timedelta(hours=1)
"""How long after its time a scheduled sync counts as late: the scheduler waits, and syncs of others come first."""


class Health(StrEnum):
    """The states of a connection, the worst first."""

    FAILED = "failed"
    """The last run could not go on, or was killed."""
    NEEDS_YOU = "needs you"
    """Nothing continues without a person: the brake, a first sync, webhooks, interests that are gone."""
    LATE = "late"
    """The schedule expected a finished sync by now."""
    RUNNING = "running"
    """A sync is at work, or its updates are in flight."""
    RETRIES = "will retry by itself"
    """Mailchimp refused something for now; it is sent again later."""
    HEALTHY = "healthy"


UNHEALTHY = frozenset({Health.FAILED, Health.NEEDS_YOU, Health.LATE})
"""The states that do not end by themselves: a monitor reports them."""


def worst(states: Iterable[Health]) -> Health:
    """The worst of these states; healthy where there is none."""
    return min(states, key=list(Health).index, default=Health.HEALTHY)


def judge(status: Mapping[str, Any], *, is_running: bool) -> tuple[Health, str]:
    """The health of a connection with this status (``read_status``), and the fact behind it, in a sentence."""
    hooks = status["webhooks"]
    if status["stopped"] or status["crashed"]:
        return Health.FAILED, str(status["stopped"] or status["crashed"])
    if status["brake"]:
        return Health.NEEDS_YOU, str(status["brake"]["sentence"])
    if status["waiting"]:
        return Health.NEEDS_YOU, str(status["waiting"])
    if hooks["asked"] and not hooks["ok"]:
        return Health.NEEDS_YOU, str(hooks["why"])
    if status["interests_gone"]:
        names = ", ".join(status["interests_gone"].values())
        return Health.NEEDS_YOU, f"Linked {interest_kinds(status['interests_gone'])} are gone at Mailchimp: {names}."
    if status["merge_fields_gone"]:
        tags = ", ".join(status["merge_fields_gone"])
        return Health.NEEDS_YOU, f"Merge fields that are filled from CiviCRM are gone at Mailchimp: {tags}."
    if status["merge_sources_gone"]:
        return Health.NEEDS_YOU, gone_sources(status["merge_sources_gone"])
    if is_running:
        return Health.RUNNING, "A sync is running."
    if status["late"]:
        return Health.LATE, str(status["late"])
    if pending := status["stats"]["mailchimp_updates_pending"]:
        return Health.RUNNING, f"{pending} updates are on their way to Mailchimp."
    if refused := status["refused_for_now"]:
        return Health.RETRIES, f"Mailchimp refused {refused['count']} updates for now; sent again on {refused['next']}."
    return Health.HEALTHY, f"Last sync: {status['lastSyncTimeHuman']}."


def gone_sources(gone: Mapping[str, str]) -> str:
    """What it means that the sources of these merge fields (tag → source) are gone, in a sentence."""
    named = ", ".join(f"{tag} ({source})" for tag, source in gone.items())
    return f"What fills these merge fields is switched off or deleted in CiviCRM, so nothing is sent for them: {named}."


def is_late(last_sync: datetime | None, jobs: Iterable[Job], now: datetime, clock: SiteClock) -> bool:
    """Whether one of these active jobs, which sync a connection, should have synced it again an hour before *now*
    (aware).

    A connection without any sync (*last_sync* None) is not late: it waits for its first.
    """
    return last_sync is not None and any(
        is_due(
            replace(
                one, last_run=last_sync, scheduled=None, frequency=HOURLY if one.frequency == ALWAYS else one.frequency
            ),
            now - SLACK,
            clock,
        )
        for one in jobs
    )
