"""readyToFixContactIds and readyToCreateNewContactsFromMailchimp: every member in the audience gets its contact."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, or_, select
from sqlalchemy import update as change

from civiapi.store.bulk import update_rows
from civiapi.store.contacts import NewPerson, create_individuals
from civiapi.store.dialect import among, unindexed
from civiapi.store.tables import contact, email
from sync.audience import RECEIVES_MAIL
from sync.cache import mark_todo
from sync.matching import Range, drop_dead_contacts, match_contacts
from sync.member_data import peek
from sync.stages.base import ROWS_A_BIT, ROWS_A_STATEMENT, Run, Step, count_rows, next_bound
from sync.stages.recent import next_modified
from sync.tables import cache


async def fix_contact_ids(run: Run) -> None:
    """Drop contacts that are gone or in the trash, and match members that have none by their address."""
    await run.repeat(_fix)


def _fix(conn: Connection, step: Step) -> None:
    cursor = step.position.cursor or {"phase": "recent"}
    if cursor["phase"] == "recent":
        _wake_recent(conn, step, cursor.get("after") or {})
        return
    after, full = int(cursor["after"]), step.question.is_full
    if not after:
        step.total = count_rows(conn, step.audience.list_id, only_todo=not full)
    upto, size = next_bound(conn, step.audience, after, ROWS_A_STATEMENT, only_todo=not full)
    if upto is None:
        step.say(f"Contacts: {cursor['matched']} members matched by address, {cursor['dropped']} unlinked.")
        step.finish()
        return
    rows = Range(after, upto, only_todo=not full)
    unlinked, deleted = drop_dead_contacts(conn, step.audience, rows)
    matched = match_contacts(conn, step.audience, rows)
    step.counts.update(rows=size, unlinked=unlinked, deleted=deleted, matched=matched)
    step.stay(phase="match", after=upto, matched=cursor["matched"] + matched, dropped=cursor["dropped"] + unlinked)


def _wake_recent(conn: Connection, step: Step, after: dict[str, Any]) -> None:
    """Let contacts that changed in CiviCRM be thought about: their rows if something may hang on it, and members
    without a contact whose address they now have."""
    ids, following = next_modified(conn, step, after, ROWS_A_BIT // 2)
    _wake(conn, step, ids)
    if following is None:
        step.stay(phase="match", after=0, matched=0, dropped=0)
    else:
        step.stay(phase="recent", after=following)


def _wake(conn: Connection, step: Step, ids: Sequence[int]) -> None:
    if not ids:
        return
    mine = cache.c.mailchimp_list_id == step.audience.list_id
    alive = select(contact.c.id).where(contact.c.id == cache.c.civicrm_contact_id, contact.c.is_deleted == 0)
    owned = select(email.c.id).where(
        email.c.contact_id == cache.c.civicrm_contact_id, email.c.email == cache.c.mailchimp_email
    )
    linked = select(cache.c.id).where(
        mine,
        among(cache.c.civicrm_contact_id, ids),
        or_(
            cache.c.sync_status == "fail",
            ~alive.correlate(cache).exists(),
            cache.c.mailchimp_member_id.is_not(None) & ~owned.correlate(cache).exists(),
        ),
    )
    theirs = select(email.c.email).where(among(email.c.contact_id, ids), email.c.email.is_not(None))
    addresses = list(conn.execute(theirs).scalars())
    unlinked = select(cache.c.id).where(
        mine, among(cache.c.mailchimp_email, addresses), cache.c.civicrm_contact_id.is_(None)
    )
    woken = [*conn.execute(linked).scalars(), *conn.execute(unlinked).scalars()]
    for start in range(0, len(woken), ROWS_A_BIT // 2):
        part = woken[start : start + ROWS_A_BIT // 2]
        conn.execute(change(cache).where(among(cache.c.id, part)).values(sync_status="todo"))
    step.counts.update(contacts=len(ids), woken=len(woken))


async def create_new_contacts(run: Run) -> None:
    """Make a contact for each member in the audience that matched none; they join the group when reconciled."""
    await run.repeat(_create)


def _create(conn: Connection, step: Step) -> None:
    cursor = step.position.cursor or {"after": 0, "created": 0}
    rows = _without_contact(conn, step, cursor["after"])
    if rows and (known := _known_by_now(conn, [row.id for row in rows])):
        # somebody gave a contact one of these addresses after the stage before had looked, or while a run was stopped
        match_contacts(conn, step.audience, Range(min(known) - 1, max(known)))
        rows = _without_contact(conn, step, cursor["after"])
    people = [
        NewPerson(peek(data, "first_name") or "", peek(data, "last_name") or "", address)
        for _, address, data, _ in rows
    ]
    ids = create_individuals(conn, people, step.site_time)
    linked = [(contact_id, row.id) for contact_id, row in zip(ids, rows, strict=True)]
    update_rows(conn, cache, ("civicrm_contact_id",), linked)
    mark_todo(conn, [row.id for row in rows if row.sync_status != "todo"])  # most are: an index less to write
    step.counts.update(created=len(rows))
    created = cursor["created"] + len(rows)
    if len(rows) == ROWS_A_BIT // 2:
        step.stay(after=rows[-1].id, created=created)
        return
    step.say(f"Contacts: {created} made for members that CiviCRM did not know.")
    step.finish()


def _without_contact(conn: Connection, step: Step, after: int) -> Sequence[Row[Any, Any, Any, Any]]:
    """The next members in the audience that no contact is known of."""
    wanted = (
        select(cache.c.id, cache.c.mailchimp_email, cache.c.mailchimp_data, cache.c.sync_status)
        .where(
            cache.c.mailchimp_list_id == step.audience.list_id,
            cache.c.civicrm_contact_id.is_(None),
            cache.c.id > after,
            unindexed(cache.c.mailchimp_status).in_(sorted(RECEIVES_MAIL)),  # in the order of ids
        )
        .order_by(cache.c.id)
        .limit(ROWS_A_BIT // 2)
    )
    return conn.execute(wanted).all()


def _known_by_now(conn: Connection, row_ids: Sequence[int]) -> list[int]:
    """Those of these rows whose address a living contact has."""
    wanted = (
        select(cache.c.id)
        .join(email, email.c.email == cache.c.mailchimp_email)
        .join(contact, contact.c.id == email.c.contact_id)
        .where(among(cache.c.id, row_ids), unindexed(contact.c.is_deleted) == 0)
    )
    return list(conn.execute(wanted).scalars())
