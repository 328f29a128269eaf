"""Walking an audience's members page by page without missing one, resumable after every page.

Pages are requested by a function. The ids of two pages at most are kept, and `parallel` pages read ahead.

Rows that leave during a walk move all later rows up, and rows that move over a page boundary would be missed.
Two remedies, after Mailchimp Marketing API, list members:

* With `since`, the walk is by key: sorted by `last_changed`, each page starts one second before the last row of the
  page before, because whether Mailchimp includes the given second is not documented. If a page does not get past its
  own second (an import gives thousands the same), the offset moves instead.
* Without, pages overlap: each begins `overlap` rows before the last one ended. If rows moved by more than that,
  none of the last page's final rows is in the new page; then the walk steps back until one is.
  Rows that change during the walk are found by the incremental fetch the caller does from its start time.

A row is yielded again only when its `last_changed` differs. Absence from a walk proves nothing about one member.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sync.mailchimp.wire import Member, find_instant, format_instant, is_last_page, parse_instant

PASSES: tuple[str | None, ...] = (None, "archived")
"""A listing without status may leave archived members out (records conflict), so they are requested as well."""

SINCE_FLOOR = datetime(2010, 1, 1, tzinfo=UTC)
"""Mailchimp hangs on very old `since` values; for those, everything is requested."""

STEPS_BACK = 20
"""After so many steps back, a pass takes the order itself to be unstable and continues."""

ANCHOR_GAP = 10


@dataclass(frozen=True, slots=True)
class MemberPage:
    """One page of members. `server_time` is Mailchimp's time of the request (aware UTC).

    `total_items` counts all that match the filter; None where it is not known. `cursor` is a small JSON-able value from
    which a walk continues after this page; None on the last page.
    """

    members: Sequence[Member]
    total_items: int | None
    server_time: datetime
    offset: int
    cursor: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a walk. `anchors` are ids of rows near the end of the page before, empty at the start."""

    step: int = 0
    since: datetime | None = None
    offset: int = 0
    anchors: tuple[str, ...] = ()

    def to_cursor(self) -> dict[str, Any]:
        """Return the position as JSON-able data."""
        return {
            "pass": self.step,
            "since": None if self.since is None else format_instant(self.since),
            "offset": self.offset,
            "anchors": list(self.anchors),
        }

    @classmethod
    def from_cursor(cls, cursor: Mapping[str, Any]) -> Position:
        """Read what `to_cursor` wrote. Raises KeyError or ValueError for anything else."""
        return cls(int(cursor["pass"]), parse_instant(cursor["since"]), int(cursor["offset"]), tuple(cursor["anchors"]))


AskPage = Callable[[str | None, datetime | None, int], Awaitable[MemberPage]]
"""Requests one page by status, since (which implies the order by `last_changed`) and offset."""


async def walk(
    ask: AskPage,
    *,
    since: datetime | None,
    count: int,
    parallel: int = 1,
    passes: Sequence[str | None] = PASSES,
    cursor: Mapping[str, Any] | None = None,
) -> AsyncGenerator[MemberPage, None]:
    """Yield every page of all *passes*, from *cursor* if given; each carries the cursor that follows it.

    Raises ValueError for a *since* without zone, and whatever *ask* raises.
    """
    start = floor(since)
    position = Position(since=start) if cursor is None else Position.from_cursor(cursor)
    while position.step < len(passes):
        status = passes[position.step]
        following = Position(position.step + 1, start) if position.step + 1 < len(passes) else None
        one_pass = _Pass(ask, status, count, parallel if start is None else 1, following)
        async with aclosing(one_pass.pages(position)) as pages:
            async for page in pages:
                yield page
        if following is None:
            return
        position = following


def floor(since: datetime | None) -> datetime | None:
    """Return *since* in UTC and whole seconds; None (everything) when it is before `SINCE_FLOOR`."""
    if since is None:
        return None
    if since.tzinfo is None:
        raise ValueError("since needs a zone")
    instant = since.astimezone(UTC).replace(microsecond=0)
    return None if instant < SINCE_FLOOR else instant


