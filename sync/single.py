"""One member, now: what a webhook hints at is looked up at Mailchimp and goes the way of every member.

The same merge, matching, decision and application as in a run, for one row, under the audience's claim. What the
webhook said of the member is never used: it says whom to look at, no more.

Two things only a single member's change can tell. A person who changed their address at Mailchimp (``upemail``) gets
it changed in CiviCRM: the address that the contact had there becomes the new one, unless the contact has the new one
already or somebody else does. A person who changed their name there (``profile``) gets it changed in CiviCRM; an empty
name changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from civiapi.store.bulk import update_rows
from civiapi.store.contacts import NewPerson, create_individuals, individual_names
from civiapi.store.tables import contact
from sync import claims, positions
from sync.apply import apply_plans
from sync.audience import RECEIVES_MAIL, Audience
from sync.batches import submit_pending
from sync.cache import absorb, mark_gone, merge_member
from sync.claims import Claim
from sync.context import SyncContext
from sync.daily import forget_count
from sync.engine import prepare
from sync.facts import facts_for
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.wire import Member, subscriber_hash
from sync.matching import Range, drop_dead_contacts, match_contacts
from sync.member_data import decode
from sync.ready import count_ready
from sync.reconcile import plan, plan_address
from sync.skew import steady_skew
from sync.tables import cache
from sync.tables import member as contact_ids
from sync.updates import open_updates

PROFILE = "profile"
NAMES = ("first_name", "last_name")
NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Hint:
    """Whom to look at, and what kind of event said so; *old_email* where the address changed."""

    kind: str
    email: str
    old_email: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What Mailchimp says: the member (None: gone), the row that was it under another address, and when it said so."""

    member: Member | None
    moved_row: int | None
    at: datetime
    skew: timedelta


async def sync_member(ctx: SyncContext, audience: Audience, claim: Claim, hint: Hint) -> None:
    """Look a member up and bring both ends into step about it; updates that this owes are sent.

    Raises MailchimpError, SyncError (the group is gone), ClaimLost. Safe to repeat.
    """
    usable, _ = await ctx.store.read(prepare, audience)
    audience = replace(usable, trust={})  # an override arbitrates in a run, and is used up there
    client = ctx.clients.client_for(audience.api_key)
    seen = await _look(ctx, audience, client, hint)
    cache_ids = await ctx.store.write(_take_in, audience, claim, hint, seen)
    ready = await ctx.store.read(count_ready, audience.list_id, cache_ids) if cache_ids else 0
    if ready:
        await submit_pending(ctx, audience, claim, cache_ids=cache_ids)


async def _look(ctx: SyncContext, audience: Audience, client: MailchimpClient, hint: Hint) -> _Seen:
    """Ask Mailchimp about the member; by the id we know first, as very old ids are not made from the address."""
    known = await ctx.store.read(_known_ids, audience.list_id, hint.email)
    member = None
    for member_id in dict.fromkeys([*known, subscriber_hash(hint.email)]):
        member = member or await client.find_member(audience.list_id, member_id)
    if member is None:
        member, moved_row = await _look_elsewhere(ctx, audience, client, hint)
    else:
        moved_row = await _moved_row(ctx, audience, client, hint, member)
    offset = client.clock_offset()
    at = (datetime.now(UTC) + (offset or timedelta(0))).replace(microsecond=0)
    return _Seen(member, moved_row, at, steady_skew(offset))


async def _look_elsewhere(
    ctx: SyncContext, audience: Audience, client: MailchimpClient, hint: Hint
) -> tuple[Member | None, int | None]:
    """Whoever is not there under an address may have changed it again: the member with the contact id we know.

    Returns it with the row that it was; nothing where it is gone, or has a row of its own already.
    """
    for cache_id, contact_id in await ctx.store.read(_contact_ids, audience.list_id, hint.email):
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
    ctx: SyncContext, audience: Audience, client: MailchimpClient, hint: Hint, member: Member
) -> int | None:
    """The row that was this member under another address: known by Mailchimp's contact id or named by the event.

    The old id must be gone, or they are two members.
    """
    candidates = await ctx.store.read(_moved_candidates, audience, hint, member)
    for cache_id, old_id in candidates:
        if await client.find_member(audience.list_id, old_id) is None:
            return cache_id
    return None


def _moved_candidates(conn: Connection, audience: Audience, hint: Hint, member: Member) -> list[tuple[int, str]]:
    """Rows that may be this member under an earlier id: row id and that id; none when it has a row under its own."""
    list_id, new_id = audience.list_id, member.get("id") or ""
    if _rows_of(conn, list_id, new_id, ""):
        return []
    by_contact = conn.execute(
        select(cache.c.id, cache.c.mailchimp_member_id)
        .join(contact_ids, contact_ids.c.cache_id == cache.c.id)
        .where(
            contact_ids.c.contact_id == (member.get("contact_id") or None),
            cache.c.mailchimp_list_id == list_id,
            cache.c.mailchimp_member_id.is_not(None),
        )
    )
    found = [(row.id, row.mailchimp_member_id) for row in by_contact]
    if not found and hint.old_email:
        return _rows_of(conn, list_id, subscriber_hash(hint.old_email), hint.old_email)
    return found


