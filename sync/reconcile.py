"""What should happen to one person in one audience, and why. Pure: no SQL, no HTTP, no clock.

`decide` compares two standings; `plan` adds everything else there is to know (interests, privacy, addresses, what is
under way) and says it all as one `Plan`, whose reason is a sentence for people; `plan_address` does the same for a
member whose address the contact gave up. Whatever explains, previews or applies a sync goes through these.

What a newcomer trips over: times are compared in whole seconds and a tie goes to CiviCRM, but a group change that our
own sync made is no word of CiviCRM. It only repeats a word of Mailchimp's, so it is as old as that and loses ties.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType

from sync.audience import CIVICRM, MAILCHIMP, RECEIVES_MAIL, SUBSCRIPTION, Audience
from sync.mailchimp.wire import subscriber_hash
from sync.updates import OpenUpdate, Wanted

ADDED = "Added"
REMOVED = "Removed"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When somebody spoke, for those of whom nobody noted it."""

_NO_INTERESTS: Mapping[str, bool] = MappingProxyType({})

CLEANED_TEXT = '"Cleaned" contacts cannot be resubscribed.'
ON_HOLD_TEXT = "This contact's email is on hold in CiviCRM so we're not going to subscribe them."
NO_EMAIL_TEXT = "This contact has no email address, so they cannot be subscribed."
GIVEN_UP_TEXT = "This contact no longer has this address, so it is not subscribed again."


class Decision(Enum):
    """Which side is to change."""

    IN_SYNC = "nothing: both sides agree"
    JOIN_GROUP = "add to the group"
    LEAVE_GROUP = "remove from the group"
    SUBSCRIBE = "subscribe at Mailchimp"
    UNSUBSCRIBE = "unsubscribe at Mailchimp"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where someone stands on one side, and since when (aware UTC, whole seconds).

    *is_echo*: our own sync put them there, repeating what Mailchimp had said at *since*.
    """

    status: str
    since: datetime
    is_echo: bool = False


@dataclass(frozen=True, slots=True)
class InterestFacts:
    """One mapped interest: where the contact stands in its group, and what the member chose (None: not told)."""

    interest_id: str
    group_id: int
    group: Standing | None = None
    held: bool | None = None
    since: datetime = LONG_AGO


@dataclass(frozen=True, slots=True)
class Person:
    """What CiviCRM says of the contact that matters before anyone is subscribed.

    *best_email*: the address to write to, never one on hold. *best_is_taken*: it is another member of the audience.
    *others*: addresses of this contact that are still in the audience. *stands_for_contact*: of the contact's rows,
    none of them in the audience, this is the one to subscribe. *shared_with*: another contact in the group, who stands
    for this address. *objection*: why CiviMail would not mail them.
    """

    first_name: str = ""
    last_name: str = ""
    emails: int = 0
    best_email: str | None = None
    best_is_taken: bool = False
    owns_address: bool = True
    address_on_hold: bool = False
    objection: str | None = None
    others: tuple[str, ...] = ()
    stands_for_contact: bool = True
    shared_with: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last update of a row, if Mailchimp refused it: what was asked, for which word of CiviCRM, and the answer."""

    body: Mapping[str, object]
    cause: datetime | None
    words: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Columns of a cache row that a plan may change."""

    sync_status: str | None
    groups: str | None
    member_data: bytes | None
    civicrm_data: bytes | None


@dataclass(frozen=True, slots=True)
class RowFacts:
    """Everything there is to know of one cache row.

    *words* are CiviCRM's latest on each group that matters: group id → status and site time. *stored* is what the row
    holds now, for whoever writes it.
    """

    cache_id: int
    contact_id: int | None = None
    member_id: str | None = None
    member_email: str | None = None
    group: Standing | None = None
    member: Standing | None = None
    interests: tuple[InterestFacts, ...] = ()
    person: Person = field(default_factory=Person)
    open: tuple[OpenUpdate, ...] = ()
    refusal: Refusal | None = None
    words: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    stored: Stored | None = None


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group to be put into or taken out of, and the member's field whose word of *since* this repeats."""

    group_id: int
    status: str
    was: str | None
    field: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one row: in CiviCRM now, at Mailchimp by an update; and how the row stands then.

    *drops* are the slots in which a waiting update is no longer wanted. *unlink*: the row is no longer this contact's.
    """

    facts: RowFacts
    decision: Decision
    sync_status: str
    reason: str
    group_changes: tuple[GroupChange, ...] = ()
    wanted: Wanted | None = None
    drops: tuple[str, ...] = ()
    unlink: bool = False


def decide(group: Standing | None, member: Standing | None, trust: str | None = None) -> Decision:
    """Choose which side to change; None: that side never heard of them. *trust* names the side that wins arguments."""
    in_group = group is not None and group.status == ADDED
    in_audience = member is not None and member.status in RECEIVES_MAIL
    if in_group == in_audience:
        return Decision.IN_SYNC
    if group is None or (member is not None and _mailchimp_wins(group, member, trust)):
        return Decision.JOIN_GROUP if in_audience else Decision.LEAVE_GROUP
    return Decision.SUBSCRIBE if in_group else Decision.UNSUBSCRIBE


def _mailchimp_wins(group: Standing, member: Standing, trust: str | None) -> bool:
    return trust == MAILCHIMP if trust in (MAILCHIMP, CIVICRM) else mailchimp_spoke_last(group, member)


def mailchimp_spoke_last(group: Standing, member: Standing) -> bool:
    """Whether Mailchimp's word is the later one; a tie goes to CiviCRM, unless our own sync spoke there."""
    return member.since > group.since or (group.is_echo and member.since >= group.since)


