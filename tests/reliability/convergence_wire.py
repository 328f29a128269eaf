"""The wire between the real client and the emulated Mailchimp, without a socket: and everything that breaks on it.

An httpx transport that does what the emulator's HTTP server does (credentials, faults, the headers of Mailchimp's
edge), on virtual time. Every request first lets the rest of the world go on a little: people act, batches move.
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import Any

import httpx

from sync.mailchimp.emulator import batches
from sync.mailchimp.emulator.exchange import Request, Response, read_json
from sync.mailchimp.emulator.faults import FaultAction
from sync.mailchimp.emulator.mischief import instead, timed_out
from sync.mailchimp.emulator.problems import Problem
from sync.mailchimp.emulator.server import _bytes
from sync.mailchimp.emulator.world import World
from tests.reliability.convergence_store import Fuse

LATENCY = 0.05
HANGS_FOR = 125.0


@dataclass
class Traffic:
    """What went over the wire, counted."""

    requests: int = 0
    writes: int = 0
    faults: int = 0


class Wire(httpx.AsyncBaseTransport):
    """One process's line to the world. *on_request* is called before each request is carried out."""

    def __init__(self, world: World, traffic: Traffic, fuse: Fuse, on_request: Callable[[], None]) -> None:
        self._world = world
        self._traffic = traffic
        self._fuse = fuse
        self._on_request = on_request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._fuse.check()
        dies = self._fuse.burn()
        if dies and not self._fuse.after:
            self._fuse.blow()
        await asyncio.sleep(LATENCY)
        self._fuse.check()
        self._on_request()
        content = await request.aread()
        answer, fault = self._answer(request, content)
        if dies:
            self._fuse.blow()
        return await self._bring(request, answer, fault)

    def _answer(self, request: httpx.Request, content: bytes) -> tuple[Response, FaultAction | None]:
        """What Mailchimp answers, and the fault that struck, if any."""
        world, url = self._world, request.url
        if url.path.startswith("/results/"):
            status, body = world.download(url.path.removeprefix("/results/"), url.params.get("token", ""))
            return Response(status, body, {"Content-Type": "application/x-gzip"}), None
        self._traffic.requests += 1
        self._traffic.writes += request.method != "GET"
        _, _, credential = base64.b64decode(request.headers["Authorization"].partition(" ")[2]).decode().partition(":")
        try:
            account = world.authenticate(credential, request.method)
        except Problem as problem:
            return world.refusal(problem), None
        path = url.raw_path.decode().partition("?")[0].removeprefix("/3.0")
        asked = Request(request.method, path, dict(url.params), read_json(content), account)
        fault = world.strike(asked)
        self._traffic.faults += fault is not None
        if fault is FaultAction.RESET_BEFORE:
            return Response(500), fault
        if fault is not None and (said := instead(fault)) is not None:
            return world.refusal(said, account), fault
        return world.handle(asked), fault

    async def _bring(self, request: httpx.Request, answer: Response, fault: FaultAction | None) -> httpx.Response:
        if answer.hangs:
            await asyncio.sleep(HANGS_FOR)
            if fault is FaultAction.HANG:
                raise httpx.ReadTimeout("nothing came", request=request)
            answer = timed_out()
        if fault in (FaultAction.RESET_BEFORE, FaultAction.RESET_AFTER):
            raise httpx.ReadError("connection reset by peer", request=request)
        body = answer.body if isinstance(answer.body, bytes) else _bytes(answer)
        if fault is FaultAction.TRUNCATED_JSON:
            body = body[: len(body) // 2]
        headers = {"Date": formatdate(self._world.clock.now(), usegmt=True), **answer.headers}
        return httpx.Response(answer.status, headers=headers, content=body, request=request)


def move_batches(world: World, rng: Random) -> None:
    """Let Mailchimp work on its batches for a moment."""
    for account in world.accounts.values():
        batches.work(world, account, limit=rng.randint(1, 3))


def client_factory(make: Callable[..., Any], wire: Callable[[], httpx.AsyncBaseTransport]) -> Callable[..., Any]:
    """``httpx.AsyncClient``, but over a wire of ours."""
    return lambda **options: make(**options, transport=wire())
