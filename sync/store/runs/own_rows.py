"""Which rows in CiviCRM's tables a run of an audience wrote itself: the next run need not look at them again.

Ranges of ids, noted in the transaction that writes the rows, and only where no other row can be among them: ids of
others may be given out meanwhile (a Galera cluster gives each node every third), and their rows committed later. What
is not noted is looked at again, which costs time and changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, delete, select
from sqlalchemy import insert as insert_into
from sqlalchemy import update as change

from civiapi.store.clock import SITE_FORMAT
from civiapi.store.schema.tables import contact
from sync.store.tables import cache, own_rows

CONTACT, HISTORY = "contact", "history"


@dataclass(frozen=True, slots=True)
class OwnRange:
    """Rows with ids from *first* to *last*, written at site time *at* or before."""

    first: int
    last: int
    at: str


@dataclass(frozen=True, slots=True)
class QuietTime:
    """Seconds from *begin* to *end* (site times) in which no contact was modified but those that the sync created.

    *last*: the highest id of those of the last second.
    """

    begin: str
    end: str
    last: int


def note_rows(conn: Connection, list_id: str, kind: str, ids: range, at: str) -> None:
    """Note that the run wrote all rows with these *ids* at site time *at*."""
    if not ids:
        return
    mine = _of(list_id, kind, own_rows.c.last_id == ids[0] - 1)
    if kind == CONTACT:  # of each second, because they are found by the time of their last change
        mine = and_(mine, own_rows.c.at == at)
    if not conn.execute(change(own_rows).where(mine).values(last_id=ids[-1], at=at)).rowcount:
        row = {"list_id": list_id, "kind": kind, "first_id": ids[0], "last_id": ids[-1], "at": at}
        conn.execute(insert_into(own_rows).values(row))


def without_gaps(ids: Sequence[int]) -> range:
    """These ids as a range; an empty one where others are among them."""
    whole = range(min(ids), max(ids) + 1) if ids else range(0)
    return whole if len(whole) == len(ids) else range(0)


def own_history(conn: Connection, list_id: str, after: int) -> list[OwnRange]:
    """The history that runs wrote themselves after row *after*, in order of ids, adjacent ranges as one."""
    wanted = select(own_rows.c.first_id, own_rows.c.last_id, own_rows.c.at)
    wanted = wanted.where(_of(list_id, HISTORY, own_rows.c.last_id > after)).order_by(own_rows.c.first_id)
    found: list[OwnRange] = []
    for first, last, at in conn.execute(wanted):
        if found and found[-1].last == first - 1:
            found[-1] = OwnRange(found[-1].first, last, max(found[-1].at, at))
        else:
            found.append(OwnRange(first, last, at))
    return found


def quiet_times(conn: Connection, list_id: str, since: str) -> list[QuietTime]:
    """When, from site time *since* on, nothing happened to contacts but that the sync created some; in order."""
    wanted = select(own_rows.c.at, own_rows.c.first_id, own_rows.c.last_id, _modified_then(), _modified_then(last=True))
    rows = conn.execute(wanted.where(_of(list_id, CONTACT, own_rows.c.at >= since)))
    found: list[QuietTime] = []
    for at, first, last, lowest, highest in sorted(rows, key=lambda row: (row.at, row.first_id)):
        if (first, last) != (lowest, highest):  # somebody else's, or they were changed since
            continue
        if found and _second_after(found[-1].end) == at:
            found[-1] = QuietTime(found[-1].begin, at, last)
        else:
            found.append(QuietTime(at, at, last))
    return found


def forget_before(conn: Connection, list_id: str, history_id: int, contacts_at: str) -> None:
    """Drop the ranges that no run will meet: history up to a row, contacts written before a site time."""
    conn.execute(delete(own_rows).where(_of(list_id, HISTORY, own_rows.c.last_id <= history_id)))
    conn.execute(delete(own_rows).where(_of(list_id, CONTACT, own_rows.c.at < contacts_at)))


def forget_recent_contacts(conn: Connection, list_id: str, now: str, rows: ColumnElement[bool]) -> None:
    """Drop the contacts of these cache *rows* if they were created in this very second (site time *now*).

    They are being reconciled; a change later in the second would not be seen by the time of their last change.
    """
    recent = select(own_rows.c.first_id, own_rows.c.last_id).where(_of(list_id, CONTACT, own_rows.c.at >= now))
    for first, last in conn.execute(recent).all():
        met = select(cache.c.id).where(rows, cache.c.civicrm_contact_id.between(first, last)).limit(1)
        if conn.execute(met).first() is not None:
            conn.execute(delete(own_rows).where(_of(list_id, CONTACT, own_rows.c.first_id == first)))


def gaps(ranges: Sequence[OwnRange], after: int, upto: int) -> Iterator[tuple[int, int, OwnRange | None]]:
    """The ids after *after* up to *upto* that are in none of these ranges: before the first and up to the last of each
    stretch, and the range that follows it."""
    for one in ranges:
        if one.first - 1 > upto:
            break
        if one.first - 1 > after:
            yield after, one.first - 1, one
        after = max(after, one.last)
    if after < upto:
        yield after, upto, None


def _of(list_id: str, kind: str, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    return and_(own_rows.c.list_id == list_id, own_rows.c.kind == kind, *which)


def _modified_then(*, last: bool = False) -> ScalarSelect[int]:
    """The lowest or the *last* id of the contacts that were last modified in the second of a range."""
    order = (contact.c.modified_date.desc(), contact.c.id.desc()) if last else (contact.c.modified_date, contact.c.id)
    then = select(contact.c.id).where(contact.c.modified_date == own_rows.c.at)
    return then.order_by(*order).limit(1).correlate(own_rows).scalar_subquery()


def _second_after(at: str) -> str:
    return (datetime.strptime(at, SITE_FORMAT) + timedelta(seconds=1)).strftime(SITE_FORMAT)
