"""What must be true when everything has come to rest, worked out from both ends without the sync's own rules.

Agreement is looked at address by address: whoever is in the group can be written to in the audience, and whoever is in
the audience belongs to somebody in the group. Where that does not hold, the sync must have said so in the person's row
(``fail``), and its reason must be one that can be checked here.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, text

from civiapi.store.tables import contact, email
from sync.mailchimp.emulator.model import Member
from sync.mailchimp.wire import subscriber_hash
from sync.stored import load_data
from sync.tables import cache, update
from tests.contract.sites import GROUP, TREES_GROUP
from tests.reliability import convergence_civicrm as crm
from tests.reliability.convergence_civicrm import TREES
from tests.reliability.convergence_ends import RECEIVES, Ends


@dataclass
class Someone:
    """A living contact, as CiviCRM has it."""

    id: int
    in_group: bool
    in_trees: bool
    opted_out: bool
    addresses: dict[str, bool] = field(default_factory=dict)
    """Address to whether it is on hold."""
    rows: list[Any] = field(default_factory=list)


def everyone(conn: Connection) -> dict[int, Someone]:
    """All living contacts by id."""
    found = {}
    for row in conn.execute(select(contact.c.id, contact.c.is_opt_out).where(contact.c.is_deleted == 0)):
        inside, trees = crm.standing(conn, row.id), crm.standing(conn, row.id, TREES_GROUP)
        found[row.id] = Someone(row.id, inside == "Added", trees == "Added", bool(row.is_opt_out))
    for row in conn.execute(select(email.c.contact_id, email.c.email, email.c.on_hold)):
        if row.contact_id in found:
            found[row.contact_id].addresses[row.email.lower()] = bool(row.on_hold)
    for row in conn.execute(select(cache)):
        if row.civicrm_contact_id in found:
            found[row.civicrm_contact_id].rows.append(row)
    return found


def verdict(ends: Ends) -> list[str]:
    """Everything that is not as it must be; nothing, when all is well."""
    people = ends.unit(everyone)
    owners: dict[str, list[Someone]] = defaultdict(list)
    for one in people.values():
        for address in one.addresses:
            owners[address].append(one)
    wrong = list(ends.wrongs)
    wrong += [w for one in people.values() if (w := _disagreement(ends, one, owners))]
    wrong += [w for m in ends.audience.members if m.status in RECEIVES and (w := _nobodys(m, people, owners))]
    wrong += [w for one in people.values() if (w := _wrong_winner(ends, one))]
    wrong += [w for one in people.values() if (w := _wrong_interest(ends, one))]
    wrong += [
        f"Contact {row[0]} was made for {row[1]}, which {row[2]} contacts had already" for row in ends.unit(_made_twice)
    ]
    return wrong


def _made_twice(conn: Connection) -> list[Any]:
    return list(conn.execute(text("SELECT contact_id, email, others FROM model_made WHERE others > 0")))


def _reason(conn: Connection, row: Any) -> str:
    """Why a row failed: what the sync noted on it, else what Mailchimp said to what was sent last."""
    noted = load_data(row.civicrm_data).get("fail")
    if noted:
        return str(noted)
    mine = update.c.mailchimpsync_cache_id == row.id
    said = conn.execute(select(update.c.error_response).where(mine).order_by(update.c.id.desc()).limit(1)).scalar()
    return str(said)


def _members(ends: Ends, one: Someone) -> list[Member]:
    """A contact's members; whom we cannot write to anywhere else keeps the one whose address they gave up."""
    addresses = set(one.addresses)
    if all(one.addresses.values()):
        addresses |= {row.mailchimp_email.lower() for row in one.rows if row.mailchimp_email}
    return [found for address in sorted(addresses) if (found := ends.member(address)) is not None]


