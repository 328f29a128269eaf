"""Counts of an audience and its group by status: the numbers of the status page.

Counting reads every row of the audience. Up to `MANY` rows are counted on each request, unless the database has not
changed since (``dialect.change_mark``). The count of a larger audience is stored in a table of ours and repeated in the
background (``background_counts``): after a change it is outdated for about twenty times the duration of a count. A
fingerprint of the database shows whether it is outdated.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, and_, func, or_, select

from civiapi.store.databases.dialect import change_mark, upsert
from civiapi.store.databases.expressions import unindexed, unlikely
from civiapi.store.schema.tables import group_contact, lease, subscription_history
from sync.model import RECEIVES_MAIL, GroupStatus, SyncStatus
from sync.store.members.privacy import count_not_to_be_mailed
from sync.store.sources import members_of
from sync.store.tables import balance as balance_table
from sync.store.tables import cache, update

KEPT = "civiapi.stats"
MISSING = "missing"
MANY = 10_000
"""Rows that are counted in some thirty milliseconds."""

PAUSE_FACTOR = 20
"""The pause after a count of an audience, as a multiple of the count's duration."""

MIN_AGE_MS, MAX_AGE_MS = 3_000, 600_000
"""The least age at which a count is repeated after a change, and the age at which it is repeated without one."""


@dataclass(slots=True)
class Balance:
    """Cache rows by status, under the keys of ``getstatus``. `failed` is always 0, as in the extension."""

    failed: int = 0
    subscribed_at_mailchimp: int = 0
    subscribed_at_civicrm: int = 0
    to_add_to_mailchimp: int = 0
    cannot_subscribe: int = 0
    to_remove_from_mailchimp: int = 0
    todo: int = 0
    other_fails: int = 0
    weird: list[dict[str, Any]] = field(default_factory=list)
    mailchimp_updates_pending: int = 0
    mailchimp_updates_unsubmitted: int = 0
    not_to_be_mailed: dict[str, int] = field(default_factory=dict)
    """Members in the audience by why CiviCRM would not mail them (`count_not_to_be_mailed`); not one of the keys."""

    def count(
        self, sync_status: str | None, member: str | None, group: str | None, rows: int, *, one_way: bool = False
    ) -> None:
        """Count *rows* with these statuses; *one_way*: of a source, where sides may differ for good (``decide``)."""
        at_mailchimp, at_civicrm = member in RECEIVES_MAIL, group == GroupStatus.ADDED
        self.subscribed_at_mailchimp += rows * at_mailchimp
        self.subscribed_at_civicrm += rows * at_civicrm
        if sync_status == SyncStatus.FAIL:
            self.cannot_subscribe += rows * (at_civicrm and not at_mailchimp)
            self.other_fails += rows * (at_mailchimp or not at_civicrm)
        elif one_way and sync_status == SyncStatus.OK:
            pass
        elif sync_status in (SyncStatus.LIVE, SyncStatus.OK):
            self.to_add_to_mailchimp += rows * (at_civicrm and not at_mailchimp)
            self.to_remove_from_mailchimp += rows * (at_mailchimp and not at_civicrm)
        elif sync_status == SyncStatus.TODO:
            self.todo += rows
        else:
            named = {"sync_status": sync_status, "mailchimp_status": member, "civicrm_status": group}
            self.weird.append({name: value or MISSING for name, value in named.items()} | {"c": rows})

    def as_dict(self) -> dict[str, Any]:
        """The numbers as ``getstatus`` shows them."""
        return {name: value for name, value in asdict(self).items() if name != "not_to_be_mailed"}


def read_balance(conn: Connection, list_id: str, group_id: int) -> Balance:
    """The balance of an audience and its subscription group; of a large one as last counted."""
    mark = change_mark(conn)
    known: dict[tuple[str, int], tuple[tuple[int, ...] | None, Balance]] = conn.info.setdefault(KEPT, {})
    known_mark, balance = known.get((list_id, group_id), (None, None))
    if mark is None or known_mark != mark or balance is None:
        kept = _find_kept(conn, list_id, group_id) if is_large(conn, list_id) else None
        balance = _as_kept(conn, list_id, kept.counts) if kept else count_balance(conn, list_id, group_id)
        known[list_id, group_id] = (mark, balance)
    return balance


def is_large(conn: Connection, list_id: str) -> bool:
    """Whether an audience has more rows than are counted whenever asked."""
    first = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id).limit(MANY + 1).subquery()
    return bool(conn.execute(select(func.count()).select_from(first)).scalar_one() > MANY)


def has_count(conn: Connection, list_id: str) -> bool:
    """Whether a count of an audience is kept."""
    return conn.execute(select(balance_table.c.list_id).where(balance_table.c.list_id == list_id)).first() is not None


def is_stale(conn: Connection, list_id: str, group_id: int, at_ms: int) -> bool:
    """Whether the stored count of an audience is due to be repeated; never that of a small one."""
    if not is_large(conn, list_id):
        return False
    kept = _find_kept(conn, list_id, group_id)
    if kept is None:
        return True
    age = at_ms - kept.counted_ms
    if kept.fingerprint and kept.fingerprint == fingerprint(conn, at_ms):
        return bool(age >= MAX_AGE_MS)
    return bool(age >= max(MIN_AGE_MS, kept.took_ms * PAUSE_FACTOR))


def find_behind(conn: Connection, list_id: str, group_id: int, at_ms: int) -> int | None:
    """How many milliseconds the stored count of an audience took, if it is outdated; 0 if there is none.

    None for a current one, during a lease, and for a small audience.
    """
    now = fingerprint(conn, at_ms)
    if not now or not is_large(conn, list_id):
        return None
    kept = _find_kept(conn, list_id, group_id)
    if kept is None:
        return 0
    return None if kept.fingerprint == now else int(kept.took_ms)