def plan(facts: RowFacts, audience: Audience) -> Plan:
    """Work out what is to be done for one row."""
    if facts.contact_id is None:
        return _plan_stranger(facts)
    decision = decide(facts.group, facts.member, audience.trust.get(SUBSCRIPTION))
    obstacle = _obstacle(facts, decision, audience)
    if obstacle is not None:
        return _at_rest(facts, Plan(facts, decision, "fail", obstacle))
    stays = decision in (Decision.JOIN_GROUP, Decision.SUBSCRIBE) or (
        decision is Decision.IN_SYNC and facts.member is not None and facts.member.status in RECEIVES_MAIL
    )
    changes, interests = (
        _plan_interests(facts, audience, decision) if stays and facts.interests else ((), _NO_INTERESTS)
    )
    wanted = _wanted(facts, decision, stays, interests)
    changes = (*_subscription_change(facts, decision, audience), *changes)
    if wanted is not None and facts.refusal is not None and _was_refused(facts.refusal, wanted):
        return _at_rest(facts, Plan(facts, decision, "fail", facts.refusal.words, changes))
    done = Plan(facts, decision, "ok", _reason(facts, decision, audience, wanted), changes)
    if wanted is None:
        return _at_rest(facts, done)
    return _unless_moving(replace(done, sync_status="live", wanted=wanted))


def plan_address(facts: RowFacts, audience: Audience) -> Plan | None:
    """Work out what is to be done for a member whose address the contact gave up; None: nothing, or not yet.

    Someone in the audience is moved to the contact's best address, or archived where that one is a member already.
    Someone out of it is let go where both sides agree on that, so that whoever has the address now is met there, and
    once CiviCRM, which spoke last, wants the person in: a new address starts anew.
    """
    if facts.contact_id is None or facts.member is None or facts.member_id is None or facts.person.owns_address:
        return None
    if any(one.wanted.slot in ("email", "member") for one in facts.open):
        return None
    decision = decide(facts.group, facts.member, audience.trust.get(SUBSCRIPTION))
    best = facts.person.best_email
    base = Plan(facts, decision, "todo", "")  # the rest is for `plan` to say, once this is written down
    if facts.member.status in RECEIVES_MAIL:
        if best is None or decision is Decision.UNSUBSCRIBE:
            return None
        return _move_address(facts, base, best)
    if facts.person.others or decision is Decision.IN_SYNC or (decision is Decision.SUBSCRIBE and best is not None):
        reason = f"The contact gave up {facts.member_email}, which is not in the audience; it is let go."
        return replace(base, reason=reason, unlink=True)
    return None


