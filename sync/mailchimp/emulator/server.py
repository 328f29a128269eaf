"""A thin HTTP server over a world: credentials, the connection gate, headers, gzip, delays, faults, and a worker.

It decides nothing about audiences. What it adds is what only a network has: a request that hangs, a line that breaks
before or after a write took effect, ten connections and not one more, webhooks that are really sent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import gzip
import hashlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import formatdate

import orjson
from aiohttp import web

from sync.mailchimp.emulator.courier import Courier
from sync.mailchimp.emulator.exchange import Request, Response, read_json
from sync.mailchimp.emulator.faults import FaultAction
from sync.mailchimp.emulator.hooks import url_to_check
from sync.mailchimp.emulator.mischief import instead, timed_out
from sync.mailchimp.emulator.model import Account
from sync.mailchimp.emulator.problems import Problem, bad_override, not_found, too_many_requests
from sync.mailchimp.emulator.world import World

GZIP_FROM = 1400
GZIP_IN_THREAD_FROM = 256 * 1024
REQUESTS_REMEMBERED = 100_000
OVERRIDABLE = ("GET", "PUT", "PATCH", "DELETE")
MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as it went; `at` is emulator seconds, `ms` real milliseconds, `concurrency` counts itself."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    status: int
    ms: float
    concurrency: int
    account: str
    key_hash: str
    fault: str = ""
    agent: str = ""


class Server:
    """Requests to one world. `requests` is the log; `highest_concurrency` per account id is the gauge."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: deque[LoggedRequest] = deque(maxlen=REQUESTS_REMEMBERED)
        self.concurrency: Counter[str] = Counter()
        self.highest_concurrency: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()
        self.courier = Courier(world)

    def application(self) -> web.Application:
        """Return the application; paths outside the API are added by whoever serves it, before it starts."""
        app = web.Application(client_max_size=MAX_BODY)
        app.cleanup_ctx.append(self._courier)
        app.router.add_get("/results/{name}", self.results)
        app.router.add_get("/oauth2/metadata", self.oauth_metadata)
        return app

    def serve_api(self, app: web.Application) -> None:
        """Add the API itself, which takes every path that is left."""
        app.router.add_route("*", "/{rest:.*}", self.api)

    async def results(self, request: web.Request) -> web.Response:
        """Answer a batch's results link as object storage would: with an Authorization header it refuses."""
        if "Authorization" in request.headers:
            return web.Response(status=400, body=b"<Error><Code>InvalidArgument</Code></Error>")
        status, content = self.world.download(request.match_info["name"], request.query.get("token", ""))
        kind = "application/x-gzip" if status == 200 else "application/xml"
        return web.Response(status=status, body=content, headers={"Content-Type": kind, "Date": self._date()})

    async def oauth_metadata(self, request: web.Request) -> web.Response:
        """Answer who a token belongs to: always 200, and an error inside for a bad token."""
        try:
            account = self.world.authenticate(credential_of(request))
        except Problem:
            return web.json_response({"error": "invalid_token"})
        return web.json_response({"dc": account.dc, "api_endpoint": self.world.base_url, "accountname": account.name})

    async def api(self, request: web.Request) -> web.StreamResponse:
        """Answer one API request, behind the gate and within the time limit."""
        started = time.perf_counter()
        credential = credential_of(request)
        try:
            account = self.world.authenticate(credential, request.method)
        except Problem as problem:
            answer = self.world.refusal(problem)
            self._log(request, answer.status, started, 0, "", credential, None)
            return await self._dressed(request, answer)
        with self._gate(account) as standing:
            if standing > account.knobs.max_connections:
                refusal = self.world.refusal(too_many_requests(), account)
                self._log(request, refusal.status, started, standing, account.id, credential, None)
                return await self._dressed(request, refusal)
            return await self._admitted(request, account, started, standing, credential)

    async def _admitted(
        self, request: web.Request, account: Account, started: float, standing: int, credential: str | None
    ) -> web.StreamResponse:
        struck: list[FaultAction] = []
        try:
            async with asyncio.timeout(account.knobs.time_limit_s):
                answer = await self._carry_out(request, account, struck)
        except TimeoutError:
            answer = self.world.refusal(timed_out(), account)
        fault = struck[0] if struck else None
        self._log(request, answer.status, started, standing, account.id, credential, fault)
        self.courier.poke()
        if fault in (FaultAction.RESET_BEFORE, FaultAction.RESET_AFTER) and request.transport is not None:
            request.transport.abort()
        if fault is FaultAction.SLOW_BODY:
            return await self._slowly(request, answer, account.knobs.slow_body_s)
        return await self._dressed(request, answer, cut=fault is FaultAction.TRUNCATED_JSON)

    async def _carry_out(self, request: web.Request, account: Account, struck: list[FaultAction]) -> Response:
        """Wait as long as the knobs say, read the request, let a fault strike, or hand it to the world."""
        world = self.world
        await self._latency(request, account)
        try:
            asked = await _read(request, account)
        except Problem as problem:
            return world.refusal(problem, account)
        fault = world.strike(asked)
        if fault is not None:
            struck.append(fault)
        if fault is FaultAction.HANG:
            await _never()
        if fault is FaultAction.RESET_BEFORE:
            return Response(500)
        if fault is not None and (said := instead(fault)) is not None:
            return world.refusal(said, account)
        answer = world.handle(await self._with_url_checked(asked))
        if answer.hangs:
            await _never()
        await self._page_time(request, account, answer)
        return answer

    async def _with_url_checked(self, asked: Request) -> Request:
        """Call a webhook's URL before it is registered, as Mailchimp does."""
        url = url_to_check(asked.method, asked.path, asked.body)
        if not url:
            return asked
        answers = await self.courier.answers_get(url)
        return Request(asked.method, asked.path, asked.query, asked.body, asked.account, asked.source, answers)

    async def _latency(self, request: web.Request, account: Account) -> None:
        knobs = account.knobs
        route = f"{request.method} {request.path.removeprefix('/3.0')}"
        fitting = [prefix for prefix in knobs.latency_routes if route.startswith(prefix)]
        base = knobs.latency_routes[max(fitting, key=len)] if fitting else knobs.latency_ms
        wait = base + knobs.latency_jitter_ms * self.world.rng.random() if knobs.latency_jitter_ms else base
        if wait:
            await asyncio.sleep(wait / 1000)

    async def _page_time(self, request: web.Request, account: Account, answer: Response) -> None:
        knobs = account.knobs
        offset = request.query.get("offset", "0")
        deep = knobs.offset_ms_per_10000 * (int(offset) if offset.isdigit() else 0) / 10_000 if answer.rows else 0
        wait = knobs.page_ms_per_1000 * answer.rows / 1000 + deep
        if wait:
            await asyncio.sleep(wait / 1000)

    async def _dressed(self, request: web.Request, answer: Response, *, cut: bool = False) -> web.Response:
        """Turn an answer into bytes with the headers that Mailchimp's edge adds."""
        body = _bytes(answer)
        headers = self._headers(answer)
        if cut:
            return web.Response(status=answer.status, body=body[: len(body) // 2], headers=headers)
        if len(body) >= GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            in_thread = len(body) >= GZIP_IN_THREAD_FROM
            body = await asyncio.to_thread(gzip.compress, body, 1) if in_thread else gzip.compress(body, 1)
        return web.Response(status=answer.status, body=body, headers=headers)

    async def _slowly(self, request: web.Request, answer: Response, seconds: float) -> web.StreamResponse:
        body = _bytes(answer)
        slow = web.StreamResponse(status=answer.status, headers=self._headers(answer))
        slow.content_length = len(body)
        await slow.prepare(request)
        await slow.write(body[: len(body) // 2])
        await asyncio.sleep(seconds)
        await slow.write(body[len(body) // 2 :])
        await slow.write_eof()
        return slow

    def _headers(self, answer: Response) -> dict[str, str]:
        return {"Server": "openresty", "Date": self._date(), **answer.headers}

    def _date(self) -> str:
        return formatdate(self.world.clock.now(), usegmt=True)

    @contextlib.contextmanager
    def _gate(self, account: Account) -> Iterator[int]:
        """Count this request as being handled; gives how many are, this one included."""
        self.concurrency[account.id] += 1
        standing = self.concurrency[account.id]
        self.highest_concurrency[account.id] = max(standing, self.highest_concurrency[account.id])
        try:
            yield standing
        finally:
            self.concurrency[account.id] -= 1

    def _log(
        self,
        request: web.Request,
        status: int,
        started: float,
        standing: int,
        account_id: str,
        credential: str | None,
        fault: FaultAction | None,
    ) -> None:
        self.answered[status] += 1
        key_hash = hashlib.sha256(credential.encode()).hexdigest()[:12] if credential else ""
        entry = LoggedRequest(
            self.world.clock.now(),
            request.method,
            request.path,
            dict(request.query),
            status,
            round((time.perf_counter() - started) * 1000, 3),
            standing,
            account_id,
            key_hash,
            fault or "",
            request.headers.get("User-Agent", ""),
        )
        self.requests.append(entry)

    async def _courier(self, app: web.Application) -> AsyncIterator[None]:
        async with self.courier.at_work():
            yield


def credential_of(request: web.Request) -> str | None:
    """Return the key or token a request bears: basic (any user name), Bearer or OAuth; None for none."""
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() in ("bearer", "oauth"):
        return rest.strip() or None
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest.strip()).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


async def _read(request: web.Request, account: Account) -> Request:
    """Return the request as data. Raises 404 outside ``/3.0`` and 422 for a misused method override."""
    path = request.rel_url.raw_path
    if path != "/3.0" and not path.startswith("/3.0/"):
        raise not_found()
    method = request.method
    override = request.headers.get("X-HTTP-Method-Override")
    if override is not None:
        if method != "POST" or override.upper() not in OVERRIDABLE:
            raise bad_override()
        method = override.upper()
    body = read_json(await request.read())
    return Request(method, path.removeprefix("/3.0"), dict(request.query), body, account)


def _bytes(answer: Response) -> bytes:
    if answer.body is None:
        return b""
    return answer.body.encode() if isinstance(answer.body, str) else orjson.dumps(answer.body)


async def _never() -> None:
    """Wait for the time limit to strike."""
    await asyncio.Event().wait()
