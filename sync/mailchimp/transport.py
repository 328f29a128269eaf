"""One account's road to Mailchimp: credentials, limits, repeats, and what an answer means.

Knows HTTP and nothing of audiences or members; `client.py` names the calls. Everything httpx raises and every
answer that is not plainly a success becomes one of the errors in `errors.py` here, and only here.

What a newcomer trips over: the content type is looked at before the status. A 200 with an HTML page is no
success, a 403 without a problem document is "too fast" and not a revoked key, and a 404 page from an edge
server does not mean that a member is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import import_module
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import stamina

from sync.mailchimp.decoding import decode
from sync.mailchimp.errors import (
    KEY_REJECTED_TITLES,
    SNIPPET_LENGTH,
    BadKey,
    InvalidApiKey,
    MailchimpError,
    MethodNotAllowed,
    NotFound,
    Refused,
    Throttled,
    Unreachable,
    is_problem,
    mask_secrets,
)
from sync.mailchimp.gates import Gate, gate_for
from sync.mailchimp.wire import path_segment

USER_AGENT = "civiapi (CiviCRM and Mailchimp sync)"
TIMEOUT = httpx.Timeout(connect=10.0, read=130.0, write=130.0, pool=None)
"""Seconds. Mailchimp cuts a request at 120 s; the pool has no limit since the semaphore is the queue."""

LARGE = 8_192
"""Bytes, packed as they come, that are unpacked and decoded in a fraction of a millisecond."""

PAGE_SIZE = 1000
"""The most rows a page may have; every collection's own default is 10."""

SIGNED_LINK = "GET (results link)"
"""How errors and records name a download; the link itself is a secret."""

MOST_HOPS = 4
"""Places a signed link may lead to, one after the other."""

OWN_NETWORKS = frozenset({"localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa"})
"""Endings of names that only a network of its own knows."""

JSON_TYPES = frozenset({"application/json", "application/problem+json"})
_DATA_CENTRE = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is repeated; times in seconds. Waits grow twofold, and no two are the same.

    A wait is at most `wait_max`, and jitter is part of every one, of those at that limit too: callers that were turned
    away together would come back together for as long as they are. No repeat begins once `total` has passed since the
    first attempt began.
    """

    attempts: int = 5
    total: float = 60.0
    wait_initial: float = 0.5
    wait_max: float = 20.0
    wait_jitter: float = 1.0

    def wait(self, attempt: int) -> float:
        """How long to wait after this attempt, counted from 1, before the next."""
        jitter = min(self.wait_jitter, self.wait_max)
        least = min(self.wait_max - jitter, self.wait_initial * 2.0 ** (attempt - 1))
        return least + random.uniform(0, jitter)  # noqa: S311  spreads callers, no secret


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make. `route` is a template such as ``/lists/{audience}``, filled from `ids`; logs see only it.

    `repeatable`: sending it twice leaves what sending it once leaves, so an unknown outcome may be repeated.
    `make_sure`: called right before the request leaves, after all waiting for a connection; it stops it by raising.
    """

    method: str
    route: str
    ids: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    repeatable: bool = True
    make_sure: Callable[[], Awaitable[None]] | None = None

    @property
    def name(self) -> str:
        """The method and route template, without ids or addresses."""
        return f"{self.method} {self.route}"

    @property
    def path(self) -> str:
        """The path under ``/3.0``. Raises ValueError for an id that cannot be a path segment."""
        return self.route.format_map({name: path_segment(value) for name, value in self.ids.items()})


