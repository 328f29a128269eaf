"""Adds and deletes webhooks at Mailchimp, and stores which ones there are.

An address must be stored before its webhook is added, because Mailchimp calls it at once.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Connection

from civiapi.store.author import Author
from civiapi.store.engine import Store
from sync.connections import webhooks
from sync.connections.account_info import SECRET_BYTES
from sync.connections.clients import Clients
from sync.connections.config import AccountConfig, Config, read_config, write_config
from sync.connections.config_values import as_map
from sync.connections.webhook_health import BATCH_HOOK, MEMBER_HOOK, note, note_health
from sync.connections.webhook_signatures import forget_missing_hooks, store_signing_secret
from sync.connections.webhooks import HookHealth, HookUrls
from sync.errors import MailchimpFailed, SyncError
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import InvalidApiKey, MailchimpError
from sync.mailchimp.wire import Webhook
from sync.store.events import BY_SYNC


async def update_webhook(
    store: Store,
    clients: Clients,
    base_url: str,
    *,
    process: str,
    api_key: str,
    list_id: str = "",
    hook_id: str = "",
    by: Author = BY_SYNC,
) -> Config:
    """Add or delete a webhook at Mailchimp, as *by* asks, then store which ones exist; returns the configuration.

    Adding an existing one or deleting a missing one changes nothing. Raises SyncError.
    """
    account = (await store.read(read_config)).account(api_key)
    call = _webhook_call(process, account, list_id, hook_id)
    secret = await store.write(_ensure_secret, account.api_key, by)
    urls = HookUrls(base_url, secret)
    try:
        client = clients.client_for(account.api_key)
        added = await call(client, urls)
        if isinstance(added, Webhook) and added.signing_secret:
            await store.write(store_signing_secret, list_id, added.id, added.signing_secret)
        if process.endswith("batch_webhook"):
            shown = webhooks.show_batch_hooks(await client.list_batch_webhooks(), urls)
            return await store.write(_store_hooks, account.api_key, "", shown, by)
        shown = webhooks.show_audience_hooks(await client.list_webhooks(list_id), urls)
        return await store.write(_store_hooks, account.api_key, list_id, shown, by)
    except InvalidApiKey as error:
        raise SyncError(str(error)) from error
    except MailchimpError as error:
        raise MailchimpFailed(str(error)) from error


def _webhook_call(
    process: str, account: AccountConfig, list_id: str, hook_id: str
) -> Callable[[MailchimpClient, HookUrls], Awaitable[object]]:
    """The call that *process* makes, after checking the parameters. Raises SyncError."""
    if process == "add_batch_webhook":
        return webhooks.add_batch_hook
    if process == "delete_batch_webhook":
        given = _given(hook_id, "ID missing")
        return lambda client, _: client.delete_batch_webhook(given)
    if process == "add_webhook":
        audience = webhooks.audience_of(account, _given(list_id, "Missing list_id"))
        return lambda client, urls: webhooks.add_audience_hook(client, audience, urls)
    if process == "delete_webhook":
        given = _given(hook_id, "ID missing")
        audience = webhooks.audience_of(account, _given(list_id, "Missing list_id"))
        return lambda client, _: client.delete_webhook(audience, given)
    raise SyncError("process must be add_batch_webhook|delete_batch_webhook|add_webhook|delete_webhook")


def _given(value: str, missing: str) -> str:
    if not value:
        raise SyncError(missing)
    return value


def _ensure_secret(conn: Connection, api_key: str, by: Author) -> str:
    """The account's secret, created and stored if it has none: Mailchimp calls an address at once when it is added."""
    config = read_config(conn, for_update=True)
    known = config.account(api_key).secret
    if known:
        return known
    fresh = secrets.token_hex(SECRET_BYTES)
    write_config(conn, _with_account(config, api_key, {"batchWebhookSecret": fresh}), by)
    return fresh


def _store_hooks(conn: Connection, api_key: str, list_id: str, shown: Mapping[str, Any], by: Author) -> Config:
    """Store Mailchimp's webhooks in the configuration, and their health."""
    config = read_config(conn, for_update=True)
    now = int(time.time())
    if not list_id:
        for link in config.lists_of(config.account(api_key)):
            note(conn, link.list_id, BATCH_HOOK, found=bool(shown["batchWebhookFound"]), at_s=now, by=by)
        return write_config(conn, _with_account(config, api_key, shown), by)
    forget_missing_hooks(conn, list_id, [hook["id"] for hook in shown["webhooks"]])
    if list_id in config.links:
        note(conn, list_id, MEMBER_HOOK, found=bool(shown["webhookFound"]), at_s=now, by=by)
    audiences = as_map(as_map(as_map(config.raw.get("accounts")).get(api_key)).get("audiences"))
    changed = audiences | {list_id: as_map(audiences.get(list_id)) | dict(shown)}
    return write_config(conn, _with_account(config, api_key, {"audiences": changed}), by)


def _with_account(config: Config, api_key: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    accounts = as_map(config.raw.get("accounts"))
    return dict(config.raw) | {"accounts": accounts | {api_key: as_map(accounts.get(api_key)) | dict(changes)}}


async def check_webhooks(store: Store, clients: Clients, base_url: str, accounts: Collection[str]) -> list[HookHealth]:
    """Ask Mailchimp which webhooks of the accounts with these API keys exist, and store it. Raises MailchimpFailed."""
    config = await store.read(read_config)
    health: list[HookHealth] = []
    for account in (one for key, one in config.accounts.items() if key in accounts):
        urls = HookUrls(base_url, account.secret)
        try:
            list_ids = {link.list_id for link in config.lists_of(account)}
            found = await webhooks.check_hooks(clients.client_for(account.api_key), sorted(list_ids), account, urls)
            await store.write(note_health, list_ids, found, int(time.time()))
            health += found
        except MailchimpError as error:
            raise MailchimpFailed(str(error)) from error
    return health
