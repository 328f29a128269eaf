"""The crash matrix: a scenario is killed at a point, started again, and must end as one that was never interrupted.

A scenario is a site as it stands, what a process does there (and is killed at), and what whoever comes next does. The
uninterrupted history does the same without the killing. ``tried`` runs one history; the tables are made of many.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.engine import open_store
from civiapi.store.schema.tables import lease
from sync.emulator.server.running import Emulator
from tests.reliability.crash import scenarios
from tests.reliability.crash.child import KINDS
from tests.reliability.crash.processes import Forker, JobOutput
from tests.reliability.crash.scenarios import PreparedSite, prepare_site
from tests.reliability.crash.snapshot import Snapshot, differences, take_snapshot
from tests.support.linked_site import GROUP

SETTLE_S = 20.0
QUIET_LOOKS = 3
Steps = list[list[Any]]


def a_run(**params: Any) -> list[Any]:
    return ["call", "Mailchimpsync", "fetchandreconcile", {"group_id": GROUP, **params}]


def a_look() -> list[Any]:
    """Check all batches once."""
    return ["settle", 0]


def a_webhook(kind: str, **data: str) -> list[Any]:
    return ["webhook", {"type": kind, "fired_at": "2026-01-09 12:59:00", "data": {**data, "list_id": "LIST"}}]


@dataclass(frozen=True)
class Scenario:
    """*prepare* makes the site, *steps* are done by the process that is killed, and again by whoever comes next."""

    name: str
    prepare: tuple[scenarios.Prepare, ...]
    steps: Steps
    is_urgent: bool = False
    """The next process begins with the steps and does not wait for batches first."""
    refused: str = "no error"
    """How the error begins to which the steps may lead when they are repeated after they were done whole."""


WEBHOOKS: Steps = [
    a_webhook("unsubscribe", email="both0@example.org"),
    a_webhook("subscribe", email="walkin@example.org"),
    a_webhook("upemail", new_email="there11@example.org", old_email="there1@example.org"),
    a_webhook("profile", email="here0@example.org"),
    a_webhook("cleaned", email="here1@example.org"),
]

NEVER_SYNCED = (scenarios.people_at_both_ends,)
IN_STEP = (*NEVER_SYNCED, scenarios.synced)
CHANGED = (*IN_STEP, scenarios.changed_at_both_ends)

SCENARIOS = (
    Scenario("first full sync", NEVER_SYNCED, [a_run(since="ever")]),
    Scenario("first full sync with data", NEVER_SYNCED, [a_run(since="ever", with_data=1)]),
    Scenario("incremental sync", CHANGED, [a_run()]),
    Scenario("incremental sync with data", CHANGED, [a_run(with_data=1)]),
    Scenario("full sync again", CHANGED, [a_run(since="ever", with_data=1)]),
    Scenario("submitting", (*NEVER_SYNCED, scenarios.stopped_before_submitting), [a_run()]),
    Scenario(
        "batches in every state",
        (*NEVER_SYNCED, scenarios.in_every_state),
        [a_look(), a_run(), a_look()],
    ),
    Scenario(
        "results, some refused",
        (*NEVER_SYNCED, scenarios.some_are_refused, scenarios.sent_not_worked_on, scenarios.mailchimp_did_it_all),
        [a_look()],
    ),
    Scenario("webhooks", (*IN_STEP, scenarios.people_acted_at_mailchimp), [*WEBHOOKS, a_look()]),
    Scenario(
        "abort",
        (*NEVER_SYNCED, scenarios.in_every_state),
        [["call", "Mailchimpsync", "abortsync", {"group_id": GROUP}]],
        is_urgent=True,
    ),
    Scenario(
        "undo of the first sync",
        CHANGED,
        [["call", "Mailchimpsync", "undorun", {"run_id": 1}]],
        refused="Run 1 was undone already",
    ),
)


@dataclass(frozen=True)
class Interruption:
    """Where a history was interrupted, and how its end differed from an uninterrupted one."""

    scenario: str
    kind: str
    stage: str
    what: str
    found: tuple[str, ...]


@dataclass
class ScenarioRunner:
    """A scenario ready to be run many times: its site, its uninterrupted end, and a process that forks."""

    scenario: Scenario
    prepared: PreparedSite
    forker: Forker
    expected: Snapshot = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)

    async def try_point(self, kill_at: int) -> Interruption | None:
        """One history, killed at this point; None when it ends before."""
        async with self.prepared.copy() as (url, emulator):
            output = await self._run(url, emulator, self.scenario.steps, kill_at=kill_at)
            died = output.died
            if died is None:
                output.assert_ended_well()
                return None
            await until_idle(emulator)
            await self._finish(url, emulator)
            found = differences(self.expected, await take_snapshot(url, emulator))
        return Interruption(self.scenario.name, died["kind"], died["stage"], died["what"], tuple(found))

    async def record_points(self) -> None:
        """Record the end of an uninterrupted history, and its points."""
        async with self.prepared.copy() as (url, emulator):
            output = await self._run(url, emulator, self.scenario.steps, tell=True)
            output.assert_ended_well()
            self.points = [line["passed"] for line in output.lines if "passed" in line]
            await self._finish(url, emulator)
            self.expected = await take_snapshot(url, emulator)
        assert self.expected["open updates"] == self.expected["unfinished at Mailchimp"] == 0, self.expected

    async def _finish(self, url: str, emulator: Emulator) -> None:
        """The next process: the same steps, then a run, each until nothing is in flight."""
        await expire_leases(url)
        settled = ["settle", SETTLE_S]
        again, rest = self.scenario.steps, [settled, a_run(with_data=1), settled]
        if self.scenario.is_urgent:  # Mailchimp works on nothing before these steps are repeated
            _assert_answered(await self._run(url, emulator, again))
        else:
            rest = [settled, *again, *rest]
        emulator.configure(auto_batches=True)
        output = await self._run(url, emulator, rest)
        _assert_answered(output, self.scenario.refused)
        assert [line["settled"] for line in output.lines if line.get("settled") is not None][-1], output.lines

    async def _run(self, url: str, emulator: Emulator, steps: Steps, **more: Any) -> JobOutput:
        list_id = emulator.audience().id
        job = {
            "database": url,
            "mailchimp": emulator.root_url,
            "now": emulator_now(emulator),
            "steps": [_named(step, list_id) for step in steps],
            **more,
        }
        return await self.forker.run(job)


def _assert_answered(output: JobOutput, refused: str = "no error") -> None:
    output.assert_ended_well()
    for line in output.lines:
        answer = line.get("answer", {})
        assert not answer.get("is_error") or str(answer["error_message"]).startswith(refused), line


def _named(step: list[Any], list_id: str) -> list[Any]:
    """The step with our audience's id for LIST."""
    if step[0] != "webhook":
        return step
    return [step[0], {**step[1], "data": {**step[1]["data"], "list_id": list_id}}]


