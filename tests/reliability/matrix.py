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
from sync.mailchimp.emulator.running import Emulator
from sync.tables import claim
from tests.contract.sites import GROUP
from tests.reliability import stands
from tests.reliability.child import KINDS
from tests.reliability.picture import Picture, differences, picture
from tests.reliability.processes import Forker, Told
from tests.reliability.stands import Stand, a_stand

SETTLE_S = 20.0
QUIET_LOOKS = 3
Steps = list[list[Any]]


def a_run(**params: Any) -> list[Any]:
    return ["call", "Mailchimpsync", "fetchandreconcile", {"group_id": GROUP, **params}]


def a_look() -> list[Any]:
    """Whatever is under way is looked at once."""
    return ["settle", 0]


def a_webhook(kind: str, **data: str) -> list[Any]:
    return ["webhook", {"type": kind, "fired_at": "2026-01-09 12:59:00", "data": {**data, "list_id": "LIST"}}]


@dataclass(frozen=True)
class Scenario:
    """*prepare* makes the site, *steps* are done by the process that is killed, and again by whoever comes next."""

    name: str
    prepare: tuple[stands.Prepare, ...]
    steps: Steps
    is_urgent: bool = False
    """Whoever comes next begins with the steps, and does not first wait for what is under way."""


WEBHOOKS: Steps = [
    a_webhook("unsubscribe", email="both0@example.org"),
    a_webhook("subscribe", email="walkin@example.org"),
    a_webhook("upemail", new_email="there11@example.org", old_email="there1@example.org"),
    a_webhook("profile", email="here0@example.org"),
    a_webhook("cleaned", email="here1@example.org"),
]

NEVER_SYNCED = (stands.people_at_both_ends,)
IN_STEP = (*NEVER_SYNCED, stands.synced)
CHANGED = (*IN_STEP, stands.changed_at_both_ends)

SCENARIOS = (
    Scenario("first full sync", NEVER_SYNCED, [a_run(since="ever")]),
    Scenario("first full sync with data", NEVER_SYNCED, [a_run(since="ever", with_data=1)]),
    Scenario("incremental sync", CHANGED, [a_run()]),
    Scenario("incremental sync with data", CHANGED, [a_run(with_data=1)]),
    Scenario("full sync again", CHANGED, [a_run(since="ever", with_data=1)]),
    Scenario("submitting", (*NEVER_SYNCED, stands.stopped_before_submitting), [a_run()]),
    Scenario("batches in every state", (*NEVER_SYNCED, stands.in_every_state), [a_look(), a_run(), a_look()]),
    Scenario(
        "results, some refused",
        (*NEVER_SYNCED, stands.some_are_refused, stands.sent_not_worked_on, stands.mailchimp_did_it_all),
        [a_look()],
    ),
    Scenario("webhooks", (*IN_STEP, stands.people_acted_at_mailchimp), [*WEBHOOKS, a_look()]),
    Scenario(
        "abort",
        (*NEVER_SYNCED, stands.in_every_state),
        [["call", "Mailchimpsync", "abortsync", {"group_id": GROUP}]],
        is_urgent=True,
    ),
)


@dataclass(frozen=True)
class Death:
    """Where a history was interrupted, and in what it then differed from an uninterrupted one."""

    scenario: str
    kind: str
    stage: str
    what: str
    found: tuple[str, ...]


