"""Cache rows: one for each member of an audience, and one for each contact in its group who is no member yet.

Here members' news becomes rows, by the page (the fetch) or one at a time (results of batches, webhooks), through the
same merge. A page in which nothing changed writes nothing. What the news means for CiviCRM is not decided here: a row
that has something to think about is left ``todo``.

``civiapi_member`` beside the cache keeps Mailchimp's own contact id, by which a member is known again whose address
(and so whose id) changed there, and the number of the last full fetch that met it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy import update as change

from civiapi.store.bulk import insert_rows, update_rows, upsert_rows
from civiapi.store.courtesy import giving_way
from civiapi.store.dialect import among, unindexed
from sync.address_changes import follow_member
from sync.audience import RECEIVES_MAIL, Audience, compacted
from sync.mailchimp.wire import Member
from sync.member_data import Fields, decode, encode, encode_new
from sync.merging import (
    NO_TIME,
    News,
    Sent,
    is_different,
    is_same,
    merge,
    read_news,
    unsay_defaults,
    with_notes,
    without_notes,
)
from sync.tables import cache, member, update
from sync.updates import OpenUpdate, Wanted, open_updates

CHUNK = 500  # keeps an IN list under every driver's limit
NO_SKEW = timedelta(0)
COLUMNS = (
    "mailchimp_member_id",
    "mailchimp_email",
    "mailchimp_status",
    "mailchimp_updated",
    "mailchimp_data",
    "sync_status",
)
_ROW = (
    cache.c.id,
    cache.c.mailchimp_member_id,
    cache.c.mailchimp_email,
    cache.c.mailchimp_status,
    cache.c.mailchimp_updated,
    cache.c.mailchimp_data,
    cache.c.civicrm_contact_id,
    cache.c.sync_status,
)


@dataclass(frozen=True, slots=True)
class Merged:
    """What a page did: rows made, rows that changed, members that could not be kept."""

    new: int = 0
    changed: int = 0
    unusable: int = 0
    suspects: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Left out for now (see `merge_page`): new id → our row and the id it has there."""


Asked = Sequence[tuple[Sent, str]]
"""What is in flight for a row, each with its cause as the member's data keeps times."""


def what_is_asked(audience: Audience, owed: Mapping[int, Sequence[OpenUpdate]]) -> dict[int, Asked]:
    """Of what these rows owe, what is in flight about the member: a page may show it before its results have come."""
    found: dict[int, Asked] = {}
    for cache_id, updates in owed.items():
        flying = [one.wanted for one in updates if one.in_flight and one.wanted.slot == "member"]
        if flying:
            found[cache_id] = [(_sent(one), audience.compact(one.cause) if one.cause else NO_TIME) for one in flying]
    return found


def _sent(wanted: Wanted) -> Sent:
    return Sent.from_body({} if wanted.kind == "archive" else wanted.body, wanted.cause)


def merge_page(
    conn: Connection,
    audience: Audience,
    members: Iterable[Member],
    *,
    skew: timedelta = NO_SKEW,
    serial: int | None = None,
    suspect: bool = False,
    moved: Mapping[str, int] | None = None,
    asked: Mapping[int, Asked] | None = None,
) -> Merged:
    """Bring the rows of these members up to date; safe to repeat.

    *skew* is Mailchimp's clock minus ours. *serial* numbers a full fetch, which notes whom it met. *asked* is what is
    in flight for each row, where the caller knows that.

    A member we do not know by id but by Mailchimp's contact id may be one whose address changed there. With *suspect*
    these are left out and told: ask for the old id, and merge them again, with *moved* (new id → row) naming those
    whose old id is gone.
    """
    listed = list(members)
    known: dict[str, tuple[str | None, str]] = {}
    news = {
        one.member_id: one for row in giving_way(listed) if (one := read_news(audience, row, skew, known)) is not None
    }
    rows = _rows_by_member(conn, audience.list_id, list(news))
    if moved:
        rows |= {new_id: row for new_id, row in _moved_rows(conn, moved).items() if new_id in news}
    suspects = _suspects(conn, audience.list_id, [one for one in news.values() if one.member_id not in rows], suspect)
    for member_id in suspects:
        del news[member_id]
    work = _Work()
    if asked is None:
        busy = [row.id for row in rows.values() if row.sync_status in ("live", "redo", "todo")]
        asked = what_is_asked(audience, open_updates(conn, busy))
    for member_id, one in giving_way(news.items()):
        row = rows.get(member_id)
        if row is None:
            work.insert(audience, one)
        else:
            work.update(row, one, asked.get(row.id, ()))
    cache_ids = {member_id: row.id for member_id, row in rows.items()} | work.write(conn, audience)
    _note_members(conn, news.values(), cache_ids, work.new_ids | work.changed_ids, serial)
    unusable = len(listed) - len(news) - len(suspects)
    return Merged(len(work.new), len(work.changed), unusable, suspects)


