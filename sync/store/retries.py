"""Updates that failed for now, and when they are sent again. One row for each cache row and kind of update.

An update is retried after a temporary refusal (`errors.is_temporary`), a server error at every try, or results that
never came. The same change is sent again after a day, three days, a week, and so on: at most once a day. A
later change in CiviCRM has another cause: it is sent at once and begins the count again; so does ``includecontact``.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, and_, delete, func, or_, select
from sqlalchemy import update as change

from civiapi.store.databases.dialect import upsert
from civiapi.store.databases.expressions import in_list
from sync.model import DATA_KINDS, RECEIVES_MAIL, SyncStatus
from sync.store.tables import cache, retry

DAY_S = 86_400
WAITS_S = (DAY_S, 3 * DAY_S, 7 * DAY_S, 14 * DAY_S, 30 * DAY_S)
"""Seconds until the first, second, … time that it is asked again; after the last, always as long as that."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What was refused *refusals* times in a row, for the CiviCRM change of *cause_s* (UTC seconds); *next* is when to
    ask again (aware UTC)."""

    refusals: int
    cause_s: int | None
    next: datetime


def now_s() -> int:
    """The present time in UTC seconds, by which retries are due."""
    return int(time.time())


def read_retries(conn: Connection, cache_ids: Sequence[int], kind_group: str) -> dict[int, Retry]:
    """The retries of these rows, due or not, by cache id."""
    if not cache_ids:
        return {}
    wanted = select(retry).where(in_list(retry.c.cache_id, cache_ids), retry.c.kind == kind_group)
    return {row.cache_id: Retry(row.refusals, row.cause_s, _moment(row.next_s)) for row in conn.execute(wanted)}


def put_off(conn: Connection, cache_id: int, kind_group: str, cause_s: int | None, at_s: int) -> None:
    """Note that this kind of update was refused for now at *at_s*."""
    known = read_retries(conn, [cache_id], kind_group).get(cache_id)
    refusals = known.refusals + 1 if known is not None and known.cause_s == cause_s else 1
    wait = WAITS_S[min(refusals, len(WAITS_S)) - 1]
    row = {
        "cache_id": cache_id,
        "kind": kind_group,
        "refusals": refusals,
        "cause_s": cause_s,
        "next_s": at_s + wait,
    }
    upsert(conn, retry, [row], key=("cache_id", "kind"), set_=("refusals", "cause_s", "next_s"))


def forget_retries(conn: Connection, cache_ids: Sequence[int], kind_group: str | None = None) -> None:
    """Begin the count of retries again for these rows: the update was carried out, refused for good, or requested by a
    person."""
    if cache_ids:
        mine = in_list(retry.c.cache_id, cache_ids)
        conn.execute(delete(retry).where(mine if kind_group is None else mine & (retry.c.kind == kind_group)))


def due_of(conn: Connection, cache_ids: Sequence[int], at_s: int) -> list[int]:
    """Those of these rows whose time to ask Mailchimp again about the member has come."""
    if not cache_ids:
        return []
    due = retry.c.next_s <= at_s, retry.c.kind.not_in(sorted(DATA_KINDS))
    return list(conn.execute(select(retry.c.cache_id).where(in_list(retry.c.cache_id, cache_ids), *due)).scalars())


def wake_due(conn: Connection, list_id: str, at_s: int) -> int:
    """Mark ``todo`` the failed rows of an audience whose time to ask again has come; returns how many."""
    due = (
        select(cache.c.id)
        .join(retry, retry.c.cache_id == cache.c.id)
        .where(
            retry.c.next_s <= at_s,
            cache.c.mailchimp_list_id == list_id,
            cache.c.sync_status == SyncStatus.FAIL,
        )
    )
    ids = list(conn.execute(due).scalars())
    if ids:
        conn.execute(change(cache).where(in_list(cache.c.id, ids)).values(sync_status=SyncStatus.TODO))
    return len(ids)


def count_retries(conn: Connection, list_id: str) -> tuple[int, datetime | None]:
    """How many rows of an audience wait to be asked again, and when the first of them is."""
    waiting = (
        select(func.count(), func.min(retry.c.next_s))
        .join(cache, cache.c.id == retry.c.cache_id)
        .where(
            cache.c.mailchimp_list_id == list_id,
            or_(
                cache.c.sync_status == SyncStatus.FAIL,
                and_(retry.c.kind.in_(sorted(DATA_KINDS)), cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL))),
            ),
        )
    )
    count, first = conn.execute(waiting).one()
    return int(count), None if first is None else _moment(first)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
