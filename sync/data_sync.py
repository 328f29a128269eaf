"""One-way data: what CiviCRM knows of members, told to Mailchimp as tags. What to tell is up to plugins.

A plugin (pluggy, project ``civiapi``) implements ``contact_tags``; the built-in one gives each CiviCRM tag of a
contact as ``CiviCRM: NAME``. What Mailchimp has from us stands in the row's ``civicrm_data`` (key ``tags``), written
when Mailchimp has taken it; only tags that stand there are ever removed, so nobody else's are touched, and nothing is
sent twice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pluggy
from sqlalchemy import Connection, select

from civiapi.store.dialect import among, unindexed
from civiapi.store.tables import entity_tag, tag
from sync.audience import RECEIVES_MAIL, Audience
from sync.mailchimp.wire import tags_body
from sync.stored import load_data
from sync.tables import cache
from sync.updates import OpenUpdate, Wanted, drop_open, open_updates, queue_many

PROJECT = "civiapi"
PREFIX = "CiviCRM: "
TAG_LENGTH = 100  # the longest tag name Mailchimp takes
TAGS = "tags"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class DataHooks:
    """What a data plugin may implement."""

    @hookspec
    def contact_tags(self, conn: Connection, contact_ids: Sequence[int]) -> Mapping[int, Iterable[str]]:  # type: ignore[empty-body]
        """The names of the tags each of these contacts should have at Mailchimp; a contact without any may be left out.

        Called inside a transaction: read from *conn*, call nobody. Names should begin in a way that is yours alone.
        """


class CiviTags:
    """The built-in plugin: a contact's tags in CiviCRM, as ``CiviCRM: NAME``."""

    @hookimpl
    def contact_tags(self, conn: Connection, contact_ids: Sequence[int]) -> Mapping[int, Iterable[str]]:
        """The tags of these contacts."""
        found: dict[int, list[str]] = defaultdict(list)
        rows = conn.execute(
            select(entity_tag.c.entity_id, tag.c.name)
            .join(tag, tag.c.id == entity_tag.c.tag_id)
            .where(entity_tag.c.entity_table == "civicrm_contact", among(entity_tag.c.entity_id, contact_ids))
        )
        for contact_id, name in rows:
            found[contact_id].append(f"{PREFIX}{name}")
        return found


def data_plugins(*more: object) -> pluggy.PluginManager:
    """A plugin manager with the built-in plugin, those installed as entry points ``civiapi``, and *more*."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(DataHooks)
    manager.register(CiviTags())
    manager.load_setuptools_entrypoints(PROJECT)
    for plugin in more:
        manager.register(plugin)
    return manager


@dataclass(frozen=True, slots=True)
class DataChunk:
    """What a look at some members found; *last_id* is where to go on, None when that was all."""

    rows: int
    updates: int
    last_id: int | None


def queue_data(
    conn: Connection, audience: Audience, *, after: int, limit: int, plugins: pluggy.PluginManager | None
) -> DataChunk:
    """Owe Mailchimp the tags that the next *limit* members should have and do not, or have from us and should not."""
    rows = conn.execute(
        select(cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_member_id, cache.c.civicrm_data)
        .where(
            cache.c.mailchimp_list_id == audience.list_id,
            cache.c.id > after,
            cache.c.civicrm_contact_id.is_not(None),
            cache.c.mailchimp_member_id.is_not(None),
            unindexed(cache.c.mailchimp_status).in_(sorted(RECEIVES_MAIL)),  # in the order of ids
        )
        .order_by(cache.c.id)
        .limit(limit)
    ).all()
    wanted = wanted_tags(conn, [row.civicrm_contact_id for row in rows], plugins or data_plugins())
    owed = open_updates(conn, [row.id for row in rows])
    wishes = []
    for row in rows:
        names = wanted.get(row.civicrm_contact_id, set())
        has = known_tags(row.civicrm_data)
        open_tags = [one for one in owed.get(row.id, ()) if one.wanted.kind == TAGS]
        waiting = [one for one in open_tags if not one.in_flight]
        arriving = _after(has, [one for one in open_tags if one.in_flight])
        change = {name: name in names for name in sorted(names ^ arriving)}
        if change and not (waiting and _after(arriving, waiting) == names):
            path = f"members/{row.mailchimp_member_id}/tags"
            wishes.append((row.id, Wanted(TAGS, "POST", path, tags_body(change))))
        elif not change and waiting:
            drop_open(conn, row.id, (TAGS,))
    queue_many(conn, wishes)
    return DataChunk(len(rows), len(wishes), rows[-1].id if len(rows) == limit else None)


def wanted_tags(conn: Connection, contact_ids: Sequence[int], plugins: pluggy.PluginManager) -> dict[int, set[str]]:
    """The tags each contact should have, all plugins together; a name that is too long for Mailchimp is cut."""
    found: dict[int, set[str]] = defaultdict(set)
    if contact_ids:
        for answer in plugins.hook.contact_tags(conn=conn, contact_ids=contact_ids):
            for contact_id, names in answer.items():
                found[contact_id].update(name[:TAG_LENGTH] for name in names if name)
    return found


def known_tags(civicrm_data: bytes | None) -> set[str]:
    """The tags that Mailchimp has from us, by the row's ``civicrm_data``."""
    kept = load_data(civicrm_data).get(TAGS)
    if isinstance(kept, dict):
        return {str(value) if isinstance(key, int) else str(key) for key, value in kept.items() if value}
    return set()


def _after(has: set[str], updates: Iterable[OpenUpdate]) -> set[str]:
    """The tags once these updates are carried out."""
    tags = set(has)
    for one in updates:
        for entry in one.wanted.body.get(TAGS) or ():
            (tags.add if entry.get("status") == "active" else tags.discard)(str(entry.get("name")))
    return tags
