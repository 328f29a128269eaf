"""What undos took back, as it is on record, and whether it is still so at the end. Nothing of the sync's rules is used.

Both sides may differ where an undo holds a field, as long as the contact's group was not changed in CiviCRM since the
run that was taken back, and the member is as the undo left it. Whom nobody changed since that run is as the undo says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, select

from civiapi.store.schema.tables import contact, email
from sync.store.tables import cache, hold, run_change, run_log, update
from tests.reliability.convergence import civicrm as crm
from tests.reliability.convergence.civicrm import CHOICES
from tests.reliability.convergence.model import RECEIVES, Model
from tests.support.linked_site import GROUP

PERSONS = ("status", "opted_out", "deleted")
"""The fields of the ledger that are about a person's being in the group and the audience."""


@dataclass(frozen=True)
class HeldField:
    """A field of a contact's row that an undo holds: since when the run that was taken back is over, and as what."""

    run_ended: int
    inside: bool
    values: dict[str, Any]


def latest_run(conn: Connection) -> int | None:
    """The latest finished run that did anything and was not taken back."""
    did_something = select(run_change.c.id).where(run_change.c.run_id == run_log.c.id).exists()
    wanted = select(run_log.c.id).where(
        run_log.c.undoes.is_(None), run_log.c.undone_by.is_(None), run_log.c.outcome == "finished", did_something
    )
    found: int | None = conn.execute(wanted.order_by(run_log.c.id.desc()).limit(1)).scalar()
    return found


def trashed_by_undos(conn: Connection) -> set[int]:
    """The contacts that undos moved to the trash."""
    wanted = select(run_change.c.contact_id).where(run_change.c.kind == "trash_contact")
    return set(conn.execute(wanted).scalars())


def read_held(conn: Connection) -> dict[int, dict[str, HeldField]]:
    """What is held, by cache row and field."""
    undo, taken_back = run_log.alias(), run_log.alias()
    wanted = select(hold, taken_back.c.ended_s).join(undo, undo.c.id == hold.c.run_id)
    found: dict[int, dict[str, HeldField]] = {}
    for row in conn.execute(wanted.join(taken_back, taken_back.c.id == undo.c.undoes)):
        held = HeldField(row.ended_s, bool(row.inside), orjson.loads(row.value) if row.value else {})
        found.setdefault(row.cache_id, {})[row.field] = held
    return found


def may_differ(model: Model, thing: Any, held: HeldField | None, field: str, *, is_inside: bool) -> bool:
    """Whether both sides may differ in a field: an undo holds it, and neither side changed since the run it took back.

    *field*: as in the ledger; *is_inside*: whether the member is in the audience, or has chosen the interest.
    """
    if held is None or model.ledger.related(thing) & model.ledger.ambiguous:
        return held is not None
    events = [one for one in model.ledger.events_of(thing, field) if one.side == "civicrm"]
    if model.one_way and field == "status":  # of a source there is no history: only what a sync saw counts
        looks = [held.run_ended, *(read for read in model.ledger.reads if read > held.run_ended), model.now]
        states = {next((one.is_in for one in reversed(events) if one.at <= look), False) for look in looks}
        return len(states) == 1 and is_inside == held.inside
    return is_inside == held.inside and not any(one.at > held.run_ended for one in events)


def check_undone(model: Model) -> list[str]:
    """Where what an undo took back is there again, though nobody changed that person since the run."""
    return [
        wrong
        for row in model.unit(_read_undone)
        if not _is_touched(model, [row.contact_id, row.mailchimp_email, *row.addresses], row.ended_s)
        if (wrong := _there_again(model, row))
    ]


@dataclass(frozen=True)
class _Undone:
    """One thing that an undo did; *run_id*: of the undo, *ended_s*: of the run that it took back."""

    run_id: int
    ended_s: int
    kind: str
    contact_id: int | None
    group_id: int | None
    mailchimp_email: str | None
    is_carried_out: bool
    addresses: tuple[str, ...]
    is_deleted: bool
    status: str | None
    """In the group of the change."""
    others: tuple[int, ...]
    """The living contacts with one of the addresses."""


def _read_undone(conn: Connection) -> list[_Undone]:
    """What undos did, the latest of each kind of thing and contact."""
    undo, taken_back = run_log.alias(), run_log.alias()
    wanted = (
        select(run_change, taken_back.c.ended_s, cache.c.mailchimp_email, update.c.completed, update.c.error_response)
        .join(undo, undo.c.id == run_change.c.run_id)
        .join(taken_back, taken_back.c.id == undo.c.undoes)
        .outerjoin(cache, cache.c.id == run_change.c.cache_id)
        .outerjoin(update, update.c.id == run_change.c.update_id)
        .where(run_change.c.kind != "left")
    )
    latest: dict[Any, _Undone] = {}
    for row in conn.execute(wanted.order_by(run_change.c.id)).all():
        addresses = tuple(one.email.lower() for one in crm.addresses(conn, row.contact_id or 0))
        alive = select(contact.c.id).join(email, email.c.contact_id == contact.c.id)
        alive = alive.where(contact.c.is_deleted == 0, email.c.email.in_(addresses))
        trashed = select(contact.c.is_deleted).where(contact.c.id == row.contact_id)
        about = "group" if row.group_id else "contact" if row.kind == "trash_contact" else "member"
        latest[about, row.contact_id, row.group_id, row.cache_id if about == "member" else None] = _Undone(
            row.run_id,
            row.ended_s,
            row.kind,
            row.contact_id,
            row.group_id,
            row.mailchimp_email and row.mailchimp_email.lower(),
            bool(row.completed) and row.error_response is None,
            addresses,
            bool(conn.execute(trashed).scalar()),
            crm.standing(conn, row.contact_id or 0, row.group_id or GROUP),
            tuple(conn.execute(alive).scalars()),
        )
    return list(latest.values())


def _is_touched(model: Model, things: Iterable[Any], since: int) -> bool:
    """Whether anybody changed one of these things since then, or nobody can tell whose they are."""
    ledger = model.ledger
    for thing in things:
        if thing is None:
            continue
        if ledger.related(thing) & ledger.ambiguous:
            return True
        events = (one for field in (*PERSONS, *CHOICES) for one in ledger.events_of(thing, field))
        if any(one.at >= since for one in events):
            return True
    return False


def _there_again(model: Model, row: _Undone) -> str:
    about = f"Contact {row.contact_id} {row.addresses}: undo {row.run_id} says {row.kind}, but"
    if row.kind == "trash_contact":
        again = [one for one in row.others if one not in model.contacts]
        return f"{about} contacts {again} are there" if again or not row.is_deleted else ""
    if row.group_id is not None:
        wanted = row.kind == "group_again"
        return f"{about} it is {row.status} in group {row.group_id}" if (row.status == "Added") != wanted else ""
    member = model.member(row.mailchimp_email or "")
    is_inside = member is not None and member.status in RECEIVES
    wanted = {"subscribe_again": True, "unsubscribe_again": False}.get(row.kind)
    if not row.is_carried_out or wanted is None or is_inside == wanted:
        return ""
    return f"{about} {row.mailchimp_email} is {member.status if member else 'gone'}"
