"""What must be true when nothing changes any more, computed from both sides without the sync's own rules.

Agreement is checked by address: a contact in the group has a member in the audience that receives mail, and a member in
the audience belongs to a contact in the group. Where that does not hold, the contact's row must be ``fail``, with a
reason that is checked here, or an undo must hold it (``undone``).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, text

from civiapi.store.schema.tables import contact, email
from sync.audience import Privacy
from sync.emulator.model.records import Member
from sync.mailchimp.wire import PERMISSION, subscriber_hash
from sync.model import OperationKind
from sync.store.members.blobs import INTEREST, load_data
from sync.store.tables import cache, update
from tests.reliability.convergence import civicrm as crm
from tests.reliability.convergence.civicrm import CHOICES, MAIL
from tests.reliability.convergence.model import RECEIVES, Model, chosen_by
from tests.reliability.convergence.undone import HeldField, check_undone, may_differ, read_held
from tests.support.linked_site import GROUP


@dataclass
class Person:
    """A living contact, as CiviCRM has it."""

    id: int
    in_group: bool
    chosen: frozenset[str]
    """The choices whose groups it is in."""
    opted_out: bool
    first_name: str
    last_name: str
    job: str
    addresses: dict[str, bool] = field(default_factory=dict)
    """Address to whether it is on hold."""
    rows: list[Any] = field(default_factory=list)
    held: dict[str, HeldField] = field(default_factory=dict)
    """What an undo holds of the rows, by field."""


def read_people(conn: Connection) -> dict[int, Person]:
    """All living contacts by id."""
    found = {}
    columns = (contact.c.id, contact.c.is_opt_out, contact.c.first_name, contact.c.last_name, contact.c.job_title)
    for row in conn.execute(select(*columns).where(contact.c.is_deleted == 0)):
        chosen = frozenset(key for key, group in CHOICES.items() if crm.standing(conn, row.id, group) == "Added")
        says = row.first_name or "", row.last_name or "", row.job_title or ""
        found[row.id] = Person(row.id, crm.standing(conn, row.id) == "Added", chosen, bool(row.is_opt_out), *says)
    for row in conn.execute(select(email.c.contact_id, email.c.email, email.c.on_hold)):
        if row.contact_id in found:
            found[row.contact_id].addresses[row.email.lower()] = bool(row.on_hold)
    held = read_held(conn)
    for row in conn.execute(select(cache)):
        if row.civicrm_contact_id in found:
            found[row.civicrm_contact_id].rows.append(row)
            found[row.civicrm_contact_id].held.update(held.get(row.id, {}))
    return found


def held_members(conn: Connection) -> dict[str, HeldField]:
    """The addresses of members without a contact that an undo leaves so."""
    rows = conn.execute(select(cache.c.id, cache.c.mailchimp_email).where(cache.c.civicrm_contact_id.is_(None)))
    held = read_held(conn)
    return {
        (row.mailchimp_email or "").lower(): held[row.id]["status"] for row in rows if "status" in held.get(row.id, {})
    }


def check_agreement(model: Model) -> list[str]:
    """All violations; none when both sides agree."""
    people = model.unit(read_people)
    owners: dict[str, list[Person]] = defaultdict(list)
    for one in people.values():
        for address in one.addresses:
            owners[address].append(one)
    wrong = list(model.violations)
    wrong += [w for one in people.values() if (w := _disagreement(model, one, owners))]
    released = model.unit(held_members)
    wrong += [
        w
        for m in model.audience.members
        if m.status in RECEIVES
        if not may_differ(model, m.email.lower(), released.get(m.email.lower()), "status", is_inside=True)
        if (w := _unowned(model, m, people, owners))
    ]
    wrong += [w for one in people.values() if (w := _wrong_winner(model, one))]
    wrong += [w for one in people.values() for key in CHOICES if (w := _wrong_choice(model, one, key))]
    wrong += [w for one in people.values() for w in _other_data(model, one)]
    wrong += check_undone(model)
    if model.one_way:
        wrong += [f"Contact {one} was made for a member" for one in people if one not in model.contacts]
        wrong += ["The smart group was written to"] if model.unit(crm.written_to_smart) else []
    wrong += [
        f"Contact {row[0]} was made for {row[1]}, which {row[2]} contacts had already"
        for row in model.unit(_made_twice)
    ]
    return wrong


def _other_data(model: Model, one: Person) -> list[str]:
    """Where a member that receives mail has another name than its contact, or another job.

    A name may come from either side, the job from CiviCRM alone; an empty name is sent by nobody.
    """
    found = []
    for row in one.rows:
        member = model.member((row.mailchimp_email or "").lower())
        if member is None or member.status not in RECEIVES or row.mailchimp_member_id is None:
            continue
        for tag, ours in (("FNAME", one.first_name), ("LNAME", one.last_name), (crm.JOB, one.job)):
            theirs = str(member.merges.get(tag, ""))
            held = one.held.get(OperationKind.FIELDS)
            if held is not None and held.values.get(tag) == ours:  # as an undo left it, until CiviCRM has another value
                continue
            if ours != theirs and (ours or tag == crm.JOB):
                found.append(f"Contact {one.id}: {tag} is “{ours}” in CiviCRM and “{theirs}” at {member.email}")
    return found


def _made_twice(conn: Connection) -> list[Any]:
    return list(conn.execute(text("SELECT contact_id, email, others FROM model_made WHERE others > 0")))


def _reason(conn: Connection, row: Any) -> str:
    """Why a row failed: the reason stored on it, else Mailchimp's last error."""
    noted = load_data(row.civicrm_data).get("fail")
    if noted:
        return str(noted)
    mine = update.c.mailchimpsync_cache_id == row.id
    said = conn.execute(select(update.c.error_response).where(mine).order_by(update.c.id.desc()).limit(1)).scalar()
    return str(said)


