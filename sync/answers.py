"""Mailchimp's answers to operations, merged into the rows they belong to.

An answer is a member as it stands after the operation, so it goes through the same merge as a fetched one; what is
particular here is which row it belongs to, and that it may be older than what the row knows by now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy import update as change

from civiapi.store.bulk import update_rows
from civiapi.store.dialect import among
from sync.audience import Audience
from sync.cache import absorb, forget_sent, mark_todo, merge_member, merge_page, what_is_asked
from sync.judging import ARCHIVED, Outcome, Verdict
from sync.mailchimp.wire import Member, format_instant, parse_instant
from sync.member_data import INTEREST, Fields, decode
from sync.merging import Sent
from sync.tables import cache, update, update_detail
from sync.updates import CHUNK, OpenUpdate, Wanted, open_updates


@dataclass(frozen=True, slots=True)
class Case:
    """An update with its outcome and its row as both stood when the unit began."""

    update: OpenUpdate
    outcome: Outcome
    was_open: bool
    row: Row[Any]

    @property
    def wanted(self) -> Wanted:
        return self.update.wanted


def rows_now(conn: Connection, cache_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """These cache rows, locked until the transaction ends where the database locks rows."""
    found: dict[int, Row[Any]] = {}
    for start in range(0, len(cache_ids), CHUNK):
        part = cache_ids[start : start + CHUNK]
        query = select(
            cache.c.id,
            cache.c.mailchimp_member_id,
            cache.c.mailchimp_email,
            cache.c.mailchimp_status,
            cache.c.mailchimp_updated,
            cache.c.mailchimp_data,
            cache.c.sync_status,
            cache.c.civicrm_contact_id,
        ).where(among(cache.c.id, part))
        found.update({row.id: row for row in conn.execute(query.with_for_update()).all()})
    return found


def merge_answers(conn: Connection, audience: Audience, done: Sequence[Case], at: datetime, skew: timedelta) -> None:
    """Bring the rows up to date with the answers, all at once where each row is plainly its member's.

    *at* dates an answer that bears no time (Mailchimp's clock); *skew* is that clock minus ours.
    """
    answers = [(one, member) for one in done if (member := _news(one, at)) is not None]
    holders = _holders(conn, audience, [str(member["id"]) for _, member in answers])
    plain: list[Member] = []
    special: list[tuple[Case, Member]] = []
    adopted: list[tuple[str, int]] = []
    asked = what_is_asked(audience, {one.row.id: [one.update] for one, _ in answers})
    for one, member in answers:
        member_id, known = str(member["id"]), one.row.mailchimp_member_id
        holder = holders.get(member_id)
        if not _is_news(audience, one.row, member):
            continue
        if holder is not None and holder.id != one.row.id and not _is_news(audience, holder, member):
            _give_way(conn, one, holder)
        elif one.wanted.kind == "member" and known == member_id:
            plain.append(member)
        elif one.wanted.kind == "member" and known is None and holder is None:
            holders[member_id] = one.row
            adopted.append((member_id, one.row.id))
            plain.append(member)
        else:
            special.append((one, member))
    update_rows(conn, cache, ("mailchimp_member_id",), adopted)
    merge_page(conn, audience, plain, skew=skew, asked=asked)
    for one, member in special:
        merge_member(conn, audience, member, skew=skew, sent=_sent(one.wanted), into=one.row.id)
        if one.wanted.kind == "email":
            _follow(conn, one, member)


def merge_seen(conn: Connection, audience: Audience, cases: Sequence[Case], skew: timedelta) -> None:
    """Keep what was seen of members that stand otherwise than was asked; each in a row of its own."""
    for one in cases:
        member = one.outcome.member
        if one.outcome.verdict is not Verdict.DONE and member is not None:
            merge_member(conn, audience, member, skew=skew)


def _news(one: Case, at: datetime) -> Member | None:
    """The member as it stands after the operation, where the answer tells; an archiving answers nothing."""
    if one.outcome.member is not None:
        return one.outcome.member
    if one.wanted.kind != "archive" or one.row.mailchimp_member_id is None:
        return None
    known = decode(one.row.mailchimp_data)
    names = {"FNAME": known.get("first_name", ""), "LNAME": known.get("last_name", "")}
    member = {
        "id": one.row.mailchimp_member_id,
        "email_address": one.row.mailchimp_email,
        "status": ARCHIVED,
        "merge_fields": names,
        "interests": interests_of(known),
        "last_changed": format_instant(at),
    }
    return cast(Member, member)


def interests_of(known: Fields) -> dict[str, bool]:
    """The interests in a member's data: id → chosen."""
    return {
        key.removeprefix(INTEREST): bool(value)
        for key, value in known.items()
        if key.startswith(INTEREST) and not key.endswith("@")
    }


def _is_news(audience: Audience, row: Row[Any], member: Member) -> bool:
    """False for an answer from before what the row has from a later look at Mailchimp."""
    known = audience.clock.read(row.mailchimp_updated)
    try:
        told = parse_instant(member.get("last_changed"))
    except ValueError:
        return True
    return known is None or told is None or told >= known


def _holders(conn: Connection, audience: Audience, member_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The rows that are these members already, by member id; of two the older."""
    ids: list[int] = []
    for start in range(0, len(member_ids), CHUNK):
        part = member_ids[start : start + CHUNK]
        mine = (cache.c.mailchimp_list_id == audience.list_id) & among(cache.c.mailchimp_member_id, part)
        ids += conn.execute(select(cache.c.id).where(mine)).scalars()
    rows = rows_now(conn, sorted(ids, reverse=True))
    return {rows[i].mailchimp_member_id: rows[i] for i in sorted(rows, reverse=True)}


def _give_way(conn: Connection, one: Case, holder: Row[Any]) -> None:
    """The member has a row of its own that knows more than this answer: the case's row is taken into that one."""
    absorb(conn, one.row.id, holder.id)
    forget_sent(conn, [holder.id])
    unlinked = (cache.c.id == holder.id) & cache.c.civicrm_contact_id.is_(None)
    conn.execute(change(cache).where(unlinked).values(civicrm_contact_id=one.row.civicrm_contact_id))
    mark_todo(conn, [holder.id])


def _sent(wanted: Wanted) -> Sent | None:
    return Sent.from_body(wanted.body, wanted.cause) if wanted.slot == "member" else None


def _follow(conn: Connection, one: Case, member: Member) -> None:
    """Let what waits for the row follow the member to its new address."""
    old, new = one.row.mailchimp_member_id, str(member["id"])
    for waiting in open_updates(conn, [one.row.id]).get(one.row.id, ()):
        if waiting.in_flight or old is None:
            continue
        path = waiting.wanted.path_tail.replace(old, new)
        body = waiting.wanted.body
        if "email_address" in body and waiting.wanted.kind == "member":
            body = body | {"email_address": member["email_address"]}
        conn.execute(change(update).where(update.c.id == waiting.id).values(data=orjson.dumps(body).decode()))
        conn.execute(change(update_detail).where(update_detail.c.update_id == waiting.id).values(path_tail=path))
