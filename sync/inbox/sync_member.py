"""Syncs one member now: the member is fetched and goes through the same merge, matching, plan and writes as in a run.

Of a webhook event only the reference to the member is used, never its values. Three changes need the event itself: an
address changed at Mailchimp (``upemail``) becomes the contact's for bulk mail, unless another contact has it; a name
changed there (``profile``) is changed in CiviCRM, unless it is empty; one that bounced (``cleaned``) is put on hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store import leases
from civiapi.store.civicrm.contacts import PART_LIMIT, NewPerson, create_individuals, rename
from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, same_address
from civiapi.store.leases import Lease
from civiapi.store.text.encoded_text import cut
from sync.audience import Audience
from sync.connections.linked_groups import with_usable_groups
from sync.context import SyncContext
from sync.data.member_data import read_names
from sync.data.names import newer_names
from sync.data.plugins import DataPlugins
from sync.data.queue import queue_members_data
from sync.data.sent_data import read_sent_names
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import Member, subscriber_hash
from sync.model import RECEIVES_MAIL, MemberStatus
from sync.outbox.selection import count_ready
from sync.outbox.submit import submit_pending
from sync.reconcile.dead_contacts import match_row
from sync.reconcile.planning import reconcile_rows
from sync.store.daily import forget_count
from sync.store.members.blobs import load_data
from sync.store.members.cache_merge import mark_gone, merge_member
from sync.store.members.email_changes import hold_bounced
from sync.store.members.holds import STATUS, has_hold
from sync.store.members.member_codec import decode
from sync.store.members.privacy import find_owners, note_trashed
from sync.store.runs import checkpoints
from sync.store.tables import cache
from sync.store.tables import member as contact_ids
from sync.store.updates import open_updates

PROFILE, CLEANED = "profile", "cleaned"
NAMES = ("first_name", "last_name")


@dataclass(frozen=True, slots=True)
class MemberRef:
    """The member to fetch and the kind of event; *old_email* where the address changed."""

    kind: str
    email: str
    old_email: str = ""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The member as fetched (None: gone), the row that had it under another address, and the time of the fetch."""

    member: Member | None
    moved_row: int | None
    at: datetime
    skew: timedelta


async def sync_member(ctx: SyncContext, audience: Audience, lease: Lease, ref: MemberRef) -> None:
    """Fetch a member, reconcile its row, and send the updates that follow.

    Raises MailchimpError, SyncError (the group is gone), LeaseLost. May be repeated.
    """
    usable = await ctx.store.read(with_usable_groups, audience, fresh=False)
    audience = replace(usable, trust={})  # an override decides in a run only, which uses it up
    client = ctx.clients.client_for(audience.api_key)
    fetched = await _fetch(ctx, audience, client, ref)
    cache_ids = await ctx.store.write(_store_member, audience, lease, ref, fetched, ctx.plugins)
    ready = await ctx.store.read(count_ready, audience.list_id, cache_ids) if cache_ids else 0
    if ready:
        await submit_pending(ctx, audience, lease, cache_ids=cache_ids)


async def _fetch(ctx: SyncContext, audience: Audience, client: MailchimpClient, ref: MemberRef) -> _Fetched:
    """Fetch the member; by the stored id first, as very old ids are not derived from the address."""
    known = await ctx.store.read(_known_ids, audience.list_id, ref.email)
    member = None
    for member_id in dict.fromkeys([*known, subscriber_hash(ref.email)]):
        member = member or await client.find_member(audience.list_id, member_id)
    if member is None:
        member, moved_row = await _fetch_by_contact_id(ctx, audience, client, ref)
    else:
        moved_row = await _moved_row(ctx, audience, client, ref, member)
    return _Fetched(member, moved_row, client.now().replace(microsecond=0), client.skew())


