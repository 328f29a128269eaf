"""An emulated Mailchimp in the test's own process: the real client, the real gateway and world, and no socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from sync.connections.clients import Clients
from sync.emulator.server.gateway import RESETS, Gateway, RawRequest, RawResponse
from sync.emulator.server.running import Emulator
from sync.emulator.world import World

ROOT_URL = "http://mailchimp.test"


class InProcessTransport(httpx.AsyncBaseTransport):
    """Passes httpx requests to a gateway, as the emulator's HTTP server does."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.is_up = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)  # a request over a network lets others work as well
        if not self.is_up:
            raise httpx.ConnectError("the emulator is down", request=request)
        if trace := request.extensions.get("trace"):
            await trace("http11.send_request_headers.started", {})
        url = request.url
        if url.path.startswith("/results/"):
            name, token = url.path.removeprefix("/results/"), url.params.get("token", "")
            return _response(request, self._gateway.download(name, token, request.headers))
        raw = RawRequest(
            request.method, url.raw_path.decode().partition("?")[0], dict(url.params), request.headers, request.aread
        )
        async with self._gateway.exchange(raw) as answer:
            if answer.fault in RESETS:
                raise httpx.ReadError("connection reset by peer", request=request)
            if answer.slow_s:
                await asyncio.sleep(answer.slow_s)
            return _response(request, answer)


def _response(request: httpx.Request, answer: RawResponse) -> httpx.Response:
    body = httpx.ByteStream(answer.content)
    return httpx.Response(answer.status, headers=answer.headers, stream=body, request=request)


class InProcessEmulator(Emulator):
    """An emulator that only clients with its `transport` reach."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway, ROOT_URL)
        self.transport = InProcessTransport(gateway)

    def clients(self) -> Clients:
        """A new pool of clients of this emulator."""
        return Clients(base_url=ROOT_URL, transport=self.transport)


@asynccontextmanager
async def in_process_emulator(world: World | None = None, **options: Any) -> AsyncIterator[InProcessEmulator]:
    """What `running_emulator` gives, without a socket."""
    if world is None:
        world = World()
        world.add_audience()
    world.configure(options)
    world.base_url = ROOT_URL
    emulator = InProcessEmulator(Gateway(world))
    async with emulator.gateway.worker.running():
        yield emulator
    emulator.transport.is_up = False
