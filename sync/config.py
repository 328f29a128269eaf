"""The setting ``mailchimpsync_config``: Mailchimp accounts, and which audience mirrors which group.

A JSON text that CiviCRM's screens, the extension and scripts write too, so it is read tolerantly (PHP writes an empty
map ``[]``; group ids are text or numbers) and whatever we do not know of is kept when it is written back. What cannot
be used (no key, no group) is left out of what the sync sees and said in the log, not refused. Keys and webhook
secrets are in here: none of these values shows them in its ``repr``.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection

from civiapi.store.clock import SiteClock
from civiapi.store.site_settings import read_setting, write_setting
from sync.audience import Audience
from sync.errors import BadConfig, ConfigChanged, InvalidListId, ListNotConfigured, UnknownAccount, UnknownGroup

SETTING = "mailchimpsync_config"
BRAKE_LIMITS = ("percent", "people", "additions")
SIDES = {"mailchimp": "Mailchimp", "civicrm": "CiviCRM"}

_LIST_ID = re.compile(r"[0-9a-zA-Z_]+", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """An audience linked with the group that mirrors it, and interests linked with groups of their own."""

    list_id: str
    group_id: int
    api_key: str = field(repr=False)
    interests: Mapping[str, int] = field(default_factory=dict)
    trust_override: Mapping[str, str] = field(default_factory=dict)
    """``subscription`` or an interest id → ``Mailchimp`` or ``CiviCRM``."""
    brake: Mapping[str, float] = field(default_factory=dict)
    """The connection's own limits: ``percent``, ``people``, ``additions``, those of them that it has."""

    def audience(self, clock: SiteClock, *, respect_privacy: bool = True) -> Audience:
        """The link as a sync is given it."""
        return Audience(
            self.list_id,
            self.group_id,
            clock,
            interests=self.interests,
            trust=self.trust_override,
            brake=self.brake,
            respect_privacy=respect_privacy,
            api_key=self.api_key,
        )


@dataclass(frozen=True, slots=True)
class KnownAudience:
    """An audience as its account last showed it; *interests* (id → name) is None where they were never asked for."""

    list_id: str
    name: str
    interests: Mapping[str, str] | None = None
    webhook_found: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """A Mailchimp account with the audiences it last showed."""

    api_key: str = field(repr=False)
    name: str
    secret: str = field(repr=False)
    """What Mailchimp must send with each webhook (``batchWebhookSecret``); empty: none is accepted."""
    audiences: Mapping[str, KnownAudience] = field(default_factory=dict)
    batch_webhook_found: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `raw` is the stored JSON, with all that we do not know of."""

    accounts: Mapping[str, Account] = field(default_factory=dict, repr=False)  # by API key
    links: Mapping[str, Link] = field(default_factory=dict)  # by list id
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def link_for_group(self, group_id: int) -> Link:
        """The link of a subscription group. Raises UnknownGroup."""
        for link in self.links.values():
            if link.group_id == group_id:
                return link
        raise UnknownGroup(group_id)

    def link_for_list(self, list_id: str) -> Link:
        """The link of an audience. Raises InvalidListId, ListNotConfigured."""
        if not is_list_id(list_id):
            raise InvalidListId(list_id)
        if list_id not in self.links:
            raise ListNotConfigured(list_id)
        return self.links[list_id]

    def account(self, api_key: str) -> Account:
        """The account of a key. Raises UnknownAccount."""
        for known, account in self.accounts.items():
            if _same(known, api_key):
                return account
        raise UnknownAccount()

    def find_account_by_secret(self, secret: str) -> Account | None:
        """The account whose webhooks carry this secret; takes the same time whatever is wrong with it."""
        found = None
        for account in self.accounts.values():
            if account.secret and _same(account.secret, secret):
                found = account
        return found

    def lists_of(self, account: Account) -> list[Link]:
        """The links that use this account."""
        return [link for link in self.links.values() if link.api_key == account.api_key]


def is_list_id(text: str) -> bool:
    """Whether *text* can be the id of an audience."""
    return _LIST_ID.fullmatch(text) is not None


def read_config(conn: Connection, *, for_update: bool = False) -> Config:
    """The stored configuration, an empty one if there is none. Raises BadConfig for a setting that is no JSON map."""
    stored = read_setting(conn, SETTING, for_update=for_update)
    if stored in (None, False, ""):
        return Config()
    try:
        return parse_config(stored)
    except ValueError as error:
        raise BadConfig(
            f"The setting {SETTING} does not hold a JSON object; set it anew on the Config screen."
        ) from error


def check_digest(conn: Connection, digest: str) -> None:
    """Raise ConfigChanged unless *digest* is the SHA-256 of the stored text (in hex); ``""`` stands for none stored."""
    stored = read_setting(conn, SETTING, for_update=True)
    text = stored if isinstance(stored, str) else orjson.dumps(stored).decode() if stored else ""
    if digest.lower() != (hashlib.sha256(text.encode()).hexdigest() if text else ""):
        raise ConfigChanged()


def write_config(conn: Connection, raw: Mapping[str, Any]) -> Config:
    """Store a configuration as JSON text; returns what is stored, as ``read_config`` gives it."""
    text = orjson.dumps(dict(raw)).decode()
    write_setting(conn, SETTING, text)
    return parse_config(text)


def clear_trust_override(conn: Connection, list_id: str, keys: Iterable[str]) -> None:
    """Take these keys out of a list's ``trustOverride``: each serves one run. What else stands there stays."""
    raw = orjson.loads(orjson.dumps(dict(read_config(conn, for_update=True).raw)))  # a copy that may be changed
    override = as_map(as_map(as_map(raw.get("lists")).get(list_id)).get("trustOverride"))
    used = [key for key in keys if key in override]
    if used:
        for key in used:
            del override[key]
        write_config(conn, raw)