@dataclass(frozen=True, slots=True)
class Answer:
    """A success. `body` is {} for a 204; `server_time` is Mailchimp's clock when the call set out (aware UTC)."""

    body: dict[str, Any]
    server_time: datetime


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt, for whoever counts: `outcome` is ok, refused, throttled or unreachable; `status` None: no answer."""

    method: str
    route: str
    outcome: str
    status: int | None
    seconds: float


@cache
def trusted_authorities() -> ssl.SSLContext:
    """Return whom TLS trusts: read once for all clients, since reading it takes a tenth of a second."""
    return httpx.create_ssl_context()


def load_http() -> None:
    """Load what httpx loads with its first request, 70 ms in which nobody else would be answered."""
    for name in ("httpcore", "anyio._backends._asyncio"):
        with suppress(ImportError):  # another httpx
            import_module(name)


def data_centre(api_key: str) -> str:
    """Return the data centre a key names after its last hyphen. Raises InvalidApiKey when it names none."""
    head, hyphen, centre = api_key.strip().rpartition("-")
    if not (head and hyphen and _DATA_CENTRE.fullmatch(centre)):
        raise InvalidApiKey
    return centre.lower()


def resolve_base_url(api_key: str, base_url: str = "") -> str:
    """Return where an account's API lives, without a trailing slash.

    A *base_url* with no path gets ``/3.0``; one with a path is used as it is. Raises InvalidApiKey for a key
    without data centre even when the base is given, as callers rely on hearing it before any request.
    """
    centre = data_centre(api_key)
    if not base_url:
        return f"https://{centre}.api.mailchimp.com/3.0"
    trimmed = base_url.rstrip("/")
    return trimmed if urlsplit(trimmed).path else trimmed + "/3.0"


class _WithoutQueries(logging.Filter):
    """Takes the query off URLs that httpx logs: a results link is a secret because of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


logging.getLogger("httpx").addFilter(_WithoutQueries())


