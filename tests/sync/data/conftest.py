"""A linked site on each database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened
