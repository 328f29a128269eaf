"""Fetches what the configuration keeps of a Mailchimp account: owner, audiences, interests, webhooks."""

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from civiapi.store.engine import Store
from sync.connections import webhooks
from sync.connections.clients import Clients
from sync.connections.config import Config, read_config
from sync.connections.config_values import interests_apart
from sync.connections.webhooks import HookUrls
from sync.errors import MailchimpFailed, SyncError, UnknownAccount
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import InvalidApiKey, MailchimpError, Refused, Throttled, Unreachable
from sync.mailchimp.wire import PERMISSION, AudienceInfo, as_flag

T = TypeVar("T")
SECRET_BYTES = 20


async def fetch_account_info(store: Store, clients: Clients, base_url: str, api_key: str) -> dict[str, Any]:
    """What the configuration keeps of an account, fetched from Mailchimp: owner, audiences, interests, webhooks.

    The webhook secret is the stored one of a known account, else a new one; nothing is stored. Raises SyncError.
    """
    config = await store.read(read_config)
    urls = HookUrls(base_url, _secret_of(config, api_key))
    try:
        async with clients.visit(api_key) as client:
            return await _fetch_account(client, urls)
    except InvalidApiKey as error:
        raise SyncError(str(error)) from error
    except (Refused, Throttled) as error:
        raise MailchimpFailed(
            f"Failed to access Mailchimp API (4xx error) with given key. Error: {_reason(error)}"
        ) from error
    except MailchimpError as error:
        hint = _hint_at_centre(error, api_key)
        raise MailchimpFailed(f"Failed to access Mailchimp API (other error). Error: {error}{hint}") from error


def _hint_at_centre(error: MailchimpError, api_key: str) -> str:
    """That the key may name no data centre, where no connection came about."""
    if not isinstance(error, Unreachable) or error.status is not None or error.outcome_unknown:
        return ""
    centre = api_key.rpartition("-")[2]
    return f". The key ends in “-{centre}”: check that this is the data centre that Mailchimp shows with the key."


async def _fetch_account(client: MailchimpClient, urls: HookUrls) -> dict[str, Any]:
    owner: Mapping[str, Any] = await client.get_account()  # first and alone: the cheapest check of the key
    batch_hooks = await client.list_batch_webhooks()
    shown = [audience async for audience in client.iter_audiences()]
    fetched = await _together([_fetch_audience(client, audience, urls) for audience in shown])
    names = ("account_name", "email", "first_name", "last_name", "username")
    return {
        **{name: str(owner.get(name) or "") for name in names},
        "audiences": {audience["id"]: found for audience, found in zip(shown, fetched, strict=True)},
        "webhookUrl": urls.audience,
        "batchWebhookSecret": urls.secret,
        **webhooks.show_batch_hooks(batch_hooks, urls),
    }


async def _fetch_audience(client: MailchimpClient, audience: AudienceInfo, urls: HookUrls) -> dict[str, Any]:
    list_id = audience["id"]
    found: dict[str, Any] = {"name": audience.get("name") or list_id}
    interests = await fetch_interests(client, list_id, has_permissions=as_flag(audience.get("marketing_permissions")))
    found |= {part: kept for part, kept in interests_apart(interests).items() if kept}
    return found | webhooks.show_audience_hooks(await client.list_webhooks(list_id), urls)


async def fetch_interests(client: MailchimpClient, list_id: str, *, has_permissions: bool = True) -> dict[str, str]:
    """The interests of an audience: id → ``Category: Interest``; and its marketing permissions (`PERMISSION`), with
    their texts, unless it is known to have none. Raises MailchimpError."""
    interests = await client.get_permissions(list_id) if has_permissions else {}
    interests = {PERMISSION + key: text for key, text in interests.items()}
    for category in await client.get_interest_categories(list_id):
        async for interest in client.iter_interests(list_id, category["id"]):
            interests[interest["id"]] = f"{category.get('title', '')}: {interest.get('name', '')}"
    return interests


async def _together(jobs: list[Awaitable[T]]) -> list[T]:
    """Run all; the first error cancels the rest. The client limits how many calls run at once."""

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
