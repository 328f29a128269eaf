"""Read what a plan has to know of contacts before they are subscribed, and of what Mailchimp refused before."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, func, not_, select

from civiapi.store.civicrm.contacts import addresses_of, best_email
from civiapi.store.databases.expressions import in_list, same_address, unindexed
from civiapi.store.schema.tables import contact, email
from sync.audience import Audience, Privacy
from sync.model import RECEIVES_MAIL, GroupStatus, MemberStatus, OperationKind
from sync.reconcile.decide import Person, Refusal, RowFacts
from sync.reconcile.matching import representative, why_chosen
from sync.store.members.member_codec import peek
from sync.store.members.privacy import OBJECTIONS, contact_objects, find_objection, read_trashed
from sync.store.retries import now_s
from sync.store.sources import tables_of
from sync.store.tables import cache, retry, update, update_detail
from sync.store.updates import read_body, was_overtaken


def read_persons(conn: Connection, audience: Audience, rows: Sequence[RowFacts]) -> dict[int, Person]:
    """The contacts of these rows as ``decide`` needs them, by cache row id; rows without a contact are left out."""
    ids = list({one.contact_id for one in rows if one.contact_id is not None})
    names = (contact.c.first_name, contact.c.last_name)
    columns = (contact.c.id, contact.c.is_deleted, *names, *(contact.c[name] for name, _, _ in OBJECTIONS))
    contacts = {row.id: row for row in conn.execute(select(*columns).where(in_list(contact.c.id, ids))).all()}
    addresses = addresses_of(conn, ids)
    best = {contact_id: best_email(addresses.get(contact_id, ())) for contact_id in ids}
    siblings = _siblings(conn, audience, ids)
    holders = _holders(conn, audience, [address for address in best.values() if address])
    newcomers = [one for one in rows if one.member_id is None and best.get(one.contact_id or 0)]
    shared = _shared(conn, audience, newcomers, best, holders)
    objecting = {i for i, row in contacts.items() if find_objection(row)}
    sharers = _sharers(conn, rows)
    successors = _successors(conn, audience, rows, objecting)
    trashed = read_trashed(conn, {one.cache_id: one.stored.civicrm_data for one in rows if one.stored})
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
            malformed=next((a.email for a in mine if not a.on_hold), None) if address is None else None,
            address_on_hold=bool(own) and all(a.on_hold for a in own),
            objection=find_objection(row),
            in_trash=bool(row.is_deleted),
            replaces=trashed.get(one.cache_id),
            sharers=tuple(sharers.get(one.cache_id, {})),
            why_of_sharers=why_chosen(contact_id, row.first_name, sharers[one.cache_id], _member_name(one))
            if one.cache_id in sharers
            else "",
            others=tuple(s.mailchimp_email or "" for s in theirs if s.mailchimp_status in RECEIVES_MAIL),
            is_preferred=_is_preferred(one, siblings.get(contact_id, ()), mine, address),
            shared_with=shared.get(one.cache_id),
            successor=successors.get(one.cache_id),
        )
    return found


def _siblings(conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> dict[int, list[Any]]:
    """The members of this audience that are these contacts."""
    rows = conn.execute(
        select(cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_email, cache.c.mailchimp_status).where(
            unindexed(cache.c.mailchimp_list_id) == audience.list_id,  # a contact has a few rows
            in_list(cache.c.civicrm_contact_id, contact_ids),
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
    """The members with these addresses: address in lower case → row ids and their contacts."""
    rows = conn.execute(
        select(cache.c.id, cache.c.mailchimp_email, cache.c.civicrm_contact_id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            in_list(cache.c.mailchimp_email, addresses),
            unindexed(cache.c.mailchimp_member_id).is_not(None),  # nearly every row of the audience
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
    """The other contact that represents the address of each of these CRM-only rows: row id → contact id.

    That is the contact of the member with the address, else the lowest contact id in the group whose best address it
    is.
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
    others = _other_contacts(conn, audience, [address for _, address in open_rows])
    for one, address in open_rows:
        lower = [other for other in others.get(address, ()) if other < (one.contact_id or 0)]
        if lower:
            found[one.cache_id] = min(lower)
    return found


def _successors(conn: Connection, audience: Audience, rows: Sequence[RowFacts], objecting: Set[int]) -> dict[int, int]:
    """Of members in the audience whose contact is not in the group, or is to be unsubscribed because it objects,
    another contact in it with their address: that with the member's first name, else the lowest id; row id → contact
    id."""
    left = [
        one
        for one in rows
        if one.member_email and one.member is not None and one.member.status in RECEIVES_MAIL
        if (one.group is not None and one.group.status != GroupStatus.ADDED)
        or (audience.privacy is Privacy.UNSUBSCRIBE and one.contact_id in objecting)
    ]
    others = _other_contacts(conn, audience, [one.member_email or "" for one in left])
    found = {}
    names = _first_names(conn, [i for ids in others.values() for i in ids])
    for one in left:
        candidates = [i for i in others.get((one.member_email or "").lower(), ()) if i != one.contact_id]
        if candidates:
            found[one.cache_id] = representative({i: names.get(i) for i in candidates}, _member_name(one))
    return found