def merge_member(
    conn: Connection,
    audience: Audience,
    told: Member,
    *,
    skew: timedelta = NO_SKEW,
    sent: Sent | None = None,
    into: int | None = None,
) -> int | None:
    """Bring the row of one member up to date and return its id; None for a member that cannot be kept.

    *sent* is what we had asked for when this is the answer to it. *into* is the row the answer belongs to: a
    CRM-only row becomes the member's, and another row of the same member is taken into it, updates and all.
    """
    news = read_news(audience, told, skew, {})
    if news is None:
        return None
    found = _rows_by_member(conn, audience.list_id, [news.member_id]).get(news.member_id)
    standing = _locked(conn, {one for one in (into, found.id if found is not None else None) if one is not None})
    target = standing.get(into) if into is not None else None
    found = standing.get(found.id) if found is not None else None
    row: Any = target or found
    work = _Work()
    if row is None:
        work.insert(audience, news)
    else:
        if found is not None and found.id != row.id:
            _absorb(conn, found.id, row.id)
        cause = audience.compact(sent.at) if sent is not None and sent.at is not None else NO_TIME
        asked = what_is_asked(audience, open_updates(conn, [row.id])).get(row.id, ())
        work.update(row, news, [*asked, (sent, cause)] if sent is not None else asked)
    made = work.write(conn, audience)
    cache_id = int(made[news.member_id] if row is None else row.id)
    _note_members(conn, [news], {news.member_id: cache_id}, work.new_ids | work.changed_ids, None)
    return cache_id


def mark_gone(
    conn: Connection, audience: Audience, cache_ids: Sequence[int], at: datetime, *, skew: timedelta = NO_SKEW
) -> None:
    """Take these members as gone from Mailchimp for good (404): archived, and left, at *at* (Mailchimp's clock).

    Mailchimp says neither when nor by whom; a person who was deleted is never put back by us, so theirs is the word.
    """
    changed = []
    stamp = audience.compact(at - skew)
    for part in _parts(cache_ids):
        for row in conn.execute(select(*_ROW).where(among(cache.c.id, part))):
            known = decode(row.mailchimp_data)
            was_out = row.mailchimp_status is not None and row.mailchimp_status not in RECEIVES_MAIL
            since = known.get("status@") if was_out else None  # they have been out since then: this is no new word
            fields = known | {"status": "archived", "status@": since or stamp}
            changed.append(("archived", audience.clock.write(at), encode(without_notes(fields)), "todo", row.id))
    update_rows(conn, cache, ("mailchimp_status", "mailchimp_updated", "mailchimp_data", "sync_status"), changed)
    wake_siblings(conn, audience.list_id, cache_ids)


def note_sent(conn: Connection, audience: Audience, notes: Sequence[tuple[int, Sent]]) -> None:
    """Note on these rows what is being sent for them, so that it is known again when it comes back."""
    _rewrite_data(
        conn,
        dict(notes),
        lambda fields, sent: with_notes(fields, sent, audience.compact(sent.at) if sent.at else NO_TIME),
    )


def forget_sent(conn: Connection, cache_ids: Sequence[int]) -> None:
    """Drop the notes of what was sent: Mailchimp refused it, so it will not come back."""
    _rewrite_data(conn, dict.fromkeys(cache_ids, None), lambda fields, _: without_notes(fields))


def mark_todo(conn: Connection, cache_ids: Sequence[int]) -> None:
    """Let the next sync think about these rows."""
    for part in _parts(cache_ids):
        conn.execute(change(cache).where(among(cache.c.id, part)).values(sync_status="todo"))


def wake_siblings(conn: Connection, list_id: str, cache_ids: Sequence[int]) -> None:
    """Mark ``todo`` the failed rows of the same contacts: why they failed may have hung on one of these rows."""
    for part in _parts(cache_ids):
        contacts = conn.execute(
            select(cache.c.civicrm_contact_id).where(among(cache.c.id, part), cache.c.civicrm_contact_id.is_not(None))
        ).scalars()
        if ids := list(contacts):
            conn.execute(
                change(cache)
                .where(
                    cache.c.mailchimp_list_id == list_id,
                    among(cache.c.civicrm_contact_id, ids),
                    cache.c.sync_status == "fail",
                )
                .values(sync_status="todo")
            )


