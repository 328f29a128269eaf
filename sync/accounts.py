"""Accounts and links: what a Mailchimp key gives access to, and saving the configuration with all that follows.

Three acts of the Config screen: ``fetch_account_info`` looks at an account and writes nothing, ``update_config``
stores the configuration and clears away what belonged to lists no longer in it, ``update_webhook`` adds or removes a
webhook. Reading the configuration is ``config``; what a webhook looks like is ``webhooks``.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from civiapi.store.engine import Store
from civiapi.store.tables import group
from sync import webhooks
from sync.claims import withdraw
from sync.clients import Clients
from sync.config import (
    BRAKE_LIMITS,
    Account,
    Config,
    as_group_id,
    as_limit,
    as_map,
    check_digest,
    is_list_id,
    read_config,
    write_config,
)
from sync.errors import BadConfig, InvalidListId, MailchimpFailed, SyncError, UnknownAccount
from sync.hook_health import BATCH_HOOK, MEMBER_HOOK, note, note_health
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import InvalidApiKey, MailchimpError, Refused, Throttled
from sync.mailchimp.wire import Audience as RemoteAudience
from sync.tables import balance, batch, cache, claim, daily, hook_health, plan, plan_person, run, status, update
from sync.webhooks import HookHealth, HookUrls

T = TypeVar("T")
SECRET_BYTES = 20


# ── Looking at an account ───────────────────────────────────────────────────────────────────────────────────────────


async def fetch_account_info(store: Store, clients: Clients, base_url: str, api_key: str) -> dict[str, Any]:
    """What the configuration keeps of an account, asked of Mailchimp: whose it is, audiences, interests, webhooks.

    The webhook secret is the stored one of a known account, else a new one; nothing is stored. Raises SyncError.
    """
    config = await store.read(read_config)
    urls = HookUrls(base_url, _secret_of(config, api_key))
    try:
        async with clients.visit(api_key) as client:
            return await _look_at_account(client, urls)
    except InvalidApiKey as error:
        raise SyncError(str(error)) from error
    except (Refused, Throttled) as error:
        raise MailchimpFailed(
            f"Failed to access Mailchimp API (4xx error) with given key. Error: {_reason(error)}"
        ) from error
    except MailchimpError as error:
        raise MailchimpFailed(f"Failed to access Mailchimp API (other error). Error: {error}") from error


async def _look_at_account(client: MailchimpClient, urls: HookUrls) -> dict[str, Any]:
    whose: Mapping[str, Any] = await client.get_account()  # first, alone: it tells cheaply whether the key is good
    batch_hooks = await client.list_batch_webhooks()
    shown = [audience async for audience in client.iter_audiences()]
    looked = await _together([_look_at_audience(client, audience, urls) for audience in shown])
    names = ("account_name", "email", "first_name", "last_name", "username")
    return {
        **{name: str(whose.get(name) or "") for name in names},
        "audiences": {audience["id"]: found for audience, found in zip(shown, looked, strict=True)},
        "webhookUrl": urls.audience,
        "batchWebhookSecret": urls.secret,
        **webhooks.show_batch_hooks(batch_hooks, urls),
    }


async def _look_at_audience(client: MailchimpClient, audience: RemoteAudience, urls: HookUrls) -> dict[str, Any]:
    list_id = audience["id"]
    found: dict[str, Any] = {"name": audience.get("name") or list_id}
    interests = {}
    for category in await client.get_interest_categories(list_id):
        async for interest in client.iter_interests(list_id, category["id"]):
            interests[interest["id"]] = f"{category.get('title', '')}: {interest.get('name', '')}"
    if interests:
        found["interests"] = interests
    return found | webhooks.show_audience_hooks(await client.list_webhooks(list_id), urls)


async def _together(jobs: list[Awaitable[T]]) -> list[T]:
    """Wait for all; the first failure stops the rest. How many calls run at once is the client's business."""

    async def one(job: Awaitable[T]) -> T:
        return await job

    try:
        async with asyncio.TaskGroup() as group_of_tasks:
            tasks = [group_of_tasks.create_task(one(job)) for job in jobs]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


def _secret_of(config: Config, api_key: str) -> str:
    try:
        known = config.account(api_key).secret
    except UnknownAccount:
        known = ""
    return known or secrets.token_hex(SECRET_BYTES)


def _reason(error: Refused | Throttled) -> str:
    if isinstance(error, Refused) and error.title:
        return f"{error.title}: {error.detail}" if error.detail else error.title
    return str(error)


# ── Saving the configuration ────────────────────────────────────────────────────────────────────────────────────────


