"""readyToFixContactIds and readyToCreateNewContactsFromMailchimp: every member in the audience gets its contact."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from civiapi.runtime.loop_priority import yielding_to_loop
from civiapi.store.civicrm.contacts import NewPerson, create_individuals
from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, same_address, unindexed
from civiapi.store.schema.tables import contact, email
from sync.audience import Privacy
from sync.model import RECEIVES_MAIL, SyncStatus
from sync.reconcile.categories import NEW_CONTACT
from sync.reconcile.dead_contacts import drop_dead_contacts
from sync.reconcile.matching import Range, match_contacts
from sync.runs.run import Run, Step, next_range
from sync.runs.stages.modified_contacts import next_modified
from sync.store.members.holds import STATUS, has_hold
from sync.store.members.member_codec import peek
from sync.store.members.privacy import find_owners, member_objects, note_trashed
from sync.store.runs.own_rows import CONTACT, note_rows, without_gaps
from sync.store.runs.run_changes import note_many
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache


async def fix_contact_ids(run: Run) -> None:
    """Drop contacts that are gone or in the trash, and match members that have none by their address."""
    await run.repeat(_fix)


def _fix(conn: Connection, step: Step) -> None:
    cursor = step.checkpoint.cursor or {"phase": "recent"}
    if cursor["phase"] == "recent":
        _mark_modified_page(conn, step, cursor.get("after") or {})
        return
    after = int(cursor["after"])
    rows, size = next_range(conn, step, after)
    if rows is None:
        step.log(f"Contacts: {cursor['matched']} members matched by address, {cursor['dropped']} unlinked.")
        step.finish()
        return
    unlinked, deleted = drop_dead_contacts(conn, step.audience, rows)
    matched = match_contacts(conn, step.audience, rows)
    step.counts.update(rows=size, unlinked=unlinked, deleted=deleted, matched=matched)
    step.continue_from(
        phase="match", after=rows.upto, matched=cursor["matched"] + matched, dropped=cursor["dropped"] + unlinked
    )


def _mark_modified_page(conn: Connection, step: Step, after: dict[str, Any]) -> None:
    """Mark ``todo`` the rows of contacts that changed in CiviCRM, where it can matter, and members without a contact
    whose address such a contact now has."""
    ids, following = next_modified(conn, step, after, step.sizes.rows_per_unit)
    _mark_modified(conn, step, ids)
    if following is None:
        step.continue_from(phase="match", after=0, matched=0, dropped=0)
    else:
        step.continue_from(phase="recent", after=following)


def _mark_modified(conn: Connection, step: Step, ids: Sequence[int]) -> None:
    if not ids:
        return
    mine = cache.c.mailchimp_list_id == step.audience.list_id
    alive = select(contact.c.id).where(contact.c.id == cache.c.civicrm_contact_id, contact.c.is_deleted == 0)
    owned = select(email.c.id).where(
        email.c.contact_id == cache.c.civicrm_contact_id, same_address(email.c.email, cache.c.mailchimp_email)
    )
    linked = select(cache.c.id).where(
        mine,
        in_list(cache.c.civicrm_contact_id, ids),
        or_(
            cache.c.sync_status == SyncStatus.FAIL,
            ~alive.correlate(cache).exists(),
            cache.c.mailchimp_member_id.is_not(None) & ~owned.correlate(cache).exists(),
            *((member_objects(),) if step.audience.privacy is Privacy.UNSUBSCRIBE else ()),
        ),
    )
    theirs = select(email.c.email).where(in_list(email.c.contact_id, ids), email.c.email.is_not(None))
    addresses = list(conn.execute(theirs).scalars())
    unlinked = select(cache.c.id).where(
        mine, in_list(cache.c.mailchimp_email, addresses), unindexed(cache.c.civicrm_contact_id).is_(None)
    )
    marked = [*conn.execute(linked).scalars(), *conn.execute(unlinked).scalars()]
    set_sync_status(conn, marked, SyncStatus.TODO)
    step.counts.update(contacts=len(ids), woken=len(marked))


async def create_new_contacts(run: Run) -> None:
    """Create a contact for each member in the audience that matched none; it joins the group when reconciled."""
    await run.repeat(_create)


def _create(conn: Connection, step: Step) -> None:
    if step.audience.one_way:
        step.log("Contacts: none are created, because the smart group is a source only.")
        step.finish()
        return
    cursor = step.checkpoint.cursor or {"after": 0, "created": 0}
    rows = part = _without_contact(conn, step, cursor["after"])
    owned, trashed = find_owners(conn, [row.id for row in part])
    if owned:  # a contact got one of these addresses after the previous stage, or while the run was stopped
        match_contacts(conn, step.audience, Range(owned[0] - 1, owned[-1]))
        rows = [row for row in _without_contact(conn, step, cursor["after"]) if row.id <= part[-1].id]
    people = [
        NewPerson(peek(data, "first_name") or "", peek(data, "last_name") or "", address)
        for _, address, data, _ in yielding_to_loop(rows)
    ]
    ids = create_individuals(conn, people, step.site_time)
    note_rows(conn, step.audience.list_id, CONTACT, without_gaps(ids), step.site_time)
    linked = [(contact_id, row.id) for contact_id, row in zip(ids, rows, strict=True)]
    update_rows(conn, cache, ("civicrm_contact_id",), linked)
    note_many(conn, step.audience.run_id, NEW_CONTACT, [(row_id, i) for i, row_id in linked])
    note_trashed(conn, {row.id: trashed[row.id] for row in rows if row.id in trashed})
    set_sync_status(
        conn, [row.id for row in rows if row.sync_status != SyncStatus.TODO], SyncStatus.TODO
    )  # most are todo: fewer index writes
    step.counts.update(created=len(rows))
    created = cursor["created"] + len(rows)
    if len(part) == step.sizes.rows_per_unit:
        step.continue_from(after=part[-1].id, created=created)
        return
    step.log(f"Contacts: {created} created for members without one.")
    step.finish()


def _without_contact(conn: Connection, step: Step, after: int) -> Sequence[Row[Any, Any, Any, Any]]:
    """The next members in the audience without a contact.

    In a full run most rows may be such: they are read in the order of ids. Afterwards those are few, and found by an
    index, past the many who left before they ever had a contact.
    """
    row_id, contact_id, status = cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_status
    by_id = step.parameters.is_full
    wanted = (
        select(row_id, cache.c.mailchimp_email, cache.c.mailchimp_data, cache.c.sync_status)
        .where(
            cache.c.mailchimp_list_id == step.audience.list_id,
            (unindexed(contact_id) if by_id else contact_id).is_(None),
            (row_id if by_id else unindexed(row_id)) > after,
            (unindexed(status) if by_id else status).in_(sorted(RECEIVES_MAIL)),
            ~has_hold(STATUS),  # an undo took the contact back
        )
        .order_by(row_id if by_id else unindexed(row_id))
        .limit(step.sizes.rows_per_unit)
    )
    return conn.execute(wanted).all()
