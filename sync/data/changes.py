"""Finds the contacts whose data may have changed since the last run with data, at a cost that follows the changes.

Contacts with their addresses, phones and custom fields by ``modified_date``, which CiviCRM moves with all of these.
Groups by the subscription history; tags, memberships and contributions by the ids of new rows, memberships by their
log as well, where the site has it. A tag that was taken off leaves a gap: where rows of tags are missing that were
there, everybody is looked at. What leaves no trace (an amount corrected, whatever a plugin reads) is found by looking
at the next slice of the audience in every run, one unit, all round.

`Marks` say how far each was read. Rows are not always committed in the order of their ids, so a walk begins somewhat
before its mark.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, FromClause, Integer, column, func, select
from sqlalchemy import table as table_of

from civiapi.store.databases.expressions import unindexed
from civiapi.store.schema.tables import entity_tag, subscription_history, tag
from sync.audience import Audience
from sync.data.plugins import DataPlugins
from sync.data.sources import TABLES, columns_of, find_gone
from sync.field_rules import CONTRIBUTION, GROUP, MEMBERSHIP

LAG_IDS = 200
"""How far before its mark a walk begins."""

CONTACTS, SLICE, RULES, TAG_ROWS = "contacts", "slice", "rules", "tag_rows"
TAGS_TRAIL = str(entity_tag.name)

Marks = dict[str, Any]
"""How far the last run with data got: ``contacts`` (UTC seconds), ids by table, ``slice`` (cache id), and the
fingerprint of the rules by which it sent (``rules``). ``tag_rows``: how many rows of tags there were up to the mark."""


@dataclass(frozen=True, slots=True)
class Trail:
    """A table whose new rows name contacts: the columns with its ids and theirs, and which rows count."""

    name: str
    id: ColumnElement[int]
    contact_id: ColumnElement[int]
    rows: FromClause
    which: tuple[ColumnElement[bool], ...] = ()


def trails(conn: Connection, audience: Audience) -> list[Trail]:
    """The tables to walk for this audience's rules, on this site."""
    kinds = {rule.source.kind for rule in audience.merge_fields.values()}
    given = entity_tag.c
    found = [Trail(TAGS_TRAIL, given.id, given.entity_id, entity_tag, (given.entity_table == "civicrm_contact",))]
    if GROUP in kinds:
        history = subscription_history.c
        groups = [rule.source.id for rule in audience.merge_fields.values() if rule.source.kind == GROUP]
        which = (unindexed(history.group_id).in_(groups),)
        found.append(Trail(str(subscription_history.name), history.id, history.contact_id, subscription_history, which))
    for kind, name in TABLES.items():
        if kind in kinds and columns_of(conn, name):
            rows = table_of(name, column("id", Integer()), column("contact_id", Integer()))
            found.append(Trail(name, rows.c.id, rows.c.contact_id, rows))
    log = "civicrm_membership_log"
    if MEMBERSHIP in kinds and {"id", "membership_id"} <= columns_of(conn, log):
        entries = table_of(log, column("id", Integer()), column("membership_id", Integer()))
        theirs = table_of("civicrm_membership", column("id", Integer()), column("contact_id", Integer()))
        joined = entries.join(theirs, theirs.c.id == entries.c.membership_id)
        found.append(Trail(log, entries.c.id, theirs.c.contact_id, joined))
    return found


def read_ends(conn: Connection, audience: Audience, plugins: DataPlugins, now_s: int) -> Marks:
    """The marks of a run that begins now (UTC seconds): everything written until then is seen by it."""
    marks: Marks = {CONTACTS: now_s, RULES: fingerprint(conn, audience, plugins)}
    for one in trails(conn, audience):
        marks[one.name] = conn.execute(select(func.max(one.id)).select_from(one.rows)).scalar() or 0
    return marks


def fingerprint(conn: Connection, audience: Audience, plugins: DataPlugins) -> str:
    """What all members' data depends on: where it differs from the last run's, everybody is looked at.

    Sources that are gone count, so that what changed meanwhile is sent once they are back.
    """
    rules = [
        (one.tag, str(one.source), one.clear, one.field.type, one.field.choices, one.field.phone_format)
        for one in audience.merge_fields.values()
    ]
    used = select(tag.c.id, tag.c.name).order_by(tag.c.id)
    tags = [(row.id, row.name) for row in conn.execute(used)]
    gone = find_gone(conn, {rule.source for rule in audience.merge_fields.values()})
    whole = [audience.sends_names, sorted(rules), plugins.names, tags, *([[str(one) for one in gone]] if gone else [])]
    return hashlib.sha256(orjson.dumps(whole)).hexdigest()


def next_on_trail(
    conn: Connection, one: Trail, after: int, upto: int, size: int, ids: int
) -> tuple[Sequence[int], int | None]:
    """Contacts of the next rows of a table, *size* rows or *ids* ids at most; and the id after which to continue, None
    at the end."""
    end = min(upto, after + ids)
    wanted = select(one.id.label("id"), one.contact_id.label("contact_id")).select_from(one.rows)
    rows = conn.execute(wanted.where(one.id > after, one.id <= end, *one.which).order_by(one.id).limit(size)).all()
    last = rows[-1].id if len(rows) == size else end
    return list(dict.fromkeys(row.contact_id for row in rows)), last if last < upto else None


def count_tags(conn: Connection, after: int, upto: int) -> int:
    """How many rows of tags have these ids."""
    counted = select(func.count()).select_from(entity_tag).where(entity_tag.c.id > after, entity_tag.c.id <= upto)
    return int(conn.execute(counted).scalar_one())


def has_traceless(audience: Audience, plugins: DataPlugins, marks: Marks) -> bool:
    """Whether data may change without a trace: there are tags, memberships, contributions or plugins."""
    kinds = {rule.source.kind for rule in audience.merge_fields.values()}
    return bool(plugins.names or marks[TAGS_TRAIL] or kinds & {MEMBERSHIP, CONTRIBUTION})
