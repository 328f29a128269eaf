"""Checks updates before they are sent again or late: has the member changed at Mailchimp since?

The first sending may have succeeded, and the person or an admin at Mailchimp may have changed the member afterwards; or
a run was stopped between deciding and sending. Sending the update anyway would subscribe somebody who left,
unsubscribe somebody who came back, or choose interests for somebody who joined meanwhile without them. So the member is
fetched. Where its change is later than the cause of the update, the update is deleted, the member is stored, and its
row is reconciled again.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.databases.expressions import in_list
from civiapi.store.leases import Lease
from sync.audience import Audience
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import Member, find_instant
from sync.model import RECEIVES_MAIL, MemberOperation, OpenUpdate, OperationKind, SyncStatus
from sync.store.members.cache import forget_sent
from sync.store.members.cache_merge import merge_member
from sync.store.sync_status import set_sync_status
from sync.store.tables import batch, update
from sync.store.updates import overtake

AT_ONCE = 8
"""Members fetched in parallel: as many as the client allows."""

log = structlog.get_logger(__name__)

Overruled = list[tuple[OpenUpdate, Member]]


async def find_overruled(client: MailchimpClient, audience: Audience, updates: Sequence[OpenUpdate]) -> Overruled:
    """The updates that would subscribe a member who left after their cause, unsubscribe one who opted in after it, or
    choose interests for one who joined after it with others; each with the fetched member. Raises MailchimpError;
    nothing is sent then."""
    moving = [one for one in updates if one.operation.kind == OperationKind.MEMBER and one.operation.body.get("status")]
    found: Overruled = []
    for start in range(0, len(moving), AT_ONCE):
        part = moving[start : start + AT_ONCE]
        seen = await asyncio.gather(*(client.find_member(audience.list_id, one.operation.member) for one in part))
        skew = client.skew()
        found += [
            (one, member)
            for one, member in zip(part, seen, strict=True)
            if member is not None and _is_overruled(member, one.operation, skew)
        ]
    return found


def drop_overruled(
    conn: Connection, audience: Audience, lease: Lease, row_id: int, overruled: Overruled, skew: timedelta
) -> None:
    """Take overruled updates out of our batch *row_id*, complete them, and store the fetched members."""
    cache_ids = [one.cache_id for one, _ in overruled]
    ids = [one.id for one, _ in overruled]
    overtake(conn, ids, "the member changed at Mailchimp before it was sent.")
    conn.execute(change(update).where(in_list(update.c.id, ids)).values(mailchimpsync_batch_id=None))
    forget_sent(conn, cache_ids)
    for _, member in overruled:
        merge_member(conn, audience, member, skew=skew)
    set_sync_status(conn, cache_ids, SyncStatus.TODO)
    size = conn.execute(
        select(func.count()).where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0)
    ).scalar_one()
    conn.execute(change(batch).where(batch.c.id == row_id).values(total_operations=size))
    leases.check(conn, lease)
    log.info("updates not sent, members changed at Mailchimp since", list_id=audience.list_id, members=len(overruled))


def _is_overruled(member: Member, operation: MemberOperation, skew: timedelta) -> bool:
    """Whether the member has the opposite status, or other interests, by a change later than the update's cause."""
    is_in = member.get("status") in RECEIVES_MAIL
    if is_in == (operation.body.get("status") in RECEIVES_MAIL):
        return is_in and _chose_otherwise(member, operation, skew)
    # a member in the audience may have changed for any reason; only its opt-in counts
    changed = find_instant(member.get("timestamp_opt") if is_in else member.get("last_changed"))
    if changed is None:
        return False
    return not is_in if operation.cause is None else changed - skew > operation.cause


def _chose_otherwise(member: Member, operation: MemberOperation, skew: timedelta) -> bool:
    """Whether a member has other interests than the update that subscribes it would choose, by a change later than the
    update's cause. As a newcomer's they follow the groups alone; once the member is known, the dates decide."""
    chosen, held = operation.body.get("interests") or {}, member.get("interests") or {}
    changed = find_instant(member.get("last_changed"))
    if changed is None or operation.cause is None or changed - skew <= operation.cause:
        return False
    return any(held.get(key, value) != value for key, value in chosen.items())
