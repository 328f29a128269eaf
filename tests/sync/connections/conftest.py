"""An emulator and its clients, and a site that answers Mailchimp's trial calls."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import stamina
from aiohttp import web

from sync.connections.clients import Clients
from tests.support.emulators import InProcessEmulator, in_process_emulator


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[InProcessEmulator]:
    async with in_process_emulator() as running:
        yield running


@pytest.fixture
async def clients(emulator: InProcessEmulator) -> AsyncIterator[Clients]:
    pool = emulator.clients()
    yield pool
    await pool.close()


@pytest.fixture
async def site(aiohttp_server: Callable[..., Any]) -> str:
    """A site that answers Mailchimp's trial calls; its address."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="OK")

    app = web.Application()
    app.router.add_get("/civicrm/mailchimpsync/{page}", answer)
    server = await aiohttp_server(app)
    return str(server.make_url("/"))
