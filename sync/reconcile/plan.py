"""What a sync does for one row, and why: everything there is to know of it becomes one `Plan`. Pure: no SQL, no HTTP.

`plan` adds to `decide` what else there is to know: interests, privacy, addresses, open updates. `plan_address` does the
same for a member whose address the contact gave up. `planning.plan_rows` calls both; nothing else does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from sync.audience import SUBSCRIPTION, Audience, Privacy
from sync.mailchimp.wire import subscriber_hash
from sync.model import RECEIVES_MAIL, GroupStatus, MemberOperation, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.reconcile import reasons
from sync.reconcile.decide import (
    LONG_AGO,
    Decision,
    InterestFacts,
    Refusal,
    RowFacts,
    Standing,
    decide,
    decision_for,
    is_waiting,
)
from sync.store.members.blobs import INTEREST
from sync.store.members.holds import STATUS

_NO_INTERESTS: Mapping[str, bool] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A change of status in a group; it mirrors the change of *field* of the member at *since*."""

    group_id: int
    status: str
    was: str | None
    field: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync does for one row: in CiviCRM at once, at Mailchimp by an update; and the row's status afterwards.

    *drops* are the kind groups whose waiting update is dropped. *unlink*: the row is no longer this contact's,
    but *successor*'s, if that is known.
    *is_address*: the plan of `plan_address`; the rest is planned once it is applied.
    """

    facts: RowFacts
    decision: Decision
    sync_status: str
    reason: str
    group_changes: tuple[GroupChange, ...] = ()
    operation: MemberOperation | None = None
    drops: tuple[str, ...] = ()
    unlink: bool = False
    is_address: bool = False
    successor: int | None = None


def plan(facts: RowFacts, audience: Audience) -> Plan:
    """The plan for one row, changes of address aside."""
    if facts.contact_id is None:
        return _plan_stranger(facts, audience)
    decision = _decide(facts, audience)
    obstacle = _obstacle(facts, decision, audience)
    if obstacle is not None:
        return _at_rest(facts, Plan(facts, decision, SyncStatus.FAIL, obstacle))
    stays = decision in (Decision.JOIN_GROUP, Decision.SUBSCRIBE) or (
        decision is Decision.IN_SYNC and facts.member is not None and facts.member.status in RECEIVES_MAIL
    )
    changes, interests = _plan_interests(facts, audience) if stays and facts.interests else ((), _NO_INTERESTS)
    operation = _operation(facts, decision, stays, interests, audience)
    changes = (*_subscription_change(facts, decision, audience), *changes)
    if operation is not None and facts.refusal is not None and _was_refused(facts.refusal, operation):
        return _at_rest(
            facts, Plan(facts, decision, SyncStatus.FAIL, reasons.refused(facts.refusal, audience.clock), changes)
        )
    reason = _reason(facts, decision, audience, stays, operation, changes)
    done = Plan(facts, decision, SyncStatus.OK, reason + _remark(facts, audience, stays), changes)
    if operation is None or (facts.held and any(not one.in_flight for one in facts.open)):  # the undo's goes first
        return _at_rest(facts, done)
    return _unless_moving(replace(done, sync_status=SyncStatus.LIVE, operation=operation))


def plan_address(facts: RowFacts, audience: Audience) -> Plan | None:
    """The plan for a member whose address is no longer the contact's; None: nothing to change, or not yet.

    A member in the audience moves to the contact's best address, or is archived where that is a member already. A
    member out of the audience is separated from the contact where `_is_settled`, so that the present owner of the
    address is matched with it, and where CiviCRM has the latest change and the contact is to be subscribed: its new
    address gets a row of its own.

    A member whose contact left the group, or is unsubscribed because it objects to mail, goes to another contact in the
    group that shares its address: the address is unsubscribed only when the last of them leaves.
    """
    if facts.contact_id is None or facts.member is None or facts.member_id is None:
        return None
    decision = _decide(facts, audience)
    successor = facts.person.successor
    if successor is not None and decision is Decision.UNSUBSCRIBE:
        reason = reasons.handed_over(facts, successor, audience.clock, objects=_is_unwanted(facts, audience))
        return Plan(facts, decision, SyncStatus.TODO, reason, unlink=True, is_address=True, successor=successor)
    if facts.person.owns_address:
        return None
    if any(one.operation.kind_group in (OperationKind.EMAIL, OperationKind.MEMBER) for one in facts.open):
        return None
    best = facts.person.best_email
    base = Plan(facts, decision, SyncStatus.TODO, "", is_address=True)
    if facts.member.status in RECEIVES_MAIL:
        if best is None or decision is Decision.UNSUBSCRIBE:
            return None
        move = _move_address(facts, base, best)
        if facts.refusal is not None and move.operation is not None and _was_refused(facts.refusal, move.operation):
            return Plan(facts, decision, SyncStatus.FAIL, reasons.refused(facts.refusal, audience.clock))
        return move
    to_subscribe = decision is Decision.SUBSCRIBE and best is not None
    if facts.person.others or to_subscribe or _is_settled(facts, decision, audience):
        return replace(base, reason=reasons.address_released(facts, audience.clock), unlink=True)
    return None


def _is_settled(facts: RowFacts, decision: Decision, audience: Audience) -> bool:
    """Whether a contact has nothing more to do with a member out of the audience, whose address it gave up.

    A member's choice against a source, and an undo that holds the member out, are about the person and not about the
    address: they stay with the contact, or it would be subscribed at its new address. Where somebody else has the
    address by now, the member is theirs.
    """
    if decision is not Decision.IN_SYNC:
        return False
    is_in_group = facts.group is not None and facts.group.status == GroupStatus.ADDED
    return bool(facts.person.sharers) or not (audience.one_way or is_in_group)


def _move_address(facts: RowFacts, base: Plan, best: str) -> Plan:
    """The move to the best address, or out of the audience where that is a member already: dated long ago, as it is
    nobody's change of mind, or the contact would leave the group, or not be subscribed at the new address."""
    member_path, status = f"members/{facts.member_id}", facts.member.status if facts.member else ""
    if not facts.person.best_is_taken:
        cause = facts.group.since if facts.group else None
        operation = MemberOperation(OperationKind.EMAIL, "PATCH", member_path, {"email_address": best}, cause)
        return replace(base, operation=operation, reason=reasons.new_address(facts, best))
    if status == MemberStatus.PENDING:  # Mailchimp archives nobody who has not confirmed
        operation = _put(facts, {"status": MemberStatus.UNSUBSCRIBED}, LONG_AGO)
    else:
        operation = _archive(facts, LONG_AGO)
    return replace(base, operation=operation, reason=reasons.address_taken(facts, best, operation))


