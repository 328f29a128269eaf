"""Config at ``/civicrm/mailchimpsync/config``: Mailchimp accounts, their webhooks, and what is linked with what.

Every change is ``updateconfig`` or ``updatewebhook``, made as the visitor. A key is typed once and never shown again:
forms carry its fingerprint (``config_view``), and the stored key is put in here. Linking has a page of its own
(``config_link``).
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.config_view import Account, Stored, as_map, read_stored, save
from civiapi.ui.visit import CallFailed, Visit

PATH = "/civicrm/mailchimpsync/config"
REMOVE = f"{PATH}/remove"
PERMISSION = "administer CiviCRM"
GONE = "This is not in the configuration any more: somebody removed it meanwhile. Below is what there is now."
CHANGED = (
    "The configuration was changed in another tab, or by a sync, since this page was opened. Nothing was saved. "
    "Below is how it stands now."
)
NO_KEY = "Paste the API key of your Mailchimp account first."
KNOWN_KEY = "This key is in the configuration already."
OTHER_ACCOUNT = "This key is one of another account: it does not show {}, which is linked here. Nothing was changed."

DONE = {
    "added": "The account was added. Next, link one of its audiences with a group.",
    "looked": "The account was looked at again; below is what Mailchimp has now.",
    "rekeyed": "The account has its new key. The old one is used no more; delete it at Mailchimp.",
    "hooked": "The webhook is set up: Mailchimp tells us of changes as they happen.",
    "unhooked": "The webhook was deleted at Mailchimp.",
    "linked": "The connection was saved.",
    "first-link": "The audience is linked. Next, look at what the first sync would do; nothing is changed by looking.",
    "unlinked": "The connection was removed. Nobody was changed in CiviCRM or at Mailchimp.",
    "removed": "The account was removed, with its connections. Nobody was changed in CiviCRM or at Mailchimp.",
}
HOOKS = {"add_webhook": "hooked", "add_batch_webhook": "hooked", "delete_webhook": "unhooked"} | {
    "delete_batch_webhook": "unhooked"
}


async def index(visit: Visit) -> web.Response:
    """Every account and connection; without any, the form that adds the first account."""
    return await show_index(visit)


async def change(visit: Visit) -> web.Response:
    """A posted form: ``do`` is ``add``, ``look``, ``rekey`` or a process of ``updatewebhook``."""
    do = visit.field("do")
    try:
        if do == "add":
            return await _add(visit)
        stored = await read_stored(visit)
        key = stored.find_key(visit.field("account"))
        if key is None:
            return await show_index(visit, GONE, 409)
        if do == "look":
            await _look_at(visit, key)
            return done(visit, "looked", account=visit.field("account"))
        if do == "rekey":
            return await _replace_key(visit, stored, key)
        if do in HOOKS:
            asked = {"process": do, "api_key": key, "list_id": visit.field("list_id"), "id": visit.field("id")}
            await visit.ask("Mailchimpsync", "updatewebhook", asked)
            return done(visit, HOOKS[do], account=visit.field("account"))
    except CallFailed as failed:
        return await show_index(visit, failed.message, 422)
    return await show_index(visit, "This form is not one of ours.", 400)


def done(visit: Visit, what: str, **about: str) -> web.Response:
    """Back to the page, which says what was done."""
    return visit.go(f"{PATH}?{urlencode({'done': what, **about})}")


async def _add(visit: Visit) -> web.Response:
    key = visit.field("mailchimp_key").strip()
    if not key:
        return await show_index(visit, NO_KEY, 422)
    await _look_at(visit, key)
    return done(visit, "added")


async def _look_at(visit: Visit, key: str) -> None:
    """Store what Mailchimp says of an account now. Linked audiences that it no longer shows stay, with their links."""
    told = (await visit.ask("Mailchimpsync", "fetchaccountinfo", {"api_key": key}))["values"]
    stored = await read_stored(visit)
    accounts = as_map(stored.raw.get("accounts"))
    old = as_map(accounts.get(key))
    kept = {list_id: one for list_id, one in as_map(old.get("audiences")).items() if list_id in stored.lists}
    account = old | told | {"apiKey": key, "audiences": kept | as_map(told.get("audiences"))}
    await save(visit, stored.changed(accounts=accounts | {key: account}, lists=stored.lists), stored.digest)


async def _replace_key(visit: Visit, stored: Stored, old: str) -> web.Response:
    """Give an account another key of the same account; its links, people and webhooks stay."""
    new, accounts = visit.field("mailchimp_key").strip(), as_map(stored.raw.get("accounts"))
    if not new or new in accounts:
        return await show_index(visit, KNOWN_KEY if new else NO_KEY, 422)
    told = (await visit.ask("Mailchimpsync", "fetchaccountinfo", {"api_key": new}))["values"]
    links = {list_id: link for list_id, link in stored.lists.items() if as_map(link).get("apiKey") == old}
    if missing := links.keys() - as_map(told.get("audiences")).keys():
        return await show_index(visit, OTHER_ACCOUNT.format(", ".join(sorted(missing))), 422)
    changed = {new if key == old else key: value for key, value in accounts.items()}
    changed[new] = as_map(accounts[old]) | {"apiKey": new}
    lists = stored.lists | {list_id: {**link, "apiKey": new} for list_id, link in links.items()}
    await save(visit, stored.changed(accounts=changed, lists=lists), stored.digest)
    await _look_at(visit, new)
    return done(visit, "rekeyed")


# ── Removing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def ask_removal(visit: Visit) -> web.Response:
    """What removing a connection (``list_id``) or an account (``account``) deletes, and the button that does it."""
    return await _show_removal(visit)


async def remove(visit: Visit) -> web.Response:
    """Remove what the page said."""
    stored = await read_stored(visit)
    if stored.digest != visit.field("digest"):
        return await _show_removal(visit, CHANGED, 409)
    list_id, key = visit.field("list_id"), stored.find_key(visit.field("account"))
    accounts, lists = dict(as_map(stored.raw.get("accounts"))), dict(stored.lists)
    if list_id:
        lists.pop(list_id, None)
    elif key:
        accounts.pop(key)
        lists = {name: link for name, link in lists.items() if as_map(link).get("apiKey") != key}
    try:
        await save(visit, stored.changed(accounts=accounts, lists=lists), stored.digest)
    except CallFailed as failed:
        return await _show_removal(visit, failed.message, 422)
    return done(visit, "unlinked" if list_id else "removed")


async def _show_removal(visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
    stored = await read_stored(visit)
    account, list_id = _named(stored, visit)
    if account is None:
        return await show_index(visit, GONE, 409)
    going = [one for one in account.linked if list_id in ("", one.id)]
    groups = await group_titles(visit, (one.connection.group_id for one in going if one.connection))
    counts = {one.id: await _count(visit, one.connection.group_id) for one in going if one.connection}
    context = {"account": account, "list_id": list_id, "going": going, "groups": groups, "counts": counts}
    return visit.show("config_remove.html", status, wrong=wrong, digest=stored.digest, **context)


def _named(stored: Stored, visit: Visit) -> tuple[Account | None, str]:
    list_id = visit.field("list_id")
    if list_id:
        found = stored.find_audience(list_id)
        return (found[0], list_id) if found and found[1].connection else (None, "")
    wanted = visit.field("account")
    return next((one for one in stored.accounts if one.id == wanted), None), ""


async def _count(visit: Visit, group_id: str) -> Mapping[str, Any]:
    """What is deleted with a connection."""
    counted: Mapping[str, Any] = (await visit.ask("Mailchimpsync", "countremoval", {"group_id": group_id}))["values"]
    return counted


# ── Showing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def show_index(visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
    """The page, with what went wrong."""
    stored = await read_stored(visit)
    connections = [one.connection for account in stored.accounts for one in account.linked]
    wanted = (group for one in connections if one for group in (one.group_id, *one.interests.values()))
    return visit.show(
        "config.html",
        status,
        accounts=stored.accounts,
        groups=await group_titles(visit, wanted),
        wrong=wrong,
        done=DONE.get(visit.field("done"), "") if visit.incoming.is_get else "",
        what=visit.field("done") if visit.incoming.is_get else "",
        about=visit.field("list_id"),
        about_account=visit.field("account"),
        path=PATH,
    )


async def group_titles(visit: Visit, ids: Iterable[str]) -> dict[str, str]:
    """Titles of groups by id; one that is gone is missing."""
    wanted = sorted({one for one in ids if one})
    if not wanted:
        return {}
    asked = {"id": {"IN": wanted}, "return": ["id", "title"], "sequential": 1, "options": {"limit": 0}}
    return {row["id"]: row["title"] for row in (await visit.ask("Group", "get", asked))["values"]}


ROUTES = (
    ("GET", PATH, index),
    ("POST", PATH, change),
    ("GET", REMOVE, ask_removal),
    ("POST", REMOVE, remove),
)