def absorb(conn: Connection, loser_id: int, keeper_id: int) -> None:
    """Make one row of two that stand for the same: the loser's updates go to the keeper, and so do its notes.

    When the keeper's status is what the loser had asked for, it is our own write and dated by its cause.
    """
    rows = _locked(conn, {loser_id, keeper_id})
    if loser_id not in rows or keeper_id not in rows:
        return
    theirs, ours = decode(rows[loser_id].mailchimp_data), decode(rows[keeper_id].mailchimp_data)
    fields = dict(ours)
    for key, value in theirs.items():
        if not key.startswith("sent-") or key.endswith("@"):
            continue
        name, cause = key.removeprefix("sent-"), theirs.get(key + "@") or NO_TIME
        if fields.get(name) == value:
            fields[name + "@"] = min(str(fields.get(name + "@") or cause), cause)
            if name == "status":
                unsay_defaults(fields, (one.removeprefix("sent-") for one in theirs))
        else:
            fields[key], fields[key + "@"] = value, cause
    if fields != ours:
        update_rows(conn, cache, ("mailchimp_data",), [(encode(fields), keeper_id)])
    _absorb(conn, loser_id, keeper_id)


@dataclass(slots=True)
class _Work:
    """What a merge writes, gathered before anything is written."""

    new: list[tuple[Any, ...]] = field(default_factory=list)
    new_ids: set[str] = field(default_factory=set)
    changed: list[tuple[Any, ...]] = field(default_factory=list)
    changed_ids: set[str] = field(default_factory=set)
    turned: list[int] = field(default_factory=list)
    moved: list[tuple[int, str, str]] = field(default_factory=list)

    def insert(self, audience: Audience, news: News) -> None:
        """A member never met before."""
        data = encode_new(news.values, news.stamp)
        self.new.append((audience.list_id, news.member_id, news.email, news.status, news.updated, data, "todo"))
        self.new_ids.add(news.member_id)

    def update(self, row: Row[Any], news: News, sent: Iterable[tuple[Sent, str]]) -> None:
        """A member we have a row for; nothing is written when nothing changed."""
        as_is = (row.mailchimp_member_id, row.mailchimp_email, row.mailchimp_status, row.mailchimp_updated)
        unmoved = as_is == (news.member_id, news.email, news.status, news.updated)
        if unmoved and row.mailchimp_data and is_same(row.mailchimp_data, news):
            return
        known = decode(row.mailchimp_data)
        old = known if row.mailchimp_status is None else {"status": row.mailchimp_status} | known
        before = compacted(row.mailchimp_updated) if row.mailchimp_updated else None
        fields = merge(old, news, before=before, sent=sent)
        address_changed = (row.mailchimp_email or "").lower() != news.email.lower()
        if unmoved and fields == known:
            return
        data = encode(fields)
        thinking = is_different(old, fields) or address_changed
        sync_status = "todo" if thinking else row.sync_status
        self.changed.append((news.member_id, news.email, news.status, news.updated, data, sync_status, row.id))
        self.changed_ids.add(news.member_id)
        if row.mailchimp_status != news.status:
            self.turned.append(row.id)
        readdressed = row.mailchimp_member_id and row.mailchimp_member_id != news.member_id
        if readdressed and row.civicrm_contact_id is not None and row.mailchimp_email:
            self.moved.append((row.civicrm_contact_id, row.mailchimp_email, news.email))

    def write(self, conn: Connection, audience: Audience) -> dict[str, int]:
        """Write it all; returns the ids of the new rows by member id."""
        last = conn.execute(select(func.max(cache.c.id))).scalar() or 0 if self.new else 0
        insert_rows(conn, cache, ("mailchimp_list_id", *COLUMNS), self.new)
        made = _ids_of_new(conn, audience.list_id, last) if self.new else {}
        update_rows(conn, cache, COLUMNS, self.changed)
        wake_siblings(conn, audience.list_id, self.turned)
        for contact_id, old, new in self.moved:
            follow_member(conn, audience, contact_id, old, new)
        return made


def _note_members(
    conn: Connection,
    news: Collection[News],
    cache_ids: Mapping[str, int],
    touched: Collection[str],
    serial: int | None,
) -> None:
    """Keep Mailchimp's contact ids, and on a full fetch whom it met; an incremental one writes changes only.

    *cache_ids* are the rows of these members by member id, *touched* those of them that were made or changed.
    """
    wanted = set(touched)
    if serial is not None:
        known = {cache_ids[one.member_id]: one.member_id for one in news if one.member_id not in wanted}
        wanted |= {known[cache_id] for cache_id in _mark_met(conn, list(known), serial)}
    rows = [(cache_ids[one.member_id], one.contact_id, serial or 0) for one in news if one.member_id in wanted]
    set_ = ("contact_id",) if serial is None else ("contact_id", "seen")
    upsert_rows(conn, member, ("cache_id", "contact_id", "seen"), rows, key=("cache_id",), set_=set_)


