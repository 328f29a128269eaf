"""Why a sync does what it does with one contact, in a sentence that names the facts and their dates. Pure.

Dates are in the site's zone. Texts that the extension shows as well keep its wording (`CLEANED_TEXT`, `ON_HOLD_TEXT`,
the first two sentences of `other_addresses`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from civiapi.store.clock import SiteClock
from sync.audience import interest_kinds
from sync.model import RECEIVES_MAIL, GroupStatus, MemberOperation, MemberStatus
from sync.reconcile.decide import LONG_AGO, Decision, Person, Refusal, RowFacts, Standing, is_waiting

CLEANED_TEXT = '"Cleaned" contacts cannot be resubscribed.'
ON_HOLD_TEXT = "This contact's email is on hold in CiviCRM so we're not going to subscribe them."
IN_TRASH_TEXT = "This contact is in the trash, so they are not subscribed."
NO_EMAIL_TEXT = "This contact has no email address, so they cannot be subscribed."
ANOTHER_ROW_TEXT = "Another address of this contact is the one to subscribe; one address of a contact is enough."
ADDRESS_CHANGE_TEXT = "A change of this member's address is in progress at Mailchimp: everything else follows after it."
NEITHER_TEXT = "Not in the group and not in the audience."

_GROUP_VERBS: Mapping[str, tuple[str, str]] = {
    GroupStatus.ADDED: ("joined the group", "joining the group"),
    GroupStatus.REMOVED: ("left the group", "leaving the group"),
    GroupStatus.PENDING: ("became pending in the group", "becoming pending in the group"),
    GroupStatus.DELETED: ("was deleted from the group", "being deleted from the group"),
}
_MEMBER_VERBS: Mapping[str, tuple[str, str]] = {
    MemberStatus.SUBSCRIBED: ("subscribed at Mailchimp", "subscribing at Mailchimp"),
    MemberStatus.UNSUBSCRIBED: ("unsubscribed at Mailchimp", "unsubscribing at Mailchimp"),
    MemberStatus.CLEANED: ("cleaned at Mailchimp", "being cleaned at Mailchimp"),
    MemberStatus.PENDING: ("asked to confirm at Mailchimp", "being asked to confirm at Mailchimp"),
    MemberStatus.ARCHIVED: ("archived at Mailchimp", "being archived at Mailchimp"),
    MemberStatus.TRANSACTIONAL: ("transactional at Mailchimp", "becoming transactional at Mailchimp"),
}
_OUTCOMES: Mapping[Decision, str] = {
    Decision.JOIN_GROUP: "added to the group",
    Decision.LEAVE_GROUP: "removed from the group",
    Decision.SUBSCRIBE: "subscribed at Mailchimp",
    Decision.UNSUBSCRIBE: "unsubscribed at Mailchimp",
}


def of_decision(facts: RowFacts, decision: Decision, clock: SiteClock, trust: str | None) -> str:
    """The latest change on the winning side, the one before it on the other, and what follows.

    *trust*: the side whose changes take precedence in this sync, if any.
    """
    group, member = facts.group, facts.member
    if group is None or member is None:
        return _of_newcomer(group, member, decision, clock)
    by_mailchimp = decision in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP)
    winner, loser = (member, group) if by_mailchimp else (group, member)
    if trust:
        found = f"{_past(winner)}{_on(winner, clock, loser)}, {_past(loser)}{_on(loser, clock, winner)}"
        return f"{_capital(found)}; {trust} takes precedence in this sync: {_OUTCOMES[decision]}."
    first = _capital(_past(winner)) + _on(winner, clock, loser)
    if max(winner.since, loser.since) <= LONG_AGO:
        return f"{first} and {_past(loser)} on unknown dates: {_OUTCOMES[decision]}."
    if winner.since == loser.since:
        tie = "" if by_mailchimp else " (in a tie CiviCRM takes precedence)"
        return f"{first}, in the same second as {_gerund(loser)}{tie}: {_OUTCOMES[decision]}."
    return f"{first}, after {_gerund(loser)}{_on(loser, clock, winner, short=True)}: {_OUTCOMES[decision]}."


def _of_newcomer(group: Standing | None, member: Standing | None, decision: Decision, clock: SiteClock) -> str:
    if member is not None:
        return f"{_capital(_past(member))}{_on(member, clock)} and never in the group: {_OUTCOMES[decision]}."
    joined = "Joined the group" + (_on(group, clock) if group else "")
    return f"{joined} and new to Mailchimp: {_OUTCOMES[decision]}."


def of_agreement(facts: RowFacts, clock: SiteClock) -> str:
    """Both sides agree: since when they are as they are, where that is known."""
    group, member = facts.group, facts.member
    if group is None and member is None:
        return NEITHER_TEXT
    if group is not None and is_waiting(group):
        return f"A request to join the group{_on(group, clock)} waits for an answer: nothing changes until it has one."
    sides = [_past(one) + _on(one, clock) for one in (group, member) if one is not None]
    if group is None:
        sides.append("never in the group")
    if member is None:
        sides.append("not a member of the audience")
    return f"Both sides agree: {', '.join(sides)}."


def of_source(facts: RowFacts, clock: SiteClock) -> str:
    """Why nothing is done for a contact of a group that is a source."""
    group, member = facts.group, facts.member
    in_group = group is not None and group.status == GroupStatus.ADDED
    in_audience = member is not None and member.status in RECEIVES_MAIL
    if group is None and member is not None and in_audience:
        return f"{_capital(_past(member))}{_on(member, clock)} and never in the smart group: stays as it is (one way)."
    if member is None or group is None or in_group == in_audience:
        return of_agreement(facts, clock)
    fact = f"{_capital(_past(member))}{_on(member, clock)}"
    if in_group:
        return (
            f"{fact}: a choice made at Mailchimp, so the contact, which is in the smart group, is not subscribed again."
        )
    return f"{fact}, after {_gerund(group)}{_on(group, clock)}: a choice made at Mailchimp, so the member stays."


def of_stranger(facts: RowFacts, clock: SiteClock, *, one_way: bool = False) -> str:
    """The reason for a row without a contact; *one_way*: the group is a source, for which no contact is created."""
    if facts.member is None:
        return NEITHER_TEXT
    if one_way:
        return (
            f"{_capital(_past(facts.member))}{_on(facts.member, clock)} and unknown to CiviCRM: left alone (one way)."
        )
    follows = "a contact is created first" if facts.member.status in RECEIVES_MAIL else "nothing to do"
    return f"{_capital(_past(facts.member))}{_on(facts.member, clock)} and unknown to CiviCRM: {follows}."


def of_interests(interest_ids: Iterable[str], cause: datetime | None, clock: SiteClock) -> str:
    """The reason for interests that are sent to Mailchimp."""
    return f"{_changed(interest_ids)} in CiviCRM{_date(cause, clock)}: sent to Mailchimp."


def of_interest_groups(interest_ids: Iterable[str], since: datetime | None, clock: SiteClock) -> str:
    """The reason for interests that change groups in CiviCRM."""
    return f"{_changed(interest_ids)} at Mailchimp{_date(since, clock)}: copied to CiviCRM."


def _changed(interest_ids: Iterable[str]) -> str:
    return f"In the group and in the audience; {interest_kinds(interest_ids)} changed"


def taken_back(run_id: int, at: datetime, clock: SiteClock) -> str:
    """The reason for leaving both sides as an undo left them."""
    return (
        f"Taken back{_date(at, clock)} (undo {run_id}): left as it is until the group, the member or its contact "
        "changes, or somebody includes it in the next sync."
    )


def of_reversal(facts: RowFacts, operation: MemberOperation, clock: SiteClock) -> str:
    """The reason for an update that reverses one in flight: both sides agree, and that one would change it."""
    fact = f"{_capital(_past(facts.group))}{_on(facts.group, clock)}" if facts.group else "Never in the group"
    undone = operation.status
    sent = "unsubscribe" if undone == MemberStatus.SUBSCRIBED else "subscribe"
    return f"{fact}, but an update in flight is to {sent} the member: {undone} again after it."


# ── Why somebody is not subscribed ──────────────────────────────────────────────────────────────────────────────────


def other_addresses(person: Person) -> str:
    """Why an unsubscribed address changes nothing while another of the contact's is subscribed."""
    count = max(person.emails, len(person.others) + 1)
    return (
        f"This CiviCRM contact has {count} emails. This one is unsubscribed at Mailchimp, but the other "
        f"({', '.join(person.others)}) are subscribed. The contact stays in the group, and this address stays as it is."
    )


