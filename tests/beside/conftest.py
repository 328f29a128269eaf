"""Beside a real CiviCRM: the database that it and the extension made, and go on working on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.their_site import Theirs, their_site


@pytest.fixture
async def theirs(tmp_path: Path) -> AsyncIterator[Theirs]:
    async with their_site(tmp_path) as site:
        yield site
