"""The preview at ``…/audience/{list_id}/preview``: what a sync would do, person by person, before it does it.

Working it out may take a while, so it is done when asked for (a posted form, or the page's script by the same API call,
``Mailchimpsync.plan``) and then shown by its ``plan_id``: by kind, searched, a page at a time, and whole as CSV.
"""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import structlog
from aiohttp import web

from civiapi.adapters.http import GUARDS
from civiapi.ui import status
from civiapi.ui.connections import Connection, find_connection
from civiapi.ui.visit import HEADERS, CallFailed, Visit

PATH = status.AUDIENCE + "/preview"
PERMISSION = status.PERMISSION
SHOWN = 25
CSV_PAGE = 1000
COLUMNS = ("contact_id", "name", "email", "kind", "mailchimp_status", "civicrm_status", "reason")
FORMULA = ("=", "+", "-", "@", "\t", "\r")

log = structlog.get_logger(__name__)


async def show(visit: Visit) -> web.Response:
    """The plan with ``plan_id``; without one, what a preview is and the button that makes it."""
    one = await _connection(visit)
    if one is None:
        return status.no_connection(visit, visit.request.match_info["list_id"])
    plan_id = visit.field("plan_id")
    if not plan_id:
        return _page(visit, one, None)
    offset = int(visit.field("offset")) if visit.field("offset").isdecimal() else 0
    try:
        plan = await _plan(visit, one, SHOWN, offset)
    except CallFailed as failed:
        return _page(visit, one, None, failed.message, 422)
    return _page(visit, one, plan, offset=offset)


async def make(visit: Visit) -> web.Response:
    """Work the plan out, and on to it."""
    one = await _connection(visit)
    if one is None:
        return status.no_connection(visit, visit.request.match_info["list_id"])
    try:
        answer = await visit.ask("Mailchimpsync", "plan", {"group_id": one.group_id, "options": {"limit": 1}})
    except CallFailed as failed:
        return _page(visit, one, None, failed.message, 422)
    return visit.go(f"{visit.incoming.path}?{urlencode({'plan_id': answer['values']['plan_id']})}")


async def download(visit: Visit) -> web.StreamResponse:
    """The whole plan, or what was filtered of it, as CSV."""
    one = await _connection(visit)
    if one is None:
        return status.no_connection(visit, visit.request.match_info["list_id"])
    rows = _rows(visit, one)
    first = await anext(rows, b"")  # what is wrong with the plan is said on a page
    more = {
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": f'attachment; filename="preview-{one.list_id}.csv"',
    }
    response = web.StreamResponse(headers={**GUARDS, **HEADERS, **more})
    await response.prepare(visit.request)
    await response.write(first)
    try:
        async for chunk in rows:
            await response.write(chunk)
    except CallFailed as failed:
        log.warning("a preview could not be given to its end", list_id=one.list_id, error=failed.message)
        if visit.request.transport is not None:
            visit.request.transport.abort()  # so that nobody takes a part for the whole
    return response


async def _connection(visit: Visit) -> Connection | None:
    return await find_connection(visit, visit.request.match_info["list_id"])


async def _plan(visit: Visit, one: Connection, limit: int, offset: int) -> dict[str, Any]:
    asked: dict[str, Any] = {"group_id": one.group_id, "plan_id": visit.field("plan_id")}
    asked |= {name: visit.field(name) for name in ("kind", "search") if visit.field(name)}
    asked["options"] = {"limit": limit, "offset": offset}
    plan: dict[str, Any] = (await visit.ask("Mailchimpsync", "plan", asked))["values"]
    return plan


async def _rows(visit: Visit, one: Connection) -> AsyncIterator[bytes]:
    """The lines of the CSV, a page at a time; the first with the names of the columns."""
    offset, head = 0, _csv([COLUMNS])
    while True:
        people = (await _plan(visit, one, CSV_PAGE, offset))["people"]
        yield head + _csv([[harmless(person.get(name)) for name in COLUMNS] for person in people])
        offset, head = offset + len(people), b""
        if len(people) < CSV_PAGE:
            return


def _csv(lines: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode("utf-8", "replace")


def harmless(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _page(
    visit: Visit,
    one: Connection,
    plan: dict[str, Any] | None,
    wrong: str = "",
    status_code: int = 200,
    *,
    offset: int = 0,
) -> web.Response:
    sought = {name: visit.field(name) for name in ("kind", "search")}

    def link(**other: Any) -> str:
        fields = {"plan_id": visit.field("plan_id"), **sought, **other}
        return f"?{urlencode({name: value for name, value in fields.items() if value})}"

    return visit.show(
        "preview.html",
        status_code,
        c=one,
        plan=plan,
        wrong=wrong,
        sought=sought,
        link=link,
        offset=offset,
        size=SHOWN,
        path=status.PATH,
        here=f"{status.PATH}/audience/{one.list_id}/preview",
    )


ROUTES = (("GET", PATH, show), ("POST", PATH, make), ("GET", PATH + ".csv", download))
