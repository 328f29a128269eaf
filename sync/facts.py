"""Gathers what `reconcile` judges by: the facts of many rows in a few set statements a chunk.

What every row needs (standings, interests, what is under way) is read for all; what only some need (addresses,
privacy, the contact's other members, a refusal) for those whose sides disagree. Nothing is decided or written here.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from civiapi.store.contacts import addresses_of, best_email
from civiapi.store.dialect import among, unindexed
from civiapi.store.tables import contact, email, group_contact, subscription_history
from sync.audience import RECEIVES_MAIL, SUBSCRIPTION, Audience
from sync.member_data import ECHO, Fields, decode, peek
from sync.reconcile import (
    ADDED,
    LONG_AGO,
    Decision,
    InterestFacts,
    Person,
    Refusal,
    RowFacts,
    Standing,
    Stored,
    decide,
)
from sync.tables import cache, update, update_detail
from sync.updates import OpenUpdate, open_updates, read_body

CHUNK = 500  # keeps an IN list under every driver's limit
ECHO_METHOD = "MCsync"
NO_ROW = "Deleted"

_OBJECTIONS = (
    ("is_deceased", "the contact is deceased"),
    ("is_opt_out", "opted out of bulk mail"),
    ("do_not_email", "do not email"),
)
_DISAGREE = (Decision.SUBSCRIBE, Decision.LEAVE_GROUP)
_ASKS_MAILCHIMP = (Decision.SUBSCRIBE, Decision.UNSUBSCRIBE)


def facts_for(
    conn: Connection, audience: Audience, cache_ids: Sequence[int], *, with_person: bool = False, lean: bool = False
) -> list[RowFacts]:
    """The facts of these rows, by id; rows that are gone are left out.

    *with_person*: addresses and all, for each. *lean*: rows at rest, which is most, come without dates, since nothing
    is decided by them there.
    """
    found: list[RowFacts] = []
    for start in range(0, len(cache_ids), CHUNK):
        found += _gather(conn, audience, sorted(cache_ids[start : start + CHUNK]), with_person, lean)
    return found


def _gather(conn: Connection, audience: Audience, ids: Sequence[int], with_person: bool, lean: bool) -> list[RowFacts]:
    rows = conn.execute(
        select(
            cache.c.id,
            cache.c.mailchimp_member_id,
            cache.c.mailchimp_email,
            cache.c.mailchimp_status,
            cache.c.mailchimp_updated,
            cache.c.mailchimp_data,
            cache.c.civicrm_data,
            cache.c.civicrm_groups,
            cache.c.civicrm_contact_id,
            cache.c.sync_status,
        )
        .where(among(cache.c.id, ids), unindexed(cache.c.mailchimp_list_id) == audience.list_id)
        .order_by(cache.c.id)
    ).all()
    words = LatestWords(
        conn, audience, list({row.civicrm_contact_id for row in rows if row.civicrm_contact_id is not None})
    )
    owed = open_updates(conn, ids)
    basics = [_basic(audience, row, words, owed.get(row.id, ()), lean) for row in rows]
    persons = [one for one in basics if one.contact_id is not None and (with_person or _needs_person(one, audience))]
    refusable = [one.cache_id for one in basics if one.contact_id is not None and _asks_mailchimp(one, audience)]
    about = _persons(conn, audience, persons) if persons else {}
    refusals = _refusals(conn, refusable) if refusable else {}
    if not about and not refusals:
        return basics
    return [
        replace(one, person=about.get(one.cache_id, one.person), refusal=refusals.get(one.cache_id))
        if one.cache_id in about or one.cache_id in refusals
        else one
        for one in basics
    ]


def _needs_person(one: RowFacts, audience: Audience) -> bool:
    return decide(one.group, one.member, audience.trust.get(SUBSCRIPTION)) in _DISAGREE


def _asks_mailchimp(one: RowFacts, audience: Audience) -> bool:
    if decide(one.group, one.member, audience.trust.get(SUBSCRIPTION)) in _ASKS_MAILCHIMP:
        return True
    return any(
        i.held is not None and i.held != (i.group is not None and i.group.status == ADDED) for i in one.interests
    )


# ── CiviCRM's words ─────────────────────────────────────────────────────────────────────────────────────────────────


class LatestWords:
    """Where contacts stand in the groups that matter, and the latest history row of each."""

    def __init__(self, conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> None:
        self._audience = audience
        self._group_ids = audience.group_ids
        self.now: dict[tuple[int, int], str] = {}
        self.latest: dict[tuple[int, int], tuple[str, str | None, str | None]] = {}
        if not contact_ids:
            return
        stands = select(group_contact.c.contact_id, group_contact.c.group_id, group_contact.c.status).where(
            among(group_contact.c.contact_id, contact_ids), group_contact.c.group_id.in_(audience.group_ids)
        )
        for contact_id, group_id, status in conn.execute(stands).all():
            self.now[contact_id, group_id] = status
        history = subscription_history.c
        rows = select(history.contact_id, history.group_id, history.date, history.status, history.method).where(
            among(history.contact_id, contact_ids), unindexed(history.group_id).in_(audience.group_ids)
        )
        for contact_id, group_id, date, status, method in conn.execute(rows.order_by(history.id)).all():
            self.latest[contact_id, group_id] = (date, status, method)

    def standing(self, contact_id: int, group_id: int, echoes: datetime | None) -> Standing | None:
        """Where a contact stands in a group; *echoes* is the Mailchimp word that our last change there repeated."""
        status = self.now.get((contact_id, group_id))
        latest = self.latest.get((contact_id, group_id))
        if latest is None:
            return None if status is None else Standing(status, LONG_AGO)
        date, said, method = latest
        if status is None:
            if said == ADDED:
                return None  # taken away behind the API's back; nobody's word
            status = said or NO_ROW
        if method == ECHO_METHOD and status == said:
            return Standing(status, echoes or LONG_AGO, is_echo=True)
        return Standing(status, self._audience.clock.read(date) or LONG_AGO)

    def is_in(self, contact_id: int | None) -> bool:
        """True when the contact is in the subscription group."""
        return contact_id is not None and self.now.get((contact_id, self._audience.group_id)) == ADDED

    def undated(self, contact_id: int) -> Standing | None:
        """Where a contact stands in the subscription group, since whenever."""
        status = self.now.get((contact_id, self._audience.group_id))
        return None if status is None else Standing(status, LONG_AGO)

    def of(self, contact_id: int) -> dict[int, tuple[str, str]]:
        """The latest history row in each group: group id → status and site time."""
        found = {}
        for group_id in self._group_ids:
            latest = self.latest.get((contact_id, group_id))
            if latest is not None:
                found[group_id] = (latest[1] or "", latest[0] or "")
        return found


def _basic(audience: Audience, row: Any, words: LatestWords, owed: Sequence[OpenUpdate], lean: bool) -> RowFacts:
    contact_id, status = row.civicrm_contact_id, row.mailchimp_status
    group = member = None
    interests: tuple[InterestFacts, ...] = ()
    at_rest = lean and not owed and words.is_in(contact_id) == (status in RECEIVES_MAIL)
    if status:
        since = LONG_AGO if at_rest else member_since(audience, row.mailchimp_data, row.mailchimp_updated)
        member = Standing(status, since)
    if contact_id is not None and not at_rest:
        echoes = peek(row.mailchimp_data, f"{ECHO}status@")
        group = words.standing(contact_id, audience.group_id, audience.read_compact(echoes))
    elif contact_id is not None:
        group = words.undated(contact_id)
    if contact_id is not None and audience.interests:
        interests = _interests(audience, contact_id, decode(row.mailchimp_data), words, member)
    return RowFacts(
        row.id,
        contact_id,
        row.mailchimp_member_id,
        row.mailchimp_email,
        group,
        member,
        interests,
        open=tuple(owed),
        words=words.of(contact_id) if contact_id is not None else {},
        stored=Stored(row.sync_status, row.civicrm_groups, row.mailchimp_data, row.civicrm_data),
    )


def member_since(audience: Audience, data: bytes | None, updated: str | None) -> datetime:
    """When a member's status last changed, or, where only that is known, the member (*updated*, a site time)."""
    return audience.read_compact(peek(data, "status@")) or audience.clock.read(updated) or LONG_AGO


