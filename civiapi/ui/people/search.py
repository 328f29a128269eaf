"""People at ``/civicrm/mailchimpsync/people``: search in an audience and its group, and requeue the people found.

The search is ``MailchimpsyncCache.get`` with keyset paging: a page begins after the last id of the one before, so every
page costs the same. The page's script asks for the total afterwards. A form includes the selected rows, or all that
match, in the next sync (``Mailchimpsync.includematching``).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.http.csv_rows import safe_cell
from civiapi.ui.config.model import StoredConfig, read_stored
from civiapi.ui.core.csv_download import CSV_PAGE, Lines, send_csv
from civiapi.ui.core.page import CallFailed, PageRequest
from civiapi.ui.people.contact_import import form_if_empty
from sync.model import GroupStatus, MemberStatus, SyncStatus
from sync.reports.people.causes import label_of

PATH = "/civicrm/mailchimpsync/people"
PERSON = "/civicrm/mailchimpsync/person"
PERMISSION = "administer CiviCRM"
PAGE = 25
COLUMNS = ("contact_id", "name", "email", "mailchimp_status", "civicrm_status", "sync_status", "reason")
MAX_CONTACTS = 200  # contacts taken into account for a name or an address
NO_CONTACTS = [0]  # matches no contact

MAILCHIMP = {
    MemberStatus.SUBSCRIBED: "subscribed",
    MemberStatus.PENDING: "pending: not yet confirmed",
    MemberStatus.UNSUBSCRIBED: "unsubscribed",
    MemberStatus.CLEANED: "cleaned: the address bounced",
    MemberStatus.TRANSACTIONAL: "transactional: never subscribed",
    MemberStatus.ARCHIVED: "archived",
    "none": "not at Mailchimp",
}
CIVICRM = {
    GroupStatus.ADDED: "in the group",
    GroupStatus.REMOVED: "left the group",
    GroupStatus.PENDING: "pending",
    "none": "never in the group",
}
SYNC = {
    SyncStatus.OK: "in sync",
    SyncStatus.TODO: "queued",
    SyncStatus.LIVE: "in flight",
    SyncStatus.REDO: "to be retried",
    SyncStatus.FAIL: "failed",
}
STATUSES = {"mailchimp_status": MAILCHIMP, "civicrm_status": CIVICRM, "sync_status": SYNC}


@dataclass(frozen=True, slots=True)
class Search:
    """The search, as in the URL of the page."""

    list_id: str = ""
    q: str = ""
    address: str = ""
    contact: str = ""
    mailchimp_status: str = ""
    civicrm_status: str = ""
    sync_status: str = ""
    why: str = ""
    cause: str = ""
    not_to_be_mailed: str = ""
    permission: str = ""

    @classmethod
    def of(cls, page: PageRequest) -> "Search":
        """The search in a request."""
        return cls(**{one.name: page.field(one.name).strip() for one in fields(cls)})

    @property
    def is_narrow(self) -> bool:
        """Whether anything besides the audience is given; the page's template asks."""
        return any(getattr(self, one.name) for one in fields(self) if one.name != "list_id")

    def link(self, **more: Any) -> str:
        """The URL of this search, with *more* in it."""
        asked = {one.name: getattr(self, one.name) for one in fields(self)} | more
        return f"{PATH}?{urlencode({name: value for name, value in asked.items() if value not in ('', None)})}"


async def index(page: PageRequest) -> web.Response:
    """A page of the people that match."""
    stored, search = await _read_search(page)
    if not search.list_id:
        return page.render("people/none.html", **await form_if_empty(page))
    return await _show(page, stored, search)


async def change(page: PageRequest) -> web.Response:
    """Include the selected rows (``row[]``), or ``all`` that match, in the next sync."""
    stored, search = await _read_search(page)
    rows = page.incoming.fields.get("row")
    ticked = rows if isinstance(rows, list) else []
    try:
        wanted = await filters(page, search) if page.field("all") else {"cache_id": {"IN": ticked}}
        if not page.field("all") and not ticked:
            return await _show(page, stored, search, "Select the people to include first.", 422)
        asked = {**wanted, "mailchimp_list_id": search.list_id}
        found = await page.api_values("Mailchimpsync", "includematching", asked)
    except CallFailed as failed:
        return await _show(page, stored, search, failed.message, 422)
    cursor = {name: page.field(name) for name in ("after", "before")}
    return page.redirect(search.link(included=found["matched"], **cursor))