def _move_address(facts: RowFacts, base: Plan, best: str) -> Plan:
    member_path, cause = f"members/{facts.member_id}", facts.group.since if facts.group else None
    status = facts.member.status if facts.member else ""
    if not facts.person.best_is_taken:
        wanted = Wanted("email", "PATCH", member_path, {"email_address": best}, cause)
        return replace(base, wanted=wanted, reason=f"In CiviCRM the address is now {best}.")
    reason = f"In CiviCRM the address is now {best}, which is a member of its own; {facts.member_email} is archived."
    if status == "pending":  # Mailchimp archives nobody who has not confirmed
        return replace(base, wanted=_put(facts, {"status": "unsubscribed"}, cause), reason=reason)
    return replace(base, wanted=Wanted("archive", "DELETE", member_path, {}, cause), reason=reason)


# ── Why someone is not subscribed ───────────────────────────────────────────────────────────────────────────────────


def _obstacle(facts: RowFacts, decision: Decision, audience: Audience) -> str | None:
    """The reason why what was decided cannot be done, None if it can."""
    person, status = facts.person, facts.member.status if facts.member else None
    if decision is Decision.LEAVE_GROUP:
        return other_addresses_text(person) if person.others else None
    if decision is not Decision.SUBSCRIBE:
        return None
    if status == "cleaned":
        return CLEANED_TEXT
    if person.others:
        return other_addresses_text(person)
    if audience.respect_privacy and person.objection:
        return f"This contact is not to be mailed ({person.objection}), so they are not subscribed."
    if facts.member_id is not None:
        return _member_obstacle(person)
    if person.best_email is None:
        return ON_HOLD_TEXT if person.emails else NO_EMAIL_TEXT
    return shared_text(person.best_email, person.shared_with) if person.shared_with is not None else None


def _member_obstacle(person: Person) -> str | None:
    if not person.owns_address:
        return GIVEN_UP_TEXT
    if person.address_on_hold:
        return ON_HOLD_TEXT
    if not person.stands_for_contact:
        return "Another address of this contact is subscribed for them; one is enough."
    return None


def other_addresses_text(person: Person) -> str:
    """Why an unsubscribed address changes nothing while another of the contact's is subscribed."""
    count = max(person.emails, len(person.others) + 1)
    return (
        f"This CiviCRM contact has {count} emails. This one is unsubscribed at Mailchimp, but the other "
        f"({', '.join(person.others)}) are subscribed. The contact stays in the group, and this address stays as it is."
    )


def shared_text(address: str, contact_id: int) -> str:
    """Why the second contact with one address is not sent to Mailchimp."""
    return f"The address {address} is also that of contact {contact_id}, who stands for it in this audience."


# ── What is wanted at Mailchimp ─────────────────────────────────────────────────────────────────────────────────────


def _wanted(facts: RowFacts, decision: Decision, stays: bool, interests: Mapping[str, bool]) -> Wanted | None:
    """What Mailchimp is to be asked for; None: nothing."""
    since = facts.group.since if facts.group else None
    if decision is Decision.UNSUBSCRIBE:
        return _put(facts, {"status": "unsubscribed"}, since)
    if decision is Decision.SUBSCRIBE:
        return _put(facts, {"status": "subscribed"}, since, interests)
    in_flight = _in_flight(facts)
    if in_flight is not None and _is_countermanded(in_flight, stays):
        word = facts.group if decision is Decision.IN_SYNC else facts.member
        body: dict[str, object] = {"status": "subscribed" if stays else "unsubscribed"}
        return _put(facts, body, word.since if word else None, interests, in_flight)
    if interests:
        chosen = [one.group.since for one in facts.interests if one.interest_id in interests and one.group]
        return _put(facts, {}, max(chosen, default=since), interests)
    return None


