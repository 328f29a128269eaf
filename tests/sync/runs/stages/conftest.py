from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import time_machine
from time_machine import Traveller

from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site
from tests.sync.runs.stages.by_hand import NOON


@pytest.fixture(autouse=True)
def clock() -> Iterator[Traveller]:
    """Both ends' clock, which stands still until it is shifted."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, auto_batches=False) as opened:
            yield opened
