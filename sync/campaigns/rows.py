"""Rows of imported campaigns: the activity of each, its targets, and who opened and clicked.

An activity is made with the row that says so, and targets are added with the position of the walk, so that a campaign
is imported once however often an import is stopped. Recipients who are no contact are kept, and looked up again when
addresses were added since: who is a contact by then becomes a target. All functions take an open connection and do not
commit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

import orjson
from sqlalchemy import Connection, Row, ScalarSelect, delete, func, insert, or_, select, update

from civiapi.store.civicrm.options import find_or_add_option
from civiapi.store.clock import SiteClock
from civiapi.store.databases.bulk import upsert_rows
from civiapi.store.databases.dialect import insert_new, upsert
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.live_columns import live_values
from civiapi.store.schema.tables import activity, activity_contact, contact, domain, email
from civiapi.store.text.encoded_text import cut
from sync.mailchimp.reports import SentCampaign
from sync.store.tables import cache, campaign, campaign_import, campaign_response, campaign_unknown

ACTIVITY_TYPE = "Mailchimp Campaign"
COMPLETED = "Completed"
SOURCE, TARGET = 2, 3  # record types of civicrm_activity_contact
NEW, RECIPIENTS, DONE = "new", "recipients", "done"
CHANGING = timedelta(days=30)
"""How long after sending opens and clicks are read again."""
GONE = "The campaign, or its report, is gone at Mailchimp."


@dataclass(frozen=True, slots=True)
class KnownCampaign:
    """A campaign that is to be imported, or whose opens and clicks are to be read; *cursor* is where to continue."""

    id: int
    campaign_id: str
    list_id: str
    state: str
    activity_id: int | None
    subject: str = ""
    cursor: Mapping[str, Any] = field(default_factory=dict)


# ---- the last import of an audience -----------------------------------------------------------------------------


def note_start(conn: Connection, list_id: str, now: datetime) -> datetime | None:
    """Note that an import begins; returns up to when all sent campaigns are known (aware UTC)."""
    listed = conn.execute(select(campaign_import.c.listed_s).where(campaign_import.c.list_id == list_id)).scalar()
    started = {"started_s": int(now.timestamp()), "ended_s": None, "outcome": "running", "campaigns": 0, "error": None}
    upsert(conn, campaign_import, [{"list_id": list_id, **started}], key=("list_id",), set_=list(started))
    return None if listed is None else datetime.fromtimestamp(listed, UTC)


def note_end(conn: Connection, list_id: str, now: datetime, outcome: str, imported: int, error: str | None) -> None:
    """Note how an import ended."""
    ended = {"ended_s": int(now.timestamp()), "outcome": outcome, "campaigns": imported, "error": error}
    conn.execute(update(campaign_import).where(campaign_import.c.list_id == list_id).values(ended))


def note_listed(conn: Connection, list_id: str) -> None:
    """Note that all campaigns are known that were sent up to the newest known one."""
    newest = select(func.max(campaign.c.sent_s)).where(campaign.c.list_id == list_id).scalar_subquery()
    conn.execute(update(campaign_import).where(campaign_import.c.list_id == list_id).values(listed_s=newest))


def note_campaigns(conn: Connection, found: Iterable[SentCampaign]) -> None:
    """Store campaigns that are not known yet, to be imported."""
    rows = [
        {
            "campaign_id": one.id,
            "list_id": one.list_id,
            "subject": one.subject[:255],
            "title": one.title[:255],
            "archive_url": one.archive_url,
            "sent_s": int(one.sent_at.timestamp()),
            "emails_sent": one.emails_sent,
            "state": NEW,
        }
        for one in found
    ]
    insert_new(conn, campaign, rows)


def to_import(conn: Connection, list_id: str) -> list[KnownCampaign]:
    """The campaigns whose recipients are not all imported: oldest first, then those that failed last time."""
    return _known(conn, campaign.c.list_id == list_id, campaign.c.state != DONE)


def to_read_figures(conn: Connection, list_id: str, now: datetime, days_kept: float) -> list[KnownCampaign]:
    """The imported campaigns whose opens and clicks may have changed since they were read: those first that were never
    read, or longest ago, so that imports too short for all of them reach each; then those that failed last time.

    *days_kept*: none that were sent before, whose figures are not kept; 0: all.
    """
    may_change = campaign.c.figures_s < campaign.c.sent_s + int(CHANGING.total_seconds())
    conditions = [
        campaign.c.list_id == list_id,
        campaign.c.state == DONE,
        campaign.c.activity_id.is_not(None),
        or_(campaign.c.error.is_(None), campaign.c.error != GONE),
        or_(campaign.c.figures_s.is_(None), may_change),
    ]
    if days_kept:
        conditions.append(campaign.c.sent_s >= int((now - timedelta(days=days_kept)).timestamp()))
    return _known(conn, *conditions, first=(campaign.c.figures_s,))


def _known(conn: Connection, *conditions: Any, first: Sequence[Any] = ()) -> list[KnownCampaign]:
    order = campaign.c.error.is_not(None), *first, campaign.c.sent_s, campaign.c.id
    wanted = select(campaign).where(*conditions).order_by(*order)
    return [_as_known(row) for row in conn.execute(wanted)]


def _as_known(row: Row[Any]) -> KnownCampaign:
    cursor = orjson.loads(row.cursor) if row.cursor else {}
    name = row.subject or row.title or ""
    return KnownCampaign(row.id, row.campaign_id, row.list_id, row.state, row.activity_id, name, cursor)


def move(conn: Connection, one: KnownCampaign, cursor: Mapping[str, Any] | None, **values: Any) -> None:
    """Store the cursor of the next page, with other columns; what failed before is over."""
    text = orjson.dumps(cursor).decode() if cursor else None
    changed = {"cursor": text, "error": None, **values}
    conn.execute(update(campaign).where(campaign.c.id == one.id).values(changed))


def note_error(conn: Connection, one: KnownCampaign, error: str) -> None:
    """Note why the report of a campaign could not be read; the next import begins with the others."""
    conn.execute(update(campaign).where(campaign.c.id == one.id).values(error=error))


# ---- activities -------------------------------------------------------------------------------------------------


def begin(conn: Connection, one: KnownCampaign, audience_name: str, clock: SiteClock) -> KnownCampaign:
    """Make the activity of a campaign, without targets; returns the changed campaign."""
    row = conn.execute(select(campaign).where(campaign.c.id == one.id).with_for_update()).one()
    if row.state != NEW:
        return _as_known(row)
    now = clock.now()
    values = {
        "activity_type_id": find_or_add_option(conn, "activity_type", ACTIVITY_TYPE),
        "subject": cut(row.subject or row.title or ACTIVITY_TYPE, 255),
        "activity_date_time": clock.write_epoch(row.sent_s),
        "details": _details(row, audience_name),
        "status_id": find_or_add_option(conn, "activity_status", COMPLETED),
        "is_auto": 1,
        "created_date": now,
        "modified_date": now,
    }
    key = conn.execute(insert(activity).values(live_values(conn, activity, values))).inserted_primary_key
    activity_id = int(key[0]) if key else 0
    source = conn.execute(select(domain.c.contact_id).order_by(domain.c.id).limit(1)).scalar()
    if source is not None:
        link = {"activity_id": activity_id, "contact_id": source, "record_type_id": SOURCE}
        conn.execute(insert(activity_contact).values(link))
    move(conn, one, None, state=RECIPIENTS, activity_id=activity_id)
    return KnownCampaign(one.id, one.campaign_id, one.list_id, RECIPIENTS, activity_id, one.subject)


def _details(row: Row[Any], audience_name: str) -> str:
    """The details of an activity, as HTML."""
    title = escape(row.title or row.subject or row.campaign_id)
    parts = [f"<p>Mailchimp campaign “{title}”, sent to audience {escape(audience_name)}.</p>"]
    if row.archive_url:
        parts.append(f'<p><a href="{escape(row.archive_url)}" rel="noopener">See it in Mailchimp’s archive</a></p>')
    return "".join(parts)


def add_targets(conn: Connection, one: KnownCampaign, recipients: Sequence[Mapping[str, Any]]) -> bool:
    """Add recipients as targets, and keep those who are no contact; False where somebody deleted the activity
    meanwhile."""
    if one.activity_id is None or not _exists(conn, one.activity_id):
        return False
    found = contacts_of(conn, one.list_id, recipients)
    _insert_targets(conn, {(one.activity_id, contact_id) for contact_id in found.values()})
    addresses = {_id_of(row): cut(str(row.get("email_address") or ""), 255) for row in recipients}
    unknown = [
        {"campaign": one.id, "member_id": member_id, "address": address}
        for member_id, address in addresses.items()
        if member_id and member_id not in found
    ]
    insert_new(conn, campaign_unknown, unknown)
    return True


def _insert_targets(conn: Connection, targets: Set[tuple[int, int]]) -> None:
    """Add targets, each an activity and a contact; those that are there already are left."""
    rows = [
        {"activity_id": activity_id, "contact_id": contact_id, "record_type_id": TARGET}
        for activity_id, contact_id in sorted(targets)
    ]
    insert_new(conn, activity_contact, rows)


def finish(conn: Connection, one: KnownCampaign) -> None:
    """Note that all recipients were imported, and count the targets and those who are no contact."""
    unknown = select(func.count()).select_from(campaign_unknown).where(campaign_unknown.c.campaign == one.id)
    move(conn, one, None, state=DONE, targets=_target_count(), unknown=unknown.scalar_subquery())


def _target_count() -> ScalarSelect[int]:
    """The number of targets of a campaign's activity, in a statement about the campaign."""
    mine = activity_contact.c.activity_id == campaign.c.activity_id, activity_contact.c.record_type_id == TARGET
    return select(func.count()).select_from(activity_contact).where(*mine).correlate(campaign).scalar_subquery()