def malformed(address: str) -> str:
    """Why a contact is not subscribed at something that is no address."""
    return f"The only address of this contact is no email address ({address} has no @), so they cannot be subscribed."


def shared_address(address: str, contact_id: int) -> str:
    """Why the second contact with one address is not sent to Mailchimp."""
    return f"The address {address} is also that of contact {contact_id}, which represents it in this audience."


def handed_over(facts: RowFacts, successor: int, clock: SiteClock, *, objects: bool = False) -> str:
    """Why an address stays subscribed though its contact left the group, or *objects* to mail."""
    if objects:
        left = f"The contact is not to be mailed ({facts.person.objection})"
        return f"{left}, but contact {successor} in the group has the address too: it represents that from now on."
    left = f"{_capital(_past(facts.group))}{_on(facts.group, clock)}" if facts.group else "Not in the group"
    return f"{left}, but contact {successor} in the group has the address too: it stays subscribed and represents that."


def objection(facts: RowFacts, clock: SiteClock) -> str:
    """Why a contact that CiviMail would not mail is not subscribed."""
    joined = _on(facts.group, clock) if facts.group else ""
    return f"Joined the group{joined}, but is not to be mailed ({facts.person.objection}): not subscribed."


def of_objection(facts: RowFacts, clock: SiteClock) -> str:
    """Why a member is unsubscribed though nobody left: the contact objects, and the settings say so."""
    member = facts.member
    fact = f"{_capital(_past(member))}{_on(member, clock)}" if member else "In the audience"
    why = f"but the contact is not to be mailed ({facts.person.objection})"
    return f"{fact}, {why}: unsubscribed at Mailchimp ([sync] on_opt_out = unsubscribe)."


