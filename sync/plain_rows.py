"""Rows whose case is plain are settled together: a first sync has a million of them, and each has the same answer.

A row's case is plain when only where both sides stand can matter: nothing is under way for it, no failure is noted on
it, and no interests are linked. Of these, `reconcile.decide` says the same whatever the dates are where both sides
agree (the row is at rest), and where a member in the audience was never heard of in the group (the contact joins).
Those two are done here, by conditions that `decide` is held against in the tests; every other row is looked at by
itself (`facts`, `reconcile`, `apply`), and so are all where somebody wants each plan told (`planning`).
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, func, literal, not_, or_, select
from sqlalchemy import update as change

from civiapi.store.bulk import update_rows
from civiapi.store.dialect import unindexed
from civiapi.store.groups import set_status
from civiapi.store.tables import subscription_history
from sync.apply import FAIL, Applied
from sync.audience import Audience
from sync.daily import add_changes
from sync.facts import ECHO_METHOD, member_since
from sync.matching import Range
from sync.member_data import ECHO, peek, with_text
from sync.reconcile import ADDED
from sync.sides import in_audience, in_group, never_heard_of
from sync.tables import cache
from sync.updates import owes_something

OK = "ok"


def settle_plain_rows(conn: Connection, audience: Audience, rows: Range, at: datetime) -> Applied:
    """Settle the plain rows of a range at *at* (aware), and say what was done; the others stay as they are."""
    if any(group_id != audience.group_id for group_id in audience.interests.values()):
        return Applied()
    plain = and_(
        rows.of(audience),
        ~owes_something(),
        func.coalesce(func.instr(cache.c.civicrm_data, literal(FAIL)), 0) == 0,
    )
    resting = _rest(conn, audience, plain)
    rows_joined, joined = _join(conn, audience, plain, at)
    return Applied(rows=resting + rows_joined, joined=joined)


def _rest(conn: Connection, audience: Audience, plain: ColumnElement[bool]) -> int:
    """Let rows be whose sides agree, with the group's latest word on them; returns how many."""
    inside, member = in_group(audience), in_audience()
    agree = or_(and_(inside, member), and_(not_(inside), not_(member)))
    values = {"sync_status": OK, "civicrm_groups": _latest_word(audience)}
    return conn.execute(change(cache).where(plain, agree).values(values)).rowcount


def _latest_word(audience: Audience) -> ScalarSelect[str]:
    """What is kept of CiviCRM's latest word (``12;Added;2026-01-09 10:00:00``); nothing where there is no history."""
    history = subscription_history.c
    words = literal(f"{audience.group_id};").concat(func.coalesce(history.status, ""))
    return (
        select(words.concat(";").concat(func.coalesce(history.date, "")))
        .where(
            history.contact_id == cache.c.civicrm_contact_id,
            unindexed(history.group_id) == audience.group_id,  # a contact has a few rows
        )
        .order_by(history.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )


def _join(conn: Connection, audience: Audience, plain: ColumnElement[bool], at: datetime) -> tuple[int, int]:
    """Put members into the group that never heard of them; returns how many rows and how many contacts those are."""
    found = conn.execute(
        select(cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_data, cache.c.mailchimp_updated).where(
            plain, cache.c.civicrm_contact_id.is_not(None), in_audience(), never_heard_of(audience)
        )
    ).all()
    if not found:
        return 0, 0
    site_time = audience.clock.write(at)
    contacts = list(dict.fromkeys(contact_id for _, contact_id, _, _ in found))
    set_status(conn, audience.group_id, contacts, ADDED, method=ECHO_METHOD, at=site_time)
    groups, echo = f"{audience.group_id};{ADDED};{site_time}", f"{ECHO}status@"
    written = [
        (with_text(data, echo, _said_at(audience, data, updated)), groups, OK, cache_id)
        for cache_id, _, data, updated in found
    ]
    update_rows(conn, cache, ("mailchimp_data", "civicrm_groups", "sync_status"), written)
    add_changes(conn, audience, at, joined_civicrm=len(contacts))
    return len(found), len(contacts)


def _said_at(audience: Audience, data: bytes | None, updated: str | None) -> str:
    """When Mailchimp spoke the word that is repeated, as a member's data keeps times: nearly always it is there."""
    noted = peek(data, "status@") or ""
    return noted if len(noted) == 14 and noted.isdecimal() else audience.compact(member_since(audience, None, updated))
