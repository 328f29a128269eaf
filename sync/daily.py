"""What each day brought an audience: how many are at both ends, and how many came and went in which direction.

One row an audience and day (in the site's time zone), in a table of ours. The counts of both ends are taken at the end
of a run, by reading the rows as they stand then; the changes are added in the very transactions that make them, so
that nothing is counted twice. Our own changes only: somebody who unsubscribes at Mailchimp is counted when the sync
takes them out of the group.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy import update as change

from civiapi.store.clock import SiteClock
from civiapi.store.dialect import insert_new, upsert
from civiapi.store.tables import contact, group_contact
from sync.audience import RECEIVES_MAIL, Audience
from sync.reconcile import ADDED
from sync.stats import has_count, is_large
from sync.tables import cache, daily

CHANGES = ("joined_civicrm", "left_civicrm", "joined_mailchimp", "left_mailchimp")
DAYS = 90
LONGEST = 3660
NEWS = frozenset(
    {"new", "changed", "moved", "gone", "created", "matched", "unlinked", "deleted", "added", "removed", "marked"}
    | {"joined", "left", "updates"}
)
"""Counts of a run that tell that something changed; where nothing did, the last count of both ends still holds."""


def add_changes(conn: Connection, audience: Audience, at: datetime, **changes: int) -> None:
    """Add to what the day of *at* (aware) brought; names as in `CHANGES`. Nothing is written where all are 0."""
    made = {name: number for name, number in changes.items() if number}
    if not made:
        return
    day = audience.clock.write(at)[:10]
    mine = (daily.c.list_id == audience.list_id) & (daily.c.day == day)
    adding = change(daily).where(mine).values(counted=0, **{name: daily.c[name] + made[name] for name in made})
    if not conn.execute(adding).rowcount:  # the first of the day; somebody else may make the row in the same moment
        insert_new(conn, daily, [{"list_id": audience.list_id, "day": day}])
        conn.execute(adding)


def forget_count(conn: Connection, audience: Audience) -> None:
    """Have the next run count both ends anew: a member changed outside of a run."""
    conn.execute(change(daily).where(daily.c.list_id == audience.list_id, daily.c.counted == 1).values(counted=0))


def count_ends(conn: Connection, audience: Audience, *, anew: bool) -> tuple[int, int] | None:
    """How many are in the audience and in its group; not *anew*: as last counted, if nothing changed since.

    None for a large audience that was counted before: that is done again beside the runs (``balances``).
    """
    newest = select(daily).where(daily.c.list_id == audience.list_id).order_by(daily.c.day.desc()).limit(1)
    known = conn.execute(newest).first()
    if known is not None and known.counted and not anew:
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
    """How many members are in an audience, as we know it."""
    inside = cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL))
    return int(conn.execute(select(func.count()).where(cache.c.mailchimp_list_id == list_id, inside)).scalar_one())


def count_group(conn: Connection, group_id: int) -> int:
    """How many contacts are in a group, those in the trash left out."""
    inside = (
        select(func.count())
        .select_from(group_contact.join(contact, contact.c.id == group_contact.c.contact_id))
        .where(group_contact.c.group_id == group_id, group_contact.c.status == ADDED, contact.c.is_deleted == 0)
    )
    return int(conn.execute(inside).scalar_one())


def note_ends(conn: Connection, audience: Audience, at: datetime, mailchimp: int, civicrm: int) -> None:
    """Keep how many are at both ends on the day of *at*; the day's last run has the last word."""
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