def emulator_now(emulator: Emulator) -> str:
    return datetime.fromtimestamp(emulator.world.clock.now(), UTC).isoformat()


async def until_idle(emulator: Emulator) -> None:
    """Return once nothing is being handled: a request may arrive after whoever sent it is dead."""
    quiet = 0
    while quiet < QUIET_LOOKS:
        await asyncio.sleep(0.002)
        quiet = 0 if sum(emulator.gateway.concurrency.values()) else quiet + 1


async def expire_leases(url: str) -> None:
    """Let all leases expire, as the clock is stopped (``test_frozen`` waits for it)."""
    store = await open_store(url)
    try:
        await store.write(lambda conn: conn.execute(change(lease).values(expires_ms=0)).rowcount)
    finally:
        await store.close()


async def prepare_runner(scenario: Scenario, folder: Path, clock: Traveller, forker: Forker) -> ScenarioRunner:
    """Everything that histories of a scenario need."""
    clock.move_to(scenarios.NOON)
    runner = ScenarioRunner(scenario, await prepare_site(folder, clock, *scenario.prepare), forker)
    await runner.record_points()
    return runner


def sample(points: list[dict[str, Any]], most: int) -> list[int]:
    """At most so many points, of as many stages and kinds as there are; always the same."""
    groups: dict[tuple[str, str], list[int]] = {}
    for one in points:
        groups.setdefault((one["stage"], one["kind"]), []).append(one["point"])
    middles = [found[len(found) // 2] for found in groups.values()]
    step = max(1, -(-len(middles) // most))
    return middles[len(points) % step :: step]


def by_scenario(interruptions: Iterable[Interruption]) -> list[list[Any]]:
    """Scenario, points tried of each kind, histories that ended differently."""
    return _table(interruptions, lambda one: one.scenario)


def by_stage(interruptions: Iterable[Interruption]) -> list[list[Any]]:
    """Scenario and stage, points tried of each kind, histories that ended differently."""
    return _table(interruptions, lambda one: f"{one.scenario}: {one.stage}")


def _table(interruptions: Iterable[Interruption], name: Callable[[Interruption], str]) -> list[list[Any]]:
    try_point: dict[str, Counter[str]] = {}
    differed: Counter[str] = Counter()
    for one in interruptions:
        try_point.setdefault(name(one), Counter())[one.kind] += 1
        differed[name(one)] += bool(one.found)
    return [[key, *(counts[kind] for kind in KINDS), differed[key]] for key, counts in try_point.items()]
