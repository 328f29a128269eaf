"""The timeline at ``/civicrm/mailchimpsync/timeline``: what happened to all connections, or with ``list_id`` to one.

A form narrows it by connection, kind and date; the same entries are there as CSV.
"""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.http.plan_csv import safe_cell
from civiapi.ui.core.csv_download import send_csv
from civiapi.ui.core.page import CallFailed, PageRequest
from civiapi.ui.status import pages
from civiapi.ui.status.model import ConnectionView, read_connections
from sync.reports.timeline import KINDS

PATH = pages.PATH + "/timeline"
PERMISSION = pages.PERMISSION
SHOWN = 50
CSV_PAGE = 1000
COLUMNS = ("at", "list_id", "group_id", "kind", "sentence", "by", "outcome", "severity")
LABELS = {
    "run": "run",
    "abort": "abort",
    "brake": "brake",
    "confirm": "confirmation",
    "webhook": "webhook",
    "config": "configuration",
    "alert": "alert",
}
FIELDS = ("list_id", "kind", "since", "until")


async def show(page: PageRequest) -> web.Response:
    """The entries that the form asks for, newest first."""
    connections = await read_connections(page)
    try:
        entries = await _entries(page, SHOWN + 1, page.offset)
    except (CallFailed, ValueError) as failed:
        wrong = failed.message if isinstance(failed, CallFailed) else "A date is not valid."
        return _page(page, connections, [], wrong)
    return _page(page, connections, entries)


async def download(page: PageRequest) -> web.StreamResponse:
    """The same entries, all pages of them, as CSV."""
    return await send_csv(page, "timeline.csv", _lines(page))


async def _lines(page: PageRequest) -> AsyncIterator[list[list[str]]]:
    offset, head = 0, [list(COLUMNS)]
    while True:
        try:
            entries = await _entries(page, CSV_PAGE, offset)
        except ValueError as error:
            raise CallFailed("A date is not valid.", "Mailchimpsync", "gettimeline") from error
        yield head + [[safe_cell(one[name]) for name in COLUMNS] for one in entries]
        offset, head = offset + len(entries), []
        if len(entries) < CSV_PAGE:
            return


async def _entries(page: PageRequest, limit: int, offset: int) -> list[dict[str, Any]]:
    """Raises ``CallFailed``, and ``ValueError`` for a last day that is no date."""
    asked: dict[str, Any] = {name: page.field(name) for name in ("list_id", "kind", "since") if page.field(name)}
    if until := page.field("until"):
        asked["before"] = _day_after(until)
    asked["options"] = {"limit": limit, "offset": offset}
    found: list[dict[str, Any]] = await page.api_values("Mailchimpsync", "gettimeline", asked)
    return found


def _day_after(text: str) -> str:
    """The day after a date; the last date that there is has none after it. Raises ``ValueError``."""
    day = date.fromisoformat(text)
    return str(day if day == date.max else day + timedelta(days=1))


def _page(
    page: PageRequest, connections: list[ConnectionView], entries: list[dict[str, Any]], wrong: str = ""
) -> web.Response:
    sought = {name: page.field(name) for name in FIELDS}

    def link(**other: Any) -> str:
        fields = {name: value for name, value in {**sought, **other}.items() if value}
        return f"?{urlencode(fields)}" if fields else ""

    names = {one.list_id: f"{one.group} {one.arrow} {one.audience}" for one in connections}
    return page.render(
        "status/timeline.html",
        422 if wrong else 200,
        entries=entries[:SHOWN],
        is_more=len(entries) > SHOWN,
        connections=connections,
        names=names,
        chosen=next((one for one in connections if one.list_id == sought["list_id"]), None),
        kinds={kind: LABELS[kind] for kind in KINDS},
        sought=sought,
        is_filtered=any(sought[name] for name in FIELDS if name != "list_id"),
        link=link,
        offset=page.offset,
        size=SHOWN,
        wrong=wrong,
        path=pages.PATH,
        here=PATH,
    )


ROUTES = (("GET", PATH, show), ("GET", PATH + ".csv", download))
