"""The status page at ``/civicrm/mailchimpsync``: every connection of a group with an audience, and one in full."""

from typing import Any

from aiohttp import web

from civiapi.ui import charts, parts
from civiapi.ui.connections import Connection, find_connection, read_connections, read_runs
from civiapi.ui.visit import Visit

PATH = parts.PATH
AUDIENCE = PATH + "/audience/{list_id}"
PERMISSION = "administer CiviCRM"
RUNS_SHOWN = 20
DAYS_SHOWN = 90
LEAST_DAYS = 14
MEMBERS = {"mailchimp": "At Mailchimp", "civicrm": "In CiviCRM’s group"}
JOINED = {"joined_civicrm": "Put into the group", "joined_mailchimp": "Subscribed at Mailchimp"}
LEFT = {"left_civicrm": "Taken out of the group", "left_mailchimp": "Unsubscribed at Mailchimp"}
SHORT = {
    "mailchimp": "At Mailchimp",
    "civicrm": "In group",
    "joined_civicrm": "Into group",
    "left_civicrm": "Out of group",
    "joined_mailchimp": "Subscribed",
    "left_mailchimp": "Unsubscribed",
}


async def index(visit: Visit) -> web.Response:
    """Every connection."""
    found = await read_connections(visit)
    cards = [(one, parts.card(visit.request, one)) for one in found]
    return visit.show("status_index.html", cards=cards, path=PATH, now=_now(found))


async def show(visit: Visit) -> web.Response:
    """One connection: balance, progress, runs, batches, charts, and the buttons."""
    list_id = visit.request.match_info["list_id"]
    one = await read_whole(visit, list_id)
    if one is None:
        return no_connection(visit, list_id)
    asked = {"group_id": one.group_id, "days": DAYS_SHOWN}
    days = _since_known((await visit.ask("Mailchimpsync", "getdaily", asked))["values"])
    return visit.show(
        "status_audience.html",
        c=one,
        parts=parts.page_parts(visit.request, one),
        path=PATH,
        now=parts.spoken(one),
        days=days,
        members=charts.draw_lines(days, tuple(MEMBERS)),
        changes=charts.draw_bars(days, tuple(JOINED), tuple(LEFT)),
        words={**MEMBERS, **JOINED, **LEFT},
        told=[day for day in days if _is_told(day)],
        short=SHORT,
        any_number=any(day.get(name) is not None for day in days for name in MEMBERS),
        any_change=any(day.get(name) for day in days for name in (*JOINED, *LEFT)),
    )


def _is_told(day: dict[str, Any]) -> bool:
    return day.get("mailchimp") is not None or any(day.get(name) for name in (*JOINED, *LEFT))


def _since_known(days: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The days from the first of which something is known, and in any case the last few."""
    first = next((index for index, day in enumerate(days) if _is_told(day)), len(days))
    return days[max(min(first, len(days) - LEAST_DAYS), 0) :]


async def read_whole(visit: Visit, list_id: str) -> Connection | None:
    """A connection with all that its own page shows live."""
    one = await find_connection(visit, list_id)
    if one is not None:
        one.runs = await read_runs(visit, one.group_id, RUNS_SHOWN)
        one.batches = await _batches(visit, list_id)
    return one


async def _batches(visit: Visit, list_id: str) -> list[dict[str, Any]]:
    """Batches whose results are not in yet, oldest first; what was called off is not in flight."""
    asked = {
        "mailchimp_list_id": list_id,
        "response_processed": {"IN": [0, 1]},
        "sequential": 1,
        "options": {"limit": 25, "sort": "id"},
    }
    found = (await visit.ask("MailchimpsyncBatch", "get", asked))["values"]
    return [one for one in found if one.get("status") not in ("aborted", "aborting")]


def no_connection(visit: Visit, list_id: str) -> web.Response:
    """What is said of an audience that is linked with no group."""
    text = f"No group is linked with an audience {list_id[:64]}. The status page lists those that are."
    return visit.say("Not connected", text, 404)


def _now(found: list[Connection]) -> str:
    return " ".join(parts.spoken(one) for one in found if one.is_running)


ROUTES = (("GET", PATH, index), ("GET", AUDIENCE, show))
