"""Where both sides stand, as conditions on a cache row: what `reconcile` says of standings, said in SQL for sets."""

from sqlalchemy import ColumnElement, case, not_, or_, select

from civiapi.store.dialect import unindexed
from civiapi.store.tables import group_contact, subscription_history
from sync.audience import RECEIVES_MAIL, Audience
from sync.reconcile import ADDED
from sync.tables import cache


def in_audience() -> ColumnElement[bool]:
    """The member counts as being in the audience; false, and not unknown, where there is no member."""
    return case((cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL)), 1), else_=0) == 1


def in_group(audience: Audience) -> ColumnElement[bool]:
    """The row's contact is in the subscription group."""
    return _stands(audience, group_contact.c.status == ADDED)


def never_heard_of(audience: Audience) -> ColumnElement[bool]:
    """The row's contact neither is nor ever was anything in the subscription group."""
    return not_(was_heard_of(audience))


def was_heard_of(audience: Audience) -> ColumnElement[bool]:
    """The contrary of `never_heard_of`."""
    return or_(_stands(audience), _has_history(audience))


def _stands(audience: Audience, *how: ColumnElement[bool]) -> ColumnElement[bool]:
    there = select(group_contact.c.id).where(
        group_contact.c.contact_id == cache.c.civicrm_contact_id,
        group_contact.c.group_id == audience.group_id,
        *how,
    )
    return there.correlate(cache).exists()


def _has_history(audience: Audience) -> ColumnElement[bool]:
    ever = select(subscription_history.c.id).where(
        subscription_history.c.contact_id == cache.c.civicrm_contact_id,
        unindexed(subscription_history.c.group_id) == audience.group_id,  # a contact has a few rows
    )
    return ever.correlate(cache).exists()
