"""Fetches members before updates are sent again or late, or ask a person to confirm: is that still to be done?

The first sending may have succeeded, and the person or an admin at Mailchimp may have changed the member afterwards; or
a run was stopped between deciding and sending. Sending the update anyway would subscribe somebody who left,
unsubscribe somebody who came back, or give somebody who joined meanwhile other interests or names. So where the
member's change is later than the cause of the update (of an undo: than when it read the members), the update is
completed unsent, the member is stored, and its row is reconciled again. A change that the row knows has the date that
it has there: our own, carried out late, that of its cause. Who objects to mail is unsubscribed whatever they changed.
The same where CiviCRM would not subscribe the contact any more.

A request to confirm is an e-mail. Whatever became of an earlier one (results that cannot be read, a batch that is gone,
a process that was killed, an update that a newer one replaced), everything is sent from here: no request is sent
without a look at the member, and one who was asked, or has joined, is not asked again. The update is done.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.databases.expressions import in_list
from civiapi.store.leases import Lease
from sync.audience import Audience, Privacy
from sync.field_rules import canonical
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import Member, find_instant
from sync.model import RECEIVES_MAIL, MemberOperation, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.outbox.apply_results import OperationOutcome, apply_outcomes
from sync.outbox.verdicts import Outcome, Verdict
from sync.reconcile.facts import member_since
from sync.store.members.cache import forget_sent
from sync.store.members.cache_merge import merge_member
from sync.store.members.obstacles import find_changed_minds, find_obstacles
from sync.store.members.privacy import who_objects
from sync.store.runs import checkpoints
from sync.store.sync_status import set_sync_status
from sync.store.tables import batch, cache, update
from sync.store.updates import overtake

AT_ONCE = 8
"""Members fetched in parallel: as many as the client allows."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Unneeded:
    """Updates that are not to be sent, each with the fetched member.

    *asked*: requests to confirm to members who were asked already, or have joined. *overruled*: updates that would
    subscribe a member who left after their cause, unsubscribe one who opted in after it, or choose interests for one
    who joined after it with others.
    """

    asked: list[tuple[OpenUpdate, Member]]
    overruled: list[tuple[OpenUpdate, Member]]

    def __bool__(self) -> bool:
        return bool(self.asked or self.overruled)


@dataclass(frozen=True, slots=True)
class KnownMember:
    """A member as its row has it: the *status*, *since* when, and Mailchimp's time of its last change (all aware).

    *objects*: it is to be unsubscribed because its contact objects to mail.
    """

    status: str | None
    since: datetime
    changed: datetime | None
    objects: bool

    def is_still(self, member: Member) -> bool:
        """Whether the member has not changed since."""
        changed = find_instant(member.get("last_changed"))
        is_same = self.status is not None and member.get("status") == self.status
        return is_same and changed is not None and self.changed is not None and changed <= self.changed


def read_known(conn: Connection, audience: Audience, updates: Sequence[OpenUpdate]) -> Mapping[int, KnownMember]:
    """What the rows of these updates know of their members, by the id of the row."""
    columns = (
        cache.c.id,
        cache.c.civicrm_contact_id,
        cache.c.mailchimp_status,
        cache.c.mailchimp_updated,
        cache.c.mailchimp_data,
    )
    rows = conn.execute(select(*columns).where(in_list(cache.c.id, [one.cache_id for one in updates]))).all()
    contacts = [row.civicrm_contact_id for row in rows if row.civicrm_contact_id is not None]
    objecting = who_objects(conn, contacts) if audience.privacy is Privacy.UNSUBSCRIBE else ()
    return {
        row.id: KnownMember(
            row.mailchimp_status,
            member_since(audience, row.mailchimp_data, row.mailchimp_updated),
            audience.clock.read(row.mailchimp_updated),
            row.civicrm_contact_id in objecting,
        )
        for row in rows
    }


def may_be_unneeded(updates: Sequence[OpenUpdate], *, is_risky: bool) -> list[OpenUpdate]:
    """Those of these updates whose members are looked at. *is_risky*: all may have been sent before, or were decided
    long ago."""
    return [
        one
        for one in updates
        if (one.operation.kind == OperationKind.MEMBER and one.operation.body.get("status"))
        and (is_risky or one.tries or _asks_to_confirm(one.operation))
    ]


