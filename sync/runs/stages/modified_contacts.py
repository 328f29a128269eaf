"""Finds contacts that may have changed since the previous run, by ``modified_date``, which changes with addresses too.

The range starts somewhat earlier, because a long transaction has the time of its beginning. The seconds in which there
is nothing but contacts that the sync created are passed over, however many those are; others that are unchanged since
they were created are skipped in large steps.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from civiapi.store.databases.expressions import in_list, same_address
from civiapi.store.schema.tables import contact, email
from sync.audience import Audience
from sync.model import SyncStatus
from sync.runs.run import Step
from sync.store.members.privacy import contact_objects
from sync.store.runs.own_rows import QuietTime, quiet_times
from sync.store.tables import cache

SLACK_SECONDS = 600

Place = dict[str, Any]
"""A contact in order of modification: its ``date`` (site time) and ``id``; empty before the first."""


def modified_since(audience: Audience, contacts_since: int) -> str:
    """The site time from which on a run looks at contacts, that has to look at those modified from *contacts_since*."""
    return audience.clock.write_epoch(contacts_since - SLACK_SECONDS)


def next_modified(conn: Connection, step: Step, after: Place, size: int) -> tuple[list[int], Place | None]:
    """The next contacts modified since the previous run, *size* at most, and where to continue; None at the end."""
    since = step.parameters.contacts_since
    if since is None:
        return [], None
    begin, scanned = modified_since(step.audience, since), step.sizes.scanned_rows_per_unit
    places, following = walk_modified(conn, step.audience.list_id, begin, after, scanned)
    news = _which_matter(conn, step.audience, [place["id"] for place in places])
    met = [place for place in places if place["id"] in news][:size]
    return [place["id"] for place in met], met[-1] if len(met) == size else following


def walk_modified(
    conn: Connection, list_id: str, since: str, after: Place, size: int
) -> tuple[list[Place], Place | None]:
    """The next contacts modified from site time *since* on, *size* at most, and where to continue; None at the end.

    Seconds in which nothing happened but that the sync created contacts are passed over.
    """
    start = after or {"date": since, "id": 0}
    quiet = quiet_times(conn, list_id, start["date"])
    if quiet and quiet[0].begin <= start["date"]:
        start, quiet = {"date": quiet[0].end, "id": quiet[0].last}, quiet[1:]
    places = _modified_after(conn, start, size, quiet)
    if len(places) == size:
        return places, places[-1]
    return places, {"date": quiet[0].begin, "id": 0} if quiet else None


def _modified_after(conn: Connection, start: Place, count: int, quiet: Sequence[QuietTime]) -> list[Place]:
    """The contacts after *start*, in order, *count* at most, up to the next quiet time."""
    changed = contact.c.modified_date
    places = select(changed, contact.c.id).order_by(changed, contact.c.id)
    before_quiet = (changed < quiet[0].begin,) if quiet else ()
    same_second = places.where(changed == start["date"], contact.c.id > start["id"])  # each uses the index as it is
    found = list(conn.execute(same_second.limit(count)))
    if len(found) < count:
        later = places.where(changed > start["date"], *before_quiet)
        found += conn.execute(later.limit(count - len(found)))
    return [{"date": date, "id": contact_id} for date, contact_id in found]


def _which_matter(conn: Connection, audience: Audience, ids: Sequence[int]) -> set[int]:
    if not ids:
        return set()
    return set(conn.execute(select(contact.c.id).where(in_list(contact.c.id, ids), _may_matter(audience))).scalars())


def _may_matter(audience: Audience) -> ColumnElement[bool]:
    """Modified since its creation, not in sync under its present address, or not to be mailed."""
    in_sync = (
        select(cache.c.id)
        .join(
            email,
            and_(
                email.c.contact_id == cache.c.civicrm_contact_id, same_address(email.c.email, cache.c.mailchimp_email)
            ),
        )
        .where(
            cache.c.mailchimp_list_id == audience.list_id,
            cache.c.civicrm_contact_id == contact.c.id,
            cache.c.sync_status == SyncStatus.OK,
        )
    )
    made = contact.c.created_date
    return or_(
        made.is_(None),
        made != contact.c.modified_date,
        contact.c.is_deleted != 0,
        contact_objects(),
        ~in_sync.correlate(contact).exists(),
    )
