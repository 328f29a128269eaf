"""Connections, ``/civicrm/mailchimpsync/config``: Mailchimp accounts, their webhooks, the links of their audiences.

Changes are ``updateconfig`` and ``updatewebhook``, called as the user. A key is entered once and never shown again:
forms carry its fingerprint, which is resolved to the stored key here. Linking is ``config/link.py``.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.config.model import AccountView, StoredConfig, group_titles, read_stored, save
from civiapi.ui.core.page import CallFailed, PageRequest
from sync.connections.config_values import as_map

PATH = "/civicrm/mailchimpsync/config"
REMOVE = f"{PATH}/remove"
PERMISSION = "administer CiviCRM"
GONE = "This is no longer in the configuration; it was removed meanwhile. The current configuration is shown below."
CHANGED = (
    "The configuration was changed in another tab, or by a sync, since this page was opened. Nothing was saved. "
    "The current configuration is shown below."
)
NO_KEY = "Paste the API key of your Mailchimp account first."
KNOWN_KEY = "This key is already in the configuration."
OTHER_ACCOUNT = "This key belongs to another account: it has no audience {}, which is linked here. Nothing was changed."

DONE = {
    "added": "The account was added. Next, link one of its audiences with a group.",
    "refreshed": "The account was refreshed from Mailchimp.",
    "rekeyed": "The key was replaced. The old key is no longer used; delete it at Mailchimp.",
    "hooked": "The webhook was added: Mailchimp now reports changes at once.",
    "unhooked": "The webhook was deleted at Mailchimp.",
    "linked": "The connection was saved.",
    "fields": "The merge fields were saved. The next sync with data sends what changed.",
    "first-link": "The audience is linked. Next, preview the first sync; a preview changes nothing.",
    "unlinked": "The connection was removed. Nothing was changed in CiviCRM or at Mailchimp.",
    "removed": "The account was removed, with its connections. Nothing was changed in CiviCRM or at Mailchimp.",
}
HOOKS = {"add_webhook": "hooked", "add_batch_webhook": "hooked", "delete_webhook": "unhooked"} | {
    "delete_batch_webhook": "unhooked"
}


async def change(page: PageRequest) -> web.Response:
    """A posted form: ``do`` is ``add``, ``refresh``, ``rekey`` or a process of ``updatewebhook``."""
    do = page.field("do")
    try:
        if do == "add":
            return await _add(page)
        stored = await read_stored(page)
        key = stored.find_key(page.field("account"))
        if key is None:
            return await show_index(page, GONE, 409)
        if do == "refresh":
            await _refresh(page, key)
            return done(page, "refreshed", account=page.field("account"))
        if do == "rekey":
            return await _replace_key(page, stored, key)
        if do in HOOKS:
            asked = {"process": do, "api_key": key, "list_id": page.field("list_id"), "id": page.field("id")}
            await page.call_api("Mailchimpsync", "updatewebhook", asked)
            return done(page, HOOKS[do], account=page.field("account"))
    except CallFailed as failed:
        return await show_index(page, failed.message, 422)
    return await show_index(page, "Unknown action.", 400)


def done(page: PageRequest, what: str, **about: str) -> web.Response:
    """A redirect to the page, which confirms what was done."""
    return page.redirect(f"{PATH}?{urlencode({'done': what, **about})}")


async def _add(page: PageRequest) -> web.Response:
    key = page.field("mailchimp_key").strip()
    if not key:
        return await show_index(page, NO_KEY, 422)
    await _refresh(page, key)
    return done(page, "added")


async def _refresh(page: PageRequest, key: str) -> None:
    """Fetch an account from Mailchimp and store it. Linked audiences that are missing there stay, with their links."""
    fetched = await page.api_values("Mailchimpsync", "fetchaccountinfo", {"api_key": key})
    stored = await read_stored(page)
    accounts = as_map(stored.raw.get("accounts"))
    old = as_map(accounts.get(key))
    kept = {list_id: one for list_id, one in as_map(old.get("audiences")).items() if list_id in stored.lists}
    account = old | fetched | {"apiKey": key, "audiences": kept | as_map(fetched.get("audiences"))}
    await save(page, stored.changed(accounts=accounts | {key: account}, lists=stored.lists), stored.digest)


async def _replace_key(page: PageRequest, stored: StoredConfig, old: str) -> web.Response:
    """Replace the key of an account by another key of it; its links, cache rows and webhooks stay."""
    new, accounts = page.field("mailchimp_key").strip(), as_map(stored.raw.get("accounts"))
    if not new or new in accounts:
        return await show_index(page, KNOWN_KEY if new else NO_KEY, 422)
    fetched = await page.api_values("Mailchimpsync", "fetchaccountinfo", {"api_key": new})
    links = {list_id: link for list_id, link in stored.lists.items() if as_map(link).get("apiKey") == old}
    if missing := links.keys() - as_map(fetched.get("audiences")).keys():
        return await show_index(page, OTHER_ACCOUNT.format(", ".join(sorted(missing))), 422)
    changed = {new if key == old else key: value for key, value in accounts.items()}
    changed[new] = as_map(accounts[old]) | {"apiKey": new}
    lists = stored.lists | {list_id: {**link, "apiKey": new} for list_id, link in links.items()}
    await save(page, stored.changed(accounts=changed, lists=lists), stored.digest)
    await _refresh(page, new)
    return done(page, "rekeyed")


# ── Removing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def remove(page: PageRequest) -> web.Response:
    """Remove the connection or account of the page."""
    stored = await read_stored(page)
    if stored.digest != page.field("digest"):
        return await show_removal(page, CHANGED, 409)
    list_id, key = page.field("list_id"), stored.find_key(page.field("account"))
    accounts, lists = dict(as_map(stored.raw.get("accounts"))), dict(stored.lists)
    if list_id:
        lists.pop(list_id, None)
    elif key:
        accounts.pop(key)
        lists = {name: link for name, link in lists.items() if as_map(link).get("apiKey") != key}
    try:
        await save(page, stored.changed(accounts=accounts, lists=lists), stored.digest)
    except CallFailed as failed:
        return await show_removal(page, failed.message, 422)
    return done(page, "unlinked" if list_id else "removed")


async def show_removal(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """What removing a connection (``list_id``) or an account (``account``) deletes, and the button that does it;
    *wrong*: why the removal failed."""
    stored = await read_stored(page)
    account, list_id = _named(stored, page)
    if account is None:
        return await show_index(page, GONE, 409)
    going = [one for one in account.linked if list_id in ("", one.id)]
    groups = await group_titles(page, (one.connection.group_id for one in going if one.connection))
    counts = {one.id: await _count(page, one.connection.group_id) for one in going if one.connection}
    context = {"account": account, "list_id": list_id, "going": going, "groups": groups, "counts": counts}
    return page.render("config/remove.html", status, wrong=wrong, digest=stored.digest, **context)


def _named(stored: StoredConfig, page: PageRequest) -> tuple[AccountView | None, str]:
    list_id = page.field("list_id")
    if list_id:
        found = stored.find_audience(list_id)
        return (found[0], list_id) if found and found[1].connection else (None, "")
    wanted = page.field("account")
    return next((one for one in stored.accounts if one.id == wanted), None), ""


async def _count(page: PageRequest, group_id: str) -> Mapping[str, Any]:
    """What is deleted with a connection."""
    counted: Mapping[str, Any] = await page.api_values("Mailchimpsync", "countremoval", {"group_id": group_id})
    return counted


# ── Showing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def show_index(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """All accounts and connections; without any, the form that adds the first account. *wrong*: an error message."""
    stored = await read_stored(page)
    connections = [one.connection for account in stored.accounts for one in account.linked]
    wanted = (group for one in connections if one for group in (one.group_id, *one.interests.values()))
    return page.render(
        "config/index.html",
        status,
        accounts=stored.accounts,
        groups=await group_titles(page, wanted),
        wrong=wrong,
        done=DONE.get(page.field("done"), "") if page.incoming.is_get else "",
        what=page.field("done") if page.incoming.is_get else "",
        about=page.field("list_id"),
        about_account=page.field("account"),
        path=PATH,
    )


ROUTES = (
    ("GET", PATH, show_index),
    ("POST", PATH, change),
    ("GET", REMOVE, show_removal),
    ("POST", REMOVE, remove),
)
