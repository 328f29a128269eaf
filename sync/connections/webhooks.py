"""Mailchimp's webhooks of an account: the addresses they should call, which of them are there, adding and removing.

Each address carries the account's secret, which Mailchimp checks by calling it at once: the secret must be stored
before a hook is added. What Mailchimp shows is written into the configuration the way CiviCRM's Config screen reads
it (``webhooks``, ``webhookFound``, ``batchWebhooks``, ``batchWebhookFound``). No SQL here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sync.connections.config import AccountConfig
from sync.errors import ListNotConfigured, NoBaseUrl
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import BatchWebhook, Webhook

AUDIENCE_PATH = "/civicrm/mailchimpsync/webhook"
BATCH_PATH = "/civicrm/mailchimpsync/batch-webhook"


@dataclass(frozen=True, slots=True)
class HookUrls:
    """Where Mailchimp should call for one account; the secret in them stays out of ``repr`` and logs."""

    base_url: str
    secret: str

    def __repr__(self) -> str:
        return f"HookUrls({self.base_url!r})"

    @property
    def audience(self) -> str:
        """The address for what happens to members of any audience of the account."""
        return self._url(AUDIENCE_PATH)

    @property
    def batch(self) -> str:
        """The address for finished batches."""
        return self._url(BATCH_PATH)

    def require_base(self) -> "HookUrls":
        """Itself, when Mailchimp could call these addresses. Raises NoBaseUrl."""
        if not self.base_url:
            raise NoBaseUrl()
        return self

    def _url(self, path: str) -> str:
        return f"{self.base_url.rstrip('/')}{path}?secret={quote(self.secret, safe='')}"


@dataclass(frozen=True, slots=True)
class HookHealth:
    """Whether Mailchimp calls us for one audience, or (``list_id`` None) for an account's batches."""

    account: str
    list_id: str | None
    found: bool
    hook_ids: frozenset[str] = frozenset()  # of all webhooks of the audience


def show_audience_hooks(hooks: Sequence[Webhook], urls: HookUrls) -> dict[str, Any]:
    """The keys of an audience in the configuration about its webhooks."""
    shown = [
        {"id": hook.id, "url": hook.url, "events": dict(hook.events), "sources": dict(hook.sources)} for hook in hooks
    ]
    return {"webhook": urls.audience, "webhooks": shown, "webhookFound": any(h.url == urls.audience for h in hooks)}


def show_batch_hooks(hooks: Sequence[BatchWebhook], urls: HookUrls) -> dict[str, Any]:
    """The keys of an account in the configuration about its batch webhooks."""
    return {
        "batchWebhook": urls.batch,
        "batchWebhooks": [{"id": hook.id, "url": hook.url, "enabled": hook.enabled} for hook in hooks],
        "batchWebhookFound": any(hook.url == urls.batch and hook.enabled for hook in hooks),
    }


async def add_audience_hook(client: MailchimpClient, list_id: str, urls: HookUrls) -> Webhook | None:
    """Add a webhook for an audience; None if it exists already. Raises NoBaseUrl, MailchimpError."""
    wanted = urls.require_base().audience
    if any(hook.url == wanted for hook in await client.list_webhooks(list_id)):
        return None
    return await client.add_webhook(list_id, wanted)


async def add_batch_hook(client: MailchimpClient, urls: HookUrls) -> None:
    """Add a webhook for finished batches unless an enabled one exists. Raises NoBaseUrl, MailchimpError.

    A disabled one of ours is deleted first: Mailchimp accepts no address twice.
    """
    wanted = urls.require_base().batch
    ours = [hook for hook in await client.list_batch_webhooks() if hook.url == wanted]
    if any(hook.enabled for hook in ours):
        return
    for hook in ours:
        await client.delete_batch_webhook(hook.id)
    await client.add_batch_webhook(wanted)


async def check_hooks(
    client: MailchimpClient, list_ids: Iterable[str], account: AccountConfig, urls: HookUrls
) -> list[HookHealth]:
    """Ask Mailchimp which webhooks of an account exist: the batch webhook, and one for each of these audiences."""
    batch = show_batch_hooks(await client.list_batch_webhooks(), urls)
    health = [HookHealth(account.name, None, batch["batchWebhookFound"])]
    for list_id in list_ids:
        hooks = await client.list_webhooks(list_id)
        found = show_audience_hooks(hooks, urls)["webhookFound"]
        health.append(HookHealth(account.name, list_id, found, frozenset(hook.id for hook in hooks)))
    return health


def audience_of(account: AccountConfig, list_id: str) -> str:
    """The id of an audience that the account is known to have. Raises ListNotConfigured."""
    if list_id not in account.audiences:
        raise ListNotConfigured(list_id)
    return list_id