class Transport:
    """Sends calls for one account and repeats those that may be.

    At most `max_connections` are on their way at a time, whatever others of this process send for the same account.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "",
        max_connections: int = 8,
        retry: RetryPolicy | None = None,
        user_agent: str = USER_AGENT,
        timeout: httpx.Timeout = TIMEOUT,
        on_call: Callable[[CallRecord], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = resolve_base_url(api_key, base_url)
        self._key = api_key.strip()
        self._retry = retry or RetryPolicy()
        self._most = max_connections
        self._on_call = on_call
        self._now = now
        self._offset: timedelta | None = None
        # The credentials are given to each call rather than to the session: a download must never carry them.
        self._auth = httpx.BasicAuth("civiapi", self._key)
        self._http = httpx.AsyncClient(
            verify=trusted_authorities(),
            headers={"User-Agent": user_agent},
            timeout=timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=max_connections),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def share_with(self, others: int) -> None:
        """Use an equal part of the account's connections from now on, *others* having the rest."""
        self._gate().narrow(self._most // (others + 1))

    def _gate(self) -> Gate:
        return gate_for((self.base_url, self._key), self._most)

    def clock_offset(self) -> timedelta | None:
        """Return Mailchimp's clock minus ours in whole seconds, by the last answer; None before the first."""
        return self._offset

    def server_now(self) -> datetime:
        """Return the time by Mailchimp's clock as far as we know it (aware UTC)."""
        return self._now() + (self._offset or timedelta())

    def mask(self, text: str) -> str:
        """Return *text* without this account's key and without anything that looks like a secret."""
        return mask_secrets(text, self._key, self._key.rpartition("-")[0])

    async def send(self, call: Call) -> Answer:
        """Carry out *call*, repeating it while that is allowed and of use. Raises the errors of `errors.py`."""
        async for attempt in self.attempts(lambda error: _may_repeat(call, error)):
            with attempt:
                return await self._attempt(call)
        raise AssertionError("stamina ends by returning or raising")

    async def collect(self, call: Call, key: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield every row under *key* of a paged collection that is small and still; members need `paging`."""
        offset = 0
        while True:
            params = {**call.params, "count": str(PAGE_SIZE), "offset": str(offset)}
            body = (await self.send(replace(call, params=params))).body
            rows = body.get(key) or []
            for row in rows:
                yield row
            offset += len(rows)
            if not rows or (len(rows) < PAGE_SIZE and offset >= int(body.get("total_items") or 0)):
                return

    def attempts(self, may_repeat: Callable[[Exception], bool]) -> AsyncIterator[stamina.Attempt]:
        """Return attempts to loop over under this account's retry policy."""
        number = itertools.count(1)

        def wait(error: Exception) -> bool | float:
            return self._retry.wait(next(number)) if may_repeat(error) else False

        return aiter(stamina.retry_context(on=wait, attempts=self._retry.attempts, timeout=self._retry.total))

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[httpx.Response]:
        """Open a signed link without credentials. Raises Unreachable when it does not open or breaks off.

        It leads where Mailchimp says, and on from there, but never into a network of ours: see `may_be_fetched`.
        """
        call = Call("GET", "(results link)")
        started = time.monotonic()
        outcome, status = "unreachable", None
        try:
            for _ in range(MOST_HOPS):
                if not may_be_fetched(url, self.base_url):
                    raise Unreachable(call.name, "the link leads where we do not go", outcome_unknown=False)
                async with self._http.stream(
                    "GET", url, auth=None, headers={"Accept-Encoding": "identity"}, follow_redirects=False
                ) as response:
                    status = response.status_code
                    if response.has_redirect_location:
                        url = str(response.url.join(response.headers["Location"]))
                        continue
                    if status != 200:
                        raise Unreachable(call.name, f"status {status}", outcome_unknown=False, status=status)
                    yield response
                    outcome = "ok"
                    return
            raise Unreachable(call.name, f"more than {MOST_HOPS - 1} redirects", outcome_unknown=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=False) from error
        finally:
            self._record(call, outcome, status, started)

    async def _attempt(self, call: Call) -> Answer:
        async with self._gate().place():
            started = time.monotonic()
            outcome, status = "unreachable", None
            try:
                response, body = await self._exchange(call)
                status = response.status_code
                answer = self._read(call, response, body, time.monotonic() - started)
                outcome = "ok"
            except Refused:
                outcome = "refused"
                raise
            except Throttled:
                outcome = "throttled"
                raise
            finally:
                self._record(call, outcome, status, started)
        return answer

    async def _exchange(self, call: Call) -> tuple[httpx.Response, dict[str, Any] | None]:
        headers = {"Accept": "application/json"}
        content = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(call.body)
        try:
            async with self._http.stream(
                call.method,
                self.base_url + call.path,
                params=call.params or None,
                content=content,
                headers=headers,
                auth=self._auth,
                extensions={} if call.make_sure is None else {"trace": _right_before_sending(call.make_sure)},
            ) as response:
                return await _unpacked(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=False) from error
        except httpx.HTTPError as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=True) from error

    def _read(self, call: Call, response: httpx.Response, body: dict[str, Any] | None, seconds: float) -> Answer:
        if body is None:
            raise self._unreadable(call, response)
        server_time = self._learn_clock(response) - timedelta(seconds=int(seconds))
        if response.is_success:
            return Answer(body, server_time)
        raise self._refusal(call, response.status_code, body, response)

    def _refusal(self, call: Call, status: int, body: dict[str, Any], response: httpx.Response) -> MailchimpError:
        if status == 429:
            return Throttled(call.name, status, self._snippet(response))
        if status >= 500 or not is_problem(body):
            return self._unreadable(call, response, title=str(body.get("title") or ""))
        return _refused_type(status, body)(call.name, status, self._masked(body))

    def _unreadable(self, call: Call, response: httpx.Response, title: str = "") -> MailchimpError:
        status = response.status_code
        snippet = self._snippet(response)
        if status in (403, 429):
            return Throttled(call.name, status, snippet)
        reason = f"status {status} {title}".rstrip() if title else f"status {status} with no JSON answer"
        # A page with a 4xx, or 503, comes from an edge server that turned the request away.
        unknown = status < 300 or (status >= 500 and status != 503)
        return Unreachable(call.name, self.mask(reason), outcome_unknown=unknown, status=status, body=snippet)

    def _masked(self, problem: dict[str, Any]) -> dict[str, Any]:
        masked: dict[str, Any] = orjson.loads(self.mask(orjson.dumps(problem).decode()))
        return masked

    def _snippet(self, response: httpx.Response) -> str:
        return self.mask(response.text[: 4 * SNIPPET_LENGTH])[:SNIPPET_LENGTH]

    def _learn_clock(self, response: httpx.Response) -> datetime:
        """Return the time the answer bears, and keep how far our clock is from it."""
        try:
            server = parsedate_to_datetime(response.headers["Date"]).replace(tzinfo=UTC)
        except (KeyError, ValueError):
            return self.server_now().replace(microsecond=0)
        self._offset = timedelta(seconds=round((server - self._now()).total_seconds()))
        return server

    def _record(self, call: Call, outcome: str, status: int | None, started: float) -> None:
        if self._on_call is not None:
            self._on_call(CallRecord(call.method, call.route, outcome, status, time.monotonic() - started))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def may_be_fetched(url: str, base_url: str) -> bool:
    """Whether a link from outside may be followed: https to a public host, or to the host of Mailchimp itself.

    Where that is this machine (a stand-in), it may go by another of its names. A name is taken for public if it has a
    dot and is not one that only networks of their own know. Where it leads by DNS is not looked at: the link came from
    Mailchimp, over its own connection.
    """
    try:
        link, base = urlsplit(url), urlsplit(base_url)
        host, own, _ = (link.hostname or "").rstrip("."), base.hostname or "", link.port
        if link.scheme in (base.scheme, "https") and (host == own or (_is_here(host) and _is_here(own))):
            return True
    except ValueError:  # a port that is none, a bracket left open
        return False
    if link.scheme != "https":
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        # Digits alone, or behind the last dot, are an address in a spelling that only resolvers take.
        ending = host.rpartition(".")[2]
        return "." in host and not ending[:1].isdigit() and ending not in OWN_NETWORKS


def _right_before_sending(make_sure: Callable[[], Awaitable[None]]) -> Callable[[str, object], Awaitable[None]]:
    """What httpcore tells of a request's progress, as a call of *make_sure* before each of its two parts leaves."""

    async def trace(event: str, _info: object) -> None:
        if event in ("http11.send_request_headers.started", "http11.send_request_body.started"):
            await make_sure()

    return trace


def _may_repeat(call: Call, error: Exception) -> bool:
    if not isinstance(error, MailchimpError) or not error.may_be_retried:
        return False
    return call.repeatable or not error.outcome_unknown


async def _unpacked(response: httpx.Response) -> tuple[httpx.Response, dict[str, Any] | None]:
    """The response with its body, and the JSON object that is; a large one is unpacked and decoded in a thread."""
    packed = b"".join([part async for part in response.aiter_raw()])
    return await asyncio.to_thread(_unpack, response, packed) if len(packed) > LARGE else _unpack(response, packed)


def _unpack(response: httpx.Response, packed: bytes) -> tuple[httpx.Response, dict[str, Any] | None]:
    whole = httpx.Response(response.status_code, headers=response.headers, content=packed)
    return whole, _decoded(whole)


def _decoded(response: httpx.Response) -> dict[str, Any] | None:
    """Return the JSON object an answer holds, {} for a 204; None when it is not JSON by type and content."""
    if response.status_code == 204:
        return {}
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() not in JSON_TYPES:
        return None
    return decode(response.content)


def _refused_type(status: int, problem: Mapping[str, Any]) -> type[Refused]:
    if status == 401 or (status == 403 and str(problem["title"]).strip().lower() in KEY_REJECTED_TITLES):
        return BadKey
    return {404: NotFound, 405: MethodNotAllowed}.get(status, Refused)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