def _in_flight(facts: RowFacts) -> Wanted | None:
    """The member update that is under way, if any."""
    return next((one.wanted for one in reversed(facts.open) if one.in_flight and one.wanted.kind == "member"), None)


def _is_countermanded(in_flight: Wanted, stays: bool) -> bool:
    """Whether what is under way was right when it was sent, and is not any more."""
    status = in_flight.body.get("status")
    return status is not None and (status in RECEIVES_MAIL) != stays


def _put(
    facts: RowFacts,
    body: dict[str, object],
    cause: datetime | None,
    interests: Mapping[str, bool] | None = None,
    in_flight: Wanted | None = None,
) -> Wanted:
    """The upsert of one member. A member is known by the id it was listed with, a newcomer by their best address.

    A newcomer whose subscribing is *in_flight* is known by the address that went to. Whoever is not there after all
    comes back only when this is about subscribing them.
    """
    if_new = str(body.get("status", "unsubscribed"))
    if facts.member_id is None and in_flight is not None:
        known: dict[str, object] = {
            name: in_flight.body[name] for name in ("email_address", "merge_fields") if name in in_flight.body
        }
        chosen = {"interests": dict(interests)} if interests else {}
        return Wanted("member", "PUT", in_flight.path_tail, {**known, "status_if_new": if_new, **body, **chosen}, cause)
    email = facts.member_email if facts.member_id is not None else facts.person.best_email
    whole: dict[str, object] = {"email_address": email or "", "status_if_new": if_new, **body}
    if facts.member_id is None:
        whole["merge_fields"] = {"FNAME": facts.person.first_name, "LNAME": facts.person.last_name}
    if interests:
        whole["interests"] = dict(interests)
    member_id = facts.member_id or subscriber_hash(email or "")
    return Wanted("member", "PUT", f"members/{member_id}", whole, cause)


def _was_refused(refusal: Refusal, wanted: Wanted) -> bool:
    """True when the same was asked for the same word of CiviCRM before, and Mailchimp said no."""
    if refusal.cause is None or wanted.cause is None:
        return False
    then, now = refusal.body, wanted.body
    same_person = str(then.get("email_address", "")).lower() == str(now.get("email_address", "")).lower()
    same_side = _side(then) == _side(now) and (now.get("interests") or {}) == (then.get("interests") or {})
    return same_person and same_side and int(refusal.cause.timestamp()) == int(wanted.cause.timestamp())


def _side(body: Mapping[str, object]) -> bool | None:
    return body["status"] in RECEIVES_MAIL if body.get("status") else None


# ── Interests ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan_interests(
    facts: RowFacts, audience: Audience, decision: Decision
) -> tuple[tuple[GroupChange, ...], Mapping[str, bool]]:
    """What is to be done about interests: in their groups, and at Mailchimp (interest id → wanted)."""
    if facts.member is None:
        return (), {one.interest_id: True for one in facts.interests if _is_in(one)}
    changes: list[GroupChange] = []
    wanted: dict[str, bool] = {}
    in_flight = _interests_in_flight(facts)
    for one in facts.interests:
        if one.held is None:
            continue  # Mailchimp does not know this interest any more, and refuses it
        chosen = Standing("subscribed" if one.held else "unsubscribed", one.since)
        found = decide(one.group, chosen, audience.trust.get(one.interest_id))
        mailchimp_won = found in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP)
        stands = one.held if mailchimp_won else _is_in(one)
        if mailchimp_won:
            was = one.group.status if one.group else None
            field_name = f"interest-{one.interest_id}"
            changes.append(GroupChange(one.group_id, ADDED if one.held else REMOVED, was, field_name, one.since))
        if stands != one.held or in_flight.get(one.interest_id, stands) != stands:
            wanted[one.interest_id] = stands
    return tuple(changes), wanted