async def filters(page: PageRequest, search: Search) -> dict[str, Any]:
    """The search as parameters of ``MailchimpsyncCache.get``. Raises ``CallFailed``."""
    asked: dict[str, Any] = {"mailchimp_list_id": search.list_id}
    for name in STATUSES:
        value = getattr(search, name)
        several = value.split(",")
        if value:
            asked[name] = {"IS NULL": 1} if value == "none" else {"IN": several} if len(several) > 1 else value
    if search.why:
        asked["why_failed"] = {"LIKE": f"%{search.why}%"}
        asked["sync_status"] = SyncStatus.FAIL
    if search.cause:
        asked["cause"] = search.cause
    if search.permission:
        asked["permissions"] = {"LIKE": f"%{''.join(filter(str.isalnum, search.permission))}%"}
    if search.not_to_be_mailed:
        asked["not_to_be_mailed"] = 1
    if search.q.isascii() and search.q.isdigit():
        asked["civicrm_contact_id"] = search.q
    elif search.q:
        owners = await _owners(page, search.q)
        named = (await _contacts(page, search.q))["IN"] if "@" not in search.q else []
        found = {one for one in (*owners, *named) if one not in NO_CONTACTS}
        asked["civicrm_contact_id"] = {"IN": sorted(found) or NO_CONTACTS}
        asked["mailchimp_email"] = {"LIKE": beginning(search.q)}
        asked["options"] = {"or": [["mailchimp_email", "civicrm_contact_id"]]}
    elif search.address:
        asked["mailchimp_email"] = {"LIKE": beginning(search.address)}
    if search.q:
        return asked
    if search.contact:
        asked["civicrm_contact_id"] = await _contacts(page, search.contact)
    elif search.address:
        asked["civicrm_contact_id"] = {"IN": await _owners(page, search.address) or NO_CONTACTS}
        asked["options"] = {"or": [["mailchimp_email", "civicrm_contact_id"]]}
    return asked


def beginning(text: str) -> str:
    """The LIKE pattern of a prefix; ``*`` matches anything."""
    return f"{text.replace('*', '%')}%"


async def _contacts(page: PageRequest, text: str) -> Any:
    """Contacts by id, or by the beginning of a name: ``Ada``, ``Byron``, ``Byron, Ada`` or ``Ada Byron``."""
    if text.isascii() and text.isdigit():
        return text
    criteria = [("sort_name", text), ("first_name", text)]
    first, _, last = text.rpartition(" ")
    if first and "," not in text:
        criteria.append(("sort_name", f"{last}*, {first.strip()}"))
    found: set[str] = set()
    for name, begins in criteria:  # one by one: Contact.get has no OR; deleted contacts too
        asked = {name: {"LIKE": beginning(begins)}, "return": ["id"], "sequential": 1, "showAll": "all"}
        rows = await page.api_values("Contact", "get", {**asked, "options": {"limit": MAX_CONTACTS}})
        found |= {row["id"] for row in rows}
    return {"IN": sorted(found) or NO_CONTACTS}


async def _owners(page: PageRequest, text: str) -> list[str]:
    """Contacts with an address in CiviCRM that begins with *text*."""
    asked = {"email": {"LIKE": beginning(text)}, "return": ["contact_id"], "sequential": 1}
    found = await page.api_values("Email", "get", {**asked, "options": {"limit": MAX_CONTACTS}})
    return sorted({row["contact_id"] for row in found if row.get("contact_id")})


async def _read_search(page: PageRequest) -> tuple[StoredConfig, Search]:
    stored, search = await read_stored(page), Search.of(page)
    if search.list_id or not stored.lists:
        return stored, search
    return stored, replace(search, list_id=next(iter(stored.lists)))