def _members(model: Model, one: Person) -> list[Member]:
    """A contact's members; a contact without another usable address keeps the member of its former one."""
    addresses = set(one.addresses)
    if all(one.addresses.values()):
        addresses |= {row.mailchimp_email.lower() for row in one.rows if row.mailchimp_email}
    return [found for address in sorted(addresses) if (found := model.member(address)) is not None]


def _disagreement(model: Model, one: Person, owners: dict[str, list[Person]]) -> str:
    """Why a contact's group status and member status disagree; empty if they agree."""
    mine = _members(model, one)
    receiving = [m for m in mine if m.status in RECEIVES]
    if may_differ(model, one.id, one.held.get("status"), "status", is_inside=bool(receiving)):
        return ""
    if model.one_way and _is_chosen(model, one, is_inside=bool(receiving)):
        return ""
    if one.in_group and not receiving:
        failed = [row for row in one.rows if row.sync_status == "fail"]
        if not failed:
            held = [(row.sync_status, row.mailchimp_email, row.mailchimp_status) for row in one.rows]
            return f"Contact {one.id} is in the group, gets no mail, and nothing says why (rows: {held})"
        reasons = [model.unit(_reason, row) for row in failed]
        if not any(_is_true(model, one, row, reason, owners) for row, reason in zip(failed, reasons, strict=True)):
            return f"Contact {one.id} gets no mail, and the reason given is not true: {reasons}"
        return ""
    if one.opted_out and model.privacy is Privacy.UNSUBSCRIBE and (wrong := _mailed_against_will(model, one, owners)):
        return wrong
    for member in receiving:
        shared = [other for other in owners[member.email.lower()] if _is_meant_to_get_mail(model, other)]
        if not one.in_group and not shared:
            reasons = [model.unit(_reason, row) for row in one.rows if row.sync_status == "fail"]
            if not reasons:
                return f"Contact {one.id} is out of the group, and {member.email} is {member.status}"
            return f"Contact {one.id} is out, {member.email} is {member.status}, and only this is said: {reasons}"
    return ""


def _is_meant_to_get_mail(model: Model, one: Person) -> bool:
    """Whether a contact is in the group, or an undo left its member subscribed and nobody changed it since."""
    return one.in_group or may_differ(model, one.id, one.held.get("status"), "status", is_inside=True)


def _is_chosen(model: Model, one: Person, *, is_inside: bool) -> bool:
    """Whether a contact of a source and its member may differ: somebody chose at Mailchimp, or no sync ever saw the
    contact in the source.

    Nobody knows when a contact left the source; the sync dates it when CiviCRM computed the source after that.
    """
    ledger = model.ledger
    if one.in_group == is_inside or (one.opted_out and is_inside and model.privacy is Privacy.UNSUBSCRIBE):
        return False
    if ledger.related(one.id) & ledger.ambiguous:
        return True
    events = ledger.events_of(one.id, "status")
    here = [event for event in events if event.side == "civicrm"]
    there = [event for event in events if event.side == "mailchimp"]
    if one.in_group:
        return bool(there) and not there[-1].is_in
    if not here or (there and there[-1].is_in and there[-1].until + model.slack >= here[-1].at):
        return True
    joined = [event.at for event in here if event.is_in]
    return not any(joined[-1] <= read <= here[-1].at for read in ledger.reads) if joined else True