def update_config(conn: Connection, given: Any, digest: str | None = None) -> Config:
    """Store a configuration (JSON text or the map itself), cleaned, and forget what belonged to lists not in it.

    Lists that no account's audiences name are dropped; so are links of interests that their audience, where its
    interests are known, does not have. Cache rows with their updates, batches and positions of lists no longer
    configured are deleted. With a *digest* only over the stored text of that SHA-256. Raises BadConfig, InvalidListId,
    ConfigChanged.
    """
    cleaned = clean_config(given)
    if digest is not None:
        check_digest(conn, digest)
    _check_groups(conn, cleaned)
    stored = write_config(conn, cleaned)
    _forget_others(conn, list(as_map(stored.raw.get("lists"))))
    return stored


def clean_config(given: Any) -> dict[str, Any]:
    """A configuration as it may be stored, from what a caller sent. Raises BadConfig, InvalidListId."""
    raw = _parse(given)
    accounts, lists = as_map(raw.get("accounts")), as_map(raw.get("lists"))
    audiences = {
        list_id: as_map(audience)
        for account in accounts.values()
        for list_id, audience in as_map(as_map(account).get("audiences")).items()
    }
    kept = {
        list_id: _clean_link(list_id, link, audiences[list_id])
        for list_id, link in lists.items()
        if list_id in audiences
    }
    return raw | {"accounts": accounts, "lists": kept}


def _parse(given: Any) -> dict[str, Any]:
    try:
        raw = orjson.loads(given) if isinstance(given, str) else orjson.loads(orjson.dumps(given))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise BadConfig("Failed to parse JSON in 'config' parameter.") from error
    if not isinstance(raw, dict) or not raw:
        raise BadConfig("Failed to parse JSON in 'config' parameter.")
    for part in ("accounts", "lists"):
        if not isinstance(raw.get(part, {}), dict) and raw[part] not in ([], None):
            raise BadConfig(f"'{part}' in the config must be an object.")
    return raw


def _clean_link(list_id: str, link: Any, audience: dict[str, Any]) -> dict[str, Any]:
    if not is_list_id(list_id):
        raise InvalidListId(list_id)
    if not isinstance(link, dict):
        raise BadConfig(f"List '{list_id}' in the config must be an object.")
    if not isinstance(link.get("apiKey"), str) or not link["apiKey"]:
        raise BadConfig(f"List '{list_id}' in the config has no apiKey.")
    if as_group_id(link.get("subscriptionGroup")) is None:
        raise BadConfig(f"List '{list_id}' in the config has no subscriptionGroup.")
    for name, value in as_map(link.get("brake")).items():
        if name in BRAKE_LIMITS and as_limit(value) is None:
            raise BadConfig(f"List '{list_id}' in the config: the brake's {name} must be a number, 0 for no limit.")
    known, linked = audience.get("interests"), link.get("interests")
    if isinstance(known, dict) and isinstance(linked, dict):
        return link | {"interests": {key: value for key, value in linked.items() if key in known}}
    return link


def _check_groups(conn: Connection, cleaned: dict[str, Any]) -> None:
    """Refuse links to groups that are not there or that nobody can be added to: better now than in a sync."""
    used: dict[int, str] = {}
    for list_id, link in cleaned["lists"].items():
        for value in (link["subscriptionGroup"], *as_map(link.get("interests")).values()):
            group_id = as_group_id(value)
            if group_id is not None:
                used.setdefault(group_id, list_id)
    rows = conn.execute(select(group.c.id, group.c.saved_search_id).where(group.c.id.in_(used)))
    smart = {row.id: bool(row.saved_search_id) for row in rows}
    for group_id, list_id in used.items():
        if group_id not in smart:
            raise BadConfig(f"List '{list_id}' is linked with group {group_id}, which does not exist.")
        if smart[group_id]:
            raise BadConfig(
                f"List '{list_id}' is linked with group {group_id}, a smart group: its members are worked out from a "
                "search, so nobody can be added to or removed from it. Link an ordinary group."
            )


def count_removal(conn: Connection, list_id: str) -> dict[str, int]:
    """How many rows of each kind go when this list is no longer configured; *pending*: updates not carried out yet."""
    rows = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id)
    theirs = update.c.mailchimpsync_cache_id.in_(rows)

    def count(table: Table, *where: ColumnElement[bool]) -> int:
        return int(conn.execute(select(func.count()).select_from(table).where(*where)).scalar_one())

    return {
        "people": count(cache, cache.c.mailchimp_list_id == list_id),
        "updates": count(update, theirs),
        "pending": count(update, theirs, update.c.completed == 0),
        "batches": count(batch, batch.c.mailchimp_list_id == list_id),
        "days": count(daily, daily.c.list_id == list_id),
    }


