"""Stores a changed configuration, checked and cleaned, and deletes the rows of lists that are no longer in it."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from civiapi.store.author import Author
from civiapi.store.leases import revoke
from civiapi.store.schema.tables import lease
from sync.audience import interest_name, is_permission
from sync.connections.config import (
    ARCHIVE,
    BRAKE_LIMITS,
    Config,
    check_digest,
    is_list_id,
    read_config,
    write_config,
)
from sync.connections.config_values import as_group_id, as_limit, as_map, interests_in
from sync.connections.linked_groups import linked_groups
from sync.errors import BadConfig, InvalidListId
from sync.store.events import BY_SYNC
from sync.store.runs.checkpoints import note_new
from sync.store.tables import (
    balance,
    batch,
    cache,
    daily,
    data_due,
    data_marks,
    hook_health,
    hook_signing,
    no_address,
    permission,
    plan,
    plan_person,
    run,
    run_change,
    run_log,
    status,
    update,
)

LEAVERS = ("unsubscribe", ARCHIVE)


def update_config(conn: Connection, given: Any, digest: str | None = None, by: Author = BY_SYNC) -> Config:
    """Store a configuration (JSON text or the map itself), cleaned, and delete the rows of lists not in it.

    Lists that no account's audiences name are dropped; so are links of interests that their audience, where its
    interests are known, does not have. Links of marketing permissions stay: members show whether the audience has them.
    Cache rows with their updates, batches and checkpoints of lists no longer configured are deleted. With a *digest*
    only over the stored text of that SHA-256. Raises BadConfig, InvalidListId, ConfigChanged.
    """
    cleaned = clean_config(given)
    if digest is not None:
        check_digest(conn, digest)
    _check_groups(conn, cleaned)
    _note_sources(conn, cleaned)
    _check_second_links(conn, cleaned)
    stored = write_config(conn, cleaned, by)
    _delete_others(conn, list(as_map(stored.raw.get("lists"))))
    for list_id in stored.links:
        note_new(conn, list_id)
    return stored


def clean_config(given: Any) -> dict[str, Any]:
    """A configuration that can be stored, from what a caller sent. Raises BadConfig, InvalidListId."""
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
    if not isinstance(known, dict) or not isinstance(linked, dict):
        return link
    kept = {key: value for key, value in link.items() if key != "interestsGone"}
    kept["interests"] = {key: value for key, value in linked.items() if key in known}
    gone = {key: name for key, name in as_map(link.get("interestsGone")).items() if is_permission(key)}
    return kept | {"interestsGone": gone} if gone else kept


def _check_groups(conn: Connection, cleaned: dict[str, Any]) -> None:
    """Refuse links to groups that a sync could not use. Raises BadConfig."""
    used: dict[int, str] = {}
    for list_id, link in cleaned["lists"].items():
        for value in (link["subscriptionGroup"], *interests_in(link).values()):
            group_id = as_group_id(value)
            if group_id is not None:
                used.setdefault(group_id, list_id)
    sources = {as_group_id(link["subscriptionGroup"]) for link in cleaned["lists"].values()}
    for group_id, found in linked_groups(conn, used).items():
        if found.fault and not (found.is_smart and group_id in sources):
            raise BadConfig(
                f"List '{used[group_id]}' is linked with group {group_id}, {found.fault}. Link an ordinary group."
            )


def _note_sources(conn: Connection, cleaned: dict[str, Any]) -> None:
    """Note of each link whether its group is a smart one, and so a source. Raises BadConfig."""
    groups = {list_id: as_group_id(link["subscriptionGroup"]) or 0 for list_id, link in cleaned["lists"].items()}
    known = linked_groups(conn, groups.values())
    for list_id, group_id in groups.items():
        link = {key: value for key, value in cleaned["lists"][list_id].items() if key != "oneWay"}
        if link.get("oneWayLeavers") not in (None, "", *LEAVERS):
            raise BadConfig(f"List '{list_id}' in the config: oneWayLeavers is {' or '.join(LEAVERS)}.")
        if known[group_id].is_smart:
            own = [key for key, value in interests_in(link).items() if as_group_id(value) == group_id]
            if own:
                raise BadConfig(
                    f"List '{list_id}' in the config: smart group {group_id} cannot be that of {interest_name(own[0])}."
                )
            link["oneWay"] = True
        cleaned["lists"][list_id] = link


def _check_second_links(conn: Connection, cleaned: dict[str, Any]) -> None:
    """Refuse to link a group with a second audience; links that are stored so already may stay. Raises BadConfig."""
    try:
        stored_lists = as_map(read_config(conn).raw.get("lists"))
    except BadConfig:  # it is being replaced
        stored_lists = {}
    stored = _linked_lists(stored_lists)
    for list_id, link in cleaned["lists"].items():
        for group_id, interests in _double_interests(link).items():
            if _double_interests(stored_lists.get(list_id)).get(group_id) != interests:
                raise BadConfig(
                    f"List '{list_id}' in the config: group {group_id} is linked with "
                    f"{' and '.join(map(interest_name, interests))}, which would pull its members in two directions. "
                    "Use another group."
                )
    for group_id, list_ids in _linked_lists(cleaned["lists"]).items():
        known = [one for one in list_ids if one in stored.get(group_id, ())]
        new = [one for one in list_ids if one not in known]
        if len(list_ids) > 1 and new:
            first = (known or list_ids)[0]
            second = next(one for one in new if one != first)
            raise BadConfig(
                f"Group {group_id} is linked with audience '{first}' already, so list '{second}' cannot be linked with "
                "it as well: two audiences would pull its members in two directions. Use another group."
            )


def _double_interests(link: Any) -> dict[int, list[str]]:
    """The groups that are linked with several interests of one list, with these."""
    found: dict[int, list[str]] = {}
    subscription = as_group_id(as_map(link).get("subscriptionGroup"))
    for interest, value in interests_in(link).items():
        group_id = as_group_id(value)
        if group_id is not None and group_id != subscription:  # of that the subscription decides alone
            found.setdefault(group_id, []).append(interest)
    return {group_id: interests for group_id, interests in found.items() if len(interests) > 1}


def _linked_lists(lists: Mapping[str, Any]) -> dict[int, list[str]]:
    """The lists linked with each group, by their subscription or by an interest."""
    found: dict[int, list[str]] = {}
    for list_id, link in lists.items():
        values = (as_map(link).get("subscriptionGroup"), *interests_in(link).values())
        for group_id in {one for value in values if (one := as_group_id(value)) is not None}:
            found.setdefault(group_id, []).append(list_id)
    return found


def count_removal(conn: Connection, list_id: str) -> dict[str, int]:
    """How many rows of each kind are deleted with this list; *pending*: updates not carried out yet."""
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


def _delete_others(conn: Connection, kept: list[str]) -> None:
    """Delete the rows of lists not in *kept*; a running sync of such a list loses its lease."""
    for name in conn.execute(select(status.c.list_id).where(status.c.list_id.not_in(kept))).scalars().all():
        if conn.execute(select(lease.c.name).where(lease.c.name == name)).first() is not None:
            revoke(conn, name)
    for table in (cache, batch):  # updates and members are deleted with their cache rows
        conn.execute(delete(table).where(table.c.mailchimp_list_id.not_in(kept)))
    gone_runs = select(run_log.c.id).where(run_log.c.list_id.not_in(kept))
    conn.execute(delete(run_change).where(run_change.c.run_id.in_(gone_runs)))
    for table in (status, run, hook_health, hook_signing, daily, balance, no_address, data_marks, data_due, permission):
        conn.execute(delete(table).where(table.c.list_id.not_in(kept)))
    gone = select(plan.c.id).where(plan.c.list_id.not_in(kept))
    conn.execute(delete(plan_person).where(plan_person.c.plan_id.in_(gone)))
    conn.execute(delete(plan).where(plan.c.list_id.not_in(kept)))