def _mailed_against_will(model: Model, one: Person, owners: dict[str, list[Person]]) -> str:
    """Whether a contact that opted out gets mail at an address that no other contact wants mail at."""
    for member in _members(model, one):
        others = [
            other
            for other in owners[member.email.lower()]
            if not other.opted_out and _is_meant_to_get_mail(model, other)
        ]
        if member.status in RECEIVES and not others:
            reasons = [model.unit(_reason, row) for row in one.rows if row.sync_status == "fail"]
            return f"Contact {one.id} opted out, and {member.email} is {member.status} (said: {reasons})"
    return ""


def _unowned(model: Model, member: Member, people: dict[int, Person], owners: dict[str, list[Person]]) -> str:
    """A member in the audience must belong to a contact; one that a source has nothing to do with need not."""
    if model.one_way or owners.get(member.email.lower()):
        return ""
    keepers = [
        one
        for one in people.values()
        for row in one.rows
        if (row.mailchimp_email or "").lower() == member.email.lower()
    ]
    for one in keepers:  # whom we cannot write to at any other address keeps the one they gave up
        if one.in_group and all(one.addresses.values()):
            return ""
        if may_differ(model, one.id, one.held.get("status"), "status", is_inside=True):
            return ""
    return f"{member.email} is {member.status} and belongs to no contact"


def _is_true(model: Model, one: Person, row: Any, reason: str, owners: dict[str, list[Person]]) -> bool:
    """Check a reason against both sides."""
    address = (row.mailchimp_email or "").lower()
    member = model.member(address) if address else None
    usable = [a for a, on_hold in one.addresses.items() if not on_hold]
    mine = _members(model, one)
    options = model.world.default_account.options
    if reason.startswith('"Cleaned"'):
        return any(m.status == "cleaned" for m in mine)
    if "on hold in CiviCRM" in reason:
        return one.addresses.get(address, False) or not usable
    if "no email address" in reason:
        return not one.addresses
    if "not to be mailed" in reason:
        return one.opted_out
    if "no longer has the address" in reason:
        return address not in one.addresses
    if "is also that of contact" in reason:
        return any(len(owners[a]) > 1 for a in one.addresses)
    if "Another address of this contact" in reason:
        return len(mine) > 1
    if "Forgotten Email" in reason:
        return any(subscriber_hash(a) in model.audience.members.forgotten for a in one.addresses)
    if "Compliance State" in reason:
        # Who bounced and was archived after that reads as archived, and Mailchimp still refuses them for the bounce.
        return any("cleaned" in (m.status, m.archived_from) or m.unsubscribed_by == "user" for m in mine) or (
            member is not None and member.email.lower() in options.compliance_emails
        )
    if "cannot be changed" in reason or "already a list member" in reason:
        return member is not None
    return False


# ── Whose word was the last ─────────────────────────────────────────────────────────────────────────────────────────


def _is_simple(model: Model, one: Person) -> bool:
    """One contact that always had one member at a time, so that the ledger knows the last event."""
    related = model.ledger.related(one.id)
    contacts = [thing for thing in related if isinstance(thing, int)]
    return len(contacts) == 1 and not related & model.ledger.ambiguous and len(one.addresses) == 1


def _wrong_winner(model: Model, one: Person) -> str:
    receiving = any(m.status in RECEIVES for m in _members(model, one))
    if not _is_simple(model, one) or receiving != one.in_group:  # the two do not fit: that has been looked into
        return ""
    winner = model.ledger.winner(one.id, "status", model.slack)
    if winner is None or winner == one.in_group or model.one_way:
        return ""
    if one.opted_out and model.privacy is Privacy.UNSUBSCRIBE:  # before the sync had put them into the group
        return ""
    said = [(w.side, w.is_in, w.at % 100000, w.until % 100000) for w in model.ledger.events_of(one.id, "status")]
    return f"Contact {one.id} {tuple(one.addresses)} is {'in' if one.in_group else 'out'}, but said last was {said}"


def _wrong_choice(model: Model, one: Person, key: str) -> str:
    receiving = [m for m in _members(model, one) if m.status in RECEIVES]
    if not model.has_interest or not _is_simple(model, one) or not one.in_group or len(receiving) != 1:
        return ""
    held = key in chosen_by(receiving[0])
    name = f"{INTEREST}{PERMISSION if key == MAIL else ''}{key}"
    if may_differ(model, one.id, one.held.get(name), key, is_inside=held):
        return ""
    if held != (key in one.chosen):
        return f"Contact {one.id}: in the group of {key} {key in one.chosen}, at Mailchimp {held}"
    winner = model.ledger.winner(one.id, key, model.slack)
    if winner is None or winner == held:
        return ""
    said = [(w.side, w.is_in, w.at % 100000, w.until % 100000) for w in model.ledger.events_of(one.id, key)]
    return f"Contact {one.id}: {key} is {held}, but said last was {said}"


__all__ = ["GROUP", "check_agreement"]