async def find_unneeded(
    client: MailchimpClient, audience: Audience, updates: Sequence[OpenUpdate], known: Mapping[int, KnownMember]
) -> Unneeded:
    """Those of these updates (`may_be_unneeded`) that are not to be sent; *known*: as `read_known` says.

    Raises MailchimpError; nothing is sent then.
    """
    found = Unneeded([], [])
    for one, member in await _fetch_members(client, audience, updates):
        if _asks_to_confirm(one.operation) and member.get("status") in RECEIVES_MAIL:
            found.asked.append((one, member))
        elif _is_overruled(member, one.operation, client.skew(), known.get(one.cache_id)):
            found.overruled.append((one, member))
    return found


async def _fetch_members(
    client: MailchimpClient, audience: Audience, updates: Sequence[OpenUpdate]
) -> list[tuple[OpenUpdate, Member]]:
    """These updates with their members, as far as there are members. Raises MailchimpError."""
    found = []
    for start in range(0, len(updates), AT_ONCE):
        part = updates[start : start + AT_ONCE]
        seen = await asyncio.gather(*(client.find_member(audience.list_id, one.operation.member) for one in part))
        found += [(one, member) for one, member in zip(part, seen, strict=True) if member is not None]
    return found


def complete_unneeded(
    conn: Connection,
    audience: Audience,
    lease: Lease,
    row_id: int,
    unneeded: Unneeded,
    *,
    at: datetime,
    skew: timedelta,
) -> None:
    """Complete these updates of our batch *row_id*, take them out of it, and store the fetched members.

    *at* is now by Mailchimp's clock; *skew* is that clock minus ours.
    """
    checkpoints.lock(conn, audience.list_id)
    _complete_done(conn, audience, row_id, unneeded.asked, at=at, skew=skew)
    overruled = [one for one, _ in unneeded.overruled]
    _overtake(conn, row_id, overruled, "the member changed at Mailchimp before it was sent.")
    for _, member in unneeded.overruled:
        merge_member(conn, audience, member, skew=skew)
    set_sync_status(conn, [one.cache_id for one in overruled], SyncStatus.TODO)
    leases.check(conn, lease)
    numbers = {"asked": len(unneeded.asked), "overruled": len(unneeded.overruled)}
    log.info("updates not sent, their members changed at Mailchimp before", list_id=audience.list_id, **numbers)


def find_doubtful(updates: Sequence[OpenUpdate], *, is_risky: bool) -> list[OpenUpdate]:
    """Those of these updates that subscribe somebody whom CiviCRM may not mail any more. *is_risky* as in
    `may_be_unneeded`; an undo's always: later syncs leave that alone, so it is looked at until it is sent."""
    return [
        one
        for one in updates
        if one.operation.body.get("status") in RECEIVES_MAIL and (is_risky or one.operation.decided is not None)
    ]


def find_unmailable(conn: Connection, audience: Audience, doubtful: Sequence[OpenUpdate]) -> dict[int, str]:
    """The rows of those of these updates that subscribe whom CiviCRM would not mail any more, each with the reason."""
    by_undo = [one.cache_id for one in doubtful if one.operation.decided is not None]
    by_sync = {
        one.cache_id: str(one.operation.body.get("email_address") or "")
        for one in doubtful
        if one.operation.decided is None
    }
    return {**find_obstacles(conn, audience, by_undo), **find_changed_minds(conn, audience, by_sync)}


async def find_carried_out(
    client: MailchimpClient, audience: Audience, updates: Sequence[OpenUpdate]
) -> list[tuple[OpenUpdate, Member]]:
    """Those of these updates, which subscribe somebody and may have been sent before, that were carried out: each with
    the member. It is to be known as our own doing, or it counts as the person's choice. Raises MailchimpError."""
    found = await _fetch_members(client, audience, updates)
    return [(one, member) for one, member in found if member.get("status") in RECEIVES_MAIL]