@dataclass
class Bench:
    """A scenario ready to be run many times: its site, its uninterrupted end, and a process that forks."""

    scenario: Scenario
    stand: Stand
    forker: Forker
    expected: Picture = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)

    async def tried(self, kill_at: int) -> Death | None:
        """One history, killed at this point; None when it ends before."""
        async with self.stand.copy() as (path, emulator):
            told = await self._run(path, emulator, self.scenario.steps, kill_at=kill_at)
            died = told.died
            if died is None:
                told.assert_ended_well()
                return None
            await at_rest(emulator)
            await self._finish(path, emulator)
            found = differences(self.expected, await picture(f"sqlite:///{path}", emulator))
        return Death(self.scenario.name, died["kind"], died["stage"], died["what"], tuple(found))

    async def learn(self) -> None:
        """How an uninterrupted history ends, and which points it passes."""
        async with self.stand.copy() as (path, emulator):
            told = await self._run(path, emulator, self.scenario.steps, tell=True)
            told.assert_ended_well()
            self.points = [line["passed"] for line in told.lines if "passed" in line]
            await self._finish(path, emulator)
            self.expected = await picture(f"sqlite:///{path}", emulator)
        assert self.expected["open updates"] == self.expected["unfinished at Mailchimp"] == 0, self.expected

    async def _finish(self, path: Path, emulator: Emulator) -> None:
        """Whoever comes next: the same again, then a run, each until nothing is under way."""
        await let_claims_lapse(f"sqlite:///{path}")
        emulator.turn(auto_batches=True)
        settled = ["settle", SETTLE_S]
        before = [] if self.scenario.is_urgent else [settled]
        steps = [*before, *self.scenario.steps, settled, a_run(with_data=1), settled]
        told = await self._run(path, emulator, steps)
        told.assert_ended_well()
        assert [line["settled"] for line in told.lines if line.get("settled") is not None][-1], told.lines
        for line in told.lines:
            assert not line.get("answer", {}).get("is_error"), line

    async def _run(self, path: Path, emulator: Emulator, steps: Steps, **more: Any) -> Told:
        list_id = emulator.audience().id
        job = {
            "database": f"sqlite:///{path}",
            "mailchimp": emulator.root_url,
            "now": emulator_now(emulator),
            "steps": [_named(step, list_id) for step in steps],
            **more,
        }
        return await self.forker.run(job)


def _named(step: list[Any], list_id: str) -> list[Any]:
    """The step with our audience's id for LIST."""
    if step[0] != "webhook":
        return step
    return [step[0], {**step[1], "data": {**step[1]["data"], "list_id": list_id}}]


def emulator_now(emulator: Emulator) -> str:
    return datetime.fromtimestamp(emulator.world.clock.now(), UTC).isoformat()


async def at_rest(emulator: Emulator) -> None:
    """Return once nothing is being handled: a request may arrive after whoever sent it is dead."""
    quiet = 0
    while quiet < QUIET_LOOKS:
        await asyncio.sleep(0.002)
        quiet = 0 if sum(emulator.server.concurrency.values()) else quiet + 1


async def let_claims_lapse(url: str) -> None:
    """The clock stands still, so time does not do it (``test_frozen`` lets it)."""
    store = await open_store(url)
    try:
        await store.write(lambda conn: conn.execute(change(claim).values(expires_ms=0)).rowcount)
    finally:
        await store.close()


async def a_bench(scenario: Scenario, folder: Path, clock: Traveller, forker: Forker) -> Bench:
    """Everything that histories of a scenario need."""
    clock.move_to(stands.NOON)
    bench = Bench(scenario, await a_stand(folder, clock, *scenario.prepare), forker)
    await bench.learn()
    return bench


def sample(points: list[dict[str, Any]], most: int) -> list[int]:
    """At most so many points, of as many stages and kinds as there are; always the same."""
    groups: dict[tuple[str, str], list[int]] = {}
    for one in points:
        groups.setdefault((one["stage"], one["kind"]), []).append(one["point"])
    middles = [found[len(found) // 2] for found in groups.values()]
    step = max(1, -(-len(middles) // most))
    return middles[len(points) % step :: step]


def by_scenario(deaths: Iterable[Death]) -> list[list[Any]]:
    """Scenario, points tried of each kind, histories that ended differently."""
    return _table(deaths, lambda one: one.scenario)


def by_stage(deaths: Iterable[Death]) -> list[list[Any]]:
    """Scenario and stage, points tried of each kind, histories that ended differently."""
    return _table(deaths, lambda one: f"{one.scenario}: {one.stage}")


def _table(deaths: Iterable[Death], name: Callable[[Death], str]) -> list[list[Any]]:
    tried: dict[str, Counter[str]] = {}
    differed: Counter[str] = Counter()
    for one in deaths:
        tried.setdefault(name(one), Counter())[one.kind] += 1
        differed[name(one)] += bool(one.found)
    return [[key, *(counts[kind] for kind in KINDS), differed[key]] for key, counts in tried.items()]
