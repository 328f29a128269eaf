"""Killed with SIGKILL at any commit and around any call to Mailchimp, and started again: as if never killed.

A process (``child.py``) does what a scenario says and kills itself at a point; another does it again and goes on until
nothing is left to do; both ends and the database are then compared with a history in which nobody was killed. Every
second here is the same second, so times are compared too. `make test-long` tries a few points of every scenario,
`make soak` all of them, and writes down how many there were.
"""

from pathlib import Path

import pytest
from time_machine import Traveller

from tests.reliability.crash.child import KINDS
from tests.reliability.crash.matrix import (
    SCENARIOS,
    Interruption,
    Scenario,
    by_scenario,
    by_stage,
    prepare_runner,
    sample,
)
from tests.reliability.crash.processes import Forker
from tests.reliability.report.results import show, write_rows_down

POINTS_IN_A_TEST = 6
MADE_BY = "make soak (tests/reliability/crash/test_crash.py)"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
async def test_killed_at_some_points_and_continued_it_ends_as_an_uninterrupted_one(
    scenario: Scenario, forker: Forker, noon: Traveller, tmp_path: Path
) -> None:
    runner = await prepare_runner(scenario, tmp_path, noon, forker)
    interruptions = [await runner.try_point(point) for point in sample(runner.points, POINTS_IN_A_TEST)]
    assert len([one for one in interruptions if one]) >= POINTS_IN_A_TEST // 2
    assert not list_differences(interruptions)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
async def test_killed_at_every_point_and_continued_it_ends_as_an_uninterrupted_one(
    scenario: Scenario, forker: Forker, noon: Traveller, tmp_path: Path
) -> None:
    runner = await prepare_runner(scenario, tmp_path, noon, forker)
    tried = [await runner.try_point(number) for number in range(1, len(runner.points) + 1)]
    interruptions = [one for one in tried if one is not None]
    columns = ["Scenario", *(f"killed {kind}" for kind in KINDS), "Differences"]
    stages = show(["Scenario and stage", *columns[1:]], by_stage(interruptions))
    print(f"\n{stages}\n\n{show(columns, by_scenario(interruptions))}")
    write_rows_down(
        "crash-matrix",
        title="Killed and started again",
        what="A process doing a sync kills itself with SIGKILL at every commit and around every call to Mailchimp; "
        "another is started and goes on. Both ends and the database are compared with a history in which nobody was "
        "killed. Numbers are points tried, each in a history of its own.",
        columns=columns,
        rows=by_scenario(interruptions),
        made_by=MADE_BY,
        order=[one.name for one in SCENARIOS],
    )
    assert not list_differences(interruptions)


def list_differences(interruptions: list[Interruption] | list[Interruption | None]) -> list[str]:
    """Every difference, with the point that led to it."""
    return [
        f"{one.scenario}, killed {one.kind} {one.what} ({one.stage}): {difference}"
        for one in interruptions
        if one is not None
        for difference in one.found
    ]
