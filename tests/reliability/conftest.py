"""What the suites of reliability share: a stopped clock, and a process that forks others, one for all tests."""

from collections.abc import Iterator

import pytest
import stamina
import time_machine
from time_machine import Traveller

from tests.reliability.crash.processes import Forker, forking
from tests.reliability.crash.scenarios import NOON


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    with forking() as started:
        yield started


@pytest.fixture
def noon() -> Iterator[Traveller]:
    """Our clock, which stands still until it is shifted; no repeat waits."""
    with time_machine.travel(NOON, tick=False) as traveller, stamina.set_testing(True, attempts=2):
        yield traveller