def _disagreement(ends: Ends, one: Someone, owners: dict[str, list[Someone]]) -> str:
    """Why a contact's group and their standing at Mailchimp do not fit; empty if they do."""
    mine = _members(ends, one)
    receiving = [m for m in mine if m.status in RECEIVES]
    if one.in_group and not receiving:
        failed = [row for row in one.rows if row.sync_status == "fail"]
        if not failed:
            held = [(row.sync_status, row.mailchimp_email, row.mailchimp_status) for row in one.rows]
            return f"Contact {one.id} is in the group, gets no mail, and nothing says why (rows: {held})"
        reasons = [ends.unit(_reason, row) for row in failed]
        if not any(_is_true(ends, one, row, reason, owners) for row, reason in zip(failed, reasons, strict=True)):
            return f"Contact {one.id} gets no mail, and the reason given is not true: {reasons}"
        return ""
    for member in receiving:
        shared = [other for other in owners[member.email.lower()] if other.in_group]
        if not one.in_group and not shared:
            reasons = [ends.unit(_reason, row) for row in one.rows if row.sync_status == "fail"]
            if not reasons:
                return f"Contact {one.id} is out of the group, and {member.email} is {member.status}"
            return f"Contact {one.id} is out, {member.email} is {member.status}, and only this is said: {reasons}"
    return ""


def _nobodys(member: Member, people: dict[int, Someone], owners: dict[str, list[Someone]]) -> str:
    """A member in the audience must belong to somebody."""
    if owners.get(member.email.lower()):
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
    return f"{member.email} is {member.status} and belongs to no contact"


def _is_true(ends: Ends, one: Someone, row: Any, reason: str, owners: dict[str, list[Someone]]) -> bool:
    """Check a reason against both ends."""
    address = (row.mailchimp_email or "").lower()
    member = ends.member(address) if address else None
    usable = [a for a, on_hold in one.addresses.items() if not on_hold]
    mine = _members(ends, one)
    knobs = ends.world.default_account.knobs
    if reason.startswith('"Cleaned"'):
        return any(m.status == "cleaned" for m in mine)
    if "on hold in CiviCRM" in reason:
        return one.addresses.get(address, False) or not usable
    if "no email address" in reason:
        return not one.addresses
    if "not to be mailed" in reason:
        return one.opted_out
    if "no longer has this address" in reason:
        return address not in one.addresses
    if "is also that of contact" in reason:
        return any(len(owners[a]) > 1 for a in one.addresses)
    if "Another address of this contact" in reason:
        return len(mine) > 1
    if "Forgotten Email" in reason:
        return any(subscriber_hash(a) in ends.audience.members.forgotten for a in one.addresses)
    if "Compliance State" in reason:
        # Who bounced and was archived after that reads as archived, and Mailchimp still refuses them for the bounce.
        return any("cleaned" in (m.status, m.archived_from) or m.unsubscribed_by == "user" for m in mine) or (
            member is not None and member.email.lower() in knobs.compliance_emails
        )
    if "cannot be changed" in reason or "already a list member" in reason:
        return member is not None
    return False


# ── Whose word was the last ─────────────────────────────────────────────────────────────────────────────────────────


def _is_simple(ends: Ends, one: Someone) -> bool:
    """One contact, with one member at a time, ever: of whom the ledger can tell what was said last."""
    soul = ends.ledger.soul(one.id)
    contacts = [thing for thing in soul if isinstance(thing, int)]
    return len(contacts) == 1 and not soul & ends.ledger.tangled and len(one.addresses) == 1


def _wrong_winner(ends: Ends, one: Someone) -> str:
    receiving = any(m.status in RECEIVES for m in _members(ends, one))
    if not _is_simple(ends, one) or receiving != one.in_group:  # the two do not fit: that has been looked into
        return ""
    winner = ends.ledger.winner(one.id, "status", ends.slack)
    if winner is None or winner == one.in_group:
        return ""
    said = [(w.side, w.is_in, w.at % 100000, w.until % 100000) for w in ends.ledger.spoken(one.id, "status")]
    return f"Contact {one.id} {tuple(one.addresses)} is {'in' if one.in_group else 'out'}, but said last was {said}"


def _wrong_interest(ends: Ends, one: Someone) -> str:
    receiving = [m for m in _members(ends, one) if m.status in RECEIVES]
    if not ends.has_interest or not _is_simple(ends, one) or not one.in_group or len(receiving) != 1:
        return ""
    held = TREES in receiving[0].interests
    if held != one.in_trees:
        return f"Contact {one.id}: in the interest's group {one.in_trees}, at Mailchimp {held}"
    winner = ends.ledger.winner(one.id, TREES, ends.slack)
    if winner is None or winner == held:
        return ""
    said = [(w.side, w.is_in, w.at % 100000, w.until % 100000) for w in ends.ledger.spoken(one.id, TREES)]
    return f"Contact {one.id}: the interest is {held}, but said last was {said}"


__all__ = ["GROUP", "verdict"]