def _is_in(one: InterestFacts) -> bool:
    return one.group is not None and one.group.status == ADDED


def _interests_in_flight(facts: RowFacts) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for one in facts.open:
        if one.in_flight and one.wanted.kind == "member":
            found.update(one.wanted.body.get("interests") or {})
    return found


# ── The rest of a plan ──────────────────────────────────────────────────────────────────────────────────────────────


def _plan_stranger(facts: RowFacts) -> Plan:
    if facts.member is not None and facts.member.status in RECEIVES_MAIL:
        return Plan(facts, Decision.JOIN_GROUP, "todo", "This member has no contact yet; one is made first.")
    return Plan(facts, Decision.IN_SYNC, "ok", "Not in the audience, and not known to CiviCRM.")


def _at_rest(facts: RowFacts, done: Plan) -> Plan:
    """The plan with nothing new to send: a waiting member update is dropped, and what is under way keeps it live."""
    if not facts.open:
        return done
    rest = [one for one in facts.open if one.in_flight or one.wanted.slot != "member" or _lets_address_go(facts, one)]
    status = "live" if rest and done.sync_status == "ok" else done.sync_status
    return replace(done, sync_status=status, drops=("member",) if len(rest) < len(facts.open) else ())


def _unless_moving(wanting: Plan) -> Plan:
    """Nothing is sent to a member whose address is just being changed: the path to them changes with it.

    Leaving is not put off unless the change is under way already; then the row is thought about again afterwards.
    """
    moves = [one for one in wanting.facts.open if one.wanted.slot == "email" or _lets_address_go(wanting.facts, one)]
    if not moves:
        return wanting
    if wanting.decision is Decision.UNSUBSCRIBE and not any(one.in_flight for one in moves):
        return replace(wanting, drops=("email",))
    return replace(wanting, wanted=None, sync_status="live", reason="Waits until the change of address is through.")


def _lets_address_go(facts: RowFacts, one: OpenUpdate) -> bool:
    """True when an update archives a member in the audience: `plan_address` wished so, and nothing else may undo it."""
    return one.wanted.kind == "archive" and facts.member is not None and facts.member.status in RECEIVES_MAIL


def _subscription_change(facts: RowFacts, decision: Decision, audience: Audience) -> tuple[GroupChange, ...]:
    if facts.member is None or decision not in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP):
        return ()
    status = ADDED if decision is Decision.JOIN_GROUP else REMOVED
    was = facts.group.status if facts.group else None
    return (GroupChange(audience.group_id, status, was, "status", facts.member.since),)


def _reason(facts: RowFacts, decision: Decision, audience: Audience, wanted: Wanted | None) -> str:
    status = facts.member.status if facts.member else "unknown"
    trust = audience.trust.get(SUBSCRIPTION)
    spoke = f"{trust} is trusted in this run" if trust and facts.group and facts.member else None
    match decision:
        case Decision.JOIN_GROUP if facts.group is None:
            return f"They are {status} at Mailchimp and were never in the group, so they join it."
        case Decision.JOIN_GROUP:
            return f"{spoke or 'Mailchimp spoke last'}: they are {status} there, so they join the group."
        case Decision.LEAVE_GROUP:
            return f"{spoke or 'Mailchimp spoke last'}: they are {status} there, so they leave the group."
        case Decision.SUBSCRIBE if facts.member is None:
            return "They are in the group and new to Mailchimp, so they are subscribed there."
        case Decision.SUBSCRIBE:
            return f"{spoke or 'CiviCRM spoke last'}: they are in the group, so they are subscribed at Mailchimp."
        case Decision.UNSUBSCRIBE:
            return f"{spoke or 'CiviCRM spoke last'}: they left the group, so they are unsubscribed at Mailchimp."
        case _ if wanted is not None:
            return "They are on both sides; what they chose in CiviCRM goes to Mailchimp."
        case _:
            return "Both sides agree."
