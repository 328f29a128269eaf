"""Server-sent events for the status pages.

A stream polls the API as the user: the progress of syncs often, the more expensive rest rarely. It sends only parts
that differ from what the page has. It ends with the session, when the server stops, when the client disconnects, and
after ``LIFETIME_S`` (the page then opens the next one).
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from aiohttp import web

from civiapi.auth.authenticator import AuthenticationFailed
from civiapi.endpoints.authx import identify
from civiapi.http.messages import GUARDS
from civiapi.ui.core.page import HEADERS, CallFailed, PageRequest
from civiapi.ui.status import fragments
from civiapi.ui.status.fragments import PATH, Part
from civiapi.ui.status.model import ConnectionView, read_alerts, read_connections
from civiapi.ui.status.pages import PERMISSION, read_connection

MAX_STREAMS = 64
"""Concurrent streams of this process."""

MAX_STREAMS_PER_USER = 12
"""Concurrent streams of one user; hidden pages close theirs."""

LIFETIME_S = 300.0
KEEPALIVE_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection open."""

WRITE_TIMEOUT_S = 30.0

POLL_S, POLL_RUNNING_S = 1.0, 0.5
REFRESH_S, REFRESH_RUNNING_S = 3.0, 2.0
REFRESH_FACTOR = 20
"""The interval between refreshes is at least this many times the duration of one."""

SESSION_ENDED = "Your session has ended. Log in again to continue."
TOO_MANY = "Too many status pages are open. Close some of them; this page retries."

log = structlog.get_logger(__name__)


class Streams:
    """The open streams of one process, and whether they are to end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._by_user: Counter[int | None] = Counter()

    @contextmanager
    def open(self, user: int | None) -> Iterator[bool]:
        """Count a stream of this user while the block lasts; False: the limit is reached."""
        if self._by_user.total() >= MAX_STREAMS or self._by_user[user] >= MAX_STREAMS_PER_USER:
            yield False
            return
        self._by_user[user] += 1
        try:
            yield True
        finally:
            self._by_user[user] -= 1

    @property
    def count(self) -> int:
        """How many streams are open."""
        return self._by_user.total()


STREAMS = web.AppKey("streams", Streams)


def set_up(app: web.Application) -> None:
    """Count the streams of this application, and end them when it stops."""
    streams = app[STREAMS] = Streams()

    async def end(_app: web.Application) -> None:
        streams.stopping.set()

    app.on_shutdown.append(end)


async def follow(page: PageRequest) -> web.StreamResponse:
    """The stream of the connection ``list_id``, or of all. ``have`` (repeated) is ``name:mark`` of a part."""
    streams = page.request.app[STREAMS]
    with streams.open(page.caller.contact_id if page.caller else None) as is_open:
        if not is_open:
            return page.message("Too many pages", TOO_MANY, 503)
        response = web.StreamResponse(headers={**GUARDS, **HEADERS, "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        if page.request.method != "GET":  # HEAD asks for the headers only
            return response
        await response.prepare(page.request)
        try:
            async for event in _events(page, streams.stopping):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(event)
        except (ConnectionError, TimeoutError, CallFailed) as reason:
            log.debug("event stream ended", reason=str(reason))
        return response


async def _events(page: PageRequest, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """The events to send, until the stream ends."""
    watch = Watcher(page, page.field("list_id"), _marks(page))
    ends_at = time.monotonic() + LIFETIME_S
    sent_at = 0.0
    while not stopping.is_set() and time.monotonic() < ends_at and _is_connected(page):
        if not await _is_still_permitted(page):
            yield _event("session-ended", SESSION_ENDED)
            return
        for event in await watch.poll():
            sent_at = time.monotonic()
            yield event
        if time.monotonic() - sent_at > KEEPALIVE_S:
            sent_at = time.monotonic()
            yield b": keep-alive\n\n"
        pause = POLL_RUNNING_S if watch.is_running else POLL_S
        with suppress(TimeoutError):  # wait_for of Python 3.11 may swallow a cancellation
            async with asyncio.timeout(pause):
                await stopping.wait()


class Watcher:
    """What one page shows, and what has changed since."""

    def __init__(self, page: PageRequest, list_id: str, marks: dict[str, str]) -> None:
        self._page = page
        self._list_id = list_id
        self._marks = marks
        self._announced: str | None = None
        self._known: list[ConnectionView] = []
        self._alerts: list[dict[str, Any]] = []
        self._stages: dict[str, Any] = {}
        self._refresh_at = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a sync runs that the page shows."""
        return any(one.is_running for one in self._known)

    async def poll(self) -> list[bytes]:
        """The events that bring the page up to date."""
        progress = await self._page.api_values("Mailchimpsync", "getprogress") or {}
        # A run that begins, enters a stage or ends changes the rest too.
        stages = {key: (one["running"], one["stage"], one["started"]) for key, one in progress.items()}
        if stages != self._stages or time.monotonic() >= self._refresh_at:
            await self._refresh()
            self._stages = stages
        for one in self._known:
            one.progress = progress.get(one.list_id, one.progress)
        if self._list_id and not self._known:
            return [_event("removed", "")]
        return [*self._changed_parts(), *self._announcement()]

    async def _refresh(self) -> None:
        began = time.monotonic()
        if self._list_id:
            one = await read_connection(self._page, self._list_id)
            self._known = [one] if one else []
        else:
            self._known = await read_connections(self._page)
            self._alerts = await read_alerts(self._page, self._known)
        took = time.monotonic() - began
        self._refresh_at = time.monotonic() + max(
            REFRESH_RUNNING_S if self.is_running else REFRESH_S, REFRESH_FACTOR * took
        )

    def _changed_parts(self) -> Iterator[bytes]:
        for part in self._parts():
            if self._marks.get(part.name) != part.mark:
                self._marks[part.name] = part.mark
                yield _event("part", {"name": part.name, "mark": part.mark, "html": part.html})

    def _parts(self) -> list[Part]:
        request = self._page.request
        if self._list_id:
            return [part for one in self._known for part in fragments.page_parts(request, one).values()]
        return [*(fragments.card(request, one) for one in self._known), fragments.alerts(request, self._alerts)]

    def _announcement(self) -> Iterator[bytes]:
        """The announcement, when it has changed; the page itself has the first one."""
        text = " ".join(fragments.announcement(one) for one in self._known if self._list_id or one.is_running)
        if self._announced is not None and text != self._announced:
            yield _event("announce", text)
        self._announced = text


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _marks(page: PageRequest) -> dict[str, str]:
    """The marks of the parts that the page has."""
    pairs = (text.partition(":") for text in page.request.rel_url.query.getall("have", [])[:500])
    return {name: mark for name, _, mark in pairs}


def _is_connected(page: PageRequest) -> bool:
    transport = page.request.transport
    return transport is not None and not transport.is_closing()


async def _is_still_permitted(page: PageRequest) -> bool:
    try:
        identity = await identify(page.site.auth, page.incoming)
    except AuthenticationFailed:
        return False
    return identity.caller.may(PERMISSION)


ROUTES = (("GET", PATH + "/events", follow),)
