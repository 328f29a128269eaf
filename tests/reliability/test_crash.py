"""Killed with SIGKILL at any commit and around any call to Mailchimp, and started again: as if never killed.

A process (``child.py``) does what a scenario says and kills itself at a point; another does it again and goes on until
nothing is left to do; both ends and the database are then compared with a history in which nobody was killed. Every
second here is the same second, so times are compared too. `make test` tries a few points of every scenario, `make soak`
all of them, and writes down how many there were.
"""

from pathlib import Path

import pytest
from time_machine import Traveller

from tests.reliability.child import KINDS
from tests.reliability.matrix import SCENARIOS, Death, Scenario, a_bench, by_scenario, by_stage, sample
from tests.reliability.processes import Forker
from tests.reliability.results import show, write_rows_down

POINTS_IN_A_TEST = 6
MADE_BY = "make soak (tests/reliability/test_crash.py)"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
async def test_killed_at_some_points_and_continued_it_ends_as_an_uninterrupted_one(
    scenario: Scenario, forker: Forker, noon: Traveller, tmp_path: Path
) -> None:
    bench = await a_bench(scenario, tmp_path, noon, forker)
    deaths = [await bench.tried(point) for point in sample(bench.points, POINTS_IN_A_TEST)]
    assert len([one for one in deaths if one]) >= POINTS_IN_A_TEST // 2
    assert not told(deaths)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
async def test_killed_at_every_point_and_continued_it_ends_as_an_uninterrupted_one(
    scenario: Scenario, forker: Forker, noon: Traveller, tmp_path: Path
) -> None:
    bench = await a_bench(scenario, tmp_path, noon, forker)
    tried = [await bench.tried(number) for number in range(1, len(bench.points) + 1)]
    deaths = [one for one in tried if one is not None]
    columns = ["Scenario", *(f"killed {kind}" for kind in KINDS), "Differences"]
    print(f"\n{show(['Scenario and stage', *columns[1:]], by_stage(deaths))}\n\n{show(columns, by_scenario(deaths))}")
    write_rows_down(
        "crash-matrix",
        title="Killed and started again",
        what="A process doing a sync kills itself with SIGKILL at every commit and around every call to Mailchimp; "
        "another is started and goes on. Both ends and the database are compared with a history in which nobody was "
        "killed. Numbers are points tried, each in a history of its own.",
        columns=columns,
        rows=by_scenario(deaths),
        made_by=MADE_BY,
        order=[one.name for one in SCENARIOS],
    )
    assert not told(deaths)


def told(deaths: list[Death] | list[Death | None]) -> list[str]:
    """Every difference, with the point that led to it."""
    return [
        f"{one.scenario}, killed {one.kind} {one.what} ({one.stage}): {difference}"
        for one in deaths
        if one is not None
        for difference in one.found
    ]
