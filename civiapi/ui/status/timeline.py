"""The timeline at ``/civicrm/mailchimpsync/timeline``: what happened to all connections, or with ``list_id`` to one.

A form narrows it by connection, kind and date; the same entries are there as CSV.
"""

from datetime import date, timedelta
from functools import partial
from typing import Any

from aiohttp import web

from civiapi.ui.core.csv_download import all_pages, send_csv
from civiapi.ui.core.page import CallFailed, PageRequest, query_link
from civiapi.ui.status import pages
from civiapi.ui.status.model import ConnectionView, read_connections
from sync.reports.timeline import KINDS

PATH = pages.PATH + "/timeline"
PERMISSION = pages.PERMISSION
SHOWN = 50
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
    except CallFailed as failed:
        return _page(page, connections, [], failed.message)
    return _page(page, connections, entries)


async def download(page: PageRequest) -> web.StreamResponse:
    """The same entries, all pages of them, as CSV."""
    return await send_csv(page, "timeline.csv", all_pages(COLUMNS, partial(_entries, page)))


async def _entries(page: PageRequest, limit: int, offset: int) -> list[dict[str, Any]]:
    """The entries that the form asks for. Raises ``CallFailed``, also for a last day that is no date."""
    asked: dict[str, Any] = {name: page.field(name) for name in ("list_id", "kind", "since") if page.field(name)}
    if until := page.field("until"):
        try:
            asked["before"] = _day_after(until)
        except ValueError as error:
            raise CallFailed("A date is not valid.", "Mailchimpsync", "gettimeline") from error
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
        link=query_link(sought),
        offset=page.offset,
        size=SHOWN,
        wrong=wrong,
        path=pages.PATH,
        here=PATH,
    )


ROUTES = (("GET", PATH, show), ("GET", PATH + ".csv", download))
