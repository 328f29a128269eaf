"""The preview at ``…/audience/{list_id}/preview``: what a sync would do, person by person.

Calculating it may take minutes, so that is a posted form, or the page's script with the same API call
(``Mailchimpsync.plan``); its ``plan_id`` then shows it filtered, page by page, and as CSV.
"""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.http.csv_rows import PLAN_COLUMNS
from civiapi.ui.core.csv_download import all_pages, send_csv
from civiapi.ui.core.page import CallFailed, PageRequest, query_link
from civiapi.ui.people.search import CIVICRM, person_link
from civiapi.ui.status import pages
from civiapi.ui.status.model import ConnectionView, find_connection
from civiapi.ui.status.tiles import ONE, make_tiles

PATH = pages.AUDIENCE + "/preview"
PERMISSION = pages.PERMISSION
SHOWN = 25
NO_PLAN = "No preview is kept: calculate one first."


async def show(page: PageRequest) -> web.Response:
    """The plan with ``plan_id``, or the newest that is kept; without one, the button that calculates it."""
    one = await _connection(page)
    if one is None:
        return pages.no_connection(page, page.request.match_info["list_id"])
    try:
        plan = await _plan(page, one, SHOWN, page.offset)
    except CallFailed as failed:
        return _page(page, one, None, failed.message, 422)
    return _page(page, one, plan or None)


async def calculate(page: PageRequest) -> web.Response:
    """Calculate the plan and redirect to it."""
    one = await _connection(page)
    if one is None:
        return pages.no_connection(page, page.request.match_info["list_id"])
    try:
        asked = {"group_id": one.group_id, "with_data": int(await _sends_data(page, one.list_id))}
        answer = await page.call_api("Mailchimpsync", "plan", {**asked, "options": {"limit": 1}})
    except CallFailed as failed:
        return _page(page, one, None, failed.message, 422)
    return page.redirect(f"{page.incoming.path}?{urlencode({'plan_id': answer['values']['plan_id']})}")


async def download(page: PageRequest) -> web.StreamResponse:
    """The plan, filtered or whole, as CSV."""
    one = await _connection(page)
    if one is None:
        return pages.no_connection(page, page.request.match_info["list_id"])

    async def people(limit: int, offset: int) -> list[dict[str, Any]]:
        plan = await _plan(page, one, limit, offset)
        if not plan:
            raise CallFailed(NO_PLAN, "Mailchimpsync", "plan")
        found: list[dict[str, Any]] = plan["people"]
        return found

    return await send_csv(page, f"preview-{one.list_id}.csv", all_pages(PLAN_COLUMNS, people))


async def _connection(page: PageRequest) -> ConnectionView | None:
    return await find_connection(page, page.request.match_info["list_id"])


async def _plan(page: PageRequest, one: ConnectionView, limit: int, offset: int) -> dict[str, Any]:
    asked: dict[str, Any] = {"group_id": one.group_id, "plan_id": page.field("plan_id"), "kept": 1}
    asked |= {name: page.field(name) for name in ("kind", "search") if page.field(name)}
    asked["options"] = {"limit": limit, "offset": offset}
    plan: dict[str, Any] = await page.api_values("Mailchimpsync", "plan", asked)
    return plan


def _page(
    page: PageRequest,
    one: ConnectionView,
    plan: dict[str, Any] | None,
    wrong: str = "",
    status_code: int = 200,
) -> web.Response:
    sought = {name: page.field(name) for name in ("kind", "search")}
    return page.render(
        "status/preview.html",
        status_code,
        c=one,
        plan=plan,
        tiles=make_tiles(plan["summary"]) if plan else [],
        words=ONE,
        statuses=CIVICRM,
        person_link=person_link,
        wrong=wrong,
        sought=sought,
        link=query_link({"plan_id": plan["plan_id"] if plan else "", **sought}),
        offset=page.offset,
        size=SHOWN,
        path=pages.PATH,
        here=f"{pages.PATH}/audience/{one.list_id}/preview",
    )


async def _sends_data(page: PageRequest, list_id: str) -> bool:
    """Whether runs with data are made of this connection, or will be: it has rules for merge fields."""
    status = (await page.api_values("Mailchimpsync", "getstatus", {"health": 1})).get(list_id) or {}
    data = status.get("data") or {}
    return bool(data.get("last") or data.get("merge_fields"))


ROUTES = (("GET", PATH, show), ("POST", PATH, calculate), ("GET", PATH + ".csv", download))
