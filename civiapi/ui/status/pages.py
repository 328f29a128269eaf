"""The status pages at ``/civicrm/mailchimpsync``: all connections, and one connection in full."""

from typing import Any

from aiohttp import web

from civiapi.ui.core.page import PageRequest
from civiapi.ui.people.contact_import import form_if_empty
from civiapi.ui.status import charts, fragments
from civiapi.ui.status.model import (
    ConnectionView,
    find_connection,
    read_alerts,
    read_connections,
    read_failures,
    read_runs,
)

PATH = fragments.PATH
AUDIENCE = PATH + "/audience/{list_id}"
PERMISSION = "administer CiviCRM"
RUNS_SHOWN = 20
DAYS_SHOWN = 90
MEMBERS = {"mailchimp": "At Mailchimp", "civicrm": "In the CiviCRM group"}
JOINED = {"joined_civicrm": "Added to the group", "joined_mailchimp": "Subscribed at Mailchimp"}
LEFT = {"left_civicrm": "Removed from the group", "left_mailchimp": "Unsubscribed at Mailchimp"}
SHORT = {
    "mailchimp": "At Mailchimp",
    "civicrm": "In group",
    "joined_civicrm": "Joined group",
    "left_civicrm": "Left group",
    "joined_mailchimp": "Subscribed",
    "left_mailchimp": "Unsubscribed",
}


async def index(page: PageRequest) -> web.Response:
    """All connections, and the open alerts."""
    found = await read_connections(page)
    cards = [(one, fragments.card(page.request, one)) for one in found]
    alerts = fragments.alerts(page.request, await read_alerts(page, found))
    importing = {"importing": None} if found else await form_if_empty(page)
    return page.render("status/index.html", cards=cards, alerts=alerts, path=PATH, now=_now(found), **importing)


async def show(page: PageRequest) -> web.Response:
    """One connection: balance, progress, runs, batches, charts, and the buttons."""
    list_id = page.request.match_info["list_id"]
    one = await read_connection(page, list_id)
    if one is None:
        return no_connection(page, list_id)
    asked = {"group_id": one.group_id, "days": DAYS_SHOWN}
    days = _since_known(await page.api_values("Mailchimpsync", "getdaily", asked))
    return page.render(
        "status/audience.html",
        c=one,
        parts=fragments.page_parts(page.request, one),
        path=PATH,
        now=fragments.announcement(one),
        failures=await read_failures(page, one),
        days=days,
        members=charts.draw_lines(days, tuple(MEMBERS)),
        changes=charts.draw_bars(days, tuple(JOINED), tuple(LEFT)),
        labels={**MEMBERS, **JOINED, **LEFT},
        table_days=[day for day in days if _has_numbers(day)],
        short=SHORT,
        any_number=any(day.get(name) is not None for day in days for name in MEMBERS),
        any_change=any(day.get(name) for day in days for name in (*JOINED, *LEFT)),
    )


def _has_numbers(day: dict[str, Any]) -> bool:
    return day.get("mailchimp") is not None or any(day.get(name) for name in (*JOINED, *LEFT))


def _since_known(days: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The days from the first with numbers on."""
    first = next((index for index, day in enumerate(days) if _has_numbers(day)), len(days) - 1)
    return days[first:]


async def read_connection(page: PageRequest, list_id: str) -> ConnectionView | None:
    """A connection with its runs and batches."""
    one = await find_connection(page, list_id)
    if one is not None:
        one.runs = await read_runs(page, one.group_id, RUNS_SHOWN)
        one.batches = await _batches(page, list_id)
    return one


async def _batches(page: PageRequest, list_id: str) -> list[dict[str, Any]]:
    """Batches in flight, oldest first; cancelled ones are not."""
    asked = {
        "mailchimp_list_id": list_id,
        "response_processed": {"IN": [0, 1]},
        "options": {"limit": 25, "sort": "id"},
    }
    found = await page.rows("MailchimpsyncBatch", asked)
    return [one for one in found if one["status"] not in ("aborted", "aborting")]


def no_connection(page: PageRequest, list_id: str) -> web.Response:
    """The answer for an audience that is not linked with a group."""
    text = f"No group is linked with audience {list_id[:64]}. The status page lists the linked audiences."
    return page.message("Not connected", text, 404)


def _now(found: list[ConnectionView]) -> str:
    return " ".join(fragments.announcement(one) for one in found if one.is_running)


ROUTES = (("GET", PATH, index), ("GET", AUDIENCE, show))