def _mark_met(conn: Connection, cache_ids: Sequence[int], serial: int) -> set[int]:
    """Note that a full fetch met these; returns those of whom nothing was kept yet (the extension's rows)."""
    unknown: set[int] = set()
    for part in _parts(cache_ids):
        mine = among(member.c.cache_id, part)
        met = conn.execute(change(member).where(mine).values(seen=serial)).rowcount
        if met != len(part):
            unknown |= set(part) - set(conn.execute(select(member.c.cache_id).where(mine)).scalars())
    return unknown


def _ids_of_new(conn: Connection, list_id: str, after: int) -> dict[str, int]:
    """Member id → row of an audience's rows made since row *after*."""
    rows = conn.execute(
        select(cache.c.mailchimp_member_id, cache.c.id).where(
            cache.c.id > after, unindexed(cache.c.mailchimp_list_id) == list_id
        )
    )
    return {row.mailchimp_member_id: row.id for row in giving_way(rows)}


def _suspects(conn: Connection, list_id: str, unknown: Sequence[News], suspect: bool) -> dict[str, tuple[int, str]]:
    """Which of these members, unknown by their ids, are known by their contact ids."""
    by_contact = {one.contact_id: one.member_id for one in unknown if one.contact_id} if suspect else {}
    found: dict[str, tuple[int, str]] = {}
    for part in _parts(list(by_contact)):
        rows = conn.execute(
            select(member.c.contact_id, cache.c.id, cache.c.mailchimp_member_id)
            .join(cache, cache.c.id == member.c.cache_id)
            .where(among(member.c.contact_id, part), unindexed(cache.c.mailchimp_list_id) == list_id)
        )
        found.update({by_contact[contact_id]: (cache_id, old_id) for contact_id, cache_id, old_id in rows})
    return found


def _rows_by_member(conn: Connection, list_id: str, member_ids: Sequence[str]) -> dict[str, Row[Any]]:
    found: dict[str, Row[Any]] = {}
    for part in _parts(member_ids):
        wanted = select(*_ROW).where(cache.c.mailchimp_list_id == list_id, among(cache.c.mailchimp_member_id, part))
        rows: Sequence[Any] = conn.execute(wanted).all()
        for row in rows:
            other = found.get(row.mailchimp_member_id)
            if other is None or row.id < other.id:  # of two rows the older stands
                found[row.mailchimp_member_id] = row
    return found


def _moved_rows(conn: Connection, moved: Mapping[str, int]) -> dict[str, Row[Any]]:
    found: Iterable[Row[Any]] = conn.execute(select(*_ROW).where(among(cache.c.id, list(moved.values()))))
    rows = {row.id: row for row in found}
    return {new_id: rows[cache_id] for new_id, cache_id in moved.items() if cache_id in rows}


def _locked(conn: Connection, cache_ids: Collection[int]) -> dict[int, Row[Any]]:
    """These rows as they stand now, by id, and nobody else's until the transaction ends.

    A run and the results of a batch may both be about to make one row of two, each in its own direction.
    """
    wanted = select(*_ROW).where(among(cache.c.id, cache_ids)).order_by(cache.c.id).with_for_update()
    found: dict[int, Any] = {row.id: row for row in conn.execute(wanted)}
    return found


def _absorb(conn: Connection, loser_id: int, keeper_id: int) -> None:
    conn.execute(
        change(update).where(update.c.mailchimpsync_cache_id == loser_id).values(mailchimpsync_cache_id=keeper_id)
    )
    conn.execute(delete(cache).where(cache.c.id == loser_id))


def _rewrite_data(conn: Connection, rows: Mapping[int, Any], rewrite: Callable[[Fields, Any], Fields]) -> None:
    for part in _parts(list(rows)):
        found = conn.execute(select(cache.c.id, cache.c.mailchimp_data).where(among(cache.c.id, part)))
        changed = []
        for row in found:
            old = decode(row.mailchimp_data)
            new = rewrite(old, rows[row.id])
            if new != old:
                changed.append((encode(new), row.id))
        update_rows(conn, cache, ("mailchimp_data",), changed)


def _parts(ids: Sequence[Any]) -> Iterable[list[Any]]:
    return (list(ids[start : start + CHUNK]) for start in range(0, len(ids), CHUNK))