def stays_subscribed(objection: str) -> str:
    """What a row says of a member whose contact CiviMail would not mail."""
    return f" The contact is not to be mailed ({objection}), but stays subscribed ([sync] on_opt_out = keep)."


def represents(contact_id: int | None, person: Person) -> str:
    """Which of several contacts with a member's address represents it, and why."""
    others = ", ".join(str(one) for one in person.sharers)
    have = f"contact {others} has too" if len(person.sharers) == 1 else f"contacts {others} have too"
    return f" Contact {contact_id} represents this address, which {have}: {person.why_of_sharers}."


def in_place_of(contact_id: int) -> str:
    """What a row says of a subscribed member whose contact was moved to the trash."""
    return f" Contact {contact_id}, which has this address, is in the trash; a new contact was made in its place."


def refused(refusal: Refusal, clock: SiteClock) -> str:
    """Mailchimp's answer, and when the same is sent again."""
    if refusal.retry is None:
        return refusal.text
    again = f"sent again by the first sync after {clock.write(refusal.retry)}"
    return f"{refusal.text.rstrip('. ')}. Refused for now: {again}."


def given_up(facts: RowFacts, clock: SiteClock) -> str:
    """Why a member is not subscribed again at an address that is no longer the contact's."""
    joined = _on(facts.group, clock) if facts.group else ""
    return f"Joined the group{joined}, but no longer has the address {facts.member_email}: not subscribed again at it."


# ── Changes of address ──────────────────────────────────────────────────────────────────────────────────────────────


def new_address(facts: RowFacts, best: str) -> str:
    """Why the member's address changes."""
    return f"The contact's address in CiviCRM is now {best}, no longer {facts.member_email}: changed at Mailchimp."


def address_taken(facts: RowFacts, best: str, operation: MemberOperation) -> str:
    """Why the member's old address leaves the audience."""
    fact = f"The contact's address in CiviCRM is now {best}, which is a member of its own"
    return f"{fact}: {facts.member_email} is {operation.status}."


def address_released(facts: RowFacts, clock: SiteClock) -> str:
    """Why a member is no longer the contact's."""
    status = f"{_past(facts.member)}{_on(facts.member, clock)}" if facts.member else "not in the audience"
    return f"The contact no longer has the address {facts.member_email}, {status}: the member leaves the contact."


# ── Facts and dates ─────────────────────────────────────────────────────────────────────────────────────────────────


def _past(one: Standing) -> str:
    return _verbs(one)[0]


def _gerund(one: Standing) -> str:
    source = "by the sync" if one.status in _MEMBER_VERBS else "copied from Mailchimp"
    return _verbs(one)[1] + (f" ({source})" if one.is_echo else "")


def _verbs(one: Standing) -> tuple[str, str]:
    known = _GROUP_VERBS.get(one.status) or _MEMBER_VERBS.get(one.status)
    return known or (f"became {one.status}", f"becoming {one.status}")


def _on(one: Standing, clock: SiteClock, other: Standing | None = None, *, short: bool = False) -> str:
    """`` on 3 May 2026``, with the time of day where *other* is of the same day; empty where no date is known.

    *short*: without the year where *other* has the same.
    """
    if one.since <= LONG_AGO:
        return ""
    here = one.since.astimezone(clock.zone)
    there = other.since.astimezone(clock.zone) if other is not None and other.since > LONG_AGO else None
    day = f" on {here.day} {here:%B}"
    if there is None or not short or there.year != here.year:
        day += f" {here.year}"
    return f"{day} at {here:%H:%M:%S}" if there is not None and there.date() == here.date() else day


def _date(moment: datetime | None, clock: SiteClock) -> str:
    return _on(Standing("", moment), clock) if moment is not None else ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
