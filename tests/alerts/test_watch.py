"""Alerts: each problem is sent once when it begins and once when it is over, whatever fails in between."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import orjson
import pytest
import time_machine
from sqlalchemy import Connection, update

from civiapi.alerts import records
from civiapi.alerts.channels import NotDelivered
from civiapi.alerts.messages import Message
from civiapi.alerts.watch import AlertWatch
from civiapi.settings import AlertSettings, Settings
from civiapi.store.engine import Store
from civiapi.store.schema.tables import job, job_log
from entities.site import system_checks
from sync.reports.checks import Finding, Severity
from sync.reports.status import QUIET_TOO_LONG
from tests.conftest import Ask

STOPPED = Finding("mailchimpsyncStopped:a1", Severity.WARNING, "The key was revoked.", "Enter another.")
BRAKED = Finding("mailchimpsyncBrake:a1", Severity.ERROR, "It would remove 60 people.", "Look at the preview.")
NOTICE = Finding("jobNeverRun:1", Severity.NOTICE, "It has not run yet.")


class Site:
    """What is wrong at a site, a channel that notes what it sends, and any number of processes that watch."""

    name = "noted"

    def __init__(self, store: Store) -> None:
        self.store = store
        self.wrong: list[Finding] = []
        self.sent: list[tuple[str, Message]] = []
        self.is_down = False
        self.settings = Settings()

    async def send(self, message: Message, message_id: str) -> None:
        if self.is_down:
            raise NotDelivered("it is down")
        self.sent.append((message_id, message))

    def process(self) -> AlertWatch:
        return AlertWatch(self.store, self.settings, lambda *_: self.wrong, channels=[self])

    @property
    def subjects(self) -> list[str]:
        return [message.subject for _, message in self.sent]


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store)


@pytest.fixture
def at() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime(2026, 5, 3, 12, 0, tzinfo=UTC), tick=False) as moment:
        yield moment


async def test_a_problem_is_sent_once_and_again_when_it_is_over(site: Site, at: time_machine.Traveller) -> None:
    watch = site.process()
    site.wrong = [STOPPED, NOTICE]
    for _ in range(3):
        await watch.check()
        at.shift(60)
    site.wrong = [NOTICE]
    for _ in range(3):
        await watch.check()
        at.shift(60)
    assert site.subjects == ["Warning: The key was revoked.", "Mended: The key was revoked."]
    began, ended = (message.text for _, message in site.sent)
    assert "Since 2026-05-03 12:00:00." in began
    assert "What to do: Enter another." in began
    assert "Over since 2026-05-03 12:03:00; it began on 2026-05-03 12:00:00." in ended


async def test_a_problem_that_comes_back_is_sent_again(site: Site, at: time_machine.Traveller) -> None:
    watch = site.process()
    for wrong in ([STOPPED], [], [STOPPED], []):
        site.wrong = wrong
        await watch.check()
        at.shift(60)
    assert [message.kind for _, message in site.sent] == ["opened", "closed"] * 2


async def test_another_sentence_of_the_same_problem_is_no_news(site: Site, at: time_machine.Traveller) -> None:
    for minutes in (31, 32, 33):
        site.wrong = [Finding(STOPPED.code, Severity.WARNING, f"No log for {minutes} minutes.")]
        await site.process().check()
        at.shift(60)
    assert site.subjects == ["Warning: No log for 31 minutes."]


async def test_a_restart_neither_repeats_nor_loses_one(site: Site, at: time_machine.Traveller) -> None:
    site.wrong, site.is_down = [STOPPED], True
    await site.process().check()
    site.is_down = False
    for _ in range(3):
        at.shift(60)
        await site.process().check()
    assert site.subjects == ["Warning: The key was revoked."]


async def test_several_processes_send_one(site: Site, at: time_machine.Traveller) -> None:
    site.wrong = [STOPPED, BRAKED]
    processes = [site.process() for _ in range(3)]
    for _ in range(2):
        for one in processes:
            await one.check()
        at.shift(60)
    assert sorted(site.subjects) == ["Error: It would remove 60 people.", "Warning: The key was revoked."]


async def test_a_message_that_is_not_accepted_is_tried_less_and_less_often_and_given_up(
    site: Site, store: Store, at: time_machine.Traveller
) -> None:
    site.wrong, site.is_down = [STOPPED], True
    tries: list[int] = []

    async def send(message: Message, message_id: str) -> None:
        tries.append(int(datetime.now(UTC).timestamp()))
        raise NotDelivered("it is down")

    site.send = send  # type: ignore[method-assign]
    watch = site.process()
    for _ in range(4 * 24 * 12):  # four days, every five minutes
        await watch.check()
        at.shift(300)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == [300, 300, 900, 3_600, 14_400, 43_200, 86_400]
    [notice] = await store.read(records.undelivered)
    assert notice.sentence == "1 alert message(s) could not be delivered: it is down"


async def test_a_digest_is_sent_once_a_day_with_what_is_open_and_what_ended(
    site: Site, at: time_machine.Traveller
) -> None:
    site.settings = Settings(alerts=AlertSettings(digest="daily"))
    site.wrong = [STOPPED, BRAKED]
    await site.process().check()
    site.wrong = [BRAKED]
    for _ in range(47):
        at.shift(3600)
        await site.process().check()
    first, second = [message for _, message in site.sent if message.kind == "digest"]
    assert first.subject == "civiapi: 2 problems"
    assert second.subject == "civiapi: 1 problem"
    assert "- It would remove 60 people. (since 2026-05-03 12:00:00)" in second.text
    assert "- The key was revoked. (over since 2026-05-03 13:00:00)" in second.text


async def test_what_system_check_finds_is_what_alerts_are_about(
    store: Store, call: Ask, at: time_machine.Traveller
) -> None:
    def fail_job(conn: Connection) -> None:
        conn.execute(
            job_log.insert().values(
                domain_id=1, run_time="2026-05-03 11:00:00", job_id=1, name="j", description="Error while executing j"
            )
        )

    noted = Site(store)
    watch = AlertWatch(store, Settings(), partial(system_checks.find, quiet=QUIET_TOO_LONG), channels=[noted])
    await watch.check()
    before = len(noted.sent)
    await store.write(fail_job)
    await watch.check()
    [(_, message)] = noted.sent[before:]
    assert message.code == "jobFailed:1"
    await store.write(lambda conn: conn.execute(update(job).values(is_active=0)) and None)
    at.shift(60)
    await watch.check()
    assert noted.sent[-1][1].subject.startswith("Mended: Job")


async def test_a_fault_in_a_check_leaves_the_next_one(site: Site, at: time_machine.Traveller) -> None:
    def broken(*_: Any) -> list[Finding]:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        await AlertWatch(site.store, site.settings, broken, channels=[site]).check()
    site.wrong = [STOPPED]
    at.shift(timedelta(minutes=1))
    await site.process().check()
    assert len(site.sent) == 1


async def test_alerts_are_listed_open_ones_first(site: Site, at: time_machine.Traveller) -> None:
    for wrong in ([STOPPED], [BRAKED]):
        site.wrong = wrong
        await site.process().check()
        at.shift(60)
    found = await site.store.read(records.read_latest, limit=0)
    assert [(one.code, bool(one.ended_ms)) for one in found] == [(BRAKED.code, False), (STOPPED.code, True)]


async def test_a_queued_message_survives_as_it_was(site: Site, at: time_machine.Traveller) -> None:
    site.wrong = [Finding("x:1", Severity.ERROR, "Zoë’s list\nhas <b> 😀", "")]
    await site.process().check()
    [(_, message)] = site.sent
    assert message == Message(**orjson.loads(orjson.dumps(message)))
    assert message.subject == "Error: Zoë’s list has <b> 😀"
