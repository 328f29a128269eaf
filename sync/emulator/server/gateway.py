"""What Mailchimp's edge adds to the API: credentials, the connection limit, delays, faults, headers, the request log.

No HTTP library here: a front end passes a `RawRequest` in and sends the `RawResponse` it gets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from urllib.parse import unquote

from sync.emulator.endpoints.webhooks import url_to_check
from sync.emulator.model.faults import FaultAction
from sync.emulator.model.records import EmulatedAccount
from sync.emulator.protocol.exchange import Request, Response, read_json
from sync.emulator.protocol.fault_responses import instead, timed_out
from sync.emulator.protocol.problems import Problem, bad_override, not_found, too_many_requests
from sync.emulator.server.background import BackgroundWorker
from sync.emulator.world import World

MAX_REQUESTS = 100_000
OVERRIDABLE = ("GET", "PUT", "PATCH", "DELETE")
RESETS = (FaultAction.RESET_BEFORE, FaultAction.RESET_AFTER)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it arrives: *path* is percent-encoded, *headers* are found in any case, *read* gives the body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]

    @property
    def credential(self) -> str | None:
        """The key or token: basic (any user name), Bearer or OAuth; None for none."""
        kind, _, rest = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() in ("bearer", "oauth"):
            return rest.strip() or None
        if kind.lower() != "basic":
            return None
        try:
            return base64.b64decode(rest.strip()).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None

    async def decode(self, account: EmulatedAccount) -> Request:
        """Return the request as data. Raises 404 outside ``/3.0`` and 422 for a misused method override."""
        if self.path != "/3.0" and not self.path.startswith("/3.0/"):
            raise not_found()
        method = self.method
        override = self.headers.get("X-HTTP-Method-Override")
        if override is not None:
            if method != "POST" or override.upper() not in OVERRIDABLE:
                raise bad_override()
            method = override.upper()
        return Request(method, self.path.removeprefix("/3.0"), self.query, read_json(await self.read()), account)


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A response to send. A fault of `RESETS` breaks the connection instead; *slow_s* is the pause inside the body."""

    status: int
    headers: dict[str, str]
    content: bytes
    fault: FaultAction | None = None
    slow_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One handled request; `at` is in emulator seconds, `ms` in real milliseconds, `concurrency` counts itself."""

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


class Gateway:
    """Requests to one world. `requests` is the log; `highest_concurrency` has a count per account id."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.worker = BackgroundWorker(world)
        self.requests: deque[LoggedRequest] = deque(maxlen=MAX_REQUESTS)
        self.concurrency: Counter[str] = Counter()
        self.highest_concurrency: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()

    @contextlib.asynccontextmanager
    async def exchange(self, request: RawRequest) -> AsyncIterator[RawResponse]:
        """Handle one API request; it counts as a connection until the block, which sends the response, ends."""
        started = time.perf_counter()
        try:
            account = self.world.authenticate(request.credential, request.method)
        except Problem as problem:
            response = self.world.refusal(problem)
            self._log(request, response, started)
            yield self._finished(response)
            return
        with self._counted(account) as concurrency:
            fault = None
            if concurrency > account.options.max_connections:
                response = self.world.refusal(too_many_requests(), account)
            else:
                response, fault = await self._within_time_limit(request, account)
            self._log(request, response, started, concurrency, account.id, fault)
            self.worker.wake()
            yield self._finished(response, fault, account.options.slow_body_s)

    def download(self, name: str, token: str, headers: Mapping[str, str]) -> RawResponse:
        """Answer a batch's results link as object storage does, which refuses an Authorization header."""
        if "Authorization" in headers:
            return RawResponse(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
        status, content = self.world.download(name, token)
        kind = "application/x-gzip" if status == 200 else "application/xml"
        return RawResponse(status, {"Content-Type": kind, "Date": self._date()}, content)

    def clear_requests(self) -> None:
        """Clear the request log and the highest concurrency."""
        self.requests.clear()
        self.highest_concurrency.clear()

    async def _within_time_limit(
        self, request: RawRequest, account: EmulatedAccount
    ) -> tuple[Response, FaultAction | None]:
        faults: list[FaultAction] = []
        try:
            async with asyncio.timeout(account.options.time_limit_s):
                response = await self._respond(request, account, faults)
        except TimeoutError:
            response = self.world.refusal(timed_out(), account)
        return response, faults[0] if faults else None

    async def _respond(self, raw: RawRequest, account: EmulatedAccount, faults: list[FaultAction]) -> Response:
        """Wait as configured, read the request, and answer with the fault that matches it (noted in *faults*) or
        what the world says."""
        world = self.world
        await self._latency(raw, account)
        try:
            request = await raw.decode(account)
        except Problem as problem:
            return world.refusal(problem, account)
        fault = world.match_fault(request)
        if fault is not None:
            faults.append(fault)
            if fault is FaultAction.HANG:
                await _forever()
            if fault is FaultAction.RESET_BEFORE:
                return Response(500)
            if (refused := instead(fault)) is not None:
                return world.refusal(refused, account)
        response = world.handle(await self._with_url_checked(request))
        if response.hangs:
            await _forever()
        await self._page_time(raw, account, response)
        return response

    async def _with_url_checked(self, request: Request) -> Request:
        """Call a webhook's URL before it is registered, as Mailchimp does."""
        url = url_to_check(request.method, request.path, request.body)
        return replace(request, url_answers=await self.worker.answers_get(url)) if url else request

    async def _latency(self, request: RawRequest, account: EmulatedAccount) -> None:
        options = account.options
        route = f"{request.method} {unquote(request.path).removeprefix('/3.0')}"
        fitting = [prefix for prefix in options.latency_routes if route.startswith(prefix)]
        wait = options.latency_routes[max(fitting, key=len)] if fitting else options.latency_ms
        if options.latency_jitter_ms:
            wait += options.latency_jitter_ms * self.world.rng.random()
        if wait:
            await asyncio.sleep(wait / 1000)

    async def _page_time(self, request: RawRequest, account: EmulatedAccount, response: Response) -> None:
        options = account.options
        offset = request.query.get("offset", "0")
        deep = options.offset_ms_per_10000 * (int(offset) if offset.isdigit() else 0) / 10_000 if response.rows else 0
        wait = options.page_ms_per_1000 * response.rows / 1000 + deep
        if wait:
            await asyncio.sleep(wait / 1000)

    def _finished(self, response: Response, fault: FaultAction | None = None, slow_s: float = 0.0) -> RawResponse:
        """Return a response with the headers that Mailchimp's edge adds."""
        content = response.content()
        if fault is FaultAction.TRUNCATED_JSON:
            content = content[: len(content) // 2]
        headers = {"Server": "openresty", "Date": self._date(), **response.headers}
        pause = slow_s if fault is FaultAction.SLOW_BODY else 0.0
        return RawResponse(response.status, headers, content, fault, pause)

    def _date(self) -> str:
        return formatdate(self.world.clock.now(), usegmt=True)

    @contextlib.contextmanager
    def _counted(self, account: EmulatedAccount) -> Iterator[int]:
        """Count a request as open; yields how many are, this one included."""
        self.concurrency[account.id] += 1
        concurrency = self.concurrency[account.id]
        self.highest_concurrency[account.id] = max(concurrency, self.highest_concurrency[account.id])
        try:
            yield concurrency
        finally:
            self.concurrency[account.id] -= 1

    def _log(
        self,
        request: RawRequest,
        response: Response,
        started: float,
        concurrency: int = 0,
        account_id: str = "",
        fault: FaultAction | None = None,
    ) -> None:
        self.answered[response.status] += 1
        credential = request.credential
        entry = LoggedRequest(
            at=self.world.clock.now(),
            method=request.method,
            path=unquote(request.path),
            query=dict(request.query),
            status=response.status,
            ms=round((time.perf_counter() - started) * 1000, 3),
            concurrency=concurrency,
            account=account_id,
            key_hash=hashlib.sha256(credential.encode()).hexdigest()[:12] if credential else "",
            fault=fault or "",
            agent=request.headers.get("User-Agent", ""),
        )
        self.requests.append(entry)


async def _forever() -> None:
    """Wait for the time limit."""
    await asyncio.Event().wait()
