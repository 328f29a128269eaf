"""A run at ``/civicrm/mailchimpsync/run/{run_id}``: what it did to whom, its batches and its log; and its undo.

The undo is two steps without a script: a posted form works out what it would do and shows it, with a button that does
it. Both are API calls (``Mailchimpsync.planundo`` and ``undorun``).
"""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from civiapi.http.csv_rows import RUN_COLUMNS, csv_row
from civiapi.ui.core.csv_download import Lines, all_pages, send_csv
from civiapi.ui.core.page import CallFailed, PageRequest, query_link
from civiapi.ui.people.search import person_link
from civiapi.ui.status import pages
from civiapi.ui.status.model import find_connection

PATH = pages.PATH + "/run/{run_id:[0-9]{1,18}}"
PERMISSION = pages.PERMISSION
SHOWN = 25
WORDS = {
    "new_contact": "contact made",
    "join_group": "joined a group",
    "leave_group": "left a group",
    "subscribe": "subscribed",
    "unsubscribe": "unsubscribed",
    "interests": "interests",
    "change_address": "address changed",
    "archive_address": "old address archived",
    "let_go": "member left the contact",
    "hand_over": "handed over",
    "call_back": "reversed",
    "cannot": "cannot be synced",
    "names": "names or merge fields sent",
    "tags": "tags sent",
    "group_out": "out of the group again",
    "group_again": "in the group again",
    "trash_contact": "contact to the trash",
    "unsubscribe_again": "no longer subscribed",
    "subscribe_again": "subscribed again",
    "data_back": "data set back",
    "cancel": "update cancelled",
    "left": "left as it is",
}
"""What people call each kind, in a table."""


async def show(page: PageRequest) -> web.Response:
    """What the run did, filtered, page by page."""
    try:
        run = await _read(page, SHOWN, page.offset)
    except CallFailed as failed:
        return page.message("No such run", failed.message, 404)
    return await _page(page, run)


async def act(page: PageRequest) -> web.Response:
    """Preview the undo, or carry it out (``do`` is ``undo``) and show the undo's own run."""
    run_id = page.request.match_info["run_id"]
    try:
        if page.field("do") == "undo":
            done = await page.api_values("Mailchimpsync", "undorun", {"run_id": run_id})
            return page.redirect(f"{pages.PATH}/run/{done['run_id']}")
        plan = await page.api_values("Mailchimpsync", "planundo", {"run_id": run_id, "options": {"limit": SHOWN}})
    except CallFailed as failed:
        try:
            return await _page(page, await _read(page, SHOWN, 0), wrong=failed.message)
        except CallFailed:
            return page.message("No such run", failed.message, 404)
    return await _page(page, await _read(page, 1, 0), plan=plan)


async def download(page: PageRequest) -> web.StreamResponse:
    """What the run did, filtered or whole, as CSV."""

    async def people(limit: int, offset: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await _read(page, limit, offset))["people"]
        return found

    return await send_csv(page, f"run-{page.request.match_info['run_id']}.csv", all_pages(RUN_COLUMNS, people))


async def download_plan(page: PageRequest) -> web.StreamResponse:
    """What undoing it would do, as CSV."""
    return await send_csv(page, f"undo-of-run-{page.request.match_info['run_id']}.csv", _plan_rows(page))


async def _read(page: PageRequest, limit: int, offset: int) -> dict[str, Any]:
    asked: dict[str, Any] = {"run_id": page.request.match_info["run_id"]}
    asked |= {name: page.field(name) for name in ("kind", "search") if page.field(name)}
    asked["options"] = {"limit": limit, "offset": offset}
    found: dict[str, Any] = await page.api_values("Mailchimpsync", "getrun", asked)
    return found


async def _plan_rows(page: PageRequest) -> AsyncIterator[Lines]:
    asked = {"run_id": page.request.match_info["run_id"], "options": {"limit": 0}}
    plan = await page.api_values("Mailchimpsync", "planundo", asked)
    yield [RUN_COLUMNS, *(csv_row(one, RUN_COLUMNS) for one in plan["people"])]


async def _page(
    page: PageRequest, run: dict[str, Any], *, plan: dict[str, Any] | None = None, wrong: str = ""
) -> web.Response:
    here = f"{pages.PATH}/run/{run['id']}"
    sought = {name: page.field(name) for name in ("kind", "search")}

    return page.render(
        "status/run.html",
        422 if wrong else 200,
        run=run,
        plan=plan,
        c=await find_connection(page, run["list_id"]),
        words=WORDS,
        wrong=wrong,
        sought=sought,
        link=query_link(sought),
        offset=page.offset,
        size=SHOWN,
        person_link=person_link,
        path=pages.PATH,
        here=here,
    )


ROUTES = (
    ("GET", PATH, show),
    ("POST", PATH, act),
    ("GET", PATH + ".csv", download),
    ("GET", PATH + "/undo.csv", download_plan),
)
