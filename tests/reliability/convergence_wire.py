"""The wire between the real client and the emulated Mailchimp, without a socket: and everything that breaks on it.

An httpx transport that does what the emulator's HTTP server does (credentials, faults, the headers of Mailchimp's
edge), on virtual time. Every request first lets the rest of the world go on a little: people act, batches move. What
goes wrong is the `Weather`'s to say, or that of rules a history made.
"""

import asyncio
import base64
import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from random import Random
from typing import Any

import httpx
import orjson

from sync.mailchimp.archive import read_archive, write_archive
from sync.mailchimp.emulator import batches
from sync.mailchimp.emulator.exchange import Request, Response, read_json
from sync.mailchimp.emulator.mischief import MAINTENANCE_PAGE, instead, timed_out
from sync.mailchimp.emulator.problems import Problem
from sync.mailchimp.emulator.server import _bytes
from sync.mailchimp.emulator.world import World
from tests.reliability.convergence_store import Fuse
from tests.reliability.convergence_weather import BREAKS, INSTEAD, NOT_CARRIED_OUT, TIMES_OUT, Kind, Weather

LATENCY = 0.05
HANGS_FOR = 125.0
SLOW = 30.0


@dataclass
class Traffic:
    """What went over the wire, counted."""

    requests: int = 0
    writes: int = 0


class Wire(httpx.AsyncBaseTransport):
    """One process's line to the world. *on_request* is called before each request is carried out."""

    def __init__(
        self, world: World, traffic: Traffic, fuse: Fuse, weather: Weather, on_request: Callable[[Request], None]
    ) -> None:
        self._world = world
        self._traffic = traffic
        self._fuse = fuse
        self._weather = weather
        self._on_request = on_request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._fuse.check()
        dies = self._fuse.burn("call")
        if dies and not self._fuse.after:
            self._fuse.blow("call")
        await asyncio.sleep(LATENCY)
        self._fuse.check()
        content = await request.aread()
        answer, fault = self._answer(request, content)
        if dies:
            self._fuse.blow("call")
        return await self._bring(request, answer, fault)

    def _answer(self, request: httpx.Request, content: bytes) -> tuple[Response, Kind | None]:
        """What Mailchimp answers, and the fault that struck, if any."""
        world, url = self._world, request.url
        if url.path.startswith("/results/"):
            return self._download(url)
        path = url.raw_path.decode().partition("?")[0].removeprefix("/3.0")
        asked = Request(request.method, path, dict(url.params), read_json(content), None)
        self._on_request(asked)
        self._traffic.requests += 1
        self._traffic.writes += request.method != "GET"
        _, _, credential = base64.b64decode(request.headers["Authorization"].partition(" ")[2]).decode().partition(":")
        try:
            asked = replace(asked, account=world.authenticate(credential, request.method))
        except Problem as problem:
            return world.refusal(problem), None
        rule = world.strike(asked)
        fault = self._weather.of_rule(rule, is_operation=False) if rule else self._weather.request()
        if fault in NOT_CARRIED_OUT:
            return Response(500), fault
        if fault in INSTEAD:
            return world.refusal(instead(INSTEAD[fault]), asked.account), fault
        return world.handle(asked), fault

    def _download(self, url: httpx.URL) -> tuple[Response, Kind | None]:
        """An archive of results from object storage, or what became of it."""
        status, body = self._world.download(url.path.removeprefix("/results/"), url.params.get("token", ""))
        fault = self._weather.download()
        if fault is Kind.LINK_EXPIRED:
            status, body = 403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        elif fault is not None and status == 200:
            body = self._spoil(body, fault)
        return Response(status, body, {"Content-Type": "application/x-gzip"}), fault

    def _spoil(self, archive: bytes, fault: Kind) -> bytes:
        rng = self._weather.rng
        if fault is Kind.RESULTS_MISSING:
            rows = [
                {
                    "status_code": one.status_code,
                    "operation_id": one.operation_id,
                    "response": orjson.dumps(one.response).decode() if one.response is not None else "",
                }
                for one in read_archive(io.BytesIO(archive))
            ]
            rng.shuffle(rows)
            return write_archive(rows[1:], files=2, rng=rng)
        if fault is Kind.RESULTS_EMPTY:
            return write_archive([], files=2, rng=rng)
        if fault is Kind.RESULTS_NO_FILE:
            return NO_FILE
        if fault is Kind.RESULTS_CUT:
            return archive[: len(archive) // 2]
        return MAINTENANCE_PAGE.encode() if fault is Kind.RESULTS_PAGE else archive

    async def _bring(self, request: httpx.Request, answer: Response, fault: Kind | None) -> httpx.Response:
        if fault in TIMES_OUT or answer.hangs:
            await asyncio.sleep(HANGS_FOR)
            if fault in (Kind.HANG, Kind.HANG_AFTER):
                raise httpx.ReadTimeout("nothing came", request=request)
            answer = timed_out()
        if fault is Kind.NO_CONNECTION:
            raise httpx.ConnectError("connection refused", request=request)
        if fault in BREAKS or fault is Kind.RESULTS_RESET:
            raise httpx.ReadError("connection reset by peer", request=request)
        if fault is Kind.SLOW_BODY:
            await asyncio.sleep(SLOW)
        body = answer.body if isinstance(answer.body, bytes) else _bytes(answer)
        if fault is Kind.TRUNCATED_JSON:
            body = body[: len(body) // 2]
        headers = {"Date": formatdate(self._world.clock.now(), usegmt=True), **answer.headers}
        return httpx.Response(answer.status, headers=headers, stream=httpx.ByteStream(body), request=request)


def _archive_of_nothing() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    return gzip.compress(packed.getvalue(), mtime=0)


NO_FILE = _archive_of_nothing()


def move_batches(world: World, rng: Random) -> None:
    """Let Mailchimp work on its batches for a moment."""
    for account in world.accounts.values():
        batches.work(world, account, limit=rng.randint(1, 3))


def client_factory(make: Callable[..., Any], wire: Callable[[], httpx.AsyncBaseTransport]) -> Callable[..., Any]:
    """``httpx.AsyncClient``, but over a wire of ours."""
    return lambda **options: make(**options, transport=wire())