# ── Contacts that CiviMail would not mail ───────────────────────────────────────────────────────────────────────────


def _decide(facts: RowFacts, audience: Audience) -> Decision:
    """`decide`, with two exceptions: a member whose contact objects to mail is unsubscribed where the settings say so,
    and a row that an undo holds is not changed."""
    if _is_unwanted(facts, audience):
        return Decision.UNSUBSCRIBE
    if STATUS in facts.held:
        return Decision.IN_SYNC
    return decision_for(facts, audience)


def _is_unwanted(facts: RowFacts, audience: Audience) -> bool:
    """Whether a member is unsubscribed because its contact objects, and not because of a change of the group."""
    return (
        audience.privacy is Privacy.UNSUBSCRIBE
        and facts.person.objection is not None
        and not (STATUS in facts.held and facts.held[STATUS].objects)
        and facts.member is not None
        and facts.member.status in RECEIVES_MAIL
        and decision_for(facts, audience) is not Decision.UNSUBSCRIBE
    )


def _remark(facts: RowFacts, audience: Audience, stays: bool) -> str:
    """What is to be known of a member besides: who shares its address; that its contact objects or is in the trash."""
    person = facts.person
    shared = reasons.represents(facts.contact_id, person) if person.sharers and stays else ""
    if not stays or audience.privacy is Privacy.IGNORE:
        return shared
    if person.objection is not None and facts.member is not None and facts.member.status in RECEIVES_MAIL:
        return shared + reasons.stays_subscribed(person.objection)
    return shared + (reasons.in_place_of(person.replaces) if person.replaces is not None else "")


# ── Why someone is not subscribed ───────────────────────────────────────────────────────────────────────────────────


def _obstacle(facts: RowFacts, decision: Decision, audience: Audience) -> str | None:
    """Why the decision cannot be carried out; None if it can."""
    person, status = facts.person, facts.member.status if facts.member else None
    if decision is Decision.LEAVE_GROUP:
        return reasons.other_addresses(person) if person.others else None
    if decision is not Decision.SUBSCRIBE:
        return None
    if person.in_trash:
        return reasons.IN_TRASH_TEXT
    if status == MemberStatus.CLEANED:
        return reasons.CLEANED_TEXT
    if person.others:
        return reasons.other_addresses(person)
    if audience.privacy is not Privacy.IGNORE and person.objection:
        return reasons.objection(facts, audience.clock)
    if facts.member_id is not None:
        return _member_obstacle(facts, audience)
    if person.best_email is None:
        if person.malformed is not None:
            return reasons.malformed(person.malformed)
        return reasons.ON_HOLD_TEXT if person.emails else reasons.NO_EMAIL_TEXT
    return reasons.shared_address(person.best_email, person.shared_with) if person.shared_with is not None else None