def _interests(
    audience: Audience, contact_id: int, data: Fields, words: LatestWords, member: Standing | None
) -> tuple[InterestFacts, ...]:
    found = []
    for interest_id, group_id in audience.interests.items():
        if group_id == audience.group_id:
            continue  # the subscription decides about that group, not an interest
        key = f"interest-{interest_id}"
        held = data.get(key)
        since = audience.read_compact(data.get(f"{key}@")) or (member.since if member else LONG_AGO)
        group = words.standing(contact_id, group_id, audience.read_compact(data.get(f"{ECHO}{key}@")))
        found.append(InterestFacts(interest_id, group_id, group, None if held is None else bool(held), since))
    return tuple(found)


# ── What only those need whose sides disagree ───────────────────────────────────────────────────────────────────────


def _persons(conn: Connection, audience: Audience, rows: Sequence[RowFacts]) -> dict[int, Person]:
    ids = list({one.contact_id for one in rows if one.contact_id is not None})
    columns = (contact.c.id, contact.c.first_name, contact.c.last_name, *(contact.c[name] for name, _ in _OBJECTIONS))
    contacts = {row.id: row for row in conn.execute(select(*columns).where(among(contact.c.id, ids))).all()}
    addresses = addresses_of(conn, ids)
    best = {contact_id: best_email(addresses.get(contact_id, ())) for contact_id in ids}
    siblings = _siblings(conn, audience, ids)
    holders = _holders(conn, audience, [address for address in best.values() if address])
    newcomers = [one for one in rows if one.member_id is None and best.get(one.contact_id or 0)]
    shared = _shared(conn, audience, newcomers, best, holders)
    found = {}
    for one in rows:
        contact_id = one.contact_id
        if contact_id is None or contact_id not in contacts:
            continue
        row = contacts[contact_id]
        mine = addresses.get(contact_id, ())
        own = [a for a in mine if _same(a.email, one.member_email)]
        theirs = [s for s in siblings.get(contact_id, ()) if s.id != one.cache_id]
        address = best[contact_id]
        found[one.cache_id] = Person(
            first_name=row.first_name or "",
            last_name=row.last_name or "",
            emails=len(mine),
            best_email=address,
            best_is_taken=any(cache_id != one.cache_id for cache_id, _ in holders.get((address or "").lower(), ())),
            owns_address=one.member_id is None or bool(own),
            address_on_hold=bool(own) and all(a.on_hold for a in own),
            objection=next((text for name, text in _OBJECTIONS if getattr(row, name)), None),
            others=tuple(s.mailchimp_email or "" for s in theirs if s.mailchimp_status in RECEIVES_MAIL),
            stands_for_contact=_stands(one, siblings.get(contact_id, ()), mine, address),
            shared_with=shared.get(one.cache_id),
        )
    return found


