"""Rows whose contact is missing or in the trash: the contact is dropped, and the row is matched with another."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select
from sqlalchemy import update as change

from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import contact
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, SyncStatus
from sync.reconcile.decide import Decision, decision_for
from sync.reconcile.facts import facts_for
from sync.reconcile.matching import Range, absorb_crm_only, first_owner, match_contacts
from sync.store.members.holds import STATUS
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, update


def drop_dead_contacts(conn: Connection, audience: Audience, rows: Range) -> tuple[int, int]:
    """Unlink rows whose contact is missing or in the trash, and delete those left with neither member nor contact.

    A row with updates stays, because they would be deleted with it. So does one of a contact who left the group before
    it went to the trash, until that is carried out. Returns how many were unlinked and how many deleted.
    """
    alive = select(contact.c.id).where(contact.c.id == cache.c.civicrm_contact_id, contact.c.is_deleted == 0)
    dead = select(cache.c.id).where(
        rows.of(audience), cache.c.civicrm_contact_id.is_not(None), ~alive.correlate(cache).exists()
    )
    ids = list(conn.execute(dead).scalars())
    leaving = _still_leaving(conn, audience, ids)
    set_sync_status(conn, leaving, SyncStatus.TODO)
    ids = [one for one in ids if one not in leaving]
    _unlink(conn, ids)
    return len(ids), _delete_empty(conn, ids)


def _still_leaving(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> set[int]:
    """Those of these rows whose contact left the group, by a change that Mailchimp does not have yet, and then went to
    the trash: who asks to be forgotten is taken out of groups first. Where another contact has the address, that one
    counts."""
    if audience.one_way or not cache_ids:
        return set()
    members = select(cache.c.id).where(
        in_list(cache.c.id, cache_ids),
        cache.c.civicrm_contact_id.in_(select(contact.c.id).where(contact.c.is_deleted == 1)),
        cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL)),
        first_owner().is_(None),
    )
    found = facts_for(conn, audience, list(conn.execute(members).scalars()))
    return {
        one.cache_id for one in found if STATUS not in one.held and decision_for(one, audience) is Decision.UNSUBSCRIBE
    }


def _unlink(conn: Connection, cache_ids: Sequence[int]) -> None:
    """Remove the contact from these rows; they are matched again."""
    conn.execute(
        change(cache)
        .where(in_list(cache.c.id, cache_ids))
        .values(civicrm_contact_id=None, civicrm_groups=None, sync_status=SyncStatus.TODO)
    )


def _delete_empty(conn: Connection, cache_ids: Sequence[int]) -> int:
    updated = select(update.c.id).where(update.c.mailchimpsync_cache_id == cache.c.id)
    return conn.execute(
        delete(cache).where(
            in_list(cache.c.id, cache_ids),
            cache.c.civicrm_contact_id.is_(None),
            cache.c.mailchimp_member_id.is_(None),
            ~updated.correlate(cache).exists(),
        )
    ).rowcount


def match_row(conn: Connection, audience: Audience, cache_id: int) -> None:
    """Give a row the contact it belongs to, if there is one, and take that contact's row without a member into it."""
    one = Range(cache_id - 1, cache_id)
    drop_dead_contacts(conn, audience, one)
    match_contacts(conn, audience, one)
    row = conn.execute(select(cache).where(cache.c.id == cache_id)).one_or_none()
    if row is not None and row.civicrm_contact_id is not None and row.mailchimp_member_id is not None:
        absorb_crm_only(conn, audience, cache_id, row.civicrm_contact_id)