def _forget_others(conn: Connection, kept: list[str]) -> None:
    """Delete what belongs to lists not in *kept*; a sync still at work on one loses its claim."""
    for name in conn.execute(select(status.c.list_id).where(status.c.list_id.not_in(kept))).scalars().all():
        if conn.execute(select(claim.c.name).where(claim.c.name == name)).first() is not None:
            withdraw(conn, name)
    conn.execute(delete(cache).where(cache.c.mailchimp_list_id.not_in(kept)))  # what hangs on the rows goes with them
    conn.execute(delete(batch).where(batch.c.mailchimp_list_id.not_in(kept)))
    conn.execute(delete(status).where(status.c.list_id.not_in(kept)))
    conn.execute(delete(run).where(run.c.list_id.not_in(kept)))
    conn.execute(delete(hook_health).where(hook_health.c.list_id.not_in(kept)))
    conn.execute(delete(daily).where(daily.c.list_id.not_in(kept)))
    gone = select(plan.c.id).where(plan.c.list_id.not_in(kept))
    conn.execute(delete(plan_person).where(plan_person.c.plan_id.in_(gone)))
    conn.execute(delete(plan).where(plan.c.list_id.not_in(kept)))
    conn.execute(delete(balance).where(balance.c.list_id.not_in(kept)))


# ── Webhooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def update_webhook(
    store: Store,
    clients: Clients,
    base_url: str,
    *,
    process: str,
    api_key: str,
    list_id: str = "",
    hook_id: str = "",
) -> Config:
    """Add or delete a webhook at Mailchimp, then store what hooks Mailchimp has; returns the configuration.

    Adding what is there and deleting what is gone change nothing. Raises SyncError.
    """
    account = (await store.read(read_config)).account(api_key)
    act = _webhook_act(process, account, list_id, hook_id)
    secret = await store.write(_ensure_secret, account.api_key)
    urls = HookUrls(base_url, secret)
    try:
        client = clients.client_for(account.api_key)
        await act(client, urls)
        if process.endswith("batch_webhook"):
            shown = webhooks.show_batch_hooks(await client.list_batch_webhooks(), urls)
            return await store.write(_store_hooks, account.api_key, "", shown)
        shown = webhooks.show_audience_hooks(await client.list_webhooks(list_id), urls)
        return await store.write(_store_hooks, account.api_key, list_id, shown)
    except InvalidApiKey as error:
        raise SyncError(str(error)) from error
    except MailchimpError as error:
        raise MailchimpFailed(str(error)) from error


def _webhook_act(
    process: str, account: Account, list_id: str, hook_id: str
) -> Callable[[MailchimpClient, HookUrls], Awaitable[object]]:
    """What a process does; everything that can be wrong with the question is found here. Raises SyncError."""
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


def _ensure_secret(conn: Connection, api_key: str) -> str:
    """The account's secret, made and stored if it has none: Mailchimp tries an address the moment it is added."""
    config = read_config(conn, for_update=True)
    known = config.account(api_key).secret
    if known:
        return known
    fresh = secrets.token_hex(SECRET_BYTES)
    write_config(conn, _with_account(config, api_key, {"batchWebhookSecret": fresh}))
    return fresh


def _store_hooks(conn: Connection, api_key: str, list_id: str, shown: Mapping[str, Any]) -> Config:
    """Put what Mailchimp has into the configuration, and note that it said so just now."""
    config = read_config(conn, for_update=True)
    now = int(time.time())
    if not list_id:
        for link in config.lists_of(config.account(api_key)):
            note(conn, link.list_id, BATCH_HOOK, found=bool(shown["batchWebhookFound"]), at_s=now)
        return write_config(conn, _with_account(config, api_key, shown))
    if list_id in config.links:
        note(conn, list_id, MEMBER_HOOK, found=bool(shown["webhookFound"]), at_s=now)
    audiences = as_map(as_map(as_map(config.raw.get("accounts")).get(api_key)).get("audiences"))
    changed = audiences | {list_id: as_map(audiences.get(list_id)) | dict(shown)}
    return write_config(conn, _with_account(config, api_key, {"audiences": changed}))


def _with_account(config: Config, api_key: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    accounts = as_map(config.raw.get("accounts"))
    return dict(config.raw) | {"accounts": accounts | {api_key: as_map(accounts.get(api_key)) | dict(changes)}}


async def webhook_health(store: Store, clients: Clients, base_url: str) -> list[HookHealth]:
    """Which webhooks of all accounts are there, asked of Mailchimp and written down. Raises MailchimpFailed."""
    config = await store.read(read_config)
    health: list[HookHealth] = []
    for account in config.accounts.values():
        urls = HookUrls(base_url, account.secret)
        try:
            links = config.lists_of(account)
            found = await webhooks.check_hooks(clients.client_for(account.api_key), links, account, urls)
            await store.write(note_health, {link.list_id for link in links}, found, int(time.time()))
            health += found
        except MailchimpError as error:
            raise MailchimpFailed(str(error)) from error
    return health