async def _fetch_by_contact_id(
    ctx: SyncContext, audience: Audience, client: MailchimpClient, ref: MemberRef
) -> tuple[Member | None, int | None]:
    """Fetch the member whose address may have changed again by Mailchimp's contact id.

    Returns it with its row; nothing where it is gone or has another row already.
    """
    for cache_id, contact_id in await ctx.store.read(_contact_ids, audience.list_id, ref.email):
        found = await client.find_member(audience.list_id, contact_id)
        if found is not None:
            known = await ctx.store.read(_rows_of, audience.list_id, found.get("id") or "", "")
            return (None, None) if known else (found, cache_id)
    return None, None


def _contact_ids(conn: Connection, list_id: str, address: str) -> list[tuple[int, str]]:
    """The rows of the member with this address, and Mailchimp's contact id of each."""
    ids = [cache_id for cache_id, _ in _rows_of(conn, list_id, subscriber_hash(address), address)]
    rows = conn.execute(
        select(contact_ids.c.cache_id, contact_ids.c.contact_id).where(
            contact_ids.c.cache_id.in_(ids), contact_ids.c.contact_id.is_not(None)
        )
    )
    return [(row.cache_id, row.contact_id) for row in rows]


async def _moved_row(
    ctx: SyncContext, audience: Audience, client: MailchimpClient, ref: MemberRef, member: Member
) -> int | None:
    """The row that had this member under another address, by Mailchimp's contact id or the event's old address.

    The old id must be gone at Mailchimp, or they are two members.
    """
    candidates = await ctx.store.read(_moved_candidates, audience, ref, member)
    for cache_id, old_id in candidates:
        if await client.find_member(audience.list_id, old_id) is None:
            return cache_id
    return None


def _moved_candidates(conn: Connection, audience: Audience, ref: MemberRef, member: Member) -> list[tuple[int, str]]:
    """Rows that may have this member under an earlier id: row id and that id; none when it has a row under its own."""
    list_id, new_id = audience.list_id, member.get("id") or ""
    if _rows_of(conn, list_id, new_id, ""):
        return []
    contact_id = member.get("contact_id")
    by_contact = (
        select(cache.c.id, cache.c.mailchimp_member_id)
        .join(contact_ids, contact_ids.c.cache_id == cache.c.id)
        .where(
            contact_ids.c.contact_id == contact_id,
            cache.c.mailchimp_list_id == list_id,
            cache.c.mailchimp_member_id.is_not(None),
        )
    )
    found = [(row.id, row.mailchimp_member_id) for row in conn.execute(by_contact)] if contact_id else []
    if not found and ref.old_email:
        return _rows_of(conn, list_id, subscriber_hash(ref.old_email), ref.old_email)
    return found


def _rows_of(conn: Connection, list_id: str, member_id: str, address: str) -> list[tuple[int, str]]:
    """The members with this id or address: row id and member id. Two statements, each with an index of its own."""
    found: dict[int, str] = {}
    by_id, by_address = cache.c.mailchimp_member_id == member_id, same_address(cache.c.mailchimp_email, address)
    for condition in ([by_id] if member_id else []) + ([by_address] if address else []):
        rows = conn.execute(
            select(cache.c.id, cache.c.mailchimp_member_id).where(
                cache.c.mailchimp_list_id == list_id, condition, cache.c.mailchimp_member_id != ""
            )
        )
        found.update({row.id: row.mailchimp_member_id for row in rows})
    return sorted(found.items())


def _known_ids(conn: Connection, list_id: str, address: str) -> list[str]:
    return [member_id for _, member_id in _rows_of(conn, list_id, subscriber_hash(address), address)]


# ── One unit: the row, its contact, and what follows ────────────────────────────────────────────────────────────────


def _store_member(
    conn: Connection,
    audience: Audience,
    lease: Lease,
    ref: MemberRef,
    fetched: _Fetched,
    plugins: DataPlugins,
) -> list[int]:
    """Merge the member into its row, link its contact and reconcile; returns the reconciled rows."""
    checkpoints.note_new(conn, audience.list_id)
    checkpoints.lock(conn, audience.list_id)
    cache_ids = _merge(conn, audience, ref, fetched)
    for cache_id in cache_ids:
        _link(conn, audience, cache_id, fetched.at)
    reconcile_rows(conn, audience, cache_ids, datetime.now(UTC))
    queue_members_data(conn, audience, cache_ids, plugins)
    if ref.kind == CLEANED:
        _hold_bounced(conn, audience, cache_ids)
    forget_count(conn, audience)
    leases.check(conn, lease)
    return cache_ids


