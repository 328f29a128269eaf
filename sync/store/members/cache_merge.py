"""Merge members from Mailchimp into the cache rows, by the page (the fetch) or one at a time (results, webhooks).

A page without changes writes nothing. What a change means for CiviCRM is not decided here: its row becomes ``todo``.

``civiapi_member`` holds Mailchimp's contact id, which identifies a member whose address (and so whose id) changed, and
the number of the last full fetch that contained the member.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy import update as change

from civiapi.runtime.loop_priority import yielding_to_loop
from civiapi.store.databases.bulk import insert_after, update_rows, upsert_rows
from civiapi.store.databases.expressions import in_list, unindexed
from sync.audience import Audience, compacted
from sync.mailchimp.wire import Member
from sync.model import RECEIVES_MAIL, MemberOperation, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.store.members.cache import ROW, absorb, keep_one, lock_rows, wake_siblings
from sync.store.members.consents import note_consents
from sync.store.members.email_changes import follow_member
from sync.store.members.member_codec import decode, encode, encode_new, interests_entry
from sync.store.members.member_merge import (
    NO_TIME,
    MemberSnapshot,
    Sent,
    is_different,
    is_other_data,
    is_same,
    merge,
    read_snapshot,
    without_notes,
)
from sync.store.members.no_address import note_no_address
from sync.store.runs.data_due import note_due
from sync.store.tables import cache, member
from sync.store.updates import open_updates

NO_SKEW = timedelta(0)
_COLUMNS = (
    "mailchimp_member_id",
    "mailchimp_email",
    "mailchimp_status",
    "mailchimp_updated",
    "mailchimp_data",
    "sync_status",
)


@dataclass(frozen=True, slots=True)
class Merged:
    """What a page did: rows made, rows that changed, members that could not be kept."""

    new: int = 0
    changed: int = 0
    unusable: int = 0
    possible_renames: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Members left out for now (`merge_page`): new id → our row and its member id."""


InFlight = Sequence[tuple[Sent, str]]
"""Operations in flight for a row, each with the time of its cause as the cache keeps times."""


def member_operations_in_flight(
    audience: Audience, updates_by_row: Mapping[int, Sequence[OpenUpdate]]
) -> dict[int, InFlight]:
    """The member operations in flight among these open updates: a page may show their effect before the results."""
    found: dict[int, InFlight] = {}
    for cache_id, updates in updates_by_row.items():
        flying = [
            one.operation for one in updates if one.in_flight and one.operation.kind_group == OperationKind.MEMBER
        ]
        if flying:
            found[cache_id] = [(_sent(one), audience.compact(one.cause) if one.cause else NO_TIME) for one in flying]
    return found


def _sent(operation: MemberOperation) -> Sent:
    return Sent.from_body({} if operation.kind == OperationKind.ARCHIVE else operation.body, operation.cause)


def merge_page(
    conn: Connection,
    audience: Audience,
    members: Iterable[Member],
    *,
    skew: timedelta = NO_SKEW,
    serial: int | None = None,
    find_renames: bool = False,
    moved: Mapping[str, int] | None = None,
    in_flight: Mapping[int, InFlight] | None = None,
) -> Merged:
    """Bring the rows of these members up to date; safe to repeat.

    *skew* is Mailchimp's clock minus ours. *serial* is the number of a full fetch, which is stored with each member.
    *in_flight* are the operations in flight for each row; None: they are read.

    A member with an unknown id and a known contact id may have changed its address at Mailchimp. With *find_renames*
    these are left out and returned: fetch the old id, and merge them again, with *moved* (new id → row) for those
    whose old id is gone.
    """
    listed = list(members)
    note_no_address(conn, audience.list_id, listed, serial)
    found = _read_snapshots(audience, listed, skew)
    rows = _rows_by_member(conn, audience.list_id, list(found))
    if moved:
        rows |= {new_id: row for new_id, row in _moved_rows(conn, moved).items() if new_id in found}
    unknown = [one for one in found.values() if one.member_id not in rows]
    possible_renames = _possible_renames(conn, audience.list_id, unknown) if find_renames else {}
    for member_id in possible_renames:
        del found[member_id]
    if in_flight is None:
        in_flight = _find_in_flight(conn, audience, rows.values())
    work = _Work()
    for member_id, one in yielding_to_loop(found.items()):
        row = rows.get(member_id)
        if row is None:
            work.insert(audience, one)
        else:
            work.update(row, one, in_flight.get(row.id, ()))
    cache_ids = {member_id: row.id for member_id, row in rows.items()} | work.write(conn, audience)
    note_consents(conn, audience.list_id, audience.clock, listed, cache_ids)
    _note_members(conn, found.values(), cache_ids, work.new_ids | work.changed_ids, serial)
    unusable = len(listed) - len(found) - len(possible_renames)
    return Merged(len(work.new), len(work.changed), unusable, possible_renames)


