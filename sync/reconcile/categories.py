"""The kinds of plans that `plan`, `explain` and the brake count people by. Pure.

A kind says which side changes and how; the plan's reason says why. ``in_step``, ``taken_back`` and ``under_way`` need
nothing of the next sync. A person whose address changes can be of two kinds: that of the address, and that of the rest.
"""

from collections.abc import Mapping
from typing import Any

from civiapi.runtime.wording import many
from sync.model import MemberOperation, OperationKind, SyncStatus
from sync.reconcile.decide import Decision
from sync.reconcile.plan import Plan
from sync.store.updates import is_under_way

JOIN_GROUP, NEW_CONTACT, LEAVE_GROUP = "join_group", "new_contact", "leave_group"
SUBSCRIBE, UNSUBSCRIBE, INTERESTS = "subscribe", "unsubscribe", "interests"
CHANGE_ADDRESS, ARCHIVE_ADDRESS, LET_GO, HAND_OVER = "change_address", "archive_address", "let_go", "hand_over"
DATA, DATA_LEFT_OUT = "data", "data_left_out"
CALL_BACK, CANNOT, UNDER_WAY, IN_STEP = "call_back", "cannot", "under_way", "in_step"
TAKEN_BACK = "taken_back"

KINDS: Mapping[str, str] = {
    SUBSCRIBE: "are in the group and are subscribed at Mailchimp",
    UNSUBSCRIBE: "left the group (or are not to be mailed) and are unsubscribed at Mailchimp",
    JOIN_GROUP: "are subscribed at Mailchimp and join the group",
    NEW_CONTACT: "are subscribed at Mailchimp and unknown to CiviCRM: a contact is made, which joins the group",
    LEAVE_GROUP: "are not subscribed at Mailchimp any more and leave the group",
    INTERESTS: "stay in the group and the audience; their interests or marketing permissions are synced",
    CHANGE_ADDRESS: "have another address in CiviCRM; it is changed at Mailchimp",
    ARCHIVE_ADDRESS: "have a new address that is a member already; the old one leaves the audience",
    LET_GO: "no longer have an address that is not in the audience; the member with it leaves the contact",
    HAND_OVER: "left the group (or are not to be mailed), in which another contact has the same address; it stays "
    "subscribed for that",
    CALL_BACK: "have an update in flight that is no longer right; it is reversed",
    DATA: "are members whose names, merge fields or tags are sent to Mailchimp",
    DATA_LEFT_OUT: "have data that is left out; each has the reason",
    CANNOT: "cannot be synced; each has a reason",
    UNDER_WAY: "have the update that they need in flight",
    TAKEN_BACK: "were taken back by an undo; they are left as they are until either side changes",
    IN_STEP: "are in step: both sides agree",
}
"""Each kind, with what the people of that kind are or do, to follow "they"."""

QUIET = frozenset({IN_STEP, UNDER_WAY, TAKEN_BACK})
"""The kinds that need nothing of the next sync."""

_DECIDED = {
    Decision.JOIN_GROUP: JOIN_GROUP,
    Decision.LEAVE_GROUP: LEAVE_GROUP,
    Decision.SUBSCRIBE: SUBSCRIBE,
    Decision.UNSUBSCRIBE: UNSUBSCRIBE,
}


def kind_of(plan: Plan) -> str:
    """The kind of a plan."""
    if plan.is_address:
        return _kind_of_address(plan)
    if plan.sync_status == SyncStatus.FAIL:
        return CANNOT
    if plan.decision is Decision.JOIN_GROUP and plan.facts.contact_id is None:
        return NEW_CONTACT
    if plan.decision in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP):
        return _DECIDED[plan.decision]
    if plan.operation is None:
        return INTERESTS if plan.group_changes else UNDER_WAY if plan.sync_status == SyncStatus.LIVE else _at_rest(plan)
    if is_under_way(plan.facts.open, plan.operation):
        return UNDER_WAY
    if plan.decision in _DECIDED:
        return _DECIDED[plan.decision]
    return kind_besides(plan.operation)


def kind_besides(operation: MemberOperation) -> str:
    """The kind of an update that is no decision about the subscription."""
    return CALL_BACK if operation.status else INTERESTS


def _at_rest(plan: Plan) -> str:
    return TAKEN_BACK if plan.facts.held else IN_STEP


def _kind_of_address(plan: Plan) -> str:
    if plan.successor is not None:
        return HAND_OVER
    if plan.unlink or plan.operation is None:
        return LET_GO
    return CHANGE_ADDRESS if plan.operation.kind == OperationKind.EMAIL else ARCHIVE_ADDRESS


def summarize(counts: Mapping[str, int], kinds: Mapping[str, str] = KINDS) -> list[dict[str, Any]]:
    """The numbers of people by kind, in the order of *kinds*, each with its sentence: ``3 people: they …``."""
    return [
        {"kind": kind, "count": counts[kind], "sentence": f"{many(counts[kind], 'person', 'people')}: they {does}."}
        for kind, does in kinds.items()
        if counts.get(kind)
    ]
