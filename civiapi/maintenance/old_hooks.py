"""Webhooks at Mailchimp that bear a secret of ours and call another address: the old CiviCRM's, as a rule."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from civiapi.settings import Settings
from civiapi.store.engine import Store
from sync.connections.clients import Clients
from sync.connections.config import AccountConfig, Config, read_config
from sync.context import ClientPool
from sync.errors import BadConfig
from sync.mailchimp.errors import MailchimpError
from sync.reports.checks import Finding, Severity

MAX_SECONDS = 10.0
"""How long a report waits for Mailchimp, for each account."""


async def find_old_hooks(store: Store, settings: Settings) -> list[Finding]:
    """`old_hooks` of a database that is not open for anything else."""
    clients = Clients(base_url=settings.mailchimp.base_url)
    try:
        return await old_hooks(store, clients, settings.server.base_url)
    finally:
        await clients.close()


async def old_hooks(
    store: Store, clients: ClientPool, base_url: str, accounts: Collection[str] | None = None
) -> list[Finding]:
    """A finding for each webhook that bears our secret and does not call *base_url* (ours).

    Asks the accounts with these API keys; None: all.
    """
    try:
        config = await store.read(read_config)
    except BadConfig:
        return []
    found = []
    for key, account in config.accounts.items():
        if accounts is not None and key not in accounts:
            continue
        try:
            async with asyncio.timeout(MAX_SECONDS):
                found += await _of_account(clients, config, key, account, base_url)
        except (MailchimpError, TimeoutError) as error:
            why = str(error) or "it did not answer in time."
            sentence = f"Mailchimp could not be asked for the webhooks of account …{key[-4:]}: {why}"
            found.append(Finding(f"oldHooks:{key[-4:]}", Severity.NOTICE, sentence, "Run this again later."))
    return found


async def _of_account(
    clients: ClientPool, config: Config, key: str, account: AccountConfig, base_url: str
) -> list[Finding]:
    client, secrets = clients.client_for(key), _secrets(account, config.raw)
    found = []
    for list_id in sorted(link.list_id for link in config.links.values() if link.api_key == key):
        urls = [hook.url for hook in await client.list_webhooks(list_id)]
        found += [_finding(url, f"audience {list_id}", base_url) for url in _elsewhere(urls, secrets, base_url)]
    urls = [hook.url for hook in await client.list_batch_webhooks()]
    return found + [_finding(url, "finished batches", base_url) for url in _elsewhere(urls, secrets, base_url)]


def _elsewhere(urls: Iterable[str], secrets: set[str], base_url: str) -> list[str]:
    """Those of these addresses that bear one of the secrets and are not ours."""
    ours = base_url.rstrip("/") + "/" if base_url else None
    return [url for url in urls if _secret(url) in secrets and not (ours and url.startswith(ours))]


def _finding(url: str, what: str, base_url: str) -> Finding:
    shown = urlsplit(url)._replace(query="").geturl()
    sentence = f"Mailchimp calls {shown} for {what}, with our secret: the old CiviCRM's address."
    remedy = "Delete that webhook at Mailchimp" + (" once civiapi serves." if base_url else ", and set base_url.")
    return Finding(f"oldHook:{shown}:{what}", Severity.NOTICE, sentence, remedy)


def _secrets(account: AccountConfig, raw: Mapping[str, Any]) -> set[str]:
    """The secrets of an account; the extension of 2020 made two of them."""
    stored = raw.get("accounts")
    kept = stored.get(account.api_key) if isinstance(stored, dict) else None
    shown = kept if isinstance(kept, dict) else {}
    audiences = shown.get("audiences")
    known = audiences.values() if isinstance(audiences, dict) else ()
    hooks = [one.get("webhook") for one in known if isinstance(one, dict)]
    urls = [shown.get("webhookUrl"), shown.get("batchWebhook"), *hooks]
    return {one for one in (account.secret, *(_secret(url) for url in urls if isinstance(url, str))) if one}


def _secret(url: str) -> str:
    return parse_qs(urlsplit(url).query).get("secret", [""])[0]