def parse_config(text: Any) -> Config:
    """A configuration from its JSON text (or the map itself). Raises ValueError for what is no JSON object.

    ``[]``, PHP's empty map, is an object.
    """
    raw = orjson.loads(text) if isinstance(text, str | bytes) else text
    if raw == []:
        raw = {}
    if not isinstance(raw, dict):
        raise ValueError("a configuration is a JSON object")  # noqa: TRY004  like all else that is wrong with the text
    accounts = {key: _account(key, as_map(value)) for key, value in as_map(raw.get("accounts")).items()}
    links = {}
    for list_id, value in as_map(raw.get("lists")).items():
        link = _link(list_id, as_map(value))
        if link is None:
            log.warning("a list in the configuration has no key or no group and is left out", list_id=list_id)
        else:
            links[list_id] = link
    return Config(accounts, links, raw)


def as_map(value: Any) -> dict[str, Any]:
    """*value* if it is a map, else an empty one: PHP writes an empty map as ``[]``."""
    return value if isinstance(value, dict) else {}


def as_group_id(value: Any) -> int | None:
    """A group id from text or a number; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 11 and int(text) > 0 else None


def as_limit(value: Any) -> float | None:
    """A limit of the brake from text or a number; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def _link(list_id: str, value: dict[str, Any]) -> Link | None:
    group_id, api_key = as_group_id(value.get("subscriptionGroup")), value.get("apiKey")
    if group_id is None or not isinstance(api_key, str) or not api_key or not is_list_id(list_id):
        return None
    groups = {key: as_group_id(group) for key, group in as_map(value.get("interests")).items()}
    override = as_map(value.get("trustOverride")).items()
    return Link(
        list_id,
        group_id,
        api_key,
        interests={key: group for key, group in groups.items() if group is not None},
        trust_override={key: SIDES[str(side).lower()] for key, side in override if str(side).lower() in SIDES},
        brake={
            name: limit
            for name, value in as_map(value.get("brake")).items()
            if name in BRAKE_LIMITS and (limit := as_limit(value)) is not None
        },
    )


def _account(api_key: str, value: dict[str, Any]) -> Account:
    audiences = as_map(value.get("audiences"))
    return Account(
        api_key,
        name=str(value.get("account_name") or ""),
        secret=str(value.get("batchWebhookSecret") or ""),
        audiences={key: _audience(key, as_map(shown)) for key, shown in audiences.items()},
        batch_webhook_found=bool(value.get("batchWebhookFound")),
    )


def _audience(list_id: str, value: dict[str, Any]) -> KnownAudience:
    interests = value.get("interests")
    known = interests is not None and not isinstance(interests, str | bool | int)
    return KnownAudience(
        list_id,
        name=str(value.get("name") or ""),
        interests={key: str(name) for key, name in as_map(interests).items()} if known else None,
        webhook_found=bool(value.get("webhookFound")),
    )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