def _exists(conn: Connection, activity_id: int) -> bool:
    return conn.execute(select(activity.c.id).where(activity.c.id == activity_id)).first() is not None


# ---- recipients who become contacts later -----------------------------------------------------------------------


def newest_email(conn: Connection, list_id: str) -> int | None:
    """The highest id of an address, if unknown recipients were not looked up since it was added; else None."""
    newest = conn.execute(select(func.max(email.c.id))).scalar() or 0
    known = select(campaign_import.c.newest_email).where(campaign_import.c.list_id == list_id)
    return None if conn.execute(known).scalar() == newest else newest


def look_up_unknown(conn: Connection, list_id: str, after: int, limit: int) -> int | None:
    """Make targets of those of the next recipients, after row *after*, who are contacts by now.

    Returns the row to continue after; None: these were the last.
    """
    of_campaign = campaign_unknown.c.campaign == campaign.c.id
    wanted = (
        select(campaign_unknown, campaign.c.activity_id)
        .join(campaign, of_campaign)
        .where(campaign.c.list_id == list_id, campaign.c.activity_id.is_not(None), campaign_unknown.c.id > after)
        .order_by(campaign_unknown.c.id)
    )
    rows = conn.execute(wanted.limit(limit)).all()
    found = contacts_of(conn, list_id, [{"email_id": row.member_id, "email_address": row.address} for row in rows])
    known = [row for row in rows if row.member_id in found]
    if known:
        _insert_targets(conn, {(row.activity_id, found[row.member_id]) for row in known})
        conn.execute(delete(campaign_unknown).where(in_list(campaign_unknown.c.id, [row.id for row in known])))
        for campaign_id, times in Counter(row.campaign for row in known).items():
            counts = {"targets": _target_count(), "unknown": campaign.c.unknown - times}
            conn.execute(update(campaign).where(campaign.c.id == campaign_id, campaign.c.state == DONE).values(counts))
    return rows[-1].id if len(rows) == limit else None


