"""Which side of one contact in one audience changes, and the facts that decide it. Pure: no SQL, no HTTP, no clock.

The side with the latest change wins. Times are compared in whole seconds and a tie goes to CiviCRM, except that a
group change written by the sync carries the timestamp of the Mailchimp change it mirrors, and loses ties.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from sync.audience import CIVICRM, MAILCHIMP, SUBSCRIPTION, Audience
from sync.model import RECEIVES_MAIL, GroupStatus, MemberStatus, OpenUpdate

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""The date of a change whose date is unknown."""


class Decision(Enum):
    """Which side is to change."""

    IN_SYNC = "nothing: both sides agree"
    JOIN_GROUP = "add to the group"
    LEAVE_GROUP = "remove from the group"
    SUBSCRIBE = "subscribe at Mailchimp"
    UNSUBSCRIBE = "unsubscribe at Mailchimp"


@dataclass(frozen=True, slots=True)
class Standing:
    """The status on one side, and since when (aware UTC, whole seconds).

    *is_echo*: the sync wrote it. Of a group, *since* is then the time of the Mailchimp change that it mirrors; of a
    member, long ago: an unsubscribing because of an objection, or what an undo did.
    """

    status: str
    since: datetime
    is_echo: bool = False


@dataclass(frozen=True, slots=True)
class InterestFacts:
    """One mapped interest: the contact's status in its group, and the member's choice (None: unknown to Mailchimp)."""

    interest_id: str
    group_id: int
    group: Standing | None = None
    held: bool | None = None
    since: datetime = LONG_AGO


@dataclass(frozen=True, slots=True)
class Person:
    """What has to be known of a contact before it is subscribed.

    *best_email*: the address to write to, never one on hold. *best_is_taken*: another row is the member with it.
    *malformed*: an address without @, where no other could be used.
    *owns_address*: the contact has the member's address. *others*: its other addresses in the audience.
    *is_preferred*: of the contact's rows, none of them in the audience, this is the one to subscribe. *shared_with*:
    another contact in the group, which represents this address. *successor*: a contact in the group
    with the member's address, which represents it once this one has left. *objection*: why CiviMail would not mail the
    contact. *in_trash*: the contact went there after this run had looked. *replaces*: the contact in the trash in whose
    place this one was made.
    *sharers*: the other contacts with the member's address, and why this one represents it.
    """

    first_name: str = ""
    last_name: str = ""
    emails: int = 0
    best_email: str | None = None
    best_is_taken: bool = False
    owns_address: bool = True
    address_on_hold: bool = False
    malformed: str | None = None
    objection: str | None = None
    in_trash: bool = False
    others: tuple[str, ...] = ()
    is_preferred: bool = True
    shared_with: int | None = None
    successor: int | None = None
    replaces: int | None = None
    sharers: tuple[int, ...] = ()
    why_of_sharers: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An update that Mailchimp refused: its body, the time of the CiviCRM change behind it, and the answer.

    *retry*: when it is sent again (aware UTC), None for a lasting refusal. One that is due again is no refusal.
    """

    body: Mapping[str, object]
    cause: datetime | None
    text: str
    retry: datetime | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A field that was taken back: by which undo, when (aware UTC), and whether the contact objected to mail then."""

    run_id: int
    at: datetime
    objects: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """Columns of a cache row that a plan can change."""

    sync_status: str | None
    groups: str | None
    member_data: bytes | None
    civicrm_data: bytes | None


@dataclass(frozen=True, slots=True)
class RowFacts:
    """Everything that a plan for one cache row depends on.

    *history*: the latest history row of each linked group, group id → status and site time; *history_id*: the latest
    of all. *held*: the fields that an undo holds; *lapsed*: those whose hold ends, as a side changed. *stored*: the
    columns as they are now.
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
    left_at: datetime | None = None
    """When the contact last left a group that is a source (aware UTC)."""
    history: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    history_id: int = 0
    held: Mapping[str, "Held"] = field(default_factory=dict)
    lapsed: tuple[str, ...] = ()
    stored: Stored | None = None


def decide(group: Standing | None, member: Standing | None, trust: str | None = None) -> Decision:
    """Which side changes; None: unknown on that side. *trust*: the side that takes precedence, whatever the dates."""
    in_group = group is not None and group.status == GroupStatus.ADDED
    in_audience = member is not None and member.status in RECEIVES_MAIL
    if in_group == in_audience:
        return Decision.IN_SYNC
    if group is None or (member is not None and _mailchimp_wins(group, member, trust)):
        return Decision.JOIN_GROUP if in_audience else Decision.LEAVE_GROUP
    if is_waiting(group):
        return Decision.IN_SYNC
    return Decision.SUBSCRIBE if in_group else Decision.UNSUBSCRIBE


def decide_one_way(group: Standing | None, member: Standing | None, left_at: datetime | None) -> Decision:
    """What becomes of a contact of a source; what people chose at Mailchimp stays.

    A member who is not in the audience is subscribed again only if this sync unsubscribed it: because the contact left
    the group (at *left_at*, which dates that change), or objected to mail, or by an undo. Anything else was somebody's
    choice.
    """
    in_group = group is not None and group.status == GroupStatus.ADDED
    in_audience = member is not None and member.status in RECEIVES_MAIL
    if group is None or in_group == in_audience:
        return Decision.IN_SYNC
    if in_group:
        return Decision.SUBSCRIBE if member is None or was_let_go(member, left_at) else Decision.IN_SYNC
    return Decision.IN_SYNC if member is not None and member.since > group.since else Decision.UNSUBSCRIBE


def was_let_go(member: Standing, left_at: datetime | None) -> bool:
    """Whether a member is out of the audience by a change of ours: because its contact left a source at *left_at*, or
    by one that is no change of anybody's mind."""
    is_out = member.status in (MemberStatus.UNSUBSCRIBED, MemberStatus.ARCHIVED)
    return is_out and (member.is_echo or member.since == left_at)


def decision_for(facts: "RowFacts", audience: Audience) -> Decision:
    """Which side changes, by the statuses alone: both ways, or one way from a source."""
    if audience.one_way:
        return decide_one_way(facts.group, facts.member, facts.left_at)
    return decide(facts.group, facts.member, audience.trust.get(SUBSCRIPTION))


def is_waiting(group: Standing | None) -> bool:
    """Whether a request to join the group waits for an answer: neither in the group, nor a leave."""
    return group is not None and group.status == GroupStatus.PENDING


def _mailchimp_wins(group: Standing, member: Standing, trust: str | None) -> bool:
    return trust == MAILCHIMP if trust in (MAILCHIMP, CIVICRM) else mailchimp_changed_last(group, member)


def mailchimp_changed_last(group: Standing, member: Standing) -> bool:
    """Whether Mailchimp has the latest change; a tie goes to CiviCRM, unless the sync wrote the group change."""
    return member.since > group.since or (group.is_echo and member.since >= group.since)
