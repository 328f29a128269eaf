"""The gateway on a socket: an aiohttp application that decides nothing, and breaks connections when a fault says so."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

from aiohttp import web

from sync.emulator.protocol.problems import Problem
from sync.emulator.server.gateway import RESETS, Gateway, RawRequest, RawResponse

GZIP_FROM = 1400
GZIP_IN_THREAD_FROM = 256 * 1024
MAX_BODY = 64 * 1024 * 1024


class Server:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def application(self) -> web.Application:
        """Return the application without the API; the caller adds its own paths, then calls `add_api`."""
        app = web.Application(client_max_size=MAX_BODY)
        app.cleanup_ctx.append(self._background)
        app.router.add_get("/results/{name}", self.results)
        app.router.add_get("/oauth2/metadata", self.oauth_metadata)
        return app

    def add_api(self, app: web.Application) -> None:
        """Add the API itself, which takes every path that is left."""
        app.router.add_route("*", "/{rest:.*}", self.api)

    async def results(self, request: web.Request) -> web.Response:
        """Answer a batch's results link."""
        name, token = request.match_info["name"], request.query.get("token", "")
        response = self._gateway.download(name, token, request.headers)
        return web.Response(status=response.status, body=response.content, headers=response.headers)

    async def oauth_metadata(self, request: web.Request) -> web.Response:
        """Answer which account a token belongs to: always 200, with an error inside for a bad token."""
        world = self._gateway.world
        try:
            account = world.authenticate(_raw(request).credential)
        except Problem:
            return web.json_response({"error": "invalid_token"})
        return web.json_response({"dc": account.dc, "api_endpoint": world.base_url, "accountname": account.name})

    async def api(self, request: web.Request) -> web.StreamResponse:
        """Answer one API request."""
        async with self._gateway.exchange(_raw(request)) as response:
            if response.fault in RESETS and request.transport is not None:
                request.transport.abort()
            if response.slow_s:
                return await _send_slowly(request, response)
            return await _packed(request, response)

    async def _background(self, app: web.Application) -> AsyncIterator[None]:
        async with self._gateway.worker.running():
            yield


def _raw(request: web.Request) -> RawRequest:
    return RawRequest(request.method, request.rel_url.raw_path, request.query, request.headers, request.read)


async def _packed(request: web.Request, response: RawResponse) -> web.Response:
    """Return the response, gzipped when the client takes that and no fault spoils it."""
    body, headers = response.content, response.headers
    takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
    if response.fault is None and takes_gzip and len(body) >= GZIP_FROM:
        headers = {**headers, "Content-Encoding": "gzip"}
        in_thread = len(body) >= GZIP_IN_THREAD_FROM
        body = await asyncio.to_thread(gzip.compress, body, 1) if in_thread else gzip.compress(body, 1)
    return web.Response(status=response.status, body=body, headers=headers)


async def _send_slowly(request: web.Request, response: RawResponse) -> web.StreamResponse:
    middle = len(response.content) // 2
    slow = web.StreamResponse(status=response.status, headers=response.headers)
    slow.content_length = len(response.content)
    await slow.prepare(request)
    await slow.write(response.content[:middle])
    await asyncio.sleep(response.slow_s)
    await slow.write(response.content[middle:])
    await slow.write_eof()
    return slow
