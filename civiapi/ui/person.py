"""One person at ``/civicrm/mailchimpsync/person``: where they stand at both ends, and what the next sync will do.

Shows what ``Mailchimpsync.explain`` says of a contact (``contact_id``) or an address (``email``), in every connection.
"""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.config import group_titles
from civiapi.ui.config_view import read_stored
from civiapi.ui.people import PERSON
from civiapi.ui.visit import CallFailed, Visit

PATH = PERSON
PERMISSION = "administer CiviCRM"
DONE = {
    "synced": "This person was looked up at Mailchimp and brought into step; below is how they stand now.",
    "included": "This person is included in the next Mailchimp sync.",
    "nobody": "There is nothing to include: the sync knows nobody by this name yet.",
}


async def index(visit: Visit) -> web.Response:
    """The person."""
    return await _show(visit)


async def change(visit: Visit) -> web.Response:
    """A posted form: ``do`` is ``sync`` (in the connection ``group_id``) or ``include``."""
    do, whom = visit.field("do"), _whom(visit)
    try:
        if do == "sync":
            await visit.ask("Mailchimpsync", "syncmember", {**whom, "group_id": visit.field("group_id")})
            done = "synced"
        elif do == "include":
            done = "included" if await _include(visit, whom) else "nobody"
        else:
            return await _show(visit, "This form is not one of ours.", 400)
    except CallFailed as failed:
        return await _show(visit, failed.message, 422)
    return visit.go(f"{PATH}?{urlencode({**whom, 'done': done})}")


async def _include(visit: Visit, whom: dict[str, str]) -> bool:
    """Have the next sync look at the person; False where there is no row to look at."""
    rows = [one["cache"] for one in await _explain(visit, whom) if one["cache"]]
    affected = 0
    for row in rows:
        asked = {"mailchimp_list_id": row["mailchimp_list_id"], "cache_id": row["id"]}
        affected += (await visit.ask("Mailchimpsync", "includematching", asked))["values"]["matched"]
    return affected > 0


async def _explain(visit: Visit, whom: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await visit.ask("Mailchimpsync", "explain", whom))["values"]
    return found


def _whom(visit: Visit) -> dict[str, str]:
    """Who is meant, as the calls take it."""
    return {name: value for name in ("contact_id", "email") if (value := visit.field(name).strip())}


async def _show(visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
    whom = _whom(visit)
    entries: list[dict[str, Any]] = []
    if whom:
        entries = await _explain(visit, whom)
    stored = await read_stored(visit)
    interests = {key: name for one in stored.accounts for a in one.audiences for key, name in a.interests.items()}
    wanted = {str(word["group_id"]) for one in entries for word in (*one["history"], *one["interests"])}
    names = [one["display_name"] for one in entries if one["display_name"]]
    return visit.show(
        "person.html",
        status,
        whom=whom,
        entries=entries,
        name=next(iter(names), "") or whom.get("email") or f"Contact {whom.get('contact_id')}",
        addresses=sorted({one["email"] for one in entries if one["email"]}),
        contacts=sorted({one["contact_id"] for one in entries if one["contact_id"]}),
        groups=await group_titles(visit, wanted),
        interests=interests,
        wrong=wrong,
        done=DONE.get(visit.field("done"), "") if visit.incoming.is_get else "",
        path=PATH,
    )


ROUTES = (("GET", PATH, index), ("POST", PATH, change))
