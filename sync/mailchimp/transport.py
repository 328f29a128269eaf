"""HTTP calls to Mailchimp for one account: credentials, connection limit, retries, and errors.

Knows nothing of audiences or members; `client` names the calls. Every exception of httpx and every answer that is not a
success becomes one of the errors in `errors` here. The content type is checked before the status: a 200 with an HTML
page is no success, nor is one without what was asked for; a 403 without a problem document is throttling and not a
revoked key, and a 404 page from an edge server does not mean that a member is gone.
"""

from __future__ import annotations

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
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import stamina

from sync.mailchimp.connection_limit import ConnectionLimit, limit_for
from sync.mailchimp.decoding import read_body
from sync.mailchimp.errors import (
    KEY_REJECTED_TITLES,
    SNIPPET_LENGTH,
    BadKey,
    InvalidApiKey,
    MailchimpError,
    NotFound,
    Refused,
    Throttled,
    Unreachable,
    find_problem,
    mask_secrets,
)
from sync.mailchimp.links import (
    goes_through_proxy,
    host_of,
    is_own_host,
    is_public_address,
    may_be_fetched,
    resolves_to_public,
)
from sync.mailchimp.wire import as_count, as_id, find_count, is_last_page, path_segment

USER_AGENT = "civiapi (CiviCRM and Mailchimp sync)"
TIMEOUT = httpx.Timeout(connect=10.0, read=130.0, write=130.0, pool=None)
"""Seconds. Mailchimp ends a request at 120 s; the pool has no limit because requests queue in `connection_limit`."""

PAGE_SIZE = 1000
"""The maximum of rows in a page; the default of every collection is 10."""

SIGNED_LINK = "GET (results link)"
"""The name of a download in errors and records; the link itself is a secret."""

MAX_HOPS = 4
"""Requests for one signed link, redirects included."""

MAX_OFFSET = timedelta(days=366)
"""How far a ``Date`` may be from our clock to be believed: changes are dated by it, and the next sync begins there."""

_DATA_CENTRE = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is retried; times in seconds. Waits double up to `wait_max`.

    Jitter is part of every wait, of those at the maximum too, so that callers throttled together do not retry together.
    No retry begins later than `total` after the first attempt.
    """

    attempts: int = 5
    total: float = 60.0
    wait_initial: float = 0.5
    wait_max: float = 20.0
    wait_jitter: float = 1.0

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number *attempt*, which counts from 1."""
        jitter = min(self.wait_jitter, self.wait_max)
        least = min(self.wait_max - jitter, self.wait_initial * 2.0 ** (attempt - 1))
        return least + random.uniform(0, jitter)  # noqa: S311  spreads callers, no secret


@dataclass(frozen=True, slots=True)
class MailchimpCall:
    """One call to make. `route` is a template such as ``/lists/{audience}``, filled from `ids`; logs show only that.

    `repeatable`: the call is idempotent, so it may be retried after an unknown outcome.
    `must_name`: a key without which a success is no answer, such as the id of what was made.
    `must_list`: the key of the rows without which it is none either, and which are empty only where `total_items` end:
    an answer that is read as "none" has people subscribed again, interests forgotten, batches sent twice. Under a
    filter the total is not gone by: that of a server in Mailchimp's place may be of all rows.
    `may_end_early`: the total may count rows that are not listed.
    `before_send`: called when the connection is open and the request about to be sent; an exception stops it.
    """

    method: str
    route: str
    ids: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    repeatable: bool = True
    must_name: str = ""
    must_list: str = ""
    may_end_early: bool = False
    before_send: Callable[[], Awaitable[None]] | None = None

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
    """A success. `body` is {} for a 204; `server_time` is Mailchimp's time when the call was sent (aware UTC)."""

    body: dict[str, Any]
    server_time: datetime


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt, for metrics: `outcome` is ok, refused, throttled or unreachable; `status` None: no answer."""

    method: str
    route: str
    outcome: str
    status: int | None
    seconds: float


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context with the trusted authorities, shared by all clients: loading it takes 0.1 s."""
    return httpx.create_ssl_context()


def preload_http() -> None:
    """Import what httpx imports at its first request, which would block the event loop for 70 ms."""
    for name in ("httpcore", "anyio._backends._asyncio"):
        with suppress(ImportError):  # another httpx
            import_module(name)


def data_centre(api_key: str) -> str:
    """Return the data centre, which a key has after its last hyphen. Raises InvalidApiKey without one."""
    head, hyphen, centre = api_key.strip().rpartition("-")
    if not (head and hyphen and _DATA_CENTRE.fullmatch(centre)):
        raise InvalidApiKey
    return centre.lower()