class _Pass:
    """One walk over the members of one status filter."""

    def __init__(self, ask: AskPage, status: str | None, count: int, parallel: int, following: Position | None) -> None:
        self._ask = ask
        self._status = status
        self._count = count
        self._parallel = max(1, parallel)
        self._following = following
        self._overlap = max(1, count // 10) if count > 1 else 0
        self._steps_back = 0
        self._seen: set[tuple[str | None, str | None]] = set()
        self._ahead: deque[tuple[int, asyncio.Task[MemberPage]]] = deque()
        self._total: int | None = None

    @property
    def _step(self) -> int:
        return self._count - self._overlap

    async def pages(self, position: Position) -> AsyncGenerator[MemberPage, None]:
        """Yield this pass's pages from *position* on."""
        try:
            while True:
                page = await self._read(position)
                if self._is_torn(position, page):
                    self._steps_back += 1
                    position = replace(position, offset=max(0, position.offset - self._step))
                    continue
                length = len(page.members)
                is_last = is_last_page(length, self._count, page.offset + length, page.total_items)
                after = None if is_last else self._advance(position, page.members)
                cursor = after or self._following
                fresh = self._unseen(page.members)
                yield replace(page, members=fresh, cursor=None if cursor is None else cursor.to_cursor())
                if after is None:
                    return
                position = after
        finally:
            await self._drop_ahead()

    async def _read(self, position: Position) -> MemberPage:
        """Return the page at *position*, read ahead or not, and start reading ahead."""
        if self._ahead and self._ahead[0][0] != position.offset:
            await self._drop_ahead()
        if self._parallel == 1:
            return await self._ask(self._status, position.since, position.offset)
        offset = self._ahead[-1][0] + self._step if self._ahead else position.offset
        while len(self._ahead) < self._parallel and (
            not self._ahead or (self._total is not None and offset < self._total)
        ):
            request = self._ask(self._status, position.since, offset)
            self._ahead.append((offset, asyncio.ensure_future(request)))
            offset += self._step
        page = await self._ahead[0][1]
        self._ahead.popleft()
        self._total = page.total_items
        return page

    async def _drop_ahead(self) -> None:
        tasks = [task for _, task in self._ahead]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_torn(self, position: Position, page: MemberPage) -> bool:
        """Return whether rows may have been missed between the page before and this one."""
        if position.offset == 0 or not position.anchors or self._steps_back >= STEPS_BACK:
            return False
        return not any(_is_in_place(position, one) for one in page.members if one.get("id") in position.anchors)

    def _advance(self, position: Position, members: Sequence[Member]) -> Position:
        overlap = min(self._overlap, len(members) // 2)
        tail = list(reversed(members[len(members) - overlap :]))
        anchors = tuple(member.get("id", "") for member in tail[::ANCHOR_GAP])
        if position.since is not None:
            last = next((at for one in reversed(members) if (at := find_instant(one.get("last_changed")))), None)
            since = last and last - timedelta(seconds=1)
            if since is not None and since > position.since:
                return replace(position, since=since, offset=0, anchors=anchors)
        offset = position.offset + len(members) - overlap
        return replace(position, offset=offset, anchors=anchors)

    def _unseen(self, members: Sequence[Member]) -> list[Member]:
        """Return the rows that the page before did not hold as they are now, and remember this page's."""
        versions = [(row.get("id"), row.get("last_changed")) for row in members]
        fresh = [row for row, version in zip(members, versions, strict=True) if version not in self._seen]
        self._seen = set(versions)
        return fresh


def _is_in_place(position: Position, member: Member) -> bool:
    """Whether a row of the page before is where it was: by key, one that changed since is now at the end.

    The offset moves only while rows are of the second after `since`, so the page before had no later ones.
    """
    changed = find_instant(member.get("last_changed"))
    return position.since is None or changed is None or changed <= position.since + timedelta(seconds=1)