async def _show(
    page: PageRequest, stored: StoredConfig, search: Search, wrong: str = "", status: int = 200
) -> web.Response:
    after, before = page.field("after"), page.field("before")
    asked: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    try:
        asked = await filters(page, search)
        rows = await _page(page, asked, after, before)
    except CallFailed as failed:
        wrong, status = failed.message, 422
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if before:
        rows.reverse()
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return page.render(
        "people/search.html",
        status,
        search=search,
        audiences=[(one.id, one.name) for account in stored.accounts for one in account.linked],
        statuses=STATUSES,
        permissions=await _permissions(page, stored, search.list_id),
        rows=rows,
        addresses=await _addresses(page, rows),
        asked=asked,
        newer=search.link(before=first) if first and (after or (before and more)) else None,
        older=search.link(after=last) if last and (more if not before else True) else None,
        included=page.field("included") if page.incoming.is_get else "",
        after=after,
        before=before,
        wrong=wrong,
        person_link=person_link,
        reason=label_of,
        path=PATH,
    )


async def _permissions(page: PageRequest, stored: StoredConfig, list_id: str) -> list[dict[str, str]]:
    """The marketing permissions of the audience."""
    found = stored.find_audience(list_id)
    link = found[1].connection if found is not None else None
    if link is None:
        return []
    known: list[dict[str, str]] = await page.api_values("Mailchimpsync", "getpermissions", {"group_id": link.group_id})
    return known


async def _page(
    page: PageRequest, asked: dict[str, Any], after: str, before: str, size: int = PAGE
) -> list[dict[str, Any]]:
    """A page of rows and one more, which shows that there are more; backwards for the page *before* a row."""
    place: dict[str, Any] = {"id": {">": after}} if after else {}
    if before:
        place = {"id": {"<": before}, "backwards": 1}
    found: dict[str, dict[str, Any]] = {}
    for part in _parts(asked):
        params = {**part, **place, "options": {"limit": size + 1}, "troubleshoot": 1}
        rows = await page.api_values("MailchimpsyncCache", "get", params)
        found |= {row["id"]: row for row in rows}
    return [found[key] for key in sorted(found, key=int, reverse=bool(before))][: size + 1]


def _parts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The search as parts without OR: with one, the database would scan the whole audience."""
    if "options" not in asked:
        return [asked]
    [either] = asked["options"]["or"]
    return [
        {name: value for name, value in asked.items() if name not in {*either, "options"} - {one}} for one in either
    ]


async def _addresses(page: PageRequest, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Primary addresses in CiviCRM of the contacts that are not members, by contact id."""
    ids = [str(row["civicrm_contact_id"]) for row in rows if row["civicrm_contact_id"] and not row["mailchimp_email"]]
    if not ids:
        return {}
    asked = {"contact_id": {"IN": ids}, "is_primary": 1, "return": ["contact_id", "email"], "sequential": 1}
    found = await page.api_values("Email", "get", {**asked, "options": {"limit": 0}})
    return {row["contact_id"]: row["email"] for row in found if row.get("email")}


def person_link(contact_id: Any, email: str) -> str:
    """The URL of a person: a contact, or without one (empty) whom the address belongs to."""
    return f"{PERSON}?{urlencode({'contact_id': contact_id} if contact_id else {'email': email})}"


async def download(page: PageRequest) -> web.StreamResponse:
    """Everybody that matches, as CSV."""
    _, search = await _read_search(page)
    if not search.list_id:
        return page.render("people/none.html", **await form_if_empty(page))
    return await send_csv(page, f"people-{search.list_id}.csv", _lines(page, await filters(page, search)))


async def _lines(page: PageRequest, asked: dict[str, Any]) -> AsyncIterator[Lines]:
    """The cells of the CSV, a page at a time, the header first."""
    head, after = [list(COLUMNS)], ""
    while True:
        rows = (await _page(page, asked, after, "", CSV_PAGE))[:CSV_PAGE]
        addresses = await _addresses(page, rows)
        yield head + [_cells(row, addresses) for row in rows]
        if len(rows) < CSV_PAGE:
            return
        head, after = [], rows[-1]["id"]


def _cells(row: dict[str, Any], addresses: dict[str, str]) -> list[str]:
    contact_id = row["civicrm_contact_id"]
    values = (
        contact_id,
        row["civicrm_display_name"] if contact_id else "",
        row["mailchimp_email"] or addresses.get(str(contact_id), ""),
        row["mailchimp_status"],
        row["status"],
        row["sync_status"],
        row["errors"],
    )
    return [safe_cell(value) for value in values]


ROUTES = (("GET", PATH, index), ("POST", PATH, change), ("GET", f"{PATH}.csv", download))
