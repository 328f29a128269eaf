"""How an audience and its group compare, counted: the numbers behind the status page.

Counting walks every row of the audience. Up to `MANY` rows it is done whenever asked, unless the database says that
nothing changed since (``dialect.change_mark``). The count of a larger audience is kept in a table of ours, taken again
beside whatever is going on (``balances``) and given meanwhile: after a change it is behind, by some twenty times what
counting takes. A fingerprint of the database tells whether it is.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, and_, func, select

from civiapi.store.dialect import change_mark, rare, unindexed, upsert
from civiapi.store.tables import group_contact, subscription_history
from sync.audience import RECEIVES_MAIL
from sync.reconcile import ADDED
from sync.tables import balance as balance_table
from sync.tables import cache, claim, update

KEPT = "civiapi.stats"
MISSING = "missing"
MANY = 10_000
"""Rows that are counted in some thirty milliseconds."""

BREATHER = 20
"""How many times as long as a count took the next one of that audience waits."""

SHORTEST_MS, LONGEST_MS = 3_000, 600_000
"""After which a count may be taken again when something changed, and is though nothing seems to have."""


@dataclass(slots=True)
class Balance:
    """Cache rows by where they stand, in the words of ``getstatus``. `failed` is always 0, as in the extension."""

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

    def count(self, sync_status: str | None, member: str | None, group: str | None, rows: int) -> None:
        """Count *rows* that stand so."""
        at_mailchimp, at_civicrm = member in RECEIVES_MAIL, group == ADDED
        self.subscribed_at_mailchimp += rows * at_mailchimp
        self.subscribed_at_civicrm += rows * at_civicrm
        if sync_status == "fail":
            self.cannot_subscribe += rows * (at_civicrm and not at_mailchimp)
            self.other_fails += rows * (at_mailchimp or not at_civicrm)
        elif sync_status in ("live", "ok"):
            self.to_add_to_mailchimp += rows * (at_civicrm and not at_mailchimp)
            self.to_remove_from_mailchimp += rows * (at_mailchimp and not at_civicrm)
        elif sync_status == "todo":
            self.todo += rows
        else:
            named = {"sync_status": sync_status, "mailchimp_status": member, "civicrm_status": group}
            self.weird.append({name: value or MISSING for name, value in named.items()} | {"c": rows})

    def as_dict(self) -> dict[str, Any]:
        """The numbers as ``getstatus`` shows them."""
        return asdict(self)


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
    """Whether the count kept of an audience is due to be taken again; never that of a small one."""
    if not is_large(conn, list_id):
        return False
    kept = _find_kept(conn, list_id, group_id)
    if kept is None:
        return True
    age = at_ms - kept.counted_ms
    if kept.fingerprint and kept.fingerprint == fingerprint(conn, at_ms):
        return bool(age >= LONGEST_MS)
    return bool(age >= max(SHORTEST_MS, kept.took_ms * BREATHER))


def is_behind(conn: Connection, list_id: str, group_id: int, at_ms: int, *, took_ms: int | None = None) -> bool:
    """Whether the count kept of an audience is not that of now, though nobody is at work; never that of a small one.

    One that was never taken is not either. With *took_ms* only one that took no longer than that.
    """
    now = fingerprint(conn, at_ms)
    if not now or not is_large(conn, list_id):
        return False
    kept = _find_kept(conn, list_id, group_id)
    if kept is None:
        return took_ms is None
    return kept.fingerprint != now and (took_ms is None or bool(kept.took_ms <= took_ms))


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
    """Keep a count for whoever asks next, in any process."""
    row = {
        "list_id": list_id,
        "group_id": group_id,
        "counts": orjson.dumps(count.balance.as_dict()).decode(),
        "counted_ms": count.counted_ms,
        "took_ms": count.took_ms,
        "fingerprint": count.fingerprint,
    }
    upsert(conn, balance_table, [row], key=("list_id",), set_=[name for name in row if name != "list_id"])


def fingerprint(conn: Connection, at_ms: int) -> str:
    """A text that is another after any group change, row or update made, run or results; empty while one goes on.

    Every run and every result takes a claim, whose fence grows with that.
    """
    fences, last = conn.execute(select(func.sum(claim.c.fence), func.max(claim.c.expires_ms))).one()
    if (last or 0) > at_ms:
        return ""
    newest = [conn.execute(select(func.max(table.c.id))).scalar() for table in (subscription_history, update, cache)]
    return ":".join(str(one or 0) for one in (fences, *newest))


def _find_kept(conn: Connection, list_id: str, group_id: int) -> Any:
    mine = (balance_table.c.list_id == list_id) & (balance_table.c.group_id == group_id)
    return conn.execute(select(balance_table).where(mine)).one_or_none()


def _as_kept(conn: Connection, list_id: str, counts: str) -> Balance:
    """A balance as kept; what is owed is counted where it is little: that is what one waits for."""
    balance = Balance(**orjson.loads(counts))
    some = select(update.c.id).where(rare(update.c.completed == 0)).limit(MANY + 1).subquery()
    if conn.execute(select(func.count()).select_from(some)).scalar_one() <= MANY:
        _count_owed(conn, list_id, balance)
    return balance


def count_balance(conn: Connection, list_id: str, group_id: int) -> Balance:
    """Count every row of the audience, and every update it owes."""
    balance = Balance()
    theirs = and_(group_contact.c.contact_id == cache.c.civicrm_contact_id, group_contact.c.group_id == group_id)
    standing = (cache.c.sync_status, cache.c.mailchimp_status, group_contact.c.status)
    rows = conn.execute(
        select(*standing, func.count())
        .select_from(cache.outerjoin(group_contact, theirs))
        .where(cache.c.mailchimp_list_id == list_id)
        .group_by(*standing)
        .order_by(*standing)
    )
    for sync_status, member, group, count in rows:
        balance.count(sync_status, member, group, count)
    _count_owed(conn, list_id, balance)
    return balance


def _count_owed(conn: Connection, list_id: str, balance: Balance) -> None:
    owed = conn.execute(
        select(func.count(), func.count() - func.count(update.c.mailchimpsync_batch_id))
        .select_from(update.join(cache, cache.c.id == update.c.mailchimpsync_cache_id))
        .where(rare(update.c.completed == 0), unindexed(cache.c.mailchimp_list_id) == list_id)
    ).one()
    balance.mailchimp_updates_pending, balance.mailchimp_updates_unsubmitted = owed
