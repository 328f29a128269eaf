"""Server-sent events for the status pages: what has changed, as it changes.

A stream is a client of the API like the page it serves: as the visitor it asks how far the syncs are, seldom for the
costlier rest, and sends only parts that differ from what the page has. It ends when the session does, when the server
stops, when nobody reads it any more, and after ``LIFE`` in any case (the page then opens the next one).
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

from civiapi.adapters.authx import identify
from civiapi.adapters.http import GUARDS
from civiapi.auth import Refused
from civiapi.ui import parts
from civiapi.ui.connections import Connection, read_connections
from civiapi.ui.parts import PATH, Part
from civiapi.ui.status import PERMISSION, read_whole
from civiapi.ui.visit import HEADERS, CallFailed, Visit

MOST = 64
"""Streams at once in this process."""

MOST_EACH = 12
"""Streams at once of one visitor: a few windows; pages that nobody looks at close theirs."""

LIFE = 300.0
BEAT = 15.0
"""Seconds of silence after which something is sent, so that nobody on the way takes the stream for dead."""

PATIENCE = 30.0
"""Seconds within which a reader must have taken what was sent."""

PAUSE, PAUSE_RUNNING = 1.0, 0.5
REST, REST_RUNNING = 3.0, 2.0
SHARE = 20
"""The rest is asked for at most this many times as seldom as it takes."""

OVER = "Your session is over. Log in again to go on."
TOO_MANY = "Too many pages follow the sync already. Close some of them; this one tries again."

log = structlog.get_logger(__name__)


class Streams:
    """The streams of one process: how many there are, and whether they are to end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._by_visitor: Counter[int | None] = Counter()

    @contextmanager
    def place(self, visitor: int | None) -> Iterator[bool]:
        """A place for a stream of this visitor's, while the block lasts; False: there is none."""
        if self._by_visitor.total() >= MOST or self._by_visitor[visitor] >= MOST_EACH:
            yield False
            return
        self._by_visitor[visitor] += 1
        try:
            yield True
        finally:
            self._by_visitor[visitor] -= 1

    @property
    def count(self) -> int:
        return self._by_visitor.total()


STREAMS = web.AppKey("streams", Streams)


def set_up(app: web.Application) -> None:
    """Keep count of the streams of this application, and end them when it stops."""
    streams = app[STREAMS] = Streams()

    async def end(_app: web.Application) -> None:
        streams.stopping.set()

    app.on_shutdown.append(end)


async def follow(visit: Visit) -> web.StreamResponse:
    """The stream: of the connection ``list_id``, or of all. ``have`` (several) names parts with their marks."""
    streams = visit.request.app[STREAMS]
    with streams.place(visit.caller.contact_id if visit.caller else None) as is_free:
        if not is_free:
            return visit.say("Too many pages", TOO_MANY, 503)
        response = web.StreamResponse(headers={**GUARDS, **HEADERS, "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        if visit.request.method != "GET":  # HEAD asks for the headers only
            return response
        await response.prepare(visit.request)
        try:
            async for event in _events(visit, streams.stopping):
                async with asyncio.timeout(PATIENCE):
                    await response.write(event)
        except (ConnectionError, TimeoutError, CallFailed) as reason:
            log.debug("a stream of events ended", reason=str(reason))
        return response


async def _events(visit: Visit, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """What is to be sent, bytes at a time, until the stream is over."""
    watch = Watch(visit, visit.field("list_id"), _had(visit))
    ends_at = time.monotonic() + LIFE
    sent_at = 0.0
    while not stopping.is_set() and time.monotonic() < ends_at and _is_read(visit):
        if not await _is_still_let_in(visit):
            yield _event("over", OVER)
            return
        for event in await watch.look():
            sent_at = time.monotonic()
            yield event
        if time.monotonic() - sent_at > BEAT:
            sent_at = time.monotonic()
            yield b": still here\n\n"
        pause = PAUSE_RUNNING if watch.is_running else PAUSE
        with suppress(TimeoutError):  # wait_for of Python 3.11 may swallow a cancellation
            async with asyncio.timeout(pause):
                await stopping.wait()


class Watch:
    """What one page has been shown, and what has changed since."""

    def __init__(self, visit: Visit, list_id: str, had: dict[str, str]) -> None:
        self._visit = visit
        self._list_id = list_id
        self._marks = had
        self._said: str | None = None
        self._known: list[Connection] = []
        self._stages: dict[str, Any] = {}
        self._rest_at = 0.0

    @property
    def is_running(self) -> bool:
        return any(one.is_running for one in self._known)

    async def look(self) -> list[bytes]:
        """The events that bring the page up to date."""
        progress = (await self._visit.ask("Mailchimpsync", "getprogress"))["values"] or {}
        # Whatever these tell of is worth a look at the rest: a run that begins, goes on to a stage, or ends.
        stages = {key: (one["running"], one["stage"], one["started"]) for key, one in progress.items()}
        if stages != self._stages or time.monotonic() >= self._rest_at:
            await self._read_rest()
            self._stages = stages
        for one in self._known:
            one.progress = progress.get(one.list_id, one.progress)
        if self._list_id and not self._known:
            return [_event("gone", "")]
        return [*self._changed(), *self._to_say()]

    async def _read_rest(self) -> None:
        began = time.monotonic()
        if self._list_id:
            one = await read_whole(self._visit, self._list_id)
            self._known = [one] if one else []
        else:
            self._known = await read_connections(self._visit)
        took = time.monotonic() - began
        self._rest_at = time.monotonic() + max(REST_RUNNING if self.is_running else REST, SHARE * took)

    def _changed(self) -> Iterator[bytes]:
        for part in self._parts():
            if self._marks.get(part.name) != part.mark:
                self._marks[part.name] = part.mark
                yield _event("part", {"name": part.name, "mark": part.mark, "html": part.html})

    def _parts(self) -> list[Part]:
        request = self._visit.request
        if self._list_id:
            return [part for one in self._known for part in parts.page_parts(request, one).values()]
        return [parts.card(request, one) for one in self._known]

    def _to_say(self) -> Iterator[bytes]:
        """What is announced when it changes; the first time the page has said it already."""
        words = " ".join(parts.spoken(one) for one in self._known if self._list_id or one.is_running)
        if self._said is not None and words != self._said:
            yield _event("say", words)
        self._said = words


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _had(visit: Visit) -> dict[str, str]:
    """The marks a page has, by part."""
    pairs = (text.partition(":") for text in visit.request.rel_url.query.getall("have", [])[:500])
    return {name: mark for name, _, mark in pairs}


def _is_read(visit: Visit) -> bool:
    transport = visit.request.transport
    return transport is not None and not transport.is_closing()


async def _is_still_let_in(visit: Visit) -> bool:
    try:
        identity = await identify(visit.site.auth, visit.incoming)
    except Refused:
        return False
    return identity.caller.may(PERMISSION)


ROUTES = (("GET", PATH + "/events", follow),)
