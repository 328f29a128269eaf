"""Syncs one person now, by contact or address, in one audience.

Members are fetched as after a webhook (``sync_member``). A contact in the group that is no member gets a row, which is
reconciled, and the updates that follow are sent. All under a brief lease on the audience.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from civiapi.store import leases
from civiapi.store.civicrm.contacts import addresses_of, best_email
from civiapi.store.leases import Lease, LeaseLost
from sync.audience import Audience
from sync.connections.linked_groups import with_usable_groups
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from sync.mailchimp.errors import MailchimpError
from sync.outbox.selection import count_ready
from sync.outbox.submit import submit_pending
from sync.reconcile.matching import PersonQuery, contacts_of
from sync.reconcile.planning import reconcile_rows
from sync.runs.stages.civi_only import make_rows, without_row
from sync.store.runs import checkpoints
from sync.store.tables import cache

ASKED_FOR = "asked for"


async def sync_contact(ctx: SyncContext, audience: Audience, query: PersonQuery) -> None:
    """Fetch this person at Mailchimp, reconcile their rows, and send the updates that follow.

    Raises SyncError: a run holds the audience, no address is known, or Mailchimp did not answer.
    """
    await ctx.store.read(with_usable_groups, audience, fresh=False)  # the group must be there
    async with hold_lease(ctx, audience.list_id, brief=True) as lease:
        if lease is None:
            raise SyncError("A sync of this audience is running; it covers everyone who changed.")
        addresses = await ctx.store.read(_addresses, audience, query)
        if not addresses:
            raise SyncError("No member to sync: this person is not in the audience and has no usable address.")
        try:
            for address in addresses:
                await sync_member(ctx, audience, lease, MemberRef(ASKED_FOR, address))
            cache_ids = await ctx.store.write(_reconcile_contacts, audience, lease, query)
            ready = await ctx.store.read(count_ready, audience.list_id, cache_ids) if cache_ids else 0
            if ready:
                await submit_pending(ctx, audience, lease, cache_ids=cache_ids)
        except MailchimpError as error:
            raise MailchimpFailed(f"Audience {audience.list_id}: {error}") from error
        except LeaseLost as error:
            raise SyncError(str(error)) from error


def _addresses(conn: Connection, audience: Audience, query: PersonQuery) -> list[str]:
    """The addresses to fetch: those of the person's members here, and the contact's best one."""
    contacts = contacts_of(conn, query)
    known = select(cache.c.mailchimp_email).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.civicrm_contact_id.in_(contacts),
        cache.c.mailchimp_email.is_not(None),
    )
    best = [best_email(mine) for mine in addresses_of(conn, contacts).values()]
    found = [query.address, *conn.execute(known).scalars(), *best]
    return list({address.lower(): address for address in found if address}.values())


def _reconcile_contacts(conn: Connection, audience: Audience, lease: Lease, query: PersonQuery) -> Sequence[int]:
    """Reconcile the rows of contacts that are no members, created where missing; returns these rows."""
    checkpoints.note_new(conn, audience.list_id)
    contacts = contacts_of(conn, query)
    make_rows(conn, audience, without_row(conn, audience, contacts))
    mine = select(cache.c.id).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.civicrm_contact_id.in_(contacts),
        cache.c.mailchimp_member_id.is_(None),
    )
    cache_ids = list(conn.execute(mine).scalars())
    reconcile_rows(conn, audience, cache_ids, datetime.now(UTC))
    leases.check(conn, lease)
    return cache_ids