def complete_unmailable(
    conn: Connection,
    audience: Audience,
    lease: Lease,
    row_id: int,
    doubtful: Sequence[OpenUpdate],
    carried_out: Sequence[tuple[OpenUpdate, Member]],
    *,
    at: datetime,
    skew: timedelta,
) -> None:
    """Complete those of these updates of our batch *row_id* that subscribe whom CiviCRM would not mail any more, and
    take them out of it. *carried_out* are those that Mailchimp has carried out before; *at* and *skew* as in
    `complete_unneeded`."""
    checkpoints.lock(conn, audience.list_id)
    obstacles = find_unmailable(conn, audience, doubtful)
    _complete_done(conn, audience, row_id, carried_out, at=at, skew=skew)
    done = {one.id for one, _ in carried_out}
    by_reason: dict[str, list[OpenUpdate]] = defaultdict(list)
    for one in doubtful:
        if one.cache_id in obstacles and one.id not in done:
            by_reason[obstacles[one.cache_id]].append(one)
    for why, theirs in by_reason.items():
        _overtake(conn, row_id, theirs, why)
    set_sync_status(conn, list(obstacles), SyncStatus.TODO)
    leases.check(conn, lease)


def _complete_done(
    conn: Connection,
    audience: Audience,
    row_id: int,
    updates: Sequence[tuple[OpenUpdate, Member]],
    *,
    at: datetime,
    skew: timedelta,
) -> None:
    """Complete updates of our batch *row_id* as carried out, with the members as they are now, and take them out."""
    done = [OperationOutcome(one, Outcome(Verdict.DONE, member)) for one, member in updates]
    apply_outcomes(conn, audience, row_id, done, at=at.replace(microsecond=0), skew=skew)
    _take_out(conn, row_id, [one.id for one, _ in updates])


def _overtake(conn: Connection, row_id: int, updates: Sequence[OpenUpdate], why: str) -> None:
    """Complete updates of our batch *row_id* unsent, as overtaken, and take them out of it."""
    ids = [one.id for one in updates]
    overtake(conn, ids, why)
    _take_out(conn, row_id, ids)
    forget_sent(conn, [one.cache_id for one in updates])


def _take_out(conn: Connection, row_id: int, update_ids: Sequence[int]) -> None:
    """Take completed updates out of our batch *row_id*."""
    conn.execute(change(update).where(in_list(update.c.id, update_ids)).values(mailchimpsync_batch_id=None))
    size = conn.execute(
        select(func.count()).where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0)
    ).scalar_one()
    conn.execute(change(batch).where(batch.c.id == row_id).values(total_operations=size))


def _asks_to_confirm(operation: MemberOperation) -> bool:
    return operation.body.get("status") == MemberStatus.PENDING


def _is_overruled(member: Member, operation: MemberOperation, skew: timedelta, known: KnownMember | None) -> bool:
    """Whether the member has the opposite status, other interests or other values, by a change later than the cause."""
    is_in = member.get("status") in RECEIVES_MAIL
    if is_in == (operation.body.get("status") in RECEIVES_MAIL):
        return is_in and _chose_otherwise(member, operation, skew)
    if is_in and known is not None and known.objects:
        return False
    # a member in the audience may have changed for any reason; only its opt-in counts
    changed = find_instant(member.get("timestamp_opt") if is_in else member.get("last_changed"))
    if changed is None:
        return False
    since = changed - skew
    if known is not None and known.is_still(member):
        since = min(since, known.since)
    return not is_in if operation.overruled_after is None else since > operation.overruled_after


def _chose_otherwise(member: Member, operation: MemberOperation, skew: timedelta) -> bool:
    """Whether a member has other interests, or values of merge fields, than the update that subscribes it would give
    it, by a change later than the update's cause. A newcomer's are CiviCRM's alone; once the member is known, what
    changed last decides."""
    changed = find_instant(member.get("last_changed"))
    if changed is None or operation.overruled_after is None or changed - skew <= operation.overruled_after:
        return False
    both = (
        (operation.body.get("interests"), member.get("interests")),
        (operation.body.get("merge_fields"), member.get("merge_fields")),
    )
    return any(
        canonical((held or {}).get(key, value)) != canonical(value)
        for given, held in both
        for key, value in (given or {}).items()
    )
