"""Which of the contacts that a run made somebody has worked with since: those are not moved to the trash."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Select, and_, column, exists, func, inspect, not_, or_, select, table

from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.migrations import is_civicrms
from civiapi.store.schema.tables import (
    METADATA,
    contact,
    email,
    entity_tag,
    group_contact,
    group_contact_cache,
    note,
    subscription_history,
)
from sync.audience import Audience

TRIGGER_SECONDS = 5
"""A CiviCRM's database dates a contact anew with each row that is written beside it, as its address is when it is
made."""

OWN = frozenset({email.name, group_contact.name, subscription_history.name, group_contact_cache.name})
"""Tables with a reference to a contact in which the sync itself writes; they are looked at more closely."""

THEIRS = (
    ("civicrm_activity_contact", "contact_id", "an activity"),
    ("civicrm_contribution", "contact_id", "a contribution"),
    ("civicrm_membership", "contact_id", "a membership"),
    ("civicrm_participant", "contact_id", "an event registration"),
    ("civicrm_pledge", "contact_id", "a pledge"),
)
"""Tables that only a CiviCRM makes."""


def find_touched(
    conn: Connection, audience: Audience, contact_ids: Sequence[int], groups: Collection[int], methods: Sequence[str]
) -> Mapping[int, str]:
    """Of these contacts, those that are not in the trash: contact id → what somebody did; empty: nothing.

    *groups*: those that were linked when the contacts were made; *methods*: those of history rows that the sync writes.
    """
    alive = select(contact.c.id, contact.c.created_date, contact.c.modified_date).where(
        in_list(contact.c.id, contact_ids), contact.c.is_deleted == 0
    )
    slack = timedelta(seconds=TRIGGER_SECONDS if is_civicrms(conn) else 0)
    found: dict[int, str] = {}
    for contact_id, created, modified in conn.execute(alive).all():
        made, changed = audience.clock.read(created), audience.clock.read(modified)
        is_changed = made is None or changed is None or changed > made + slack
        found[contact_id] = "somebody changed it since" if is_changed else ""
    for theirs, what in _signs(conn, list(found), groups, methods):
        for contact_id in conn.execute(theirs).scalars():
            found[contact_id] = found.get(contact_id) or f"it has {what} since"
    return found


def _signs(
    conn: Connection, ids: Sequence[int], groups: Collection[int], methods: Sequence[str]
) -> Iterator[tuple[Select[int], str]]:
    """Statements that find contacts with something that the sync does not give them, each with what that is."""
    history, membership = subscription_history.c, group_contact.c
    by_others = or_(not_(history.method.in_(methods)), history.method.is_(None))
    yield _of(history.contact_id, ids, by_others), "a change of a group by somebody"
    elsewhere = unindexed(membership.group_id).not_in(groups)
    yield _of(membership.contact_id, ids, elsewhere), "a membership of another group"
    second = select(email.c.contact_id).where(in_list(email.c.contact_id, ids)).group_by(email.c.contact_id)
    yield second.having(func.count() > 1), "another email address"
    tagged = entity_tag.c.entity_table == contact.name
    yield _of(entity_tag.c.entity_id, ids, tagged), "a tag"
    noted = note.c.entity_table == contact.name
    yield _of(note.c.entity_id, ids, noted), "a note"
    there = set(inspect(conn).get_table_names())
    for name, declared in METADATA.tables.items():
        if name.startswith("civicrm_mailchimpsync") or name in OWN or name not in there:
            continue
        for one in declared.columns:
            if declared is not contact and any(key.column is contact.c.id for key in one.foreign_keys):
                yield _of(one, ids), f"a row in {name}"
    for name, reference, what in THEIRS:
        if name in there and name not in METADATA.tables:
            yield _of(table(name, column(reference)).c[reference], ids), what


def _of(reference: ColumnElement[int], ids: Sequence[int], *conditions: ColumnElement[bool]) -> Select[int]:
    return select(contact.c.id).where(
        in_list(contact.c.id, ids), exists().where(and_(reference == contact.c.id, *conditions))
    )
