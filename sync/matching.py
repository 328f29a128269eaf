"""From a member's address to the contact it belongs to: four rules, each one statement over a range of cache rows.

Only contacts that are not in the trash count, and only rows without a contact are matched. The rules go from the
surest to the least sure, so a row that an earlier one matched is not looked at by a later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, and_, case, delete, func, select
from sqlalchemy import update as change

from civiapi.store.dialect import among, unindexed
from civiapi.store.tables import contact, email, group_contact, subscription_history
from sync.audience import Audience
from sync.reconcile import ADDED
from sync.tables import cache

CHUNK = 500  # keeps an IN list under every driver's limit


@dataclass(frozen=True, slots=True)
class Range:
    """Cache rows with ids from *after* (excluded) to *upto*; *only_todo*: of these, those to be thought about."""

    after: int
    upto: int
    only_todo: bool = False

    def of(self, audience: Audience) -> ColumnElement[bool]:
        """The condition that says so."""
        condition = and_(
            cache.c.mailchimp_list_id == audience.list_id, cache.c.id > self.after, cache.c.id <= self.upto
        )
        return and_(condition, cache.c.sync_status == "todo") if self.only_todo else condition


def drop_dead_contacts(conn: Connection, audience: Audience, rows: Range) -> tuple[int, int]:
    """Unlink rows whose contact is missing or in the trash, and delete those left with neither member nor contact.

    Returns how many were unlinked and how many deleted.
    """
    alive = select(contact.c.id).where(contact.c.id == cache.c.civicrm_contact_id, contact.c.is_deleted == 0)
    dead = select(cache.c.id).where(
        rows.of(audience), cache.c.civicrm_contact_id.is_not(None), ~alive.correlate(cache).exists()
    )
    ids = list(conn.execute(dead).scalars())
    unlink(conn, ids)
    return len(ids), _delete_empty(conn, ids)


def unlink(conn: Connection, cache_ids: Sequence[int]) -> None:
    """Take the contact from these rows; they are matched anew."""
    for start in range(0, len(cache_ids), CHUNK):
        part = cache_ids[start : start + CHUNK]
        conn.execute(
            change(cache)
            .where(among(cache.c.id, part))
            .values(civicrm_contact_id=None, civicrm_groups=None, sync_status="todo")
        )


def match_contacts(conn: Connection, audience: Audience, rows: Range) -> int:
    """Give each row without a contact the one its address belongs to, by the four rules; returns how many got one."""
    matched = 0
    for rule in (only_owner(), first_in_group(audience), first_with_history(audience), first_owner()):
        result = conn.execute(
            change(cache)
            .where(
                rows.of(audience),
                cache.c.civicrm_contact_id.is_(None),
                cache.c.mailchimp_email.is_not(None),
                rule.is_not(None),
            )
            .values(civicrm_contact_id=rule, sync_status="todo")
        )
        matched += result.rowcount
    return matched


def only_owner() -> ScalarSelect[int]:
    """The contact, where the address belongs to exactly one."""
    one = case((func.count(email.c.contact_id.distinct()) == 1, func.min(email.c.contact_id)))
    return _owners(one).correlate(cache).scalar_subquery()


def first_in_group(audience: Audience) -> ScalarSelect[int]:
    """The lowest contact id of those that are in the subscription group."""
    inside = select(group_contact.c.id).where(
        group_contact.c.contact_id == email.c.contact_id,
        group_contact.c.group_id == audience.group_id,
        group_contact.c.status == ADDED,
    )
    return _owners().where(inside.correlate(email).exists()).correlate(cache).scalar_subquery()


def first_with_history(audience: Audience) -> ScalarSelect[int]:
    """The lowest contact id of those that ever were in the subscription group."""
    ever = select(subscription_history.c.id).where(
        subscription_history.c.contact_id == email.c.contact_id,
        unindexed(subscription_history.c.group_id) == audience.group_id,  # a contact has a few rows
    )
    return _owners().where(ever.correlate(email).exists()).correlate(cache).scalar_subquery()


def first_owner() -> ScalarSelect[int]:
    """The lowest contact id of those the address belongs to."""
    return _owners().correlate(cache).scalar_subquery()


def _owners(which: ColumnElement[Any] | None = None) -> Select[Any]:
    return (
        select(func.min(email.c.contact_id) if which is None else which)
        .select_from(email.join(contact, contact.c.id == email.c.contact_id))
        .where(email.c.email == cache.c.mailchimp_email, unindexed(contact.c.is_deleted) == 0)
    )


def _delete_empty(conn: Connection, cache_ids: Sequence[int]) -> int:
    gone = 0
    for start in range(0, len(cache_ids), CHUNK):
        part = cache_ids[start : start + CHUNK]
        gone += conn.execute(
            delete(cache).where(
                among(cache.c.id, part), cache.c.civicrm_contact_id.is_(None), cache.c.mailchimp_member_id.is_(None)
            )
        ).rowcount
    return gone
