"""Killed at any point while it notes, sends or marks an alert: the next process loses none and repeats what it must.

A webhook that keeps what it gets stands for the receiver. A message whose sender was killed after the request had left,
and before it was marked as sent, may have arrived or not: that one, and no other, is sent again, under the same id.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select
from time_machine import Traveller

from civiapi.store.engine import open_store
from civiapi.store.schema.tables import alert, alert_message
from sync.emulator.server.running import Emulator
from tests.reliability.crash import scenarios
from tests.reliability.crash.child import CALL_LOST, CALL_SENT, COMMIT_AFTER, COMMIT_BEFORE
from tests.reliability.crash.matrix import QUIET_LOOKS, Steps, a_run, emulator_now, sample, until_idle
from tests.reliability.crash.processes import Forker, JobOutput, forking
from tests.reliability.crash.scenarios import PreparedSite, prepare_site

A_WHILE = timedelta(minutes=10)
"""After which the lease of a killed process has lapsed, and its message is due again."""
CHECK: Steps = [["alerts"]]
SYNC_AND_CHECK: Steps = [a_run(since="ever"), ["settle", 20], ["alerts"]]
POINTS_IN_A_TEST = 6
SENDING = "noting and sending alerts"
MAY_HAVE_ARRIVED = {(CALL_SENT, "POST"), (CALL_LOST, "POST"), (COMMIT_BEFORE, "mark")}


@dataclass
class Receiver:
    """A webhook that keeps what it gets: the id and the event of each delivery."""

    url: str = ""
    got: list[tuple[str, str, str]] = field(default_factory=list)
    waiting: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.waiting += 1
        try:
            body = orjson.loads(await request.read())
            self.got.append((request.headers["X-Civiapi-Delivery"], body["event"], body["code"].partition(":")[0]))
            return web.Response()
        finally:
            self.waiting -= 1

    @property
    def events(self) -> list[tuple[str, str]]:
        """What was told of which problem, each delivery."""
        return [(event, code) for _, event, code in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.answer)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/hook"))
        yield found


@pytest.fixture(scope="module")
def second() -> Iterator[Forker]:
    """Another process."""
    with forking() as started:
        yield started


@dataclass
class History:
    """A site of its own, and what processes do there."""

    url: str
    emulator: Emulator
    receiver: Receiver
    begins: datetime

    def job(self, steps: Steps, after: timedelta = timedelta(0), **more: Any) -> dict[str, Any]:
        times = {"now": (self.begins + after).isoformat()}
        return {
            "database": self.url,
            "mailchimp": self.emulator.root_url,
            "alerts_to": self.receiver.url,
            "steps": steps,
            **times,
            **more,
        }

    async def stored(self) -> tuple[list[Any], list[Any]]:
        """Each alert with whether it is over, and each message with whether it was sent."""
        store = await open_store(self.url)
        try:
            alerts = select(alert.c.code, alert.c.ended_ms > 0).order_by(alert.c.id)
            messages = select(alert_message.c.kind, alert_message.c.sent_ms > 0).order_by(alert_message.c.id)
            return await store.read(
                lambda conn: (
                    [tuple(row) for row in conn.execute(alerts)],
                    [tuple(row) for row in conn.execute(messages)],
                )
            )
        finally:
            await store.close()


@asynccontextmanager
async def a_history(prepared: PreparedSite, receiver: Receiver) -> AsyncIterator[History]:
    async with prepared.copy() as (url, emulator):
        emulator.configure(auto_batches=True)
        receiver.got.clear()
        yield History(url, emulator, receiver, datetime.fromisoformat(emulator_now(emulator)))


def may_have_arrived(died: dict[str, Any]) -> bool:
    """Whether the message had left, and was not marked as sent."""
    return any(died["kind"] == kind and died["what"].startswith(what) for kind, what in MAY_HAVE_ARRIVED)


@dataclass(frozen=True)
class Case:
    """What happens to the alert: *before* is done undisturbed, at *steps* a process is killed."""

    name: str
    before: Steps
    steps: Steps
    told: tuple[tuple[str, str], ...]


NEVER, HOOKS = "mailchimpsyncNever", "mailchimpsyncHooks"
BEGUN = ("opened", NEVER)
CASES = (
    Case("a problem begins", [], CHECK, (BEGUN,)),
    Case("one is over, another begins", CHECK, SYNC_AND_CHECK, (BEGUN, ("closed", NEVER), ("opened", HOOKS))),
)


@dataclass(frozen=True)
class Matrix:
    """A case ready to be tried at many points."""

    case: Case
    prepared: PreparedSite
    receiver: Receiver
    forker: Forker

    async def begin(self, history: History, **more: Any) -> JobOutput:
        """The case's steps, after what was before."""
        (await self.forker.run(history.job(self.case.before))).assert_ended_well()
        return await self.forker.run(history.job(self.case.steps, **more))

    async def undisturbed(self) -> tuple[list[dict[str, Any]], Any]:
        """The points at which alerts are noted and sent, and what is stored in the end."""
        async with a_history(self.prepared, self.receiver) as history:
            output = await self.begin(history, tell=True)
            output.assert_ended_well()
            assert set(self.receiver.events) == set(self.case.told)
            passed = [line["passed"] for line in output.lines if "passed" in line]
            return [one for one in passed if one["stage"] == SENDING], await history.stored()

    async def try_point(self, point: int, expected: Any) -> int:
        """One history, killed at this point and continued; how many messages arrived twice."""
        async with a_history(self.prepared, self.receiver) as history:
            died = (await self.begin(history, kill_at=point)).died
            assert died is not None
            await arrived(history)
            for after in (A_WHILE, 2 * A_WHILE):
                (await self.forker.run(history.job(self.case.steps, after))).assert_ended_well()
            assert set(self.receiver.events) == set(self.case.told), died
            repeated = len(self.receiver.events) - len(self.case.told)
            assert repeated <= may_have_arrived(died), (died, self.receiver.got)
            ids = {one for one, _, _ in self.receiver.got}
            assert len(ids) == len(self.case.told), "a repeated one has the same id"
            assert await history.stored() == expected, died
            return repeated