def _sharers(conn: Connection, rows: Sequence[RowFacts]) -> dict[int, dict[int, str | None]]:
    """The other contacts with each member's address, where there are any: row id → contact id → first name."""
    members = [one.cache_id for one in rows if one.member_id is not None]
    if not members:
        return {}
    owned = conn.execute(
        select(cache.c.id, contact.c.id.label("contact_id"), contact.c.first_name)
        .join(email, same_address(email.c.email, cache.c.mailchimp_email))
        .join(contact, contact.c.id == email.c.contact_id)
        .where(
            in_list(cache.c.id, members),
            unindexed(contact.c.is_deleted) == 0,
            contact.c.id != cache.c.civicrm_contact_id,
        )
    )
    found: dict[int, dict[int, str | None]] = defaultdict(dict)
    for row in owned:
        found[row.id][row.contact_id] = row.first_name
    return {cache_id: dict(sorted(others.items())) for cache_id, others in found.items()}


def _member_name(one: RowFacts) -> str | None:
    return peek(one.stored.member_data, "first_name") if one.stored else None


def _first_names(conn: Connection, contact_ids: Sequence[int]) -> dict[int, str | None]:
    if not contact_ids:
        return {}
    rows = conn.execute(select(contact.c.id, contact.c.first_name).where(in_list(contact.c.id, contact_ids)))
    return {row.id: row.first_name for row in rows}


def _other_contacts(conn: Connection, audience: Audience, addresses: Sequence[str]) -> dict[str, list[int]]:
    """The contacts in the group, without a member, whose best address is one of these, by address.

    Those that are never subscribed, because CiviMail would not mail them, represent no address.
    """
    if not addresses:
        return {}
    # one table at a time: joined, MariaDB without statistics reads the whole group
    owners = select(email.c.contact_id).where(in_list(email.c.email, addresses))
    owner_ids = list(dict.fromkeys(conn.execute(owners).scalars()))
    able = select(contact.c.id).where(
        in_list(contact.c.id, owner_ids),
        unindexed(contact.c.is_deleted) == 0,
        *(() if audience.privacy is Privacy.IGNORE else (not_(contact_objects()),)),
    )
    members = tables_of(audience)[0]
    inside = select(members.c.contact_id).where(
        unindexed(members.c.group_id) == audience.group_id,
        in_list(members.c.contact_id, list(conn.execute(able).scalars())),
        members.c.status == GroupStatus.ADDED,
    )
    ids = list(dict.fromkeys(conn.execute(inside).scalars()))
    known = _siblings(conn, audience, ids)
    found: dict[str, list[int]] = defaultdict(list)
    for contact_id, mine in addresses_of(conn, [i for i in ids if i not in known]).items():
        found[(best_email(mine) or "").lower()].append(contact_id)
    return found


def _is_preferred(one: RowFacts, siblings: Sequence[Any], addresses: Sequence[Any], best: str | None) -> bool:
    """Whether this is the one to subscribe of the contact's members, none of which is in the audience."""
    usable = {a.email.strip().lower() for a in addresses if not a.on_hold}
    able = [
        s
        for s in siblings
        if s.mailchimp_status != MemberStatus.CLEANED and (s.mailchimp_email or "").strip().lower() in usable
    ]
    if len(able) < 2:
        return True
    chosen = next((s for s in able if _same(s.mailchimp_email, best)), able[0])
    return bool(chosen.id == one.cache_id)


def read_refusals(conn: Connection, cache_ids: Sequence[int]) -> dict[int, Refusal]:
    """The last update of each row that was not overtaken, if Mailchimp refused it with a problem document."""
    last = (
        select(func.max(update.c.id))
        .where(in_list(update.c.mailchimpsync_cache_id, cache_ids), not_(was_overtaken()))
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
            retry.c.next_s,
        )
        .join(update_detail, update_detail.c.update_id == update.c.id)
        .outerjoin(
            retry,
            (retry.c.cache_id == update.c.mailchimpsync_cache_id)
            & (retry.c.cause_s == update_detail.c.cause_s)
            & retry.c.kind.in_((OperationKind.MEMBER, OperationKind.EMAIL)),
        )
        .where(in_list(update.c.id, last_ids), unindexed(update.c.completed) == 1, update.c.error_response.is_not(None))
    )
    found = {}
    now = now_s()
    for cache_id, data, error, cause_s, next_s in rows:
        text = _problem_text(error)
        if text and cause_s is not None and (next_s is None or next_s > now):
            next_try = None if next_s is None else datetime.fromtimestamp(next_s, UTC)
            found[cache_id] = Refusal(read_body(data), datetime.fromtimestamp(cause_s, UTC), text, next_try)
    return found


def _problem_text(error: str) -> str:
    """Mailchimp's title and detail; empty for an error that is not Mailchimp's (an abort, say)."""
    try:
        problem = orjson.loads(error)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(problem, dict) or not re.fullmatch(r"0|[45]\d\d", str(problem.get("status", ""))):
        return ""
    return ": ".join(str(part) for part in (problem.get("title"), problem.get("detail")) if part)


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.strip().lower() == other.strip().lower()
