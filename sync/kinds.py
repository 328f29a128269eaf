"""What a plan comes to, in a word: the kinds that `plan`, `explain` and the brake count people by. Pure.

A kind says which end changes and how; the plan's own reason says why. ``in_step`` and ``under_way`` need nothing of the
next sync. A person whose address changes may be of two kinds: that of the address, and that of the rest.
"""

from collections.abc import Mapping

from sync.apply import FAIL
from sync.reconcile import Decision, Plan
from sync.updates import is_under_way

JOIN_GROUP, NEW_CONTACT, LEAVE_GROUP = "join_group", "new_contact", "leave_group"
SUBSCRIBE, UNSUBSCRIBE, INTERESTS = "subscribe", "unsubscribe", "interests"
CHANGE_ADDRESS, ARCHIVE_ADDRESS, LET_GO = "change_address", "archive_address", "let_go"
CALL_BACK, CANNOT, UNDER_WAY, IN_STEP = "call_back", "cannot", "under_way", "in_step"

KINDS: Mapping[str, str] = {
    SUBSCRIBE: "are in the group and are subscribed at Mailchimp",
    UNSUBSCRIBE: "left the group and are unsubscribed at Mailchimp",
    JOIN_GROUP: "are subscribed at Mailchimp and join the group",
    NEW_CONTACT: "are subscribed at Mailchimp and unknown to CiviCRM: a contact is made, which joins the group",
    LEAVE_GROUP: "are not subscribed at Mailchimp any more and leave the group",
    INTERESTS: "stay where they are; their interests are brought into step",
    CHANGE_ADDRESS: "have another address in CiviCRM, which Mailchimp is told",
    ARCHIVE_ADDRESS: "gave up an address whose successor is a member already; the old one leaves the audience",
    LET_GO: "gave up an address that is not in the audience; it is let go",
    CALL_BACK: "have something under way at Mailchimp that is not right any more and is taken back",
    CANNOT: "cannot be brought into step; each has a reason",
    UNDER_WAY: "have what they need under way at Mailchimp already",
    IN_STEP: "are in step: nothing is to be done",
}
"""Every kind, with what is said of the people who are of it; in the order in which they are told."""

QUIET = frozenset({IN_STEP, UNDER_WAY})
"""Kinds that need nothing of the next sync."""

_DECIDED = {
    Decision.JOIN_GROUP: JOIN_GROUP,
    Decision.LEAVE_GROUP: LEAVE_GROUP,
    Decision.SUBSCRIBE: SUBSCRIBE,
    Decision.UNSUBSCRIBE: UNSUBSCRIBE,
}


def kind_of(plan: Plan) -> str:
    """The kind of what `reconcile.plan` worked out."""
    if plan.sync_status == FAIL:
        return CANNOT
    if plan.decision is Decision.JOIN_GROUP and plan.facts.contact_id is None:
        return NEW_CONTACT
    if plan.decision in (Decision.JOIN_GROUP, Decision.LEAVE_GROUP):
        return _DECIDED[plan.decision]
    if plan.wanted is None:
        return INTERESTS if plan.group_changes else UNDER_WAY if plan.facts.open else IN_STEP
    if is_under_way(plan.facts.open, plan.wanted):
        return UNDER_WAY
    if plan.decision in _DECIDED:
        return _DECIDED[plan.decision]
    return INTERESTS if plan.wanted.body.get("status") is None else CALL_BACK


def kind_of_address(plan: Plan) -> str:
    """The kind of what `reconcile.plan_address` worked out."""
    if plan.unlink or plan.wanted is None:
        return LET_GO
    return CHANGE_ADDRESS if plan.wanted.kind == "email" else ARCHIVE_ADDRESS


def sentence(kind: str, count: int) -> str:
    """``3 people: they left the group and are unsubscribed at Mailchimp.``"""
    return f"{count} {'person' if count == 1 else 'people'}: they {KINDS[kind]}."
