"""The setting ``mailchimpsync_config``: Mailchimp accounts, and which audience mirrors which group.

A JSON text that CiviCRM's screens, the extension and scripts write too, so it is read tolerantly (PHP writes an empty
map ``[]``; group ids are text or numbers) and unknown keys are kept when it is written back. A list that
cannot be used (no key, no group) is skipped with a warning. Keys and webhook
secrets are in here: none of these values shows them in its ``repr``.
"""

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, select

from civiapi.store.author import Author
from civiapi.store.civicrm.settings import read_serialized, read_setting, write_setting
from civiapi.store.clock import SiteClock
from civiapi.store.databases.dialect import upsert
from civiapi.store.text.php import BadSerial, load_php
from sync.audience import Audience, GroupLink, Privacy
from sync.connections.config_changes import SHAPE, SITE, Facts, changes, facts_of, regrouped
from sync.connections.config_values import (
    INTEREST_PARTS,
    SIDES,
    as_flag,
    as_group_id,
    as_limit,
    as_map,
    interests_apart,
    interests_in,
)
from sync.errors import BadConfig, ConfigChanged, InvalidListId, ListNotConfigured, UnknownAccount, UnknownGroup
from sync.field_rules import FieldRule, MergeField, read_rules
from sync.mailchimp.wire import PERMISSION
from sync.store.events import BY_OTHERS, BY_SYNC, CONFIG, record
from sync.store.members.blobs import INTEREST
from sync.store.members.consents import known_permissions
from sync.store.members.holds import STATUS, lift_all_holds
from sync.store.tables import cache, config_seen

SETTING = "mailchimpsync_config"
ARCHIVE = "archive"
BRAKE_LIMITS = ("percent", "people", "additions", "data")

