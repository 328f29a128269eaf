"""Campaigns of a connection at ``/civicrm/mailchimpsync/audience/LIST/campaigns``: what was imported, and a button."""

from urllib.parse import urlencode

from aiohttp import web

from civiapi.runtime.wording import many
from civiapi.ui.core.page import CallFailed, PageRequest
from civiapi.ui.status.model import find_connection
from civiapi.ui.status.pages import AUDIENCE, no_connection

PATH = AUDIENCE + "/campaigns"
PERMISSION = "administer CiviCRM"
SHOWN = 25


async def change(page: PageRequest) -> web.Response:
    """The posted form: import what is not known yet, with opens and clicks if ``with_figures`` is ticked."""
    one = await find_connection(page, page.request.match_info["list_id"])
    if one is None:
        return no_connection(page, page.request.match_info["list_id"])
    asked = {"group_id": one.group_id, "with_figures": int(bool(page.field("with_figures"))), "max_time": 60}
    try:
        [done] = await page.api_values("Mailchimpsync", "importcampaigns", asked)
    except CallFailed as failed:
        return await index(page, failed.message, 422)
    query = urlencode({"outcome": done["outcome"], "count": done["campaigns"]})
    return page.redirect(f"{page.incoming.path}?{query}")


async def index(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """The imported campaigns, newest first, ``offset`` of them passed over; *wrong*: why an import failed."""
    list_id = page.request.match_info["list_id"]
    one = await find_connection(page, list_id)
    if one is None:
        return no_connection(page, list_id)
    offset = page.offset
    asked = {"group_id": one.group_id, "options": {"limit": SHOWN + 1, "offset": offset}}
    found = await page.api_values("Mailchimpsync", "getcampaigns", asked)
    return page.render(
        "status/campaigns.html",
        status,
        c=one,
        last=one.campaigns,
        campaigns=found[:SHOWN],
        older=offset + SHOWN if len(found) > SHOWN else None,
        newer=max(0, offset - SHOWN) if offset else None,
        wrong=wrong,
        done=_done(page) if page.incoming.is_get else "",
    )


def _done(page: PageRequest) -> str:
    """What the import that was started on this page did, in a sentence."""
    count = page.number("count")
    imported = "" if count is None else f"Imported: {many(count, 'campaign')}."
    return {
        "finished": imported,
        "paused": f"{imported} The time is up; press the button again to continue.",
        "busy": "Another import is at work.",
    }.get(page.field("outcome"), "")


ROUTES = (("GET", PATH, index), ("POST", PATH, change))