def _member_obstacle(facts: RowFacts, audience: Audience) -> str | None:
    if not facts.person.owns_address:
        return reasons.given_up(facts, audience.clock)
    if facts.person.address_on_hold:
        return reasons.ON_HOLD_TEXT
    return None if facts.person.is_preferred else reasons.ANOTHER_ROW_TEXT


# ── Operations at Mailchimp ─────────────────────────────────────────────────────────────────────────────────────────


def _operation(
    facts: RowFacts, decision: Decision, stays: bool, interests: Mapping[str, bool], audience: Audience
) -> MemberOperation | None:
    """The update to send to Mailchimp; None: nothing.

    An unsubscription because of an objection is dated long ago: it is no change of the person's mind, so it neither
    removes the contact from the group nor outlasts the objection. An update against a later change of the member, where
    CiviCRM takes precedence, is dated as that: it is overruled by what comes after it.
    """
    since = facts.group.since if facts.group else None
    if _is_unwanted(facts, audience):
        since = LONG_AGO
    elif decision in (Decision.SUBSCRIBE, Decision.UNSUBSCRIBE) and facts.group and facts.member:
        since = max(facts.group.since, facts.member.since)
    if decision is Decision.UNSUBSCRIBE:
        if audience.archives_leavers and not _is_unwanted(facts, audience) and _can_be_archived(facts):
            return _archive(facts, since)
        return _put(facts, {"status": MemberStatus.UNSUBSCRIBED}, since)
    if decision is Decision.SUBSCRIBE:
        return _put(facts, {"status": MemberStatus.SUBSCRIBED}, since, interests, names=audience.sends_names)
    in_flight = _in_flight(facts) if not is_waiting(facts.group) and STATUS not in facts.held else None
    if in_flight is not None and _is_countermanded(in_flight, stays):
        word = facts.group if decision is Decision.IN_SYNC else facts.member
        return _countermand(facts, in_flight, stays, word.since if word else None, interests)
    if interests:
        chosen = [one.group.since for one in facts.interests if one.interest_id in interests and one.group]
        return _put(facts, {}, max(chosen, default=since), interests, names=audience.sends_names)
    return None


def _can_be_archived(facts: RowFacts) -> bool:
    """Mailchimp archives nobody who has not confirmed."""
    return facts.member_id is not None and facts.member is not None and facts.member.status != MemberStatus.PENDING


def _in_flight(facts: RowFacts) -> MemberOperation | None:
    """The member update that is under way, if any."""
    return next(
        (one.operation for one in reversed(facts.open) if one.in_flight and one.operation.kind == OperationKind.MEMBER),
        None,
    )


def _is_countermanded(in_flight: MemberOperation, stays: bool) -> bool:
    """Whether what is under way was right when it was sent, and is not any more."""
    status = in_flight.body.get("status")
    return status is not None and (status in RECEIVES_MAIL) != stays


def _countermand(
    facts: RowFacts, in_flight: MemberOperation, stays: bool, cause: datetime | None, interests: Mapping[str, bool]
) -> MemberOperation | None:
    """The update that follows a wrong one in flight; None where that one changes nothing.

    It does not make an archived or cleaned member an unsubscribed one: that may have been carried out before the member
    became so. The archived are archived again, and Mailchimp subscribes nobody who is cleaned.
    """
    status = facts.member.status if facts.member and not stays else None
    if status == MemberStatus.CLEANED:
        return None
    if status == MemberStatus.ARCHIVED and in_flight.body["status"] != MemberStatus.PENDING:  # see `_can_be_archived`
        return _archive(facts, cause)
    body: dict[str, object] = {"status": MemberStatus.SUBSCRIBED if stays else MemberStatus.UNSUBSCRIBED}
    return _put(facts, body, cause, interests, in_flight)


def _archive(facts: RowFacts, cause: datetime | None) -> MemberOperation:
    return MemberOperation(OperationKind.ARCHIVE, "DELETE", f"members/{facts.member_id}", {}, cause)


