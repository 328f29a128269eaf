"""Before somebody is subscribed by an update that was sent before, or waited long: have they left meanwhile?

What became of the first sending may be unknown, or known and undone: they were subscribed, and then they, or an admin
at Mailchimp, said otherwise. A run may have been stopped between deciding and sending. Sent blindly, the update would
bring them back without a word of CiviCRM's. So the member is looked at, and where Mailchimp spoke after the word behind
the update, the update is forgotten, what was seen is kept, and the row is thought about anew.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from sync import claims
from sync.audience import RECEIVES_MAIL, Audience
from sync.cache import forget_sent, mark_todo, merge_member
from sync.claims import Claim
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import Member, parse_instant
from sync.skew import steady_skew
from sync.tables import batch, update
from sync.updates import OpenUpdate, Wanted, delete_updates

AT_ONCE = 8
"""Members looked at side by side: as many as the client lets through."""

log = structlog.get_logger(__name__)

Overruled = list[tuple[OpenUpdate, Member]]


async def find_overruled(client: MailchimpClient, audience: Audience, updates: Sequence[OpenUpdate]) -> Overruled:
    """Of these updates, those that would subscribe somebody who left after the word behind it; with the member seen.

    Raises MailchimpError: nothing is sent before it is known.
    """
    joining = [one for one in updates if _joins(one.wanted)]
    found: Overruled = []
    for start in range(0, len(joining), AT_ONCE):
        part = joining[start : start + AT_ONCE]
        seen = await asyncio.gather(*(client.find_member(audience.list_id, _whom(one.wanted)) for one in part))
        skew = steady_skew(client.clock_offset())
        found += [
            (one, told)
            for one, told in zip(part, seen, strict=True)
            if told is not None and _left_since(told, one.wanted, skew)
        ]
    return found


def take_out(
    conn: Connection, audience: Audience, claim: Claim, row_id: int, overruled: Overruled, skew: timedelta
) -> None:
    """Forget overruled updates of our batch *row_id* and keep what was seen."""
    cache_ids = [one.cache_id for one, _ in overruled]
    delete_updates(conn, [one.id for one, _ in overruled])
    forget_sent(conn, cache_ids)
    for _, told in overruled:
        merge_member(conn, audience, told, skew=skew)
    mark_todo(conn, cache_ids)
    size = conn.execute(
        select(func.count()).where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0)
    ).scalar_one()
    conn.execute(change(batch).where(batch.c.id == row_id).values(total_operations=size))
    claims.check(conn, claim)
    log.info("left at Mailchimp meanwhile, so not subscribed again", list_id=audience.list_id, members=len(overruled))


def _joins(wanted: Wanted) -> bool:
    return wanted.kind == "member" and wanted.body.get("status") in RECEIVES_MAIL


def _whom(wanted: Wanted) -> str:
    """The member that the path names, or the body where it names none."""
    return wanted.path_tail.removeprefix("members").strip("/").partition("/")[0] or str(
        wanted.body.get("email_address") or ""
    )


def _left_since(told: Member, wanted: Wanted, skew: timedelta) -> bool:
    if told.get("status") in RECEIVES_MAIL:
        return False
    try:
        changed = parse_instant(told.get("last_changed"))
    except ValueError:
        return False
    return changed is not None and (wanted.cause is None or changed - skew > wanted.cause)
