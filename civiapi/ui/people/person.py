"""One person at ``/civicrm/mailchimpsync/person``: status on both sides, and what the next sync will do.

Shows ``Mailchimpsync.explain`` for a contact (``contact_id``) or an address (``email``), for every connection.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.config.model import StoredConfig, group_titles, read_stored
from civiapi.ui.core.page import CallFailed, PageRequest
from civiapi.ui.people.search import PERSON, STATUSES
from sync.reports.people.causes import label_of

PATH = PERSON
PERMISSION = "administer CiviCRM"
DATA_CENTRE = re.compile(r"[a-z]{2}\d{1,3}", re.ASCII)
CAMPAIGNS_SHOWN = 10
DONE = {
    "synced": "This person was synced; the current status is shown below.",
    "included": "This person is included in the next Mailchimp sync.",
    "nobody": "Nothing to include: the sync has no row for this person yet.",
}


async def change(page: PageRequest) -> web.Response:
    """A posted form: ``do`` is ``sync`` (in the connection ``group_id``) or ``include``."""
    do, person = page.field("do"), _person_params(page)
    try:
        if do == "sync":
            await page.call_api("Mailchimpsync", "syncmember", {**person, "group_id": page.field("group_id")})
            done = "synced"
        elif do == "include":
            done = "included" if await _include(page, person) else "nobody"
        else:
            return await index(page, "Unknown action.", 400)
    except CallFailed as failed:
        return await index(page, failed.message, 422)
    return page.redirect(f"{PATH}?{urlencode({**person, 'done': done})}")


async def _include(page: PageRequest, person: dict[str, str]) -> bool:
    """Requeue the rows of the person for the next sync; False if there are none."""
    rows = [one["cache"] for one in await _explain(page, person) if one["cache"]]
    affected = 0
    for row in rows:
        asked = {"mailchimp_list_id": row["mailchimp_list_id"], "cache_id": row["id"]}
        affected += (await page.api_values("Mailchimpsync", "includematching", asked))["matched"]
    return affected > 0


async def _explain(page: PageRequest, person: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.api_values("Mailchimpsync", "explain", person)
    return found


def _person_params(page: PageRequest) -> dict[str, str]:
    """The parameters of the API calls that name the person."""
    return {name: value for name in ("contact_id", "email") if (value := page.field(name).strip())}


async def index(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """The person; *wrong*: the message of a form that failed."""
    person = _person_params(page)
    entries: list[dict[str, Any]] = []
    if person:
        entries = await _explain(page, person)
    stored = await read_stored(page)
    interests = {key: name for one in stored.accounts for a in one.audiences for key, name in a.interests.items()}
    wanted = {
        str(entry["group_id"]) for one in entries for entry in (*one["history"], *one["interests"], *one["permissions"])
    } - {"None"}
    contacts = sorted({one["contact_id"] for one in entries if one["contact_id"]})
    names = [one["display_name"] for one in entries if one["display_name"]]
    return page.render(
        "people/person.html",
        status,
        person=person,
        entries=entries,
        name=next(iter(names), "") or person.get("email") or f"Contact {person.get('contact_id')}",
        addresses=sorted({one["email"] for one in entries if one["email"]}),
        contacts=contacts,
        campaigns=[one for contact_id in contacts for one in await _campaigns(page, contact_id)],
        groups=await group_titles(page, wanted),
        interests=interests,
        statuses=STATUSES,
        reason=label_of,
        contact_url=page.site.server.civicrm_contact_url,
        member_url=_member_url(stored),
        wrong=wrong,
        done=DONE.get(page.field("done"), "") if page.incoming.is_get else "",
        path=PATH,
    )


async def _campaigns(page: PageRequest, contact_id: int) -> list[dict[str, Any]]:
    """The last campaigns that a contact was sent."""
    asked = {"contact_id": contact_id, "options": {"limit": CAMPAIGNS_SHOWN}}
    found: list[dict[str, Any]] = await page.api_values("Mailchimpsync", "getcampaigns", asked)
    return found


def _member_url(stored: StoredConfig) -> Callable[[str, str], str]:
    """What gives the URL where Mailchimp finds a member, by list id and address; empty for an unknown data centre."""

    def find(list_id: str, address: str) -> str:
        found = stored.find_audience(list_id)
        centre = found[0].ending.rpartition("-")[2] if found and "-" in found[0].ending else ""
        if not DATA_CENTRE.fullmatch(centre) or not address:
            return ""
        return f"https://{centre}.admin.mailchimp.com/search/?{urlencode({'query': address})}"

    return find


ROUTES = (("GET", PATH, index), ("POST", PATH, change))