@dataclass(frozen=True, slots=True)
class Count:
    """A balance, counted: when, how long that took, and the fingerprint of the database as it began."""

    balance: Balance
    counted_ms: int
    took_ms: int
    fingerprint: str


def take_count(conn: Connection, list_id: str, group_id: int, at_ms: int) -> Count:
    """Count an audience, however large; to be kept with `keep_count`."""
    found, begun = fingerprint(conn, at_ms), time.monotonic()
    balance = count_balance(conn, list_id, group_id)
    return Count(balance, at_ms, int((time.monotonic() - begun) * 1000), found)


def keep_count(conn: Connection, list_id: str, group_id: int, count: Count) -> None:
    """Store a count for all processes."""
    row = {
        "list_id": list_id,
        "group_id": group_id,
        "counts": orjson.dumps(asdict(count.balance)).decode(),
        "counted_ms": count.counted_ms,
        "took_ms": count.took_ms,
        "fingerprint": count.fingerprint,
    }
    upsert(conn, balance_table, [row], key=("list_id",), set_=[name for name in row if name != "list_id"])


def fingerprint(conn: Connection, at_ms: int) -> str:
    """A text that differs after any group change, new row or update, run or results; empty while a lease is held.

    Every run and every processing of results acquires a lease, which increases its fence.
    """
    fences, last = conn.execute(select(func.sum(lease.c.fence), func.max(lease.c.expires_ms))).one()
    if (last or 0) > at_ms:
        return ""
    newest = [conn.execute(select(func.max(table.c.id))).scalar() for table in (subscription_history, update, cache)]
    return ":".join(str(one or 0) for one in (fences, *newest))


def _find_kept(conn: Connection, list_id: str, group_id: int) -> Any:
    mine = (balance_table.c.list_id == list_id) & (balance_table.c.group_id == group_id)
    return conn.execute(select(balance_table).where(mine)).one_or_none()


def _as_kept(conn: Connection, list_id: str, counts: str) -> Balance:
    """A balance as stored, except that open updates are counted now where they are few."""
    balance = Balance(**orjson.loads(counts))
    some = select(update.c.id).where(unlikely(update.c.completed == 0)).limit(MANY + 1).subquery()
    if conn.execute(select(func.count()).select_from(some)).scalar_one() <= MANY:
        _count_open_updates(conn, list_id, balance)
    return balance


def count_balance(conn: Connection, list_id: str, group_id: int) -> Balance:
    """Count every row of the audience and every open update."""
    balance = Balance()
    members = members_of(conn, group_id)
    theirs = and_(members.c.contact_id == cache.c.civicrm_contact_id, members.c.group_id == group_id)
    statuses = (cache.c.sync_status, cache.c.mailchimp_status, members.c.status)
    rows = conn.execute(
        select(*statuses, func.count())
        .select_from(cache.outerjoin(members, theirs))
        .where(cache.c.mailchimp_list_id == list_id)
        .group_by(*statuses)
        .order_by(*statuses)
    )
    for sync_status, member, group, count in rows:
        balance.count(sync_status, member, group, count, one_way=members is not group_contact)
    if members is group_contact:
        _leave_out_second_addresses(conn, list_id, group_id, balance)
    balance.not_to_be_mailed = count_not_to_be_mailed(conn, list_id)
    _count_open_updates(conn, list_id, balance)
    return balance


def _leave_out_second_addresses(conn: Connection, list_id: str, group_id: int, balance: Balance) -> None:
    """Take out of the counts of those to add the second addresses of people who are in by, or join by, another."""
    first = cache.alias("first")
    joins = select(first.c.id).where(
        unindexed(first.c.mailchimp_list_id) == list_id,  # a contact has a few rows
        first.c.civicrm_contact_id == cache.c.civicrm_contact_id,
        first.c.id != cache.c.id,
        or_(
            first.c.mailchimp_status.in_(sorted(RECEIVES_MAIL)),
            (first.c.sync_status == SyncStatus.LIVE) & (cache.c.sync_status == SyncStatus.FAIL),
        ),
    )
    theirs = and_(group_contact.c.contact_id == cache.c.civicrm_contact_id, group_contact.c.group_id == group_id)
    rows = conn.execute(
        select(cache.c.sync_status, func.count())
        .select_from(cache.join(group_contact, theirs))
        .where(
            cache.c.mailchimp_list_id == list_id,
            cache.c.sync_status.in_((SyncStatus.FAIL, SyncStatus.LIVE, SyncStatus.OK)),
            unindexed(cache.c.mailchimp_status).not_in(sorted(RECEIVES_MAIL)),
            group_contact.c.status == GroupStatus.ADDED,
            joins.correlate(cache).exists(),
        )
        .group_by(cache.c.sync_status)
    )
    for sync_status, count in rows:
        if sync_status == SyncStatus.FAIL:
            balance.cannot_subscribe -= count
        else:
            balance.to_add_to_mailchimp -= count


def _count_open_updates(conn: Connection, list_id: str, balance: Balance) -> None:
    counts = conn.execute(
        select(func.count(), func.count() - func.count(update.c.mailchimpsync_batch_id))
        .select_from(update.join(cache, cache.c.id == update.c.mailchimpsync_cache_id))
        .where(unlikely(update.c.completed == 0), unindexed(cache.c.mailchimp_list_id) == list_id)
    ).one()
    balance.mailchimp_updates_pending, balance.mailchimp_updates_unsubmitted = counts