def _put(
    facts: RowFacts,
    body: dict[str, object],
    cause: datetime | None,
    interests: Mapping[str, bool] | None = None,
    in_flight: MemberOperation | None = None,
    *,
    names: bool = False,
) -> MemberOperation:
    """The upsert of one member. A member is known by the id it was listed with, a newcomer by their best address.

    A newcomer whose subscribing is *in_flight* is known by the address that went to. One who is not there after all
    comes back only when this is about subscribing them. *names*: send a newcomer's.
    """
    if_new = str(body.get("status", MemberStatus.UNSUBSCRIBED))
    if facts.member_id is None and in_flight is not None:
        known: dict[str, object] = {
            name: in_flight.body[name] for name in ("email_address", "merge_fields") if name in in_flight.body
        }
        chosen = {"interests": dict(interests)} if interests else {}
        return MemberOperation(
            OperationKind.MEMBER,
            "PUT",
            in_flight.path_tail,
            {**known, "status_if_new": if_new, **body, **chosen},
            cause,
        )
    email = facts.member_email if facts.member_id is not None else facts.person.best_email
    whole: dict[str, object] = {"email_address": email or "", "status_if_new": if_new, **body}
    if facts.member_id is None and names:
        both = {"FNAME": facts.person.first_name, "LNAME": facts.person.last_name}
        given = {tag: name for tag, name in both.items() if name.strip()}  # somebody may sign up there meanwhile
        whole |= {"merge_fields": given} if given else {}
    if interests:
        whole["interests"] = dict(interests)
    member_id = facts.member_id or subscriber_hash(email or "")
    return MemberOperation(OperationKind.MEMBER, "PUT", f"members/{member_id}", whole, cause)


def _was_refused(refusal: Refusal, operation: MemberOperation) -> bool:
    """Whether Mailchimp refused the same update before, sent because of the same change in CiviCRM."""
    if refusal.cause is None or operation.cause is None:
        return False
    then, now = refusal.body, operation.body
    same_person = str(then.get("email_address", "")).lower() == str(now.get("email_address", "")).lower()
    same_side = _side(then) == _side(now) and (now.get("interests") or {}) == (then.get("interests") or {})
    return same_person and same_side and int(refusal.cause.timestamp()) == int(operation.cause.timestamp())


def _side(body: Mapping[str, object]) -> bool | None:
    return body["status"] in RECEIVES_MAIL if body.get("status") else None


# ── Interests ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan_interests(facts: RowFacts, audience: Audience) -> tuple[tuple[GroupChange, ...], Mapping[str, bool]]:
    """What is to be done about interests: in their groups, and at Mailchimp (interest id → wanted)."""
    if facts.member is None:
        return (), {one.interest_id: True for one in facts.interests if _is_in(one)}
    changes: list[GroupChange] = []
    wanted: dict[str, bool] = {}
    in_flight = _interests_in_flight(facts)
    for one in facts.interests:
        if f"{INTEREST}{one.interest_id}" in facts.held:
            continue
        if one.held is None:
            continue  # Mailchimp does not know this interest any more, and refuses it
        chosen = Standing(MemberStatus.SUBSCRIBED if one.held else MemberStatus.UNSUBSCRIBED, one.since)
        found = decide(one.group, chosen, audience.trust.get(one.interest_id))
        mailchimp_won = found in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP)
        wanted_now = one.held if mailchimp_won or is_waiting(one.group) else _is_in(one)
        if mailchimp_won:
            was = one.group.status if one.group else None
            field_name = f"{INTEREST}{one.interest_id}"
            changes.append(
                GroupChange(
                    one.group_id, GroupStatus.ADDED if one.held else GroupStatus.REMOVED, was, field_name, one.since
                )
            )
        if wanted_now != one.held or in_flight.get(one.interest_id, wanted_now) != wanted_now:
            wanted[one.interest_id] = wanted_now
    return tuple(changes), wanted


def _is_in(one: InterestFacts) -> bool:
    return one.group is not None and one.group.status == GroupStatus.ADDED


def _interests_in_flight(facts: RowFacts) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for one in facts.open:
        if one.in_flight and one.operation.kind == OperationKind.MEMBER:
            found.update(one.operation.body.get("interests") or {})
    return found


# ── The rest of a plan ──────────────────────────────────────────────────────────────────────────────────────────────


