"""Bringing one person into step now, because somebody asked: a contact or an address, in one audience.

Members go the way that webhooks take (``single``). A contact in the group whom Mailchimp does not know yet gets a row
and is judged like everybody; what that owes is sent. All under the audience's claim, held briefly.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from civiapi.store.contacts import addresses_of, best_email
from sync import claims
from sync.audience import Audience
from sync.batches import submit_pending
from sync.claims import Claim, ClaimLost
from sync.context import SyncContext
from sync.engine import prepare
from sync.errors import MailchimpFailed, SyncError
from sync.explain import Whom, contacts_of
from sync.holding import held
from sync.mailchimp.errors import MailchimpError
from sync.ready import count_ready
from sync.single import Hint, judge_rows, sync_member
from sync.stages.additions import make_rows, without_row
from sync.tables import cache

ASKED_FOR = "asked for"


async def sync_person(ctx: SyncContext, audience: Audience, whom: Whom) -> None:
    """Look this person up at Mailchimp and bring both ends into step about them; updates that this owes are sent.

    Raises SyncError: a run is at work on the audience, there is nobody to look for, or Mailchimp did not answer.
    """
    await ctx.store.read(prepare, audience)  # the group must be there
    async with held(ctx, audience.list_id, brief=True) as claim:
        if claim is None:
            raise SyncError("A sync of this audience is under way; it looks at everybody who changed.")
        addresses = await ctx.store.read(_addresses, audience, whom)
        if not addresses:
            raise SyncError("There is nobody to look for: no member of this audience, and no address to write to.")
        try:
            for address in addresses:
                await sync_member(ctx, audience, claim, Hint(ASKED_FOR, address))
            cache_ids = await ctx.store.write(_judge_contacts, audience, claim, whom)
            ready = await ctx.store.read(count_ready, audience.list_id, cache_ids) if cache_ids else 0
            if ready:
                await submit_pending(ctx, audience, claim, cache_ids=cache_ids)
        except MailchimpError as error:
            raise MailchimpFailed(f"Audience {audience.list_id}: {error}") from error
        except ClaimLost as error:
            raise SyncError(str(error)) from error


def _addresses(conn: Connection, audience: Audience, whom: Whom) -> list[str]:
    """Under which addresses to look: those of the person's members here, and the one they would be written to at."""
    contacts = contacts_of(conn, whom)
    known = select(cache.c.mailchimp_email).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.civicrm_contact_id.in_(contacts),
        cache.c.mailchimp_email.is_not(None),
    )
    best = [best_email(mine) for mine in addresses_of(conn, contacts).values()]
    found = [whom.address, *conn.execute(known).scalars(), *best]
    return list({address.lower(): address for address in found if address}.values())


def _judge_contacts(conn: Connection, audience: Audience, claim: Claim, whom: Whom) -> Sequence[int]:
    """Judge the rows of contacts whom Mailchimp does not know, made where they are missing; returns these rows."""
    contacts = contacts_of(conn, whom)
    make_rows(conn, audience, without_row(conn, audience, contacts))
    mine = select(cache.c.id).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.civicrm_contact_id.in_(contacts),
        cache.c.mailchimp_member_id.is_(None),
    )
    cache_ids = list(conn.execute(mine).scalars())
    judge_rows(conn, audience, cache_ids)
    claims.check(conn, claim)
    return cache_ids
