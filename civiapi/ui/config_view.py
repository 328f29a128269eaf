"""The stored configuration as the Config pages show and change it: read by one call, its secrets kept out of sight.

A page knows an account by a fingerprint of its key and shows the key's last characters; webhook addresses are shown
without their secrets. ``Stored`` has the real ones: it never goes into a template.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from civiapi.ui.visit import CallFailed, Visit

SETTING = "mailchimpsync_config"
SHOWN_OF_KEY = 4


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that Mailchimp has, its address without what follows the question mark."""

    id: str
    address: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Hooks:
    """Those of an audience or account; ``found``: one of them is ours."""

    found: bool
    known: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """How an audience is linked: group ids as text, interest id → group id, ``trustOverride``, the brake's limits."""

    group_id: str
    interests: Mapping[str, str]
    trust: Mapping[str, str]
    brake: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience as its account last showed it, and its connection if it has one."""

    id: str
    name: str
    interests: Mapping[str, str]
    hooks: Hooks
    connection: Connection | None


@dataclass(frozen=True, slots=True)
class Account:
    """A Mailchimp account. ``id`` is the fingerprint of its key, ``ending`` the key's end."""

    id: str
    ending: str
    name: str
    owner: str
    hooks: Hooks
    audiences: tuple[Audience, ...]

    @property
    def linked(self) -> list[Audience]:
        """Its audiences that are linked with a group."""
        return [one for one in self.audiences if one.connection is not None]


@dataclass(frozen=True, slots=True)
class Stored:
    """The configuration with its secrets, and the digest by which a save finds out whether it is still that one."""

    raw: Mapping[str, Any] = field(repr=False)
    digest: str

    @property
    def accounts(self) -> list[Account]:
        """What may be shown of the accounts."""
        return [_account(key, as_map(value), self.lists) for key, value in as_map(self.raw.get("accounts")).items()]

    @property
    def lists(self) -> dict[str, Any]:
        """The links as they are stored, by list id."""
        return as_map(self.raw.get("lists"))

    def find_key(self, fingerprint: str) -> str | None:
        """The key of the account with this fingerprint."""
        return next((key for key in as_map(self.raw.get("accounts")) if fingerprint_of(key) == fingerprint), None)

    def find_audience(self, list_id: str) -> tuple[Account, Audience] | None:
        """The audience with this id, and whose it is."""
        return next(((a, one) for a in self.accounts for one in a.audiences if one.id == list_id), None)

    def changed(self, **parts: Any) -> dict[str, Any]:
        """The raw configuration with ``accounts`` or ``lists`` replaced."""
        return {**self.raw, **parts}


async def read_stored(visit: Visit) -> Stored:
    """The configuration as it is stored now. Raises ``CallFailed``."""
    found = await visit.ask("Setting", "getvalue", {"name": SETTING})
    text = found if isinstance(found, str) else orjson.dumps(found).decode() if found else ""
    try:
        raw = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        words = f"The setting {SETTING} holds no JSON. Mend it with Setting.create, or empty it there and start anew."
        raise CallFailed(words, "Setting", "getvalue") from error
    return Stored(as_map(raw), hashlib.sha256(text.encode()).hexdigest() if text else "")


async def save(visit: Visit, config: Mapping[str, Any], digest: str) -> None:
    """Store a configuration over the one with *digest*. Raises ``CallFailed``."""
    await visit.ask("Mailchimpsync", "updateconfig", {"config": orjson.dumps(dict(config)).decode(), "digest": digest})


def fingerprint_of(key: str) -> str:
    """What stands for a key in pages and forms: nobody gets from it to the key."""
    return hashlib.sha256(f"civiapi account {key}".encode()).hexdigest()[:16]


def ending_of(key: str) -> str:
    """The last four characters of a key, before the name of its data centre: ``…c0de-us1``."""
    secret, dash, centre = key.rpartition("-")
    return f"…{secret[-SHOWN_OF_KEY:]}{dash}{centre}" if len(secret) > 2 * SHOWN_OF_KEY else f"…{key[-SHOWN_OF_KEY:]}"


def as_map(value: Any) -> dict[str, Any]:
    """*value* if it is a map, else an empty one: PHP writes an empty map as ``[]``."""
    return value if isinstance(value, dict) else {}


def _account(key: str, value: dict[str, Any], lists: dict[str, Any]) -> Account:
    person = " ".join(str(value[part]) for part in ("first_name", "last_name") if value.get(part))
    email = str(value.get("email") or "")
    audiences = as_map(value.get("audiences"))
    return Account(
        fingerprint_of(key),
        ending_of(key),
        str(value.get("account_name") or value.get("username") or "Mailchimp account"),
        f"{person} ({email})" if person and email else person or email,
        _hooks(value.get("batchWebhooks"), value.get("batchWebhook"), value.get("batchWebhookFound")),
        tuple(_audience(list_id, as_map(shown), lists.get(list_id)) for list_id, shown in audiences.items()),
    )


def _audience(list_id: str, value: dict[str, Any], link: Any) -> Audience:
    hooks = _hooks(value.get("webhooks"), value.get("webhook"), value.get("webhookFound"))
    interests = {key: str(name) for key, name in as_map(value.get("interests")).items()}
    return Audience(list_id, str(value.get("name") or list_id), interests, hooks, _connection(link))


def _connection(link: Any) -> Connection | None:
    if not isinstance(link, dict):
        return None
    interests = {key: str(group) for key, group in as_map(link.get("interests")).items() if group}
    trust = {key: str(side) for key, side in as_map(link.get("trustOverride")).items() if side}
    brake = {name: str(limit) for name, limit in as_map(link.get("brake")).items() if limit not in (None, "")}
    return Connection(str(link.get("subscriptionGroup") or ""), interests, trust, brake)


def _hooks(known: Any, ours: Any, found: Any) -> Hooks:
    rows = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    return Hooks(
        bool(found),
        tuple(
            Hook(
                str(row.get("id") or ""),
                str(row.get("url") or "").partition("?")[0],
                bool(ours) and row.get("url") == ours,
            )
            for row in rows
        ),
    )