def _merge(conn: Connection, audience: Audience, ref: MemberRef, fetched: _Fetched) -> list[int]:
    if fetched.member is None:
        rows = [cache_id for cache_id, _ in _rows_of(conn, audience.list_id, subscriber_hash(ref.email), ref.email)]
        moving = open_updates(conn, rows)  # while an address changes, its old id is gone
        gone = [cache_id for cache_id in rows if cache_id not in moving]
        mark_gone(conn, audience, gone, fetched.at, skew=fetched.skew)
        return gone
    before = _row(conn, audience.list_id, fetched.moved_row, fetched.member.get("id"))
    cache_id = merge_member(conn, audience, fetched.member, skew=fetched.skew, into=fetched.moved_row)
    if cache_id is None:
        return []
    if ref.kind == PROFILE and before is not None:
        _copy_names(conn, audience, before, cache_id)
    return [cache_id]


def _row(conn: Connection, list_id: str, cache_id: int | None, member_id: str | None) -> Any | None:
    wanted = (
        cache.c.id == cache_id
        if cache_id is not None
        else (cache.c.mailchimp_list_id == list_id) & (cache.c.mailchimp_member_id == member_id)
    )
    columns = (cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_email, cache.c.mailchimp_data)
    return conn.execute(select(*columns).where(wanted).order_by(cache.c.id)).first()


def _copy_names(conn: Connection, audience: Audience, before: Any, cache_id: int) -> None:
    """Give the contact the names that changed at Mailchimp and are not empty there.

    They changed since the row's last fetch, or, where a run fetched them before this event was read, later than
    CiviCRM's did.
    """
    if before.civicrm_contact_id is None:
        return
    row = conn.execute(select(cache.c.mailchimp_data, cache.c.civicrm_data).where(cache.c.id == cache_id)).one()
    old, now = decode(before.mailchimp_data), decode(row.mailchimp_data)
    changed = {name: now[name] for name in NAMES if now.get(name) and now[name] != old.get(name)}
    names = read_names(conn, [before.civicrm_contact_id]).get(before.civicrm_contact_id)
    if names is not None:
        changed |= newer_names(names, now, read_sent_names(load_data(row.civicrm_data)))
    if changed:
        cut_names = {name: cut(text, PART_LIMIT) for name, text in changed.items()}
        rename(conn, before.civicrm_contact_id, cut_names, audience.clock.now())


def _hold_bounced(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> None:
    """Put the address that Mailchimp cleaned on hold, if Mailchimp still says so."""
    columns = (cache.c.civicrm_contact_id, cache.c.mailchimp_email)
    bounced = select(*columns).where(
        in_list(cache.c.id, cache_ids),
        cache.c.mailchimp_status == MemberStatus.CLEANED,
        cache.c.civicrm_contact_id.is_not(None),
    )
    for contact_id, address in conn.execute(bounced).all():
        hold_bounced(conn, audience, contact_id, address)


def _link(conn: Connection, audience: Audience, cache_id: int, at: datetime) -> None:
    """Link the member with its contact: matched, or created for a member in the audience, unless the group is a
    source."""
    match_row(conn, audience, cache_id)
    if audience.one_way:
        return
    row = conn.execute(select(cache).where(cache.c.id == cache_id, ~has_hold(STATUS))).one_or_none()
    if row is not None and row.civicrm_contact_id is None and row.mailchimp_status in RECEIVES_MAIL:
        data = decode(row.mailchimp_data)
        person = NewPerson(data.get("first_name") or "", data.get("last_name") or "", row.mailchimp_email)
        contact_ids = create_individuals(conn, [person], audience.clock.write(at))
        update_rows(conn, cache, ("civicrm_contact_id",), [(contact_ids[0], cache_id)])
        note_trashed(conn, find_owners(conn, [cache_id])[1])