def note_looked_up(conn: Connection, list_id: str, newest: int) -> None:
    """Note that unknown recipients were looked up when *newest* was the highest id of an address."""
    conn.execute(update(campaign_import).where(campaign_import.c.list_id == list_id).values(newest_email=newest))


# ---- who is who -------------------------------------------------------------------------------------------------


def contacts_of(conn: Connection, list_id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The contacts of rows of a report, by ``email_id``.

    A member's contact is that of the cache: by Mailchimp's id, else by address. Who is no member any more is found by
    an address that one contact alone has.
    """
    addresses = {_id_of(row): str(row.get("email_address") or "").strip().lower() for row in rows if _id_of(row)}
    found = _by_member(conn, list_id, list(addresses))
    for find in (_by_cached_address, _by_only_owner):
        left = {address for key, address in addresses.items() if key not in found and address}
        if left:
            owners = find(conn, list_id, sorted(left))
            found |= {key: owners[one] for key, one in addresses.items() if key not in found and one in owners}
    return found


def _id_of(row: Mapping[str, Any]) -> str:
    value = row.get("email_id")
    return value if isinstance(value, str) else ""


def _by_member(conn: Connection, list_id: str, ids: Sequence[str]) -> dict[str, int]:
    wanted = select(cache.c.mailchimp_member_id, cache.c.civicrm_contact_id).where(
        cache.c.mailchimp_list_id == list_id,
        in_list(cache.c.mailchimp_member_id, ids),
        cache.c.civicrm_contact_id.is_not(None),
    )
    return {row.mailchimp_member_id: row.civicrm_contact_id for row in conn.execute(wanted)}


def _by_cached_address(conn: Connection, list_id: str, addresses: Sequence[str]) -> dict[str, int]:
    wanted = select(cache.c.mailchimp_email, cache.c.civicrm_contact_id).where(
        cache.c.mailchimp_list_id == list_id,
        in_list(cache.c.mailchimp_email, addresses),
        cache.c.civicrm_contact_id.is_not(None),
    )
    return {str(row.mailchimp_email).lower(): row.civicrm_contact_id for row in conn.execute(wanted)}


def _by_only_owner(conn: Connection, _list_id: str, addresses: Sequence[str]) -> dict[str, int]:
    wanted = (
        select(email.c.email, email.c.contact_id)
        .join(contact, contact.c.id == email.c.contact_id)
        .where(in_list(email.c.email, addresses), contact.c.is_deleted == 0)
    )
    owners: dict[str, set[int]] = {}
    for row in conn.execute(wanted):  # the collation holds more to be equal than the addresses that are
        owners.setdefault(str(row.email).strip().lower(), set()).add(row.contact_id)
    return {address: next(iter(ids)) for address, ids in owners.items() if len(ids) == 1}


# ---- opens and clicks -------------------------------------------------------------------------------------------


def store_responses(
    conn: Connection,
    one: KnownCampaign,
    link: str,
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    last: Mapping[str, int | None],
) -> None:
    """Store how often people opened a campaign (link ``""``) or clicked a link of it, in place of what was known.

    *counts* and *last* (UTC seconds) are by ``email_id``. Two addresses of a contact count together.
    """
    merged: dict[int, tuple[int, int | None]] = {}
    for email_id, contact_id in contacts_of(conn, one.list_id, rows).items():
        count, at = merged.get(contact_id, (0, None))
        merged[contact_id] = count + counts[email_id], max(filter(None, (at, last.get(email_id))), default=None)
    upsert_rows(
        conn,
        campaign_response,
        ("campaign", "contact_id", "link", "count", "last_s"),
        [(one.id, contact_id, link, count, at) for contact_id, (count, at) in sorted(merged.items()) if count],
        key=("contact_id", "campaign", "link"),
        set_=("count", "last_s"),
    )