@pytest.mark.parametrize("most", [POINTS_IN_A_TEST, pytest.param(1000, marks=pytest.mark.soak)], ids=["some", "all"])
@pytest.mark.parametrize("case", CASES, ids=lambda one: one.name)
async def test_killed_anywhere_no_alert_is_lost_and_only_the_one_on_its_way_is_repeated(
    case: Case, most: int, receiver: Receiver, forker: Forker, noon: Traveller, tmp_path: Path
) -> None:
    matrix = Matrix(case, await prepare_site(tmp_path, noon, scenarios.people_at_both_ends), receiver, forker)
    points, expected = await matrix.undisturbed()
    assert {one["kind"] for one in points} >= {COMMIT_BEFORE, COMMIT_AFTER, CALL_SENT, CALL_LOST}
    chosen = [one["point"] for one in points] if most >= len(points) else sample(points, most)
    repeated = [await matrix.try_point(point, expected) for point in chosen]
    assert any(repeated), "one that may have arrived is sent again, or it might be lost"


async def arrived(history: History) -> None:
    """Return once what a dead process had sent is taken in."""
    await until_idle(history.emulator)
    quiet = 0
    while quiet < QUIET_LOOKS:
        await asyncio.sleep(0.002)
        quiet = 0 if history.receiver.waiting else quiet + 1


@pytest.mark.parametrize("at", [{"kind": COMMIT_AFTER, "what": "acquire"}, {"kind": COMMIT_AFTER, "what": "claim"}])
async def test_two_processes_at_once_send_one(
    at: dict[str, str], receiver: Receiver, forker: Forker, second: Forker, noon: Traveller, tmp_path: Path
) -> None:
    """The first is stopped in the middle; the second meets its lease and leaves the alert to it."""
    prepared = await prepare_site(tmp_path, noon, scenarios.people_at_both_ends)
    async with a_history(prepared, receiver) as history:
        forker.start(history.job(CHECK, freeze=at))
        pid = (await forker.wait("frozen")).find("frozen")
        assert pid
        (await second.run(history.job(CHECK))).assert_ended_well()
        assert receiver.got == []
        os.kill(pid, signal.SIGCONT)
        (await forker.wait()).assert_ended_well()
        (await second.run(history.job(CHECK))).assert_ended_well()
        assert receiver.events == [BEGUN]


async def test_many_processes_that_look_at_the_same_time_send_one(
    receiver: Receiver, forker: Forker, second: Forker, noon: Traveller, tmp_path: Path
) -> None:
    prepared = await prepare_site(tmp_path, noon, scenarios.people_at_both_ends)
    async with a_history(prepared, receiver) as history:
        for _ in range(5):
            ended: list[JobOutput] = await asyncio.gather(*(one.run(history.job(CHECK)) for one in (forker, second)))
            for output in ended:
                output.assert_ended_well()
        assert receiver.events == [BEGUN]
