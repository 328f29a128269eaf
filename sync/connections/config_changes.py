"""The differences between two configurations, as sentences for each connection, without secrets. Pure.

Configurations are compared as *facts* (``facts_of``): the values that people set, and no secret. A key is reduced to
its last four characters, which are shown, and a hash, which distinguishes keys with the same ending.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from sync.audience import interest_kind, interest_name
from sync.connections.config_values import SIDES, as_flag, as_group_id, as_limit, as_map, interests_in
from sync.mailchimp.wire import PERMISSION

SHOWN_OF_KEY = 4
SITE = ""
"""In place of a list id: changes that concern no connection."""

SHAPE = 1
"""The version of the facts. Facts of different versions are not compared; raise it when a fact is added."""

_OF_A_LINK = {"apiKey", "subscriptionGroup", "interests", "interestsGone", "brake", "trustOverride"}
_OF_A_LINK |= {"mergeFields", "permissions", "sendNames"}
_PARTS = {"accounts", "lists"}

Facts = dict[str, Any]
"""As JSON: ``shape``, ``accounts`` (by the hash of the key), ``lists``, ``other`` (name → hash)."""


def facts_of(raw: Mapping[str, Any]) -> Facts:
    """The facts of a configuration."""
    accounts, names, interests = {}, {}, {}
    for key, value in as_map(raw.get("accounts")).items():
        account = as_map(value)
        accounts[hash_of(key)] = {
            "key": ending_of(key),
            "name": str(account.get("account_name") or ""),
            "secret": hash_of(account["batchWebhookSecret"]) if account.get("batchWebhookSecret") else "",
        }
        for list_id, audience in as_map(account.get("audiences")).items():
            names[list_id] = str(as_map(audience).get("name") or "")
            interests[list_id] = interests_in(audience)
    lists = {
        list_id: _link(as_map(link), names.get(list_id, ""), interests.get(list_id, {}))
        for list_id, link in as_map(raw.get("lists")).items()
    }
    other = {str(name): hash_of(value) for name, value in raw.items() if name not in _PARTS}
    return {"shape": SHAPE, "accounts": accounts, "lists": lists, "other": other}


def _link(link: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    key, gone = str(link.get("apiKey") or ""), as_map(link.get("interestsGone"))
    return {
        "name": name,
        "account": hash_of(key),
        "key": ending_of(key),
        "group": as_group_id(link.get("subscriptionGroup")),
        "interests": {
            one: {"group": as_group_id(group), "name": _name(one, known, gone), "gone": one in gone}
            for one, group in interests_in(link).items()
        },
        "brake": {one: as_limit(limit) for one, limit in as_map(link.get("brake")).items()},
        "trust": {
            one: SIDES.get(str(side).lower(), "an unknown side")
            for one, side in as_map(link.get("trustOverride")).items()
        },
        "fields": {str(tag): _source(rule) for tag, rule in as_map(link.get("mergeFields")).items()},
        "names": as_flag(link.get("sendNames"), default=True),
        "other": {str(one): hash_of(value) for one, value in link.items() if one not in _OF_A_LINK},
    }


def _name(interest_id: str, *names: Mapping[str, Any]) -> str:
    """The name of an interest in the first of *names* that has one, else its id at Mailchimp."""
    return str(next((one[interest_id] for one in names if one.get(interest_id)), interest_id.removeprefix(PERMISSION)))


def _source(rule: Any) -> str:
    """The source of a merge field; a fixed text itself is not shown."""
    kind, _, name = str(rule.get("source") if isinstance(rule, dict) else rule).partition(":")
    return "a fixed text" if kind == "text" else f"{kind}:{name}"[:64]


def changes(before: Facts, after: Facts) -> dict[str, list[str]]:
    """The differences as sentences, by list id, and by `SITE` for those that concern no connection."""
    found: dict[str, list[str]] = {}
    old, new = before["lists"], after["lists"]
    for list_id in (*old, *(one for one in new if one not in old)):
        if sentences := list(_of_link(old.get(list_id), new.get(list_id))):
            found[list_id] = sentences
    for account, sentence in _of_accounts(before["accounts"], after["accounts"]):
        both = [(one, links[one]["account"]) for links in (old, new) for one in links]
        users = dict.fromkeys(one for one, used in both if used == account)
        for list_id in users or [SITE]:
            found.setdefault(list_id, []).append(sentence)
    others = sorted(_differing(before["other"], after["other"]))
    if others:
        found.setdefault(SITE, []).append(f"Other settings changed: {_listed(others)}.")
    return found


def regrouped(before: Facts, after: Facts) -> Iterator[tuple[str, str]]:
    """The links whose group is new or changed, of connections that existed before: list id and interest id.

    The interest id is ``""`` for the group of the audience itself.
    """
    for list_id, link in after["lists"].items():
        old = before["lists"].get(list_id)
        if old is None:
            continue
        if old["group"] != link["group"]:
            yield list_id, ""
        for key, interest in link["interests"].items():
            if old["interests"].get(key, {}).get("group") != interest["group"]:
                yield list_id, key


def _of_link(old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[str]:
    if old is None or new is None:
        link = new or old or {}
        what = f"audience “{link['name']}”" if link["name"] else "the audience"
        verb = "was linked with" if new else "is no longer linked with"
        yield f"{what[0].upper()}{what[1:]} {verb} group {link['group']} (account key {link['key']})."
        empty: dict[str, Any] = {part: {} for part in ("interests", "brake", "trust", "fields", "other")}
        old = {**link, **empty, "names": True}
        if new is None:
            return
    if old["group"] != new["group"]:
        yield f"The group changed from {old['group']} to {new['group']}."
    if old["account"] != new["account"]:
        yield f"The account key changed from {old['key']} to {new['key']}."
    yield from _of_interests(old["interests"], new["interests"])
    for name in _differing(old["brake"], new["brake"]):
        yield f"The brake's limit “{name}” changed from {_limit(old, name)} to {_limit(new, name)}."
    for name in _differing(old["trust"], new["trust"]):
        what = "the subscription" if name == "subscription" else interest_name(name[:64])
        side = new["trust"].get(name)
        yield f"For {what}, {side} wins in the next run." if side else f"For {what}, the latest change wins again."
    yield from _of_fields(old, new)
    others = sorted(_differing(old["other"], new["other"]))
    if others:
        yield f"Other settings of the connection changed: {_listed(others)}."


def _of_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for tag in _differing(old["fields"], new["fields"]):
        source = new["fields"].get(tag)
        yield f"Merge field {tag[:20]} is {f'filled from {source}' if source else 'no longer filled'}."
    if old["names"] != new["names"]:
        yield f"First and last names are {'' if new['names'] else 'no longer '}sent to Mailchimp."


def _of_interests(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in _differing(old, new):
        was, now = old.get(key), new.get(key)
        name = f"{interest_kind(key).capitalize()} “{(now or was or {})['name']}”"
        if now is None:
            yield f"{name} is no longer linked with group {was['group'] if was else None}."
            continue
        if was is None or was["group"] != now["group"]:
            instead = f" instead of {was['group']}" if was else ""
            yield f"{name} was linked with group {now['group']}{instead}."
        if now["gone"] and not (was and was["gone"]):
            yield f"{name} is gone at Mailchimp; syncs leave it out."
        elif was and was["gone"] and not now["gone"]:
            yield f"{name} is at Mailchimp again."


def _of_accounts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The hash of the key of each changed account, with a sentence."""
    for key in _differing(old, new):
        was, now = old.get(key), new.get(key)
        shown = (now or was or {})["name"]
        name = f"Account{f' “{shown}”' if shown else ''} with the key {(now or was or {})['key']}"
        if was is None or now is None:
            yield key, f"{name} was {'removed' if now is None else 'added'}."
        elif was["secret"] != now["secret"]:
            yield key, f"{name}: the secret of its webhooks was {'replaced' if was['secret'] else 'set'}."


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _limit(link: Mapping[str, Any], name: str) -> str:
    limit = link["brake"].get(name)
    return "the site's" if limit is None else f"{limit:g}"


def _listed(names: list[str]) -> str:
    return ", ".join(f"“{name[:64]}”" for name in names)


def hash_of(value: Any) -> str:
    """A one-way hash of a value of the configuration."""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return hashlib.sha256(f"civiapi configuration {text}".encode("utf-8", "surrogatepass")).hexdigest()[:24]


def ending_of(key: str) -> str:
    """The last four characters of a key, before the name of its data centre: ``…c0de``."""
    secret = key.rpartition("-")[0] or key
    return f"…{secret[-SHOWN_OF_KEY:]}" if len(secret) > 2 * SHOWN_OF_KEY else "…"