def _read_snapshots(audience: Audience, members: Sequence[Member], skew: timedelta) -> dict[str, MemberSnapshot]:
    """Those of these members that can be kept, by id."""
    known: dict[str, tuple[str | None, str]] = {}
    snapshots = (read_snapshot(audience, one, skew, known) for one in yielding_to_loop(members))
    return {one.member_id: one for one in snapshots if one is not None}


def _find_in_flight(conn: Connection, audience: Audience, rows: Iterable[Row[Any]]) -> dict[int, InFlight]:
    """The member operations in flight for these rows; rows with another status have none."""
    busy = [row.id for row in rows if row.sync_status in (SyncStatus.LIVE, SyncStatus.REDO, SyncStatus.TODO)]
    return member_operations_in_flight(audience, open_updates(conn, busy))


def merge_member(
    conn: Connection,
    audience: Audience,
    member: Member,
    *,
    skew: timedelta = NO_SKEW,
    sent: Sent | None = None,
    into: int | None = None,
) -> int | None:
    """Bring the row of one member up to date and return its id; None for a member that cannot be kept.

    *sent* is the operation that this member is the result of. *into* is the row of that operation: a row without a
    member becomes the member's, and another row of the same member is merged into it with its updates.
    """
    news = read_snapshot(audience, member, skew, {})
    if news is None:
        return None
    found = _rows_by_member(conn, audience.list_id, [news.member_id]).get(news.member_id)
    locked = lock_rows(conn, {one for one in (into, found.id if found is not None else None) if one is not None})
    target = locked.get(into) if into is not None else None
    found = locked.get(found.id) if found is not None else None
    row: Any = target or found
    work = _Work()
    if row is None:
        work.insert(audience, news)
    else:
        if found is not None and found.id != row.id:
            absorb(conn, found.id, row.id)
        cause = audience.compact(sent.at) if sent is not None and sent.at is not None else NO_TIME
        in_flight = member_operations_in_flight(audience, open_updates(conn, [row.id])).get(row.id, ())
        work.update(row, news, [*in_flight, (sent, cause)] if sent is not None else in_flight)
    made = work.write(conn, audience)
    cache_id = int(made[news.member_id] if row is None else row.id)
    note_consents(conn, audience.list_id, audience.clock, [member], {news.member_id: cache_id})
    _note_members(conn, [news], {news.member_id: cache_id}, work.new_ids | work.changed_ids, None)
    return cache_id


def mark_gone(
    conn: Connection, audience: Audience, cache_ids: Sequence[int], at: datetime, *, skew: timedelta = NO_SKEW
) -> None:
    """Mark these members as archived and unsubscribed at *at* (Mailchimp's clock): Mailchimp has deleted them (404).

    Mailchimp gives no time of a deletion. A deleted member is never subscribed again by the sync, so the deletion
    counts as the latest change.
    """
    changed = []
    stamp = audience.compact(at - skew)
    for row in conn.execute(select(*ROW).where(in_list(cache.c.id, cache_ids))):
        known = decode(row.mailchimp_data)
        was_out = row.mailchimp_status is not None and row.mailchimp_status not in RECEIVES_MAIL
        since = known.get("status@") if was_out else None  # they left then: this is not a new change
        fields = known | {"status": MemberStatus.ARCHIVED, "status@": since or stamp}
        changed.append(
            (
                MemberStatus.ARCHIVED,
                audience.clock.write(at),
                encode(without_notes(fields)),
                SyncStatus.TODO,
                row.id,
            )
        )
    update_rows(conn, cache, ("mailchimp_status", "mailchimp_updated", "mailchimp_data", "sync_status"), changed)
    wake_siblings(conn, audience.list_id, cache_ids)