_LIST_ID = re.compile(r"[0-9a-zA-Z_]+", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """An audience linked with the group that mirrors it, and interests linked with groups of their own.

    Marketing permissions are among the interests (`PERMISSION`)."""

    list_id: str
    group_id: int
    api_key: str = field(repr=False)
    interests: Mapping[str, int] = field(default_factory=dict)
    gone_interests: Mapping[str, str] = field(default_factory=dict)
    """Linked interests that Mailchimp no longer has: id → name (``interestsGone``). A sync leaves them out."""
    trust_override: Mapping[str, str] = field(default_factory=dict)
    """``subscription`` or an interest id → ``Mailchimp`` or ``CiviCRM``."""
    brake: Mapping[str, float] = field(default_factory=dict)
    """The connection's own limits: ``percent``, ``people``, ``additions``, those of them that it has."""
    also_linked: Mapping[int, tuple[GroupLink, ...]] = field(default_factory=dict)
    """All links of those of its groups that are linked more than once, by group."""
    sends_names: bool = True
    """Whether names are sent to Mailchimp (``sendNames``; where that is not stored, as the extension does)."""
    one_way: bool = False
    """Whether the group is a smart group, and so a source (``oneWay``; `config_update` sets it)."""
    archives_leavers: bool = False
    """Whether who leaves such a group is archived instead of unsubscribed (``oneWayLeavers``: ``archive``)."""
    merge_fields: Mapping[str, FieldRule] = field(default_factory=dict)
    """What fills Mailchimp's merge fields, by tag (``mergeFields``)."""
    gone_fields: tuple[str, ...] = ()
    """Mapped merge fields that Mailchimp no longer has. Nothing is sent for them."""

    def audience(self, clock: SiteClock, *, privacy: Privacy = Privacy.KEEP) -> Audience:
        """The audience for a sync."""
        return Audience(
            self.list_id,
            self.group_id,
            clock,
            interests={key: group for key, group in self.interests.items() if key not in self.gone_interests},
            gone=frozenset(self.gone_interests),
            trust=self.trust_override,
            brake=self.brake,
            also_linked=self.also_linked,
            privacy=privacy,
            api_key=self.api_key,
            one_way=self.one_way,
            archives_leavers=self.archives_leavers,
            sends_names=self.sends_names,
            merge_fields=self.merge_fields,
        )


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """A Mailchimp account."""

    api_key: str = field(repr=False)
    name: str
    secret: str = field(repr=False)
    """What Mailchimp must send with each webhook (``batchWebhookSecret``); empty: none is accepted."""
    audiences: Mapping[str, str] = field(default_factory=dict)
    """The names of the audiences that it had when it was last fetched, by list id."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `raw` is the stored JSON, with its unknown keys."""

    accounts: Mapping[str, AccountConfig] = field(default_factory=dict, repr=False)  # by API key
    links: Mapping[str, Link] = field(default_factory=dict)  # by list id
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def copy_raw(self) -> dict[str, Any]:
        """A copy of `raw` that may be changed: `raw` itself is shared by all who read the same text."""
        copied: dict[str, Any] = orjson.loads(orjson.dumps(dict(self.raw)))
        return copied

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

    def account(self, api_key: str) -> AccountConfig:
        """The account of a key. Raises UnknownAccount."""
        for known, account in self.accounts.items():
            if _same(known, api_key):
                return account
        raise UnknownAccount()

    def find_account_by_secret(self, secret: str) -> AccountConfig | None:
        """The account whose webhooks carry this secret; takes the same time for every secret."""
        found = None
        for account in self.accounts.values():
            if account.secret and _same(account.secret, secret):
                found = account
        return found

    def lists_of(self, account: AccountConfig) -> list[Link]:
        """The links that use this account."""
        return [link for link in self.links.values() if link.api_key == account.api_key]


def is_list_id(text: str) -> bool:
    """Whether *text* can be the id of an audience."""
    return _LIST_ID.fullmatch(text) is not None


def read_config(conn: Connection, *, for_update: bool = False) -> Config:
    """The stored configuration, an empty one if there is none. Raises BadConfig for a setting that cannot be read."""
    try:
        return _stored_config(read_serialized(conn, SETTING, for_update=for_update) or "")
    except (BadSerial, ValueError) as error:
        raise BadConfig(
            f"The setting {SETTING} does not hold a JSON object, so nothing is synced; "
            "store it again on the Config screen."
        ) from error


def check_digest(conn: Connection, digest: str) -> None:
    """Raise ConfigChanged unless *digest* is the SHA-256 of the stored text (in hex); ``""``: none is stored."""
    stored = read_setting(conn, SETTING, for_update=True)
    text = stored if isinstance(stored, str) else orjson.dumps(stored).decode() if stored else ""
    if digest.lower() != (hashlib.sha256(text.encode()).hexdigest() if text else ""):
        raise ConfigChanged()


def write_config(conn: Connection, raw: Mapping[str, Any], by: Author = BY_SYNC) -> Config:
    """Store a configuration as JSON text; returns what is stored, as ``read_config`` gives it."""
    text = orjson.dumps(dict(raw)).decode()
    with recorded_change(conn, by):
        write_setting(conn, SETTING, text)
    return parse_config(text)


@contextmanager
def recorded_change(conn: Connection, by: Author) -> Iterator[None]:
    """Record in the timeline what the block does to the stored configuration, and *by* whom.

    All that writes it does so in here. What another program changed before is recorded first, as that program's.
    """
    note_changes(conn, BY_OTHERS)
    yield
    note_changes(conn, by)


def note_changes(conn: Connection, by: Author) -> None:
    """Record how the stored configuration differs from the one last seen, and that it was seen. At first only that.

    What an undo holds is of the group that was linked then, so it is held no more where another one is linked now.
    """
    facts, seen = _facts(conn, for_update=True), _seen(conn, for_update=True)
    if seen == facts:
        return
    known = seen if seen is not None and seen.facts["shape"] == SHAPE else facts
    if facts.unreadable and not known.unreadable:
        record(conn, CONFIG, SITE, "The stored configuration cannot be read any more, so nothing is synced.", by)
    if facts.unreadable:  # what is stored next is compared with what could be read
        facts = SeenConfig(known.facts, unreadable=True)
    for list_id, sentences in changes(known.facts, facts.facts).items():
        record(conn, CONFIG, list_id, " ".join(sentences), by)
    for list_id, interest_id in regrouped(known.facts, facts.facts):
        rows = cache.c.mailchimp_list_id == list_id
        lift_all_holds(conn, rows, f"{INTEREST}{interest_id}" if interest_id else STATUS)
    row = {"name": SETTING, "facts": orjson.dumps(facts).decode()}
    upsert(conn, config_seen, [row], key=("name",), set_=("facts",))


def has_unseen_changes(conn: Connection) -> bool:
    """Whether the stored configuration is another than the one last seen."""
    return _seen(conn) != _facts(conn)


@dataclass(frozen=True, slots=True)
class SeenConfig:
    """What was last seen of the configuration: its facts, the earlier ones where it is *unreadable*."""

    facts: Facts
    unreadable: bool = False


def _seen(conn: Connection, *, for_update: bool = False) -> SeenConfig | None:
    wanted = select(config_seen.c.facts).where(config_seen.c.name == SETTING)
    stored = conn.execute(wanted.with_for_update() if for_update else wanted).scalar()
    return SeenConfig(**orjson.loads(stored)) if stored else None


def _facts(conn: Connection, *, for_update: bool = False) -> SeenConfig:
    try:
        return SeenConfig(facts_of(read_config(conn, for_update=for_update).raw))
    except BadConfig:
        return SeenConfig(facts_of({}), unreadable=True)


def clear_trust_override(conn: Connection, list_id: str, keys: Iterable[str]) -> None:
    """Take these keys out of a list's ``trustOverride``: each is for one run. Other keys stay."""
    raw = read_config(conn, for_update=True).copy_raw()
    override = as_map(as_map(as_map(raw.get("lists")).get(list_id)).get("trustOverride"))
    used = [key for key in keys if key in override]
    if used:
        for key in used:
            del override[key]
        write_config(conn, raw)


def note_interests(
    conn: Connection, list_id: str, existing: Mapping[str, str], parts: Collection[str] = INTEREST_PARTS
) -> list[str]:
    """Store which interests an audience has (id → name), and mark linked ones that it has no more; returns these.

    *existing* are all of these *parts*; of the other nothing is known. The links stay, so that people see which group
    lost its interest; its contacts stay in it.
    """
    raw = read_config(conn, for_update=True).copy_raw()
    link = as_map(as_map(raw.get("lists")).get(list_id))
    marked = as_map(link.get("interestsGone"))
    names = {PERMISSION + one["permission_id"]: one["text"] for one in known_permissions(conn, list_id)} | marked
    found = {part: kept for part, kept in interests_apart(existing).items() if part in parts}
    for account in as_map(raw.get("accounts")).values():
        shown = as_map(as_map(as_map(account).get("audiences")).get(list_id))
        if shown:
            names |= interests_in(shown)
            shown |= found
            if not shown.get("permissions"):
                shown.pop("permissions", None)
    if not link:
        return []
    linked = interests_in({part: link.get(part) for part in found})
    gone = {key: str(name) for key, name in marked.items() if key not in linked}
    gone |= {key: str(names.get(key) or key.removeprefix(PERMISSION)) for key in linked if key not in existing}
    link.pop("interestsGone", None)
    if gone:
        link["interestsGone"] = gone
    write_config(conn, raw)
    return [key for key in gone if key in linked]


def note_merge_fields(conn: Connection, list_id: str, fields: Mapping[str, MergeField]) -> list[str]:
    """Store how Mailchimp describes the merge fields that are mapped, and mark those that it has no more; returns
    these. Their rules stay, so that people see what is not sent any more."""
    raw = read_config(conn, for_update=True).copy_raw()
    link = as_map(as_map(raw.get("lists")).get(list_id))
    rules = as_map(link.get("mergeFields"))
    changed: dict[str, Any] = {}
    for tag, one in rules.items():
        field = fields.get(tag.upper())
        kept = as_map(one) if isinstance(one, dict) else {"source": one}
        kept = {name: kept[name] for name in kept if name not in ("name", "type", "required", "options", "gone")}
        known = {"gone": True} if field is None else {k: v for k, v in field.as_dict().items() if k != "tag"}
        changed[tag] = (as_map(one) if field is None else kept) | known
    if changed != rules:
        link["mergeFields"] = changed
        write_config(conn, raw)
    return [tag for tag in rules if tag.upper() not in fields]


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
    return Config(accounts, _with_shared_groups(links), raw)


@lru_cache(maxsize=4)
def _stored_config(serialized: str) -> Config:
    """What a stored text says, worked out once; the text is read each time, as others write it."""
    stored = load_php(serialized) if serialized else None
    return Config() if stored in (None, False, "") else parse_config(stored)


def _with_shared_groups(links: Mapping[str, Link]) -> dict[str, Link]:
    """The links, each with all links of those of its groups that have several."""
    by_group: dict[int, list[GroupLink]] = {}
    for list_id, link in links.items():
        by_group.setdefault(link.group_id, []).append(GroupLink(list_id, "status"))
        for interest, group_id in link.interests.items():
            if group_id != link.group_id and interest not in link.gone_interests:  # else the subscription decides
                by_group.setdefault(group_id, []).append(GroupLink(list_id, f"interest-{interest}"))
    shared = {group_id: tuple(found) for group_id, found in by_group.items() if len(found) > 1}
    return {
        list_id: replace(
            link,
            also_linked={one: shared[one] for one in {link.group_id, *link.interests.values()} if one in shared},
        )
        for list_id, link in links.items()
    }


def _link(list_id: str, value: dict[str, Any]) -> Link | None:
    group_id, api_key = as_group_id(value.get("subscriptionGroup")), value.get("apiKey")
    if group_id is None or not isinstance(api_key, str) or not api_key or not is_list_id(list_id):
        return None
    groups = {key: as_group_id(group) for key, group in interests_in(value).items()}
    override = as_map(value.get("trustOverride")).items()
    return Link(
        list_id,
        group_id,
        api_key,
        interests={key: group for key, group in groups.items() if group is not None},
        gone_interests={key: str(name) for key, name in as_map(value.get("interestsGone")).items() if key in groups},
        trust_override={key: SIDES[str(side).lower()] for key, side in override if str(side).lower() in SIDES},
        brake={
            name: limit
            for name, value in as_map(value.get("brake")).items()
            if name in BRAKE_LIMITS and (limit := as_limit(value)) is not None
        },
        sends_names=as_flag(value.get("sendNames"), default=True),
        one_way=as_flag(value.get("oneWay"), default=False),
        archives_leavers=str(value.get("oneWayLeavers") or "").lower() == ARCHIVE,
        merge_fields=read_rules(value.get("mergeFields")),
        gone_fields=tuple(key for key, one in as_map(value.get("mergeFields")).items() if as_map(one).get("gone")),
    )


def _account(api_key: str, value: dict[str, Any]) -> AccountConfig:
    audiences = as_map(value.get("audiences"))
    return AccountConfig(
        api_key,
        name=str(value.get("account_name") or ""),
        secret=str(value.get("batchWebhookSecret") or ""),
        audiences={key: str(as_map(shown).get("name") or "") for key, shown in audiences.items()},
    )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
