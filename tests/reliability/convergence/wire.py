"""An HTTP transport from the real client to the emulated Mailchimp, without sockets, that injects faults.

It does what the emulator's HTTP server does (credentials, faults, Mailchimp's headers), on virtual time. Before each
request people act and batches proceed a little. Faults come from the `FaultPlan` or from rules that a history added.
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

import httpx
import orjson

from sync.emulator.protocol.exchange import Request, Response, read_json
from sync.emulator.protocol.fault_responses import MAINTENANCE_PAGE, instead, timed_out
from sync.emulator.protocol.problems import Problem
from sync.emulator.world import World
from sync.mailchimp.archive import read_archive, write_archive
from tests.reliability.convergence.faults import BREAKS, INSTEAD, NOT_CARRIED_OUT, TIMES_OUT, FaultPlan, Kind
from tests.reliability.convergence.store import KillSwitch

LATENCY = 0.05
HANGS_FOR = 125.0
SLOW = 30.0


@dataclass
class Traffic:
    """Counts of requests."""

    requests: int = 0
    writes: int = 0


class Wire(httpx.AsyncBaseTransport):
    """The transport of one process. *on_request* is called before each request is carried out."""

    def __init__(
        self,
        world: World,
        traffic: Traffic,
        kill_switch: KillSwitch,
        faults: FaultPlan,
        on_request: Callable[[Request], None],
    ) -> None:
        self._world = world
        self._traffic = traffic
        self._kill_switch = kill_switch
        self._faults = faults
        self._on_request = on_request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._kill_switch.check()
        dies = self._kill_switch.count_down("call")
        if dies and not self._kill_switch.after:
            self._kill_switch.kill("call")
        await asyncio.sleep(LATENCY)
        self._kill_switch.check()
        content = await request.aread()
        answer, fault = self._answer(request, content)
        if dies:
            self._kill_switch.kill("call")
        return await self._deliver(request, answer, fault)

    def _answer(self, request: httpx.Request, content: bytes) -> tuple[Response, Kind | None]:
        """Mailchimp's answer, and the injected fault, if any."""
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
        rule = world.match_fault(asked)
        fault = self._faults.of_rule(rule, is_operation=False) if rule else self._faults.request()
        if fault in NOT_CARRIED_OUT:
            return Response(500), fault
        if fault in INSTEAD:
            return world.refusal(instead(INSTEAD[fault]), asked.account), fault
        return world.handle(asked), fault

    def _download(self, url: httpx.URL) -> tuple[Response, Kind | None]:
        """An archive of results from object storage, possibly damaged."""
        status, body = self._world.download(url.path.removeprefix("/results/"), url.params.get("token", ""))
        fault = self._faults.download()
        if fault is Kind.LINK_EXPIRED:
            status, body = 403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        elif fault is not None and status == 200:
            body = self._damage(body, fault)
        return Response(status, body, {"Content-Type": "application/x-gzip"}), fault

    def _damage(self, archive: bytes, fault: Kind) -> bytes:
        rng = self._faults.rng
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

    async def _deliver(self, request: httpx.Request, answer: Response, fault: Kind | None) -> httpx.Response:
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
        body = answer.body if isinstance(answer.body, bytes) else answer.content()
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
    """Let Mailchimp carry out some operations of its batches."""
    for account in world.accounts.values():
        world.work_batches(account, limit=rng.randint(1, 3))