def _plan_stranger(facts: RowFacts, audience: Audience) -> Plan:
    """A row without a contact: a member in the audience gets one in a stage of its own.

    Of any other, all waiting updates are dropped: they were queued for a contact that is gone since.
    """
    reason = reasons.of_stranger(facts, audience.clock, one_way=audience.one_way)
    if STATUS in facts.held:
        return _at_rest(facts, Plan(facts, Decision.IN_SYNC, SyncStatus.OK, _reason_of_hold(facts, audience)))
    if facts.member is not None and facts.member.status in RECEIVES_MAIL and not audience.one_way:
        return Plan(facts, Decision.JOIN_GROUP, SyncStatus.TODO, reason)
    waiting = {one.operation.kind_group for one in facts.open if not one.in_flight}
    status = SyncStatus.LIVE if any(one.in_flight for one in facts.open) else SyncStatus.OK
    return Plan(facts, Decision.IN_SYNC, status, reason, drops=tuple(sorted(waiting)))


def _at_rest(facts: RowFacts, done: Plan) -> Plan:
    """The plan with nothing new to send: a waiting member update is dropped, and what is under way keeps it live."""
    if not facts.open:
        return done
    rest = [
        one
        for one in facts.open
        if one.in_flight
        or one.operation.kind_group != OperationKind.MEMBER
        or _lets_address_go(facts, one)
        or facts.held  # it is the undo's
    ]
    status = SyncStatus.LIVE if rest and done.sync_status == SyncStatus.OK else done.sync_status
    return replace(done, sync_status=status, drops=("member",) if len(rest) < len(facts.open) else ())


def _unless_moving(wanting: Plan) -> Plan:
    """Nothing is sent to a member whose address is just being changed: the path to them changes with it.

    Leaving is not put off unless the change is under way already; then the row is thought about again afterwards.
    """
    moves = [
        one
        for one in wanting.facts.open
        if one.operation.kind_group == OperationKind.EMAIL or _lets_address_go(wanting.facts, one)
    ]
    if not moves:
        return wanting
    if wanting.decision is Decision.UNSUBSCRIBE and not any(one.in_flight for one in moves):
        return replace(wanting, drops=("email",))
    return replace(wanting, operation=None, sync_status=SyncStatus.LIVE, reason=reasons.ADDRESS_CHANGE_TEXT)


def _lets_address_go(facts: RowFacts, one: OpenUpdate) -> bool:
    """True when an update takes a member out of the audience whose contact has another member's address: `plan_address`
    wished so, and nothing else may undo it."""
    operation = one.operation
    is_unconfirmed = operation.kind == OperationKind.MEMBER and operation.cause == LONG_AGO
    return (
        (operation.kind == OperationKind.ARCHIVE or (is_unconfirmed and not facts.person.owns_address))
        and facts.member is not None
        and facts.member.status in RECEIVES_MAIL
    )


def _subscription_change(facts: RowFacts, decision: Decision, audience: Audience) -> tuple[GroupChange, ...]:
    if facts.member is None or decision not in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP):
        return ()
    status = GroupStatus.ADDED if decision is Decision.JOIN_GROUP else GroupStatus.REMOVED
    was = facts.group.status if facts.group else None
    return (GroupChange(audience.group_id, status, was, "status", facts.member.since),)


def _reason_of_hold(facts: RowFacts, audience: Audience) -> str:
    latest = max(facts.held.values(), key=lambda one: one.at)
    return reasons.taken_back(latest.run_id, latest.at, audience.clock)


def _archived(operation: MemberOperation | None) -> str:
    is_archive = operation is not None and operation.kind == OperationKind.ARCHIVE
    return " By the setting of this connection, that is by archiving." if is_archive else ""


def _reason(
    facts: RowFacts,
    decision: Decision,
    audience: Audience,
    stays: bool,
    operation: MemberOperation | None,
    changes: Sequence[GroupChange],
) -> str:
    if _is_unwanted(facts, audience):
        return reasons.of_objection(facts, audience.clock)
    if facts.held and operation is None:
        return _reason_of_hold(facts, audience)
    if decision is not Decision.IN_SYNC:
        trust = None if audience.one_way else audience.trust.get(SUBSCRIPTION)
        by_setting = _archived(operation) if decision is Decision.UNSUBSCRIBE else ""
        return reasons.of_decision(facts, decision, audience.clock, trust) + by_setting
    if audience.one_way and operation is None and not changes:
        return reasons.of_source(facts, audience.clock)
    if operation is not None and operation.status:
        return reasons.of_reversal(facts, operation, audience.clock)
    if operation is not None:
        return reasons.of_interests(operation.body["interests"], operation.cause, audience.clock)
    if changes:
        changed = [one.field.removeprefix(INTEREST) for one in changes]
        return reasons.of_interest_groups(changed, max(one.since for one in changes), audience.clock)
    return reasons.of_agreement(facts, audience.clock)
