from collections.abc import AsyncIterator

import pytest

from civiapi.store.engine import Store
from tests.support.http_server import HttpServer, Mirror, serving


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


@pytest.fixture
async def site(store: Store, mirror: Mirror) -> AsyncIterator[HttpServer]:
    async with serving(store, mirror) as running:
        yield running
