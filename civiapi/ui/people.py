"""People at ``/civicrm/mailchimpsync/people``: who is in an audience and its group, sought by either end, page by page.

The search is a call of ``MailchimpsyncCache.get``; a page begins after the id at which the one before ended, so that it
costs the same however far one has got. How many there are in all is asked for by the page's script, afterwards. A form
has those included in the next sync who are ticked, or all that match (``Mailchimpsync.includematching``).
"""

from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.config_view import Stored, read_stored
from civiapi.ui.visit import CallFailed, Visit

PATH = "/civicrm/mailchimpsync/people"
PERSON = "/civicrm/mailchimpsync/person"
PERMISSION = "administer CiviCRM"
PAGE = 25
MOST_CONTACTS = 200  # found by a name or an address, before one is asked to say more of it
NOBODY = [0]

MAILCHIMP = {
    "subscribed": "subscribed",
    "pending": "pending: has to confirm",
    "unsubscribed": "unsubscribed",
    "cleaned": "cleaned: the address bounced",
    "transactional": "transactional: never subscribed",
    "archived": "archived",
    "none": "not at Mailchimp",
}
CIVICRM = {
    "Added": "in the group",
    "Removed": "left the group",
    "Pending": "pending",
    "none": "never in the group",
}
SYNC = {
    "ok": "in step",
    "todo": "to be looked at",
    "live": "under way",
    "redo": "to be done again",
    "fail": "failed",
}
STATUSES = {"mailchimp_status": MAILCHIMP, "civicrm_status": CIVICRM, "sync_status": SYNC}


@dataclass(frozen=True, slots=True)
class Search:
    """What is sought, as it stands in the address of the page."""

    list_id: str = ""
    address: str = ""
    contact: str = ""
    mailchimp_status: str = ""
    civicrm_status: str = ""
    sync_status: str = ""
    why: str = ""

    @classmethod
    def of(cls, visit: Visit) -> "Search":
        """The search in a request; without an audience, that of the first connection is sought later."""
        return cls(**{one.name: visit.field(one.name).strip() for one in fields(cls)})

    @property
    def is_narrow(self) -> bool:
        """Whether anything besides the audience is asked for."""
        return any(getattr(self, one.name) for one in fields(self) if one.name != "list_id")

    def link(self, **more: Any) -> str:
        """The address of this search, with *more* in it."""
        asked = {one.name: getattr(self, one.name) for one in fields(self)} | more
        return f"{PATH}?{urlencode({name: value for name, value in asked.items() if value not in ('', None)})}"


async def index(visit: Visit) -> web.Response:
    """A page of those who match."""
    stored, search = await _sought(visit)
    if not search.list_id:
        return visit.show("people_none.html")
    return await _show(visit, stored, search)


async def change(visit: Visit) -> web.Response:
    """Have those who are ticked (``row[]``), or ``all`` that match, included in the next sync."""
    stored, search = await _sought(visit)
    rows = visit.incoming.fields.get("row")
    ticked = rows if isinstance(rows, list) else []
    try:
        wanted = await filters(visit, search) if visit.field("all") else {"cache_id": {"IN": ticked}}
        if not visit.field("all") and not ticked:
            return await _show(visit, stored, search, "Tick whom to include first.", 422)
        asked = {**wanted, "mailchimp_list_id": search.list_id}
        found = (await visit.ask("Mailchimpsync", "includematching", asked))["values"]
    except CallFailed as failed:
        return await _show(visit, stored, search, failed.message, 422)
    place = {name: visit.field(name) for name in ("after", "before")}
    return visit.go(search.link(included=found["matched"], **place))


async def filters(visit: Visit, search: Search) -> dict[str, Any]:
    """The search as parameters of ``MailchimpsyncCache.get``. Raises ``CallFailed``."""
    asked: dict[str, Any] = {"mailchimp_list_id": search.list_id}
    for name in STATUSES:
        value = getattr(search, name)
        several = value.split(",")
        if value:
            asked[name] = {"IS NULL": 1} if value == "none" else {"IN": several} if len(several) > 1 else value
    if search.why:
        asked["why_failed"] = {"LIKE": f"%{search.why}%"}
        asked["sync_status"] = "fail"
    if search.address:
        asked["mailchimp_email"] = {"LIKE": beginning(search.address)}
    if search.contact:
        asked["civicrm_contact_id"] = await _contacts(visit, search.contact)
    elif search.address:
        asked["civicrm_contact_id"] = {"IN": await _owners(visit, search.address) or NOBODY}
        asked["options"] = {"or": [["mailchimp_email", "civicrm_contact_id"]]}
    return asked


def beginning(text: str) -> str:
    """The LIKE pattern of what begins so; ``*`` stands for anything."""
    return f"{text.replace('*', '%')}%"


