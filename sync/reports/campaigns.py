"""Imported campaigns as the API and the pages show them. Reads only; times out are site times."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, distinct, func, select

from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import activity_contact
from sync.campaigns.rows import DONE, NEW, TARGET
from sync.store.tables import campaign, campaign_import, campaign_response

STATES = {NEW: "not imported yet", DONE: "imported"}


def read_campaigns(
    conn: Connection, groups: Mapping[str, int], clock: SiteClock, *, limit: int, offset: int
) -> list[dict[str, Any]]:
    """The campaigns of these audiences (list id → group), newest first, with who opened and clicked."""
    wanted = select(campaign).where(campaign.c.list_id.in_(list(groups)))
    wanted = wanted.order_by(campaign.c.sent_s.desc(), campaign.c.id.desc())
    found = conn.execute(wanted.limit(limit or None).offset(offset or None)).all()
    figures = _figures(conn, [row.id for row in found])
    return [_shown(row, clock) | {"group_id": groups[row.list_id]} | figures.get(row.id, _NOTHING) for row in found]


_NOTHING = {"opened_by": 0, "opens": 0, "clicked_by": 0, "clicks": 0}


def _figures(conn: Connection, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many people opened and clicked each campaign, and how often."""
    response = campaign_response.c
    is_open = response.link == ""
    wanted = (
        select(
            response.campaign,
            is_open.label("is_open"),
            func.count(distinct(response.contact_id)).label("people"),
            func.sum(response.count).label("times"),
        )
        .where(in_list(response.campaign, ids))
        .group_by(response.campaign, is_open)
    )
    found: dict[int, dict[str, int]] = {}
    for row in conn.execute(wanted):
        names = ("opened_by", "opens") if row.is_open else ("clicked_by", "clicks")
        figures = dict(zip(names, (row.people, int(row.times)), strict=True))
        found[row.campaign] = {**_NOTHING, **found.get(row.campaign, {}), **figures}
    return found


def read_campaigns_of(
    conn: Connection, contact_id: int, clock: SiteClock, *, limit: int, offset: int
) -> list[dict[str, Any]]:
    """The campaigns that a contact was sent, newest first, with when they last opened it and how often they clicked."""
    target = activity_contact.c
    wanted = (
        select(campaign)
        .join(activity_contact, target.activity_id == campaign.c.activity_id)
        .where(target.contact_id == contact_id, target.record_type_id == TARGET)
        .order_by(campaign.c.sent_s.desc(), campaign.c.id.desc())
    )
    found = conn.execute(wanted.limit(limit or None).offset(offset or None)).all()
    response = campaign_response.c
    mine = select(campaign_response).where(
        response.contact_id == contact_id, in_list(response.campaign, [row.id for row in found])
    )
    figures: dict[int, dict[str, Any]] = {}
    for row in conn.execute(mine):
        one = figures.setdefault(row.campaign, {"opens": 0, "last_open": "", "clicks": 0})
        if row.link:
            one["clicks"] += row.count
        else:
            one |= {"opens": row.count, "last_open": clock.write_epoch(row.last_s) if row.last_s else ""}
    nothing = {"opens": 0, "last_open": "", "clicks": 0}
    return [_shown(row, clock) | figures.get(row.id, nothing) for row in found]


def _shown(row: Row[Any], clock: SiteClock) -> dict[str, Any]:
    return {
        "campaign_id": row.campaign_id,
        "list_id": row.list_id,
        "subject": row.subject or row.title or "",
        "sent": clock.write_epoch(row.sent_s),
        "archive_url": row.archive_url or "",
        "activity_id": row.activity_id,
        "state": STATES.get(row.state, "being imported"),
        "emails_sent": row.emails_sent,
        "targets": row.targets,
        "unknown": row.unknown,
        "figures_read": clock.write_epoch(row.figures_s) if row.figures_s else "",
        "error": row.error or "",
    }


def read_last_import(conn: Connection, list_id: str, clock: SiteClock) -> dict[str, Any] | bool:
    """The last import of an audience's campaigns: when, how it ended, and why it failed; False: never one."""
    row = conn.execute(select(campaign_import).where(campaign_import.c.list_id == list_id)).one_or_none()
    if row is None:
        return False
    error = row.error or ("It was interrupted." if row.outcome == "failed" else "")
    ended = clock.write_epoch(row.ended_s) if row.ended_s else ""
    return {
        "started": clock.write_epoch(row.started_s),
        "ended": ended,
        "outcome": row.outcome,
        "campaigns": row.campaigns,
        "error": error,
    }