@dataclass(slots=True)
class _Work:
    """What a merge writes, gathered before anything is written."""

    new: list[tuple[Any, ...]] = field(default_factory=list)
    new_ids: set[str] = field(default_factory=set)
    changed: list[tuple[Any, ...]] = field(default_factory=list)
    changed_ids: set[str] = field(default_factory=set)
    turned: list[int] = field(default_factory=list)
    moved: dict[int, tuple[int, str, str]] = field(default_factory=dict)
    """Rows whose member has another address: the contact, the old address and the new one."""
    due: list[int] = field(default_factory=list)
    """Rows with a member whose data may have to be sent again."""

    def insert(self, audience: Audience, news: MemberSnapshot) -> None:
        """A member without a row."""
        data = encode_new(news.values, news.stamp)
        self.new.append(
            (audience.list_id, news.member_id, news.email, news.status, news.updated, data, SyncStatus.TODO)
        )
        self.new_ids.add(news.member_id)

    def update(self, row: Row[Any], news: MemberSnapshot, sent: Iterable[tuple[Sent, str]]) -> None:
        """A member with a row; nothing is written when nothing changed."""
        as_is = (row.mailchimp_member_id, row.mailchimp_email, row.mailchimp_status, row.mailchimp_updated)
        unmoved = as_is == (news.member_id, news.email, news.status, news.updated)
        if unmoved and row.mailchimp_data and is_same(row.mailchimp_data, news):
            return
        known = decode(row.mailchimp_data)
        old = known if row.mailchimp_status is None else {"status": row.mailchimp_status} | known
        is_dated = news.audience.clock.read(row.mailchimp_updated) is not None
        before = compacted(row.mailchimp_updated) if is_dated else None
        fields = merge(old, news, before=before, sent=sent)
        address_changed = (row.mailchimp_email or "").lower() != news.email.lower()
        is_complete = interests_entry(known).encode("utf-8", "surrogatepass") in (row.mailchimp_data or b"")
        if unmoved and fields == known and is_complete:
            return
        data = encode(fields)
        needs_sync = is_different(old, fields) or address_changed
        sync_status = SyncStatus.TODO if needs_sync else row.sync_status
        self.changed.append((news.member_id, news.email, news.status, news.updated, data, sync_status, row.id))
        self.changed_ids.add(news.member_id)
        if row.mailchimp_status != news.status:
            self.turned.append(row.id)
        if is_other_data(old, fields):
            self.due.append(row.id)
        readdressed = row.mailchimp_member_id and row.mailchimp_member_id != news.member_id
        if readdressed and row.civicrm_contact_id is not None and row.mailchimp_email:
            self.moved[row.id] = (row.civicrm_contact_id, row.mailchimp_email, news.email)

    def write(self, conn: Connection, audience: Audience) -> dict[str, int]:
        """Write it all; returns the ids of the new rows by member id."""
        made = self._insert_new(conn, audience)
        update_rows(conn, cache, _COLUMNS, self.changed)
        wake_siblings(conn, audience.list_id, self.turned)
        note_due(conn, audience.list_id, [*self.due, *made.values()])
        in_flight = open_updates(conn, list(self.moved))
        for cache_id, (contact_id, old, new) in self.moved.items():
            if not _is_our_change(in_flight.get(cache_id, ()), new):
                follow_member(conn, audience, contact_id, old, new)
        return made

    def _insert_new(self, conn: Connection, audience: Audience) -> dict[str, int]:
        if not self.new:
            return {}
        last, ids = insert_after(conn, cache, ("mailchimp_list_id", *_COLUMNS), self.new, adjacent=False)
        if ids:
            return {row[1]: cache_id for row, cache_id in zip(self.new, ids, strict=True)}
        return _ids_of_new(conn, audience.list_id, last)