async def _contacts(visit: Visit, text: str) -> Any:
    """Contacts by their id, or by how a name of theirs begins: ``Ada``, ``Byron``, ``Byron, Ada`` or ``Ada Byron``."""
    if text.isascii() and text.isdigit():
        return text
    sought = [("sort_name", text), ("first_name", text)]
    first, _, last = text.rpartition(" ")
    if first and "," not in text:
        sought.append(("sort_name", f"{last}*, {first.strip()}"))
    found: set[str] = set()
    for name, begins in sought:  # one by one: Contact.get knows no OR. The trash, too: who is there is in no audience
        asked = {name: {"LIKE": beginning(begins)}, "return": ["id"], "sequential": 1, "showAll": "all"}
        rows = (await visit.ask("Contact", "get", {**asked, "options": {"limit": MOST_CONTACTS}}))["values"]
        found |= {row["id"] for row in rows}
    return {"IN": sorted(found) or NOBODY}


async def _owners(visit: Visit, text: str) -> list[str]:
    """Contacts with an address in CiviCRM that begins so."""
    asked = {"email": {"LIKE": beginning(text)}, "return": ["contact_id"], "sequential": 1}
    found = (await visit.ask("Email", "get", {**asked, "options": {"limit": MOST_CONTACTS}}))["values"]
    return sorted({row["contact_id"] for row in found if row.get("contact_id")})


async def _sought(visit: Visit) -> tuple[Stored, Search]:
    stored, search = await read_stored(visit), Search.of(visit)
    if search.list_id or not stored.lists:
        return stored, search
    return stored, replace(search, list_id=next(iter(stored.lists)))


async def _show(visit: Visit, stored: Stored, search: Search, wrong: str = "", status: int = 200) -> web.Response:
    after, before = visit.field("after"), visit.field("before")
    asked: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    try:
        asked = await filters(visit, search)
        rows = await _page(visit, asked, after, before)
    except CallFailed as failed:
        wrong, status = failed.message, 422
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if before:
        rows.reverse()
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return visit.show(
        "people.html",
        status,
        search=search,
        audiences=[(one.id, one.name) for account in stored.accounts for one in account.linked],
        statuses=STATUSES,
        rows=rows,
        addresses=await _addresses(visit, rows),
        asked=asked,
        newer=search.link(before=first) if first and (after or (before and more)) else None,
        older=search.link(after=last) if last and (more if not before else True) else None,
        included=visit.field("included") if visit.incoming.is_get else "",
        after=after,
        before=before,
        wrong=wrong,
        person=_person_link,
        path=PATH,
    )


async def _page(visit: Visit, asked: dict[str, Any], after: str, before: str) -> list[dict[str, Any]]:
    """Up to a page of rows and one more, which says that there are more; backwards for the page *before* a row."""
    place: dict[str, Any] = {"id": {">": after}} if after else {}
    if before:
        place = {"id": {"<": before}, "backwards": 1}
    found: dict[str, dict[str, Any]] = {}
    for part in _parts(asked):
        params = {**part, **place, "options": {"limit": PAGE + 1}, "troubleshoot": 1}
        rows = (await visit.ask("MailchimpsyncCache", "get", params))["values"]
        found |= {row["id"]: row for row in rows}
    return [found[key] for key in sorted(found, key=int, reverse=bool(before))][: PAGE + 1]


def _parts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The search in parts none of which has an OR, which a database answers by reading the whole audience."""
    if "options" not in asked:
        return [asked]
    [either] = asked["options"]["or"]
    return [
        {name: value for name, value in asked.items() if name not in {*either, "options"} - {one}} for one in either
    ]


async def _addresses(visit: Visit, rows: list[dict[str, Any]]) -> dict[str, str]:
    """CiviCRM's primary addresses of the contacts whom Mailchimp does not know, by contact id."""
    ids = [str(row["civicrm_contact_id"]) for row in rows if row["civicrm_contact_id"] and not row["mailchimp_email"]]
    if not ids:
        return {}
    asked = {"contact_id": {"IN": ids}, "is_primary": 1, "return": ["contact_id", "email"], "sequential": 1}
    found = (await visit.ask("Email", "get", {**asked, "options": {"limit": 0}}))["values"]
    return {row["contact_id"]: row["email"] for row in found if row.get("email")}


def _person_link(row: dict[str, Any]) -> str:
    """The page of the person in a row."""
    contact_id = row["civicrm_contact_id"]
    who = {"contact_id": contact_id} if contact_id else {"email": row["mailchimp_email"]}
    return f"{PERSON}?{urlencode(who)}"


ROUTES = (("GET", PATH, index), ("POST", PATH, change))