def _siblings(conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> dict[int, list[Any]]:
    """The members of this audience that are these contacts."""
    rows = conn.execute(
        select(cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_email, cache.c.mailchimp_status).where(
            unindexed(cache.c.mailchimp_list_id) == audience.list_id,  # a contact has a few rows
            among(cache.c.civicrm_contact_id, contact_ids),
            cache.c.mailchimp_member_id.is_not(None),
        )
    )
    found: dict[int, list[Any]] = defaultdict(list)
    for row in sorted(
        rows.all(), key=lambda row: row.id
    ):  # ordered in SQL, SQLite walks the whole audience in that order
        found[row.civicrm_contact_id].append(row)
    return found


def _holders(conn: Connection, audience: Audience, addresses: Sequence[str]) -> dict[str, list[tuple[int, int | None]]]:
    """Which members have these addresses: address in lower case → row id and its contact."""
    rows = conn.execute(
        select(cache.c.id, cache.c.mailchimp_email, cache.c.civicrm_contact_id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            among(cache.c.mailchimp_email, addresses),
            cache.c.mailchimp_member_id.is_not(None),
        )
    )
    found: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for cache_id, address, contact_id in rows.all():
        found[address.lower()].append((cache_id, contact_id))
    return found


def _shared(
    conn: Connection,
    audience: Audience,
    newcomers: Sequence[RowFacts],
    best: Mapping[int, str | None],
    holders: Mapping[str, Sequence[tuple[int, int | None]]],
) -> dict[int, int]:
    """Who stands for the address of each of these CRM-only rows instead of its contact: row id → contact id.

    That is whoever the member with that address is, else the lowest contact id in the group that would be written to
    at it.
    """
    found: dict[int, int] = {}
    open_rows = []
    for one in newcomers:
        address = (best.get(one.contact_id or 0) or "").lower()
        owners = [owner for _, owner in holders.get(address, ()) if owner is not None and owner != one.contact_id]
        if owners:
            found[one.cache_id] = min(owners)
        else:
            open_rows.append((one, address))
    rivals = _rivals(conn, audience, [address for _, address in open_rows])
    for one, address in open_rows:
        lower = [rival for rival in rivals.get(address, ()) if rival < (one.contact_id or 0)]
        if lower:
            found[one.cache_id] = min(lower)
    return found


def _rivals(conn: Connection, audience: Audience, addresses: Sequence[str]) -> dict[str, list[int]]:
    """The contacts in the group, without a member, that would be written to at each of these addresses."""
    if not addresses:
        return {}
    rows = conn.execute(
        select(email.c.contact_id)
        .join(contact, contact.c.id == email.c.contact_id)
        .join(
            group_contact,
            (group_contact.c.contact_id == email.c.contact_id)
            & (unindexed(group_contact.c.group_id) == audience.group_id),
        )
        .where(among(email.c.email, addresses), unindexed(contact.c.is_deleted) == 0, group_contact.c.status == ADDED)
        .distinct()
    )
    ids = list(rows.scalars())
    members = _siblings(conn, audience, ids)
    found: dict[str, list[int]] = defaultdict(list)
    for contact_id, mine in addresses_of(conn, [i for i in ids if i not in members]).items():
        found[(best_email(mine) or "").lower()].append(contact_id)
    return found


def _stands(one: RowFacts, siblings: Sequence[Any], addresses: Sequence[Any], best: str | None) -> bool:
    """True when, of the contact's members none of whom is in the audience, this is the one to subscribe."""
    usable = {a.email.strip().lower() for a in addresses if not a.on_hold}
    able = [
        s for s in siblings if s.mailchimp_status != "cleaned" and (s.mailchimp_email or "").strip().lower() in usable
    ]
    if len(able) < 2:
        return True
    chosen = next((s for s in able if _same(s.mailchimp_email, best)), able[0])
    return bool(chosen.id == one.cache_id)


def _refusals(conn: Connection, cache_ids: Sequence[int]) -> dict[int, Refusal]:
    """The last update of each row, where Mailchimp refused it in its own words."""
    last = (
        select(func.max(update.c.id))
        .where(among(update.c.mailchimpsync_cache_id, cache_ids))
        .group_by(update.c.mailchimpsync_cache_id)
    )
    last_ids = [one for one in conn.execute(last).scalars() if one is not None]
    if not last_ids:
        return {}
    rows = conn.execute(
        select(
            update.c.mailchimpsync_cache_id,
            update.c.data,
            update.c.error_response,
            update_detail.c.cause_s,
        )
        .join(update_detail, update_detail.c.update_id == update.c.id)
        .where(among(update.c.id, last_ids), unindexed(update.c.completed) == 1, update.c.error_response.is_not(None))
    )
    found = {}
    for cache_id, data, error, cause_s in rows:
        words = _words_of(error)
        if words and cause_s is not None:
            found[cache_id] = Refusal(read_body(data), datetime.fromtimestamp(cause_s, UTC), words)
    return found


def _words_of(error: str) -> str:
    """Mailchimp's title and detail; empty for an error that is not Mailchimp's (an abort, say)."""
    try:
        problem = orjson.loads(error)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(problem, dict) or not re.fullmatch(r"4\d\d", str(problem.get("status") or "")):
        return ""
    return ": ".join(str(part) for part in (problem.get("title"), problem.get("detail")) if part)


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.strip().lower() == other.strip().lower()
