"""Which contacts may have changed since the previous run: by ``modified_date``, which CiviCRM moves for addresses too.

Some slack is taken, because a long transaction writes its time when it begins and shows when it commits. Contacts that
the sync made, and that nobody touched since, are passed over in large steps: after a first sync they are everybody.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from civiapi.store.tables import contact, email
from sync.audience import Audience
from sync.stages.base import ROWS_A_STATEMENT, Step
from sync.tables import cache

SLACK_SECONDS = 600

Place = dict[str, Any]
"""A contact in order of change: its ``date`` (site time) and ``id``; empty before the first."""


def next_modified(conn: Connection, step: Step, after: Place, size: int) -> tuple[list[int], Place | None]:
    """The next contacts modified since the previous run, *size* at most, and where to go on; None at the end."""
    since = step.question.contacts_since
    if since is None:
        return [], None
    start = after or {"date": step.audience.clock.write(datetime.fromtimestamp(since - SLACK_SECONDS, UTC)), "id": 0}
    end = _place_after(conn, start, ROWS_A_STATEMENT)
    looked_at = _is_after(start)
    if end is not None:
        looked_at = and_(looked_at, contact.c.modified_date <= end["date"], ~_is_after(end))
    rows = conn.execute(
        select(contact.c.id, contact.c.modified_date)
        .where(looked_at, _is_news(step.audience))
        .order_by(contact.c.modified_date, contact.c.id)
        .limit(size)
    ).all()
    ids = [row.id for row in rows]
    return ids, {"date": rows[-1].modified_date, "id": ids[-1]} if len(ids) == size else end


def _place_after(conn: Connection, start: Place, count: int) -> Place | None:
    """The place *count* contacts after *start*; None where there are fewer."""
    last = (
        select(contact.c.modified_date, contact.c.id)
        .where(_is_after(start))
        .order_by(contact.c.modified_date, contact.c.id)
        .limit(1)
        .offset(count - 1)
    )
    row = conn.execute(last).one_or_none()
    return None if row is None else {"date": row.modified_date, "id": row.id}


def _is_after(place: Place) -> ColumnElement[bool]:
    changed, date = contact.c.modified_date, place["date"]
    return and_(or_(changed > date, and_(changed == date, contact.c.id > place["id"])), changed >= date)


def _is_news(audience: Audience) -> ColumnElement[bool]:
    """Not just as it was made, and at rest under the address that it has."""
    at_rest = (
        select(cache.c.id)
        .join(email, and_(email.c.contact_id == cache.c.civicrm_contact_id, email.c.email == cache.c.mailchimp_email))
        .where(
            cache.c.mailchimp_list_id == audience.list_id,
            cache.c.civicrm_contact_id == contact.c.id,
            cache.c.sync_status == "ok",
        )
    )
    made = contact.c.created_date
    return or_(
        made.is_(None),
        made != contact.c.modified_date,
        contact.c.is_deleted != 0,
        ~at_rest.correlate(contact).exists(),
    )
