"""The status on both sides as conditions on cache rows: `decide` in SQL, for set statements."""

from sqlalchemy import ColumnElement, and_, case, not_, or_, select

from civiapi.store.databases.expressions import same_address, unindexed
from civiapi.store.schema.tables import email
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, GroupStatus
from sync.store.sources import tables_of
from sync.store.tables import cache


def in_audience() -> ColumnElement[bool]:
    """The member counts as being in the audience; false, and not unknown, where there is no member."""
    return case((cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL)), 1), else_=0) == 1


def in_group(audience: Audience) -> ColumnElement[bool]:
    """The row's contact is in the subscription group."""
    return _stands(audience, tables_of(audience)[0].c.status == GroupStatus.ADDED)


def never_heard_of(audience: Audience) -> ColumnElement[bool]:
    """The contact was never in the subscription group, in any status."""
    return not_(was_heard_of(audience))


def was_heard_of(audience: Audience) -> ColumnElement[bool]:
    """The contrary of `never_heard_of`."""
    return or_(_stands(audience), _has_history(audience))


def _stands(audience: Audience, *how: ColumnElement[bool]) -> ColumnElement[bool]:
    members = tables_of(audience)[0].c
    there = select(members.id).where(
        members.contact_id == cache.c.civicrm_contact_id,
        members.group_id == audience.group_id,
        *how,
    )
    return there.correlate(cache).exists()


def _has_history(audience: Audience) -> ColumnElement[bool]:
    history = tables_of(audience)[1].c
    ever = select(history.id).where(
        history.contact_id == cache.c.civicrm_contact_id,
        unindexed(history.group_id) == audience.group_id,  # a contact has a few rows
    )
    return ever.correlate(cache).exists()


def gave_up_address() -> ColumnElement[bool]:
    """The row's contact no longer has the address under which the row is a member."""
    owned = select(email.c.id).where(
        email.c.contact_id == cache.c.civicrm_contact_id,  # who has a few
        same_address(email.c.email, cache.c.mailchimp_email, by_index=False),
    )
    return and_(
        cache.c.mailchimp_member_id.is_not(None),
        cache.c.civicrm_contact_id.is_not(None),
        ~owned.correlate(cache).exists(),
    )