def _rows_of(conn: Connection, list_id: str, member_id: str, address: str) -> list[tuple[int, str]]:
    """The members with this id or address: row id and member id. Two statements, each with an index of its own."""
    found: dict[int, str] = {}
    for column, value in ((cache.c.mailchimp_member_id, member_id), (cache.c.mailchimp_email, address)):
        rows = conn.execute(
            select(cache.c.id, cache.c.mailchimp_member_id).where(
                cache.c.mailchimp_list_id == list_id, column == value, cache.c.mailchimp_member_id != ""
            )
        )
        found.update({row.id: row.mailchimp_member_id for row in rows} if value else {})
    return sorted(found.items())


def _known_ids(conn: Connection, list_id: str, address: str) -> list[str]:
    return [member_id for _, member_id in _rows_of(conn, list_id, subscriber_hash(address), address)]


# ── One unit: the row, its contact, and what follows ────────────────────────────────────────────────────────────────


def _take_in(conn: Connection, audience: Audience, claim: Claim, hint: Hint, seen: _Seen) -> list[int]:
    """Bring the row up to date and carry out what follows from it; returns the rows that were judged."""
    positions.lock(conn, audience.list_id)
    cache_ids = _merge(conn, audience, hint, seen)
    for cache_id in cache_ids:
        _link(conn, audience, cache_id, seen.at)
    judge_rows(conn, audience, cache_ids)
    forget_count(conn, audience)
    claims.check(conn, claim)
    return cache_ids


def _merge(conn: Connection, audience: Audience, hint: Hint, seen: _Seen) -> list[int]:
    if seen.member is None:
        rows = [cache_id for cache_id, _ in _rows_of(conn, audience.list_id, subscriber_hash(hint.email), hint.email)]
        moving = open_updates(conn, rows)  # an address that is just changing is gone from its old id
        gone = [cache_id for cache_id in rows if cache_id not in moving]
        mark_gone(conn, audience, gone, seen.at, skew=seen.skew)
        return gone
    before = _row(conn, audience.list_id, seen.moved_row, seen.member.get("id"))
    cache_id = merge_member(conn, audience, seen.member, skew=seen.skew, into=seen.moved_row)
    if cache_id is None:
        return []
    if hint.kind == PROFILE and before is not None:
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
    """Give the contact the names that changed at Mailchimp and are not empty there."""
    if before.civicrm_contact_id is None:
        return
    old = decode(before.mailchimp_data)
    now = decode(conn.execute(select(cache.c.mailchimp_data).where(cache.c.id == cache_id)).scalar())
    changed = {name: now[name][:NAME_LENGTH] for name in NAMES if now.get(name) and now[name] != old.get(name)}
    if changed:
        rename(conn, before.civicrm_contact_id, changed, audience.clock.now())


def rename(conn: Connection, contact_id: int, names: Mapping[str, str], at: str) -> None:
    """Give an Individual these names, and call it by them, at site time *at*; other types are left alone."""
    row = conn.execute(select(contact).where(contact.c.id == contact_id, contact.c.is_deleted == 0)).one_or_none()
    if row is None or row.contact_type != "Individual":
        return
    if all(getattr(row, name) == value for name, value in names.items()):
        return
    first, last = (names.get(name, getattr(row, name)) for name in NAMES)
    display, sort = individual_names(first, last)
    conn.execute(
        change(contact)
        .where(contact.c.id == contact_id)
        .values({**names, "display_name": display, "sort_name": sort, "modified_date": at})
    )


def _link(conn: Connection, audience: Audience, cache_id: int, at: datetime) -> None:
    """See to it that the member has its contact: matched, or made for one who is in the audience."""
    match_row(conn, audience, cache_id)
    row = conn.execute(select(cache).where(cache.c.id == cache_id)).one_or_none()
    if row is not None and row.civicrm_contact_id is None and row.mailchimp_status in RECEIVES_MAIL:
        data = decode(row.mailchimp_data)
        person = NewPerson(data.get("first_name") or "", data.get("last_name") or "", row.mailchimp_email)
        contact_ids = create_individuals(conn, [person], audience.clock.write(at))
        update_rows(conn, cache, ("civicrm_contact_id",), [(contact_ids[0], cache_id)])


def match_row(conn: Connection, audience: Audience, cache_id: int) -> None:
    """Give a row the contact it belongs to, if there is one, and take that contact's row without a member into it."""
    one = Range(cache_id - 1, cache_id)
    drop_dead_contacts(conn, audience, one)
    match_contacts(conn, audience, one)
    row = conn.execute(select(cache).where(cache.c.id == cache_id)).one_or_none()
    if row is not None and row.civicrm_contact_id is not None and row.mailchimp_member_id is not None:
        _absorb_crm_only(conn, audience, cache_id, row.civicrm_contact_id)


def _absorb_crm_only(conn: Connection, audience: Audience, cache_id: int, contact_id: int) -> None:
    """Take the contact's row without a member, if any, into this one."""
    others = conn.execute(
        select(cache.c.id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            cache.c.civicrm_contact_id == contact_id,
            cache.c.mailchimp_member_id.is_(None),
        )
    )
    for other in others.scalars().all():
        absorb(conn, other, cache_id)


def judge_rows(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> None:
    """Judge these rows and carry out what follows: an address that the contact gave up comes first, as in a run."""
    now = datetime.now(UTC)
    with_address = facts_for(conn, audience, cache_ids, with_person=True)
    moves = [found for one in with_address if (found := plan_address(one, audience)) is not None]
    apply_plans(conn, audience, moves, now)
    apply_plans(conn, audience, [plan(one, audience) for one in facts_for(conn, audience, cache_ids)], now)
