"""The stored configuration as the Config pages show and change it, without its secrets.

Pages identify an account by a fingerprint of its key and show the key's last characters, and webhook URLs without their
secrets. ``StoredConfig`` holds the secrets and is never passed to a template.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from civiapi.ui.core.page import CallFailed, PageRequest
from sync.audience import is_permission
from sync.connections.config_values import as_map, interests_in

SETTING = "mailchimpsync_config"
SHOWN_OF_KEY = 4


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A webhook at Mailchimp; its URL without the query, which holds the secret."""

    id: str
    address: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class WebhookList:
    """The webhooks of an audience or account; ``found``: one of them is ours."""

    found: bool
    known: tuple[WebhookView, ...]


@dataclass(frozen=True, slots=True)
class LinkView:
    """The link of an audience: group ids as text, interest id → group id, ``trustOverride``, limits of the brake.

    *gone*: linked interests that Mailchimp no longer has, id → name."""

    group_id: str
    interests: Mapping[str, str]
    trust: Mapping[str, str]
    brake: Mapping[str, str]
    gone: Mapping[str, str]
    one_way: bool = False
    leavers: str = ""


@dataclass(frozen=True, slots=True)
class AudienceView:
    """An audience as last fetched, with its link if it has one. Marketing permissions are among the *interests*."""

    id: str
    name: str
    interests: Mapping[str, str]
    hooks: WebhookList
    connection: LinkView | None


@dataclass(frozen=True, slots=True)
class AccountView:
    """A Mailchimp account. ``id`` is the fingerprint of its key, ``ending`` the last characters of the key."""

    id: str
    ending: str
    name: str
    owner: str
    hooks: WebhookList
    audiences: tuple[AudienceView, ...]

    @property
    def linked(self) -> list[AudienceView]:
        """The audiences that are linked with a group."""
        return [one for one in self.audiences if one.connection is not None]


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """The configuration with its secrets. A save sends the digest, so that a concurrent change is detected."""

    raw: Mapping[str, Any] = field(repr=False)
    digest: str

    @property
    def accounts(self) -> list[AccountView]:
        """The accounts without secrets."""
        return [_account(key, as_map(value), self.lists) for key, value in as_map(self.raw.get("accounts")).items()]

    @property
    def lists(self) -> dict[str, Any]:
        """The links as stored, by list id."""
        return as_map(self.raw.get("lists"))

    def find_key(self, fingerprint: str) -> str | None:
        """The key of the account with this fingerprint."""
        return next((key for key in as_map(self.raw.get("accounts")) if fingerprint_of(key) == fingerprint), None)

    def find_audience(self, list_id: str) -> tuple[AccountView, AudienceView] | None:
        """The audience with this id, and its account."""
        return next(((a, one) for a in self.accounts for one in a.audiences if one.id == list_id), None)

    def changed(self, **parts: Any) -> dict[str, Any]:
        """The raw configuration with ``accounts`` or ``lists`` replaced."""
        return {**self.raw, **parts}


async def read_stored(page: PageRequest) -> StoredConfig:
    """The configuration as it is stored now. Raises ``CallFailed``."""
    found = await page.call_api("Setting", "getvalue", {"name": SETTING})
    text = found if isinstance(found, str) else orjson.dumps(found).decode() if found else ""
    try:
        raw = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        message = f"The setting {SETTING} does not hold JSON. Correct or empty it with Setting.create."
        raise CallFailed(message, "Setting", "getvalue") from error
    return StoredConfig(as_map(raw), hashlib.sha256(text.encode()).hexdigest() if text else "")


async def save(page: PageRequest, config: Mapping[str, Any], digest: str) -> None:
    """Replace the configuration that has *digest*. Raises ``CallFailed``."""
    text = orjson.dumps(dict(config)).decode()
    await page.call_api("Mailchimpsync", "updateconfig", {"config": text, "digest": digest})


def fingerprint_of(key: str) -> str:
    """A one-way hash that identifies a key in pages and forms."""
    return hashlib.sha256(f"civiapi account {key}".encode()).hexdigest()[:16]


def ending_of(key: str) -> str:
    """The last four characters of a key, before the name of its data centre: ``…c0de-us1``."""
    secret, dash, centre = key.rpartition("-")
    return f"…{secret[-SHOWN_OF_KEY:]}{dash}{centre}" if len(secret) > 2 * SHOWN_OF_KEY else f"…{key[-SHOWN_OF_KEY:]}"


async def group_titles(page: PageRequest, ids: Iterable[str]) -> dict[str, str]:
    """Titles of groups by id; groups that no longer exist are left out."""
    wanted = sorted({one for one in ids if one})
    asked = {"id": {"IN": wanted}, "return": ["id", "title"], "sequential": 1, "options": {"limit": 0}}
    rows = await page.api_values("Group", "get", asked) if wanted else []
    return {str(row["id"]): str(row.get("title") or row["id"]) for row in rows}


def _account(key: str, value: dict[str, Any], lists: dict[str, Any]) -> AccountView:
    person = " ".join(str(value[part]) for part in ("first_name", "last_name") if value.get(part))
    email = str(value.get("email") or "")
    audiences = as_map(value.get("audiences"))
    return AccountView(
        fingerprint_of(key),
        ending_of(key),
        str(value.get("account_name") or value.get("username") or "Mailchimp account"),
        f"{person} ({email})" if person and email else person or email,
        _hooks(value.get("batchWebhooks"), value.get("batchWebhook"), value.get("batchWebhookFound")),
        tuple(_audience(list_id, as_map(shown), lists.get(list_id)) for list_id, shown in audiences.items()),
    )


def _audience(list_id: str, value: dict[str, Any], link: Any) -> AudienceView:
    hooks = _hooks(value.get("webhooks"), value.get("webhook"), value.get("webhookFound"))
    interests = {key: str(name) for key, name in interests_in(value).items()}
    connection = _connection(link)
    if connection is not None:  # permissions that the account, when it was last fetched, did not have stay linked
        linked = {key: connection.gone.get(key) or key for key in connection.interests if is_permission(key)}
        interests = linked | interests
    return AudienceView(list_id, str(value.get("name") or list_id), interests, hooks, connection)


def _connection(link: Any) -> LinkView | None:
    if not isinstance(link, dict):
        return None
    interests = {key: str(group) for key, group in interests_in(link).items() if group}
    trust = {key: str(side) for key, side in as_map(link.get("trustOverride")).items() if side}
    brake = {name: str(limit) for name, limit in as_map(link.get("brake")).items() if limit not in (None, "")}
    gone = {key: str(name) for key, name in as_map(link.get("interestsGone")).items() if key in interests}
    return LinkView(
        str(link.get("subscriptionGroup") or ""),
        interests,
        trust,
        brake,
        gone,
        bool(link.get("oneWay")),
        str(link.get("oneWayLeavers") or ""),
    )


def _hooks(known: Any, ours: Any, found: Any) -> WebhookList:
    rows = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    return WebhookList(
        bool(found),
        tuple(
            WebhookView(
                str(row.get("id") or ""),
                str(row.get("url") or "").partition("?")[0],
                bool(ours) and row.get("url") == ours,
            )
            for row in rows
        ),
    )
