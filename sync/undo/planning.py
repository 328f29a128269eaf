"""What is done to take back one thing that a run did, and why, or why it is left. Pure: no SQL, no HTTP, no clock.

A preview and the undo itself call `plan_undo` with the same facts, so that they cannot disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sync.audience import interest_kinds
from sync.field_rules import canonical
from sync.mailchimp.wire import subscriber_hash, tags_body
from sync.model import RECEIVES_MAIL, GroupStatus, MemberOperation, MemberStatus, OperationKind
from sync.reconcile.categories import ARCHIVE_ADDRESS, NEW_CONTACT

JOIN, LEAVE, TRASH = "group_again", "group_out", "trash_contact"
SUBSCRIBE, UNSUBSCRIBE, DATA, CANCEL, LEFT = "subscribe_again", "unsubscribe_again", "data_back", "cancel", "left"

KINDS: Mapping[str, str] = {
    LEAVE: "joined a group by this run and leave it again",
    JOIN: "left a group by this run and are in it again",
    TRASH: "are contacts that this run made; they are moved to the trash",
    UNSUBSCRIBE: "were subscribed at Mailchimp by this run and are no longer",
    SUBSCRIBE: "were unsubscribed at Mailchimp by this run and are subscribed again",
    DATA: "get the former interests, marketing permissions, merge fields or tags at Mailchimp back",
    CANCEL: "have an update that was not sent yet; it is cancelled",
    LEFT: "stay as they are; each has a reason",
}
"""Each kind, with what the people of that kind do, to follow "they"."""

ADDRESS = (
    "A member's address follows the contact's: change it in CiviCRM, and the next sync changes it at Mailchimp as well."
)
TRANSACTIONAL = " Mailchimp makes nobody transactional again: unsubscribed."
TAGS_STAY = (
    "The tags that the run added stay: whether the member had them before is not known. A sync takes them off once "
    "CiviCRM does not have them any more."
)
NOT_KEPT = "The update is no longer kept, so what it changed is not known."


@dataclass(frozen=True, slots=True)
class Change:
    """What the run did: a row of ``civiapi_run_change``."""

    id: int
    kind: str
    cache_id: int | None = None
    contact_id: int | None = None
    group_id: int | None = None
    history_id: int | None = None
    update_id: int | None = None
    was: str | None = None
    replaced: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupNow:
    """A contact in a group at present: the status, and id, status and method of the latest history row that is no
    undo's."""

    status: str | None = None
    history_id: int = 0
    history_status: str | None = None
    method: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateNow:
    """What became of an update: *is_waiting* (not sent), *is_in_flight*, else completed, with an *error* if refused."""

    operation: MemberOperation
    is_waiting: bool = False
    is_in_flight: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class MemberNow:
    """A cache row at present. *inside*: in the audience once what is in flight is carried out; *chosen*: interests."""

    member_id: str | None = None
    email: str = ""
    status: str | None = None
    inside: bool = False
    chosen: Mapping[str, bool] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UndoFacts:
    """What there is to know of a change. *touched*: what somebody else did to the contact since it was made.

    *changed*: the history row by which CiviCRM changed since the update was queued. *obstacle*: why the member is not
    to be subscribed again. None where something is gone.
    """

    change: Change
    group: GroupNow | None = None
    is_alive: bool = False
    touched: str = ""
    update: UpdateNow | None = None
    member: MemberNow | None = None
    changed: str = ""
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What is done: a change of a group, a contact moved to the trash, an operation at Mailchimp or a cancelled update.

    *kind* is empty where the run changed nothing that could be taken back. *inside*: whether the member is in the
    audience afterwards, None where that is not held; *interests*: what it has chosen afterwards. *data* is what is not
    to be sent again, of the kind of updates *data_kind*.
    """

    change: Change
    kind: str = ""
    reason: str = ""
    group_status: str | None = None
    trash: bool = False
    operation: MemberOperation | None = None
    cancel: bool = False
    inside: bool | None = None
    interests: Mapping[str, bool] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    data_kind: str = ""


def plan_undo(facts: UndoFacts) -> UndoPlan:
    """The plan for one thing that the run did."""
    change = facts.change
    if change.kind == NEW_CONTACT:
        return _plan_contact(facts)
    if change.group_id is not None:
        return _plan_group(facts)
    if change.update_id is not None:
        return _plan_update(facts)
    return UndoPlan(change)


def _left(change: Change, why: str) -> UndoPlan:
    return UndoPlan(change, LEFT, why)


def _plan_contact(facts: UndoFacts) -> UndoPlan:
    if not facts.is_alive:
        return _left(facts.change, "The contact is in the trash or deleted already.")
    if facts.touched:
        return _left(facts.change, f"The run made this contact, but {facts.touched}: it stays.")
    return UndoPlan(facts.change, TRASH, "The run made this contact, and nobody changed it since: trashed.", trash=True)


def _plan_group(facts: UndoFacts) -> UndoPlan:
    change, now = facts.change, facts.group
    if now is None:
        return _left(change, "The contact or the group is deleted.")
    if change.history_id is None or now.history_id != change.history_id:
        by = f" ({now.history_status} by {now.method})" if now.history_status and now.method else ""
        return _left(change, f"The group of this contact was changed since{by}.")
    if now.status != now.history_status:
        return _left(change, "The group of this contact was changed since, without a history.")
    status = change.was or GroupStatus.DELETED
    if now.status == GroupStatus.ADDED:
        reason = "The run added the contact to the group: " + (
            f"{change.was} again." if change.was else "taken out of it; before, it never was in it."
        )
        return UndoPlan(change, LEAVE, reason, group_status=status)
    reason = f"The run removed the contact from the group: {change.was or 'as before'} again."
    if change.was == GroupStatus.ADDED and facts.member is not None and not facts.member.inside:
        reason += f" CiviMail mails them then, though they are {facts.member.status or 'no member'} at Mailchimp."
    return UndoPlan(change, JOIN, reason, group_status=status)


# ── Updates for Mailchimp ───────────────────────────────────────────────────────────────────────────────────────────


def _plan_update(facts: UndoFacts) -> UndoPlan:
    change, update, member = facts.change, facts.update, facts.member
    if update is None or member is None:
        return _left(change, NOT_KEPT)
    operation = update.operation
    if operation.kind == OperationKind.EMAIL or change.kind == ARCHIVE_ADDRESS:
        return _left(change, ADDRESS)
    if update.is_waiting:
        reason = "The update was not sent yet: cancelled."
        held = member.inside if operation.status else None
        now = {key: member.chosen.get(key, False) for key in operation.body.get("interests") or {}}
        data, kind = _data_of(operation), operation.kind
        return UndoPlan(change, CANCEL, reason, cancel=True, inside=held, interests=now, data=data, data_kind=kind)
    if operation.kind in (OperationKind.MEMBER, OperationKind.ARCHIVE):
        if facts.changed:
            return _left(change, f"CiviCRM has changed since ({facts.changed}).")
        done = _plan_member(change, update, member)
        if done.kind == SUBSCRIBE and facts.obstacle:
            return _left(change, facts.obstacle)
        return done
    return _plan_data(change, update, member)


def _plan_member(change: Change, update: UpdateNow, member: MemberNow) -> UndoPlan:
    """Take back a change of the subscription, of interests, or of both."""
    operation = update.operation
    wanted = operation.status
    chosen: Mapping[str, bool] = operation.body.get("interests") or {}
    before: Mapping[str, bool] = change.replaced.get("interests") or {}
    was_inside = change.was in RECEIVES_MAIL
    if wanted is not None and member.inside != (wanted in RECEIVES_MAIL):
        if update.error:
            return UndoPlan(change)  # Mailchimp refused it: nothing was changed
        return _left(change, f"The member has changed at Mailchimp since ({member.status or 'not a member'}).")
    if wanted not in (None, *RECEIVES_MAIL) and member.status not in (None, wanted, *RECEIVES_MAIL):
        return _left(change, f"The member has changed at Mailchimp since ({member.status}).")
    if wanted is None and any(member.chosen.get(key) != value for key, value in chosen.items()):
        return (
            UndoPlan(change)
            if update.error
            else _left(change, f"The {interest_kinds(chosen)} were changed at Mailchimp since.")
        )
    back = {key: before.get(key, False) for key in chosen if before.get(key, False) != member.chosen.get(key, False)}
    if wanted is None or was_inside == member.inside:
        if not back:
            return UndoPlan(change)
        body = {**_named(operation, member), "interests": back}
        return UndoPlan(
            change,
            DATA,
            f"The run changed {interest_kinds(back)}: set back.",
            operation=_put(operation, member, body),
            interests=back,
        )
    return _set_status_back(change, operation, member, was_inside, back)


def _set_status_back(
    change: Change, operation: MemberOperation, member: MemberNow, was_inside: bool, back: Mapping[str, bool]
) -> UndoPlan:
    if was_inside:
        status = str(change.was)
        body = {**_named(operation, member), "status": status, "status_if_new": status}
        body |= {"interests": dict(back)} if back else {}
        reason = f"The run unsubscribed the member: {status} again, unless Mailchimp refuses that."
        put = _put(operation, member, body)
        return UndoPlan(change, SUBSCRIBE, reason, operation=put, inside=True, interests=back)
    if change.was in (None, MemberStatus.ARCHIVED) and member.status != MemberStatus.PENDING:
        path = f"members/{member.member_id or operation.member}"
        archive = MemberOperation(OperationKind.ARCHIVE, "DELETE", path)
        before = "was not a member before" if change.was is None else "was archived before"
        reason = f"The run subscribed the member, who {before}: archived."
        return UndoPlan(change, UNSUBSCRIBE, reason, operation=archive, inside=False)
    status = MemberStatus.UNSUBSCRIBED
    body = {**_named(operation, member), "status": status, "status_if_new": status}
    body |= {"interests": dict(back)} if back else {}
    reason = f"The run subscribed the member, who was {change.was or 'not a member'} before: {status} again."
    reason += TRANSACTIONAL if change.was == MemberStatus.TRANSACTIONAL else ""
    put = _put(operation, member, body)
    return UndoPlan(change, UNSUBSCRIBE, reason, operation=put, inside=False, interests=back)


def _named(operation: MemberOperation, member: MemberNow) -> dict[str, Any]:
    """The address in the body of an upsert, and what somebody is who is not there after all."""
    email = member.email or str(operation.body.get("email_address") or "")
    return {"email_address": email, "status_if_new": MemberStatus.UNSUBSCRIBED}


def _put(operation: MemberOperation, member: MemberNow, body: dict[str, Any]) -> MemberOperation:
    known = member.member_id or operation.member or subscriber_hash(str(body["email_address"]))
    return MemberOperation(OperationKind.MEMBER, "PUT", f"members/{known}", body)


# ── Data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _data_of(operation: MemberOperation) -> Mapping[str, Any] | None:
    """What an update of data sets, which is not to be sent again; None for others."""
    if not operation.is_data:
        return None
    if operation.kind == OperationKind.TAGS:
        return {str(one.get("name")): one.get("status") == "active" for one in operation.body.get("tags") or ()}
    return dict(operation.body.get("merge_fields") or {})


def _plan_data(change: Change, update: UpdateNow, member: MemberNow) -> UndoPlan:
    operation, sent = update.operation, _data_of(update.operation) or {}
    if update.error:
        return UndoPlan(change)  # Mailchimp refused it
    if operation.kind == OperationKind.TAGS:
        return _plan_tags(change, operation, sent)
    before: Mapping[str, Any] = change.replaced.get("merge_fields") or {}
    if any(name in member.values and member.values[name] != canonical(value) for name, value in sent.items()):
        return _left(change, "The merge fields were changed at Mailchimp since.")
    known = {
        name: before[name]
        for name, value in sent.items()
        if name in before and before[name] != canonical(value) and not isinstance(value, dict)  # kept as a text only
    }
    if not known:
        return _left(change, "What the merge fields were before is not known.")
    inverse = MemberOperation(operation.kind, "PATCH", operation.path_tail, {"merge_fields": known})
    return UndoPlan(
        change, DATA, "The run changed merge fields: set back.", operation=inverse, data=sent, data_kind=operation.kind
    )


def _plan_tags(change: Change, operation: MemberOperation, sent: Mapping[str, Any]) -> UndoPlan:
    """Add the tags that the run took off; those that it added stay: the member may have had them before."""
    had: Mapping[str, bool] = change.replaced.get("tags") or {}
    back = [name for name, is_on in sent.items() if not is_on and had.get(name)]
    if not back:
        return _left(change, TAGS_STAY)
    inverse = MemberOperation(OperationKind.TAGS, "POST", operation.path_tail, tags_body(dict.fromkeys(back, True)))
    reason = "The run took off tags: added again." + (f" {TAGS_STAY}" if len(back) < len(sent) else "")
    return UndoPlan(
        change, DATA, reason, operation=inverse, data=dict.fromkeys(back, False), data_kind=OperationKind.TAGS
    )
