"""Daily statistics of an audience: its size on both sides, and the changes that the sync made on each.

One row for each audience and day (in the site's time zone), in a table of ours. The sizes are counted at the end of a
run; the changes are added in the transactions that make them, so that none is counted twice. Only changes of the sync
are counted: a member who unsubscribes at Mailchimp counts when the sync removes the contact from the group.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from civiapi.store.clock import SiteClock
from civiapi.store.databases.dialect import insert_new, upsert
from civiapi.store.schema.tables import contact
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, GroupStatus
from sync.store.balance import has_count, is_large
from sync.store.sources import members_of
from sync.store.tables import cache, daily

CHANGES = ("joined_civicrm", "left_civicrm", "joined_mailchimp", "left_mailchimp")
DAYS = 90
LONGEST = 3660
NEWS = frozenset(
    {"new", "changed", "moved", "gone", "created", "matched", "unlinked", "deleted", "added", "removed", "marked"}
    | {"joined", "left", "updates"}
)
"""Counts of a run that show a change; without one, the last sizes are still valid."""


def add_changes(conn: Connection, audience: Audience, at: datetime, **changes: int) -> None:
    """Add to the changes of the day of *at* (aware); names as in `CHANGES`. Nothing is written where all are 0."""
    made = {name: number for name, number in changes.items() if number}
    if not made:
        return
    day = audience.clock.write(at)[:10]
    mine = (daily.c.list_id == audience.list_id) & (daily.c.day == day)
    adding = change(daily).where(mine).values(counted=0, **{name: daily.c[name] + made[name] for name in made})
    if not conn.execute(adding).rowcount:  # the first of the day; another process may insert the row at the same time
        insert_new(conn, daily, [{"list_id": audience.list_id, "day": day}])
        conn.execute(adding)


def forget_count(conn: Connection, audience: Audience) -> None:
    """Have the next run count both sides again: a member changed outside of a run."""
    conn.execute(change(daily).where(daily.c.list_id == audience.list_id, daily.c.counted == 1).values(counted=0))


def count_ends(conn: Connection, audience: Audience, *, recount: bool) -> tuple[int, int] | None:
    """How many are in the audience and in its group; without *recount* as last counted, if nothing changed since.

    None for a large audience that was counted before: that is repeated in the background (``background_counts``).
    """
    newest = select(daily).where(daily.c.list_id == audience.list_id).order_by(daily.c.day.desc()).limit(1)
    known = conn.execute(newest).first()
    if known is not None and known.counted and not recount:
        return known.mailchimp, known.civicrm
    if is_large(conn, audience.list_id) and has_count(conn, audience.list_id):
        return None
    return count_audience(conn, audience.list_id), count_group(conn, audience.group_id)


def find_sizes(conn: Connection, audience: Audience) -> tuple[int, int]:
    """How many are in the audience and in its group: of a large audience as last counted, else now."""
    if is_large(conn, audience.list_id) and has_count(conn, audience.list_id):
        mine = (daily.c.list_id == audience.list_id) & daily.c.mailchimp.is_not(None) & daily.c.civicrm.is_not(None)
        known = conn.execute(select(daily).where(mine).order_by(daily.c.day.desc()).limit(1)).first()
        if known is not None:
            return known.mailchimp, known.civicrm
    return count_audience(conn, audience.list_id), count_group(conn, audience.group_id)


def count_audience(conn: Connection, list_id: str) -> int:
    """How many members are in an audience, by the cache."""
    inside = cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL))
    return int(conn.execute(select(func.count()).where(cache.c.mailchimp_list_id == list_id, inside)).scalar_one())


def count_group(conn: Connection, group_id: int) -> int:
    """How many contacts are in a group, those in the trash left out."""
    members = members_of(conn, group_id)
    inside = (
        select(func.count())
        .select_from(members.join(contact, contact.c.id == members.c.contact_id))
        .where(members.c.group_id == group_id, members.c.status == GroupStatus.ADDED, contact.c.is_deleted == 0)
    )
    return int(conn.execute(inside).scalar_one())


def note_ends(conn: Connection, audience: Audience, at: datetime, mailchimp: int, civicrm: int) -> None:
    """Store the sizes on both sides on the day of *at*, in place of those of an earlier run of the day."""
    row = {
        "list_id": audience.list_id,
        "day": audience.clock.write(at)[:10],
        "mailchimp": mailchimp,
        "civicrm": civicrm,
        "counted": 1,
    }
    upsert(conn, daily, [row], key=("list_id", "day"), set_=("mailchimp", "civicrm", "counted"))


def read_daily(conn: Connection, list_id: str, clock: SiteClock, days: int) -> list[dict[str, Any]]:
    """The last *days* days, oldest first, today the last; counts are None on a day that no run ended on."""
    today = date.fromisoformat(clock.write(datetime.now(UTC))[:10])
    first = today - timedelta(days=days - 1)
    rows = conn.execute(select(daily).where(daily.c.list_id == list_id, daily.c.day >= first.isoformat()))
    known = {row.day: row for row in rows}
    found = []
    for place in range(days):
        day = (first + timedelta(days=place)).isoformat()
        row = known.get(day)
        counts = {"mailchimp": row.mailchimp if row else None, "civicrm": row.civicrm if row else None}
        found.append({"date": day, **counts, **{name: getattr(row, name) if row else 0 for name in CHANGES}})
    return found