def resolve_base_url(api_key: str, base_url: str = "") -> str:
    """Return the URL of an account's API, without a trailing slash.

    A *base_url* with no path gets ``/3.0``; one with a path is used as it is. Raises InvalidApiKey for a key
    without data centre even with a *base_url*, so that callers get the error before any request.
    """
    centre = data_centre(api_key)
    if not base_url:
        return f"https://{centre}.api.mailchimp.com/3.0"
    trimmed = base_url.rstrip("/")
    return trimmed if urlsplit(trimmed).path else trimmed + "/3.0"


class _WithoutQueries(logging.Filter):
    """Removes the query from URLs that httpx logs: it makes a results link a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


logging.getLogger("httpx").addFilter(_WithoutQueries())


class Transport:
    """Sends calls for one account, with retries.

    At most `max_connections` are in flight at once, those of other transports of the account in this process included.
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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = resolve_base_url(api_key, base_url)
        self._key = api_key.strip()
        self._retry = retry or RetryPolicy()
        self._max_connections = max_connections
        self._on_call = on_call
        self._now = now
        self._offset: timedelta | None = None
        # Passed with each call rather than set on the session: a download must not send the credentials.
        self._auth = httpx.BasicAuth("civiapi", self._key)
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=tls_context(),
            headers={"User-Agent": user_agent},
            timeout=timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=max_connections),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def share_with(self, others: int) -> None:
        """Use an equal share of the account's connections from now on, with *others* processes."""
        self._limit().set_share(self._max_connections // (others + 1))

    def _limit(self) -> ConnectionLimit:
        return limit_for((self.base_url, self._key), self._max_connections)

    def clock_offset(self) -> timedelta | None:
        """Return Mailchimp's clock minus ours in whole seconds, by the last answer; None before the first."""
        return self._offset

    def server_now(self) -> datetime:
        """Return the time by Mailchimp's clock, as last measured (aware UTC)."""
        return self._now() + (self._offset or timedelta())

    def mask(self, text: str) -> str:
        """Return *text* without this account's key and without anything that looks like a secret."""
        return mask_secrets(text, self._key, self._key.rpartition("-")[0])

    async def send(self, call: MailchimpCall) -> Answer:
        """Send *call*, with retries where they are allowed. Raises the errors of `errors`."""
        async for attempt in self.attempts(lambda error: _may_repeat(call, error)):
            with attempt:
                return await self._attempt(call)
        raise AssertionError("stamina ends by returning or raising")

    async def collect(self, call: MailchimpCall, key: str, name: str = "id") -> AsyncGenerator[dict[str, Any], None]:
        """Yield every row under *key* of a small paged collection; members need `paging`.

        One that is no object, or has no *name*, is left out: an odd row must not take the others with it. So is one
        that came before.
        """
        offset = 0
        seen: set[str] = set()
        while True:
            params = {**call.params, "count": str(PAGE_SIZE), "offset": str(offset)}
            body = (await self.send(replace(call, params=params, must_list=key))).body
            rows, known = body[key], len(seen)
            for row in rows:
                own = as_id(row.get(name)) if isinstance(row, dict) else ""
                if own and own not in seen:
                    seen.add(own)
                    yield {**row, name: own}
            offset += len(rows)
            total = find_count(body.get("total_items"))
            repeats = total is None and len(seen) == known  # it has no pages, or rows that cannot be used
            if repeats or is_last_page(len(rows), PAGE_SIZE, offset, total):
                return

    def attempts(self, may_repeat: Callable[[Exception], bool]) -> AsyncIterator[stamina.Attempt]:
        """Return the attempts that this account's retry policy allows."""
        number = itertools.count(1)

        def wait(error: Exception) -> bool | float:
            return self._retry.wait(next(number)) if may_repeat(error) else False

        return aiter(stamina.retry_context(on=wait, attempts=self._retry.attempts, timeout=self._retry.total))

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[httpx.Response]:
        """Open a signed link without credentials. Raises Unreachable when it does not open or breaks off.

        Redirects are followed, but never into a private network: see `links.py`.
        """
        call = MailchimpCall("GET", "(results link)")
        started = time.monotonic()
        outcome, status = "unreachable", None
        try:
            for _ in range(MAX_HOPS):
                if not (may_be_fetched(url, self.base_url) and await resolves_to_public(url, self.base_url)):
                    raise forbidden_link()
                async with self._http.stream(
                    "GET",
                    url,
                    auth=None,
                    headers={"Accept-Encoding": "identity"},
                    follow_redirects=False,
                    extensions=_checking_where_it_connects(url, self.base_url),
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
            raise Unreachable(call.name, f"more than {MAX_HOPS - 1} redirects", outcome_unknown=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=False) from error
        finally:
            self._record(call, outcome, status, started)

    async def _attempt(self, call: MailchimpCall) -> Answer:
        async with self._limit().limiter:
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

    async def _exchange(self, call: MailchimpCall) -> tuple[httpx.Response, dict[str, Any] | None]:
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
                extensions={} if call.before_send is None else {"trace": _trace_of(call.before_send)},
            ) as response:
                return await read_body(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=False) from error
        except httpx.HTTPError as error:
            raise Unreachable(call.name, self.mask(_reason(error)), outcome_unknown=True) from error

    def _read(
        self, call: MailchimpCall, response: httpx.Response, body: dict[str, Any] | None, seconds: float
    ) -> Answer:
        if body is None:
            raise self._unreadable(call, response)
        server_time = self._update_clock(response) - timedelta(seconds=int(seconds))
        if response.is_success:
            if reason := _what_is_missing(call, body):
                raise Unreachable(call.name, reason, outcome_unknown=True, status=response.status_code)
            return Answer(body, server_time)
        raise self._refusal(call, response.status_code, body, response)

    def _refusal(
        self, call: MailchimpCall, status: int, body: dict[str, Any], response: httpx.Response
    ) -> MailchimpError:
        if status == 429:
            return Throttled(call.name, status, self._snippet(response))
        problem = find_problem(body)
        if status >= 500 or problem is None:
            return self._unreadable(call, response, title=str(body.get("title") or ""))
        return _refused_type(status, problem)(call.name, status, self._masked(problem))

    def _unreadable(self, call: MailchimpCall, response: httpx.Response, title: str = "") -> MailchimpError:
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

    def _update_clock(self, response: httpx.Response) -> datetime:
        """Return the time of the answer's ``Date``, and update the clock offset; one that is none changes nothing."""
        try:
            server = parsedate_to_datetime(response.headers["Date"]).replace(tzinfo=UTC)
        except (KeyError, ValueError):
            return self.server_now().replace(microsecond=0)
        offset = timedelta(seconds=round((server - self._now()).total_seconds()))
        if abs(offset) > MAX_OFFSET:
            return self.server_now().replace(microsecond=0)
        self._offset = offset
        return server

    def _record(self, call: MailchimpCall, outcome: str, status: int | None, started: float) -> None:
        if self._on_call is not None:
            self._on_call(CallRecord(call.method, call.route, outcome, status, time.monotonic() - started))


def forbidden_link() -> Unreachable:
    """The error for a link into a network that only this server can reach."""
    return Unreachable(SIGNED_LINK, "the link leads where we do not go", outcome_unknown=False)


def _checking_where_it_connects(url: str, base_url: str) -> dict[str, Any]:
    """The request extensions that drop a new connection to an address that is not public, before anything is sent.

    A name may resolve to another address than a moment before, when `resolves_to_public` asked.
    """
    host = host_of(httpx.URL(url))
    if is_own_host(host, base_url) or goes_through_proxy(host):
        return {}

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            peer = info["return_value"].get_extra_info("server_addr")
            if not peer or not is_public_address(str(peer[0])):
                raise forbidden_link()

    return {"trace": trace}


def _trace_of(before_send: Callable[[], Awaitable[None]]) -> Callable[[str, object], Awaitable[None]]:
    """Return httpcore's trace hook that awaits *before_send* before headers and body are sent."""

    async def trace(event: str, _info: object) -> None:
        if event in ("http11.send_request_headers.started", "http11.send_request_body.started"):
            await before_send()

    return trace


ABOUT_PAGES = frozenset({"count", "offset", "fields", "exclude_fields", "sort_field", "sort_dir"})
"""Parameters that choose no rows."""


def _what_is_missing(call: MailchimpCall, body: Mapping[str, Any]) -> str:
    """Why a success does not answer *call*; empty where it does."""
    if call.must_name and not as_id(body.get(call.must_name)):
        return f"an answer without {call.must_name}"
    if not call.must_list:
        return ""
    rows, total = body.get(call.must_list), as_count(body.get("total_items"))
    if not isinstance(rows, list):
        return f"an answer without {call.must_list}"
    is_total_of_these = not (call.may_end_early or call.params.keys() - ABOUT_PAGES)
    has_more = is_total_of_these and int(call.params.get("offset", 0)) < total
    return f"an answer without any of {total} {call.must_list}" if has_more and not rows else ""


def _may_repeat(call: MailchimpCall, error: Exception) -> bool:
    if not isinstance(error, MailchimpError) or not error.may_be_retried:
        return False
    return call.repeatable or not error.outcome_unknown


def _refused_type(status: int, problem: Mapping[str, Any]) -> type[Refused]:
    if status == 401 or (status == 403 and str(problem["title"]).strip().lower() in KEY_REJECTED_TITLES):
        return BadKey
    return NotFound if status == 404 else Refused


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
