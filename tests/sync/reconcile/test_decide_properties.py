"""What holds of every decision and plan, whatever the row."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sync.audience import CIVICRM, MAILCHIMP
from sync.model import RECEIVES_MAIL
from sync.reconcile.decide import (
    Decision,
    InterestFacts,
    Person,
    RowFacts,
    Standing,
    decide,
)
from sync.reconcile.plan import Plan, plan
from tests.sync.reconcile.rows import (
    ADA,
    HASH,
    NOON,
    a_row,
    an_audience,
)

MOMENTS = st.integers(0, 4).map(lambda s: NOON + timedelta(seconds=s))
GROUPS = st.none() | st.builds(
    Standing, st.sampled_from(["Added", "Removed", "Pending", "Deleted"]), MOMENTS, st.booleans()
)
STATUSES = ["subscribed", "pending", "unsubscribed", "cleaned", "archived", "transactional"]
MEMBERS = st.none() | st.builds(Standing, st.sampled_from(STATUSES), MOMENTS)
TRUSTED = st.sampled_from([None, MAILCHIMP, CIVICRM])
PERSONS = st.builds(
    Person,
    first_name=st.just("Ada"),
    emails=st.integers(0, 2),
    best_email=st.none() | st.just(ADA),
    owns_address=st.booleans(),
    address_on_hold=st.booleans(),
    objection=st.none() | st.just("do not email"),
    others=st.sampled_from([(), ("byron@example.org",)]),
    is_preferred=st.booleans(),
    shared_with=st.none() | st.just(2),
)
CHOICES = st.builds(InterestFacts, st.just("i1"), st.just(13), GROUPS, st.none() | st.booleans(), MOMENTS)


@given(GROUPS, MEMBERS, TRUSTED)
def test_what_is_decided_brings_the_sides_together(
    group: Standing | None, of_member: Standing | None, trust: str | None
) -> None:
    found = decide(group, of_member, trust)
    assert decide(*after(found, group, of_member), trust) is Decision.IN_SYNC


@given(GROUPS, MEMBERS)
def test_the_sides_mirror_each_other_where_times_differ(group: Standing | None, of_member: Standing | None) -> None:
    """Swap who is in and who is out, and the decision is the opposite one on the same side."""
    if group is None or of_member is None or group.since == of_member.since:
        return
    if group.status == "Pending":  # a request that waits is neither in nor out
        return
    opposite = {
        Decision.IN_SYNC: Decision.IN_SYNC,
        Decision.JOIN_GROUP: Decision.LEAVE_GROUP,
        Decision.LEAVE_GROUP: Decision.JOIN_GROUP,
        Decision.SUBSCRIBE: Decision.UNSUBSCRIBE,
        Decision.UNSUBSCRIBE: Decision.SUBSCRIBE,
    }
    flipped_group = replace(group, status="Removed" if group.status == "Added" else "Added")
    flipped_member = replace(of_member, status="unsubscribed" if of_member.status in RECEIVES_MAIL else "subscribed")
    assert decide(flipped_group, flipped_member) is opposite[decide(group, of_member)]


@given(GROUPS, MEMBERS, PERSONS, st.lists(CHOICES, max_size=1), TRUSTED)
def test_a_plan_carried_out_leaves_nothing_to_plan(
    group: Standing | None,
    of_member: Standing | None,
    person: Person,
    interests: Iterable[InterestFacts],
    trust: str | None,
) -> None:
    audience = an_audience(interests={"i1": 13}, trust={"subscription": trust} if trust else {})
    facts = a_row(group, of_member, person=person, interests=tuple(interests))
    first = plan(facts, audience)
    second = plan(carried_out(facts, first), audience)
    assert (second.group_changes, second.operation) == ((), None)
    assert second.sync_status == ("fail" if first.sync_status == "fail" else "ok")


@given(GROUPS, MEMBERS, PERSONS)
def test_nobody_out_of_the_audience_is_subscribed_without_a_word_of_civicrm_at_least_as_late(
    group: Standing | None, of_member: Standing | None, person: Person
) -> None:
    found = plan(a_row(group, of_member, person=person), an_audience())
    if found.operation is not None and found.operation.body.get("status") == "subscribed" and of_member is not None:
        assert group is not None
        assert group.status == "Added"
        assert group.since >= of_member.since
        assert of_member.status != "cleaned"


def after(
    found: Decision, group: Standing | None, of_member: Standing | None
) -> tuple[Standing | None, Standing | None]:
    """Both sides once *found* is carried out, each change dated by the word that caused it."""
    match found:
        case Decision.JOIN_GROUP | Decision.LEAVE_GROUP:
            assert of_member is not None
            status = "Added" if found is Decision.JOIN_GROUP else "Removed"
            return Standing(status, of_member.since, is_echo=True), of_member
        case Decision.SUBSCRIBE | Decision.UNSUBSCRIBE:
            assert group is not None
            status = "subscribed" if found is Decision.SUBSCRIBE else "unsubscribed"
            return group, Standing(status, group.since)
        case _:
            return group, of_member


def carried_out(facts: RowFacts, found: Plan) -> RowFacts:
    """The row once its plan is carried out at both ends."""
    changes = {change.group_id: Standing(change.status, change.since, is_echo=True) for change in found.group_changes}
    body = found.operation.body if found.operation else {}
    cause = found.operation.cause if found.operation and found.operation.cause else NOON
    sent = body.get("interests") or {}
    of_member = facts.member
    if "status" in body:
        of_member = Standing(str(body["status"]), cause)
    interests = tuple(
        replace(
            one,
            group=changes.get(one.group_id, one.group),
            held=sent.get(one.interest_id, False if facts.member is None and "status" in body else one.held),
            since=cause if one.interest_id in sent or (facts.member is None and body) else one.since,
        )
        for one in facts.interests
    )
    known = {"member_id": HASH, "member_email": ADA} if of_member is not None else {}
    return replace(facts, group=changes.get(12, facts.group), member=of_member, interests=interests, **known)
