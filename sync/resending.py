"""Before an update goes that was sent before, or waited long: has the person said otherwise at Mailchimp meanwhile?

What became of the first sending may be unknown, or known and undone: they were subscribed, and then they, or an admin
at Mailchimp, said otherwise. A run may have been stopped between deciding and sending. Sent blindly, the update would
bring them back without a word of CiviCRM's, or put out who came back since. So the member is looked at, and where
Mailchimp spoke after the word behind the update, the update is forgotten, what was seen is kept, and the row is thought
about anew.
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
    """Of these updates, those that would subscribe somebody who left after the word behind it, or put out somebody who
    opted in after it; with the member seen.

    Raises MailchimpError: nothing is sent before it is known.
    """
    moving = [one for one in updates if one.wanted.kind == "member" and one.wanted.body.get("status")]
    found: Overruled = []
    for start in range(0, len(moving), AT_ONCE):
        part = moving[start : start + AT_ONCE]
        seen = await asyncio.gather(*(client.find_member(audience.list_id, _whom(one.wanted)) for one in part))
        skew = steady_skew(client.clock_offset())
        found += [
            (one, told)
            for one, told in zip(part, seen, strict=True)
            if told is not None and _says_otherwise(told, one.wanted, skew)
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
    log.info("Mailchimp spoke meanwhile, so not sent again", list_id=audience.list_id, members=len(overruled))


def _joins(wanted: Wanted) -> bool:
    return wanted.body.get("status") in RECEIVES_MAIL


def _whom(wanted: Wanted) -> str:
    """The member that the path names, or the body where it names none."""
    return wanted.path_tail.removeprefix("members").strip("/").partition("/")[0] or str(
        wanted.body.get("email_address") or ""
    )


def _says_otherwise(told: Member, wanted: Wanted, skew: timedelta) -> bool:
    """Whether the member stands the other way round, by a word later than the one behind the update."""
    is_in = told.get("status") in RECEIVES_MAIL
    if is_in == _joins(wanted):
        return False
    try:  # whoever is in may have been changed since for any reason; when they came in is told apart
        spoken = parse_instant(told.get("timestamp_opt") if is_in else told.get("last_changed"))
    except ValueError:
        return False
    if spoken is None:
        return False
    return not is_in if wanted.cause is None else spoken - skew > wanted.cause