def _is_our_change(updates: Iterable[OpenUpdate], address: str) -> bool:
    """Whether an update in flight gave the member this address: the contact may have gone back to the old one since."""
    return any(
        one.in_flight
        and one.operation.kind == OperationKind.EMAIL
        and str(one.operation.body.get("email_address", "")).lower() == address.lower()
        for one in updates
    )


def _note_members(
    conn: Connection,
    news: Collection[MemberSnapshot],
    cache_ids: Mapping[str, int],
    touched: Collection[str],
    serial: int | None,
) -> None:
    """Store Mailchimp's contact ids, and the number of a full fetch; an incremental fetch writes changes only.

    *cache_ids* are the rows of these members by member id, *touched* those of them that were made or changed.
    """
    wanted = set(touched)
    if serial is not None:
        known = {cache_ids[one.member_id]: one.member_id for one in news if one.member_id not in wanted}
        wanted |= {known[cache_id] for cache_id in _mark_seen(conn, list(known), serial)}
    rows = [(cache_ids[one.member_id], one.contact_id, serial or 0) for one in news if one.member_id in wanted]
    set_ = ("contact_id",) if serial is None else ("contact_id", "seen")
    upsert_rows(conn, member, ("cache_id", "contact_id", "seen"), rows, key=("cache_id",), set_=set_)


def _mark_seen(conn: Connection, cache_ids: Sequence[int], serial: int) -> set[int]:
    """Store the number of a full fetch with these; returns those without a stored contact id (the extension's rows)."""
    if not cache_ids:
        return set()
    unknown: set[int] = set()
    mine = in_list(member.c.cache_id, cache_ids)
    marked = conn.execute(change(member).where(mine).values(seen=serial)).rowcount
    if marked != len(cache_ids):
        unknown |= set(cache_ids) - set(conn.execute(select(member.c.cache_id).where(mine)).scalars())
    return unknown


def _ids_of_new(conn: Connection, list_id: str, after: int) -> dict[str, int]:
    """Member id → row of an audience's rows made since row *after*."""
    rows = conn.execute(
        select(cache.c.mailchimp_member_id, cache.c.id).where(
            cache.c.id > after, unindexed(cache.c.mailchimp_list_id) == list_id
        )
    )
    return {row.mailchimp_member_id: row.id for row in yielding_to_loop(rows)}


def _possible_renames(conn: Connection, list_id: str, unknown: Sequence[MemberSnapshot]) -> dict[str, tuple[int, str]]:
    """Which of these members, unknown by their ids, are known by their contact ids."""
    by_contact = {one.contact_id: one.member_id for one in unknown if one.contact_id}
    found: dict[str, tuple[int, str]] = {}
    if not by_contact:
        return found
    rows = conn.execute(
        select(member.c.contact_id, cache.c.id, cache.c.mailchimp_member_id)
        .join(cache, cache.c.id == member.c.cache_id)
        .where(in_list(member.c.contact_id, list(by_contact)), unindexed(cache.c.mailchimp_list_id) == list_id)
    )
    found.update({by_contact[contact_id]: (cache_id, old_id) for contact_id, cache_id, old_id in rows})
    return found


def _rows_by_member(conn: Connection, list_id: str, member_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The row of each of these members; where one has several, they are one from here on."""
    found: dict[str, Row[Any]] = {}
    several: dict[str, list[Row[Any]]] = {}
    wanted = select(*ROW).where(cache.c.mailchimp_list_id == list_id, in_list(cache.c.mailchimp_member_id, member_ids))
    rows: Sequence[Any] = conn.execute(wanted).all()
    for row in rows:
        other = found.setdefault(row.mailchimp_member_id, row)
        if other is not row:
            several.setdefault(row.mailchimp_member_id, [other]).append(row)
    return found | {member_id: keep_one(conn, list_id, theirs) for member_id, theirs in several.items()}


def _moved_rows(conn: Connection, moved: Mapping[str, int]) -> dict[str, Row[Any]]:
    found: Iterable[Row[Any]] = conn.execute(select(*ROW).where(in_list(cache.c.id, list(moved.values()))))
    rows = {row.id: row for row in found}
    return {new_id: rows[cache_id] for new_id, cache_id in moved.items() if cache_id in rows}
