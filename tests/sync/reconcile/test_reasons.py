"""The sentence that says why a sync does something: the facts, their dates in the site's zone, and what follows."""

from datetime import UTC, datetime
from typing import Any

import pytest

from civiapi.store.clock import site_clock
from sync.audience import CIVICRM, MAILCHIMP, SUBSCRIPTION, Audience
from sync.model import MemberOperation, OpenUpdate
from sync.reconcile.decide import LONG_AGO, InterestFacts, Person, RowFacts, Standing
from sync.reconcile.plan import plan, plan_address

APRIL, MAY = datetime(2026, 4, 12, 9, tzinfo=UTC), datetime(2026, 5, 3, 9, tzinfo=UTC)
LAST_YEAR = datetime(2025, 12, 31, 23, 30, tzinfo=UTC)
ADA, OLD = "ada@example.org", "old@example.org"


def reason(group: Any, member: Any, *, zone: str = "UTC", trust: str | None = None, **more: Any) -> str:
    facts = RowFacts(
        7,
        contact_id=more.pop("contact_id", 3),
        member_id="a" * 32 if member else None,
        member_email=ADA if member else None,
        group=Standing(*group) if group else None,
        member=Standing(*member) if member else None,
        person=more.pop("person", Person("Ada", "Byron", emails=1, best_email=ADA)),
        **more,
    )
    interests = {one.interest_id: one.group_id for one in facts.interests}
    audience = Audience("abc", 12, site_clock(zone), interests=interests, trust={SUBSCRIPTION: trust} if trust else {})
    return (plan_address(facts, audience) or plan(facts, audience)).reason


@pytest.mark.parametrize(
    ("group", "member", "sentence"),
    [
        (("Added", APRIL), ("unsubscribed", MAY),
         "Unsubscribed at Mailchimp on 3 May 2026, after joining the group on 12 April: removed from the group."),
        (("Added", LAST_YEAR), ("cleaned", MAY),
         "Cleaned at Mailchimp on 3 May 2026, after joining the group on 31 December 2025: removed from the group."),
        (("Added", APRIL, True), ("archived", MAY),
         "Archived at Mailchimp on 3 May 2026, after joining the group (copied from Mailchimp) on 12 April: "
         "removed from the group."),
        (("Added", MAY, True), ("unsubscribed", MAY),
         "Unsubscribed at Mailchimp on 3 May 2026 at 09:00:00, in the same second as joining the group (copied from "
         "Mailchimp): removed from the group."),
        (("Removed", APRIL), ("subscribed", MAY),
         "Subscribed at Mailchimp on 3 May 2026, after leaving the group on 12 April: added to the group."),
        (None, ("pending", MAY),
         "Asked to confirm at Mailchimp on 3 May 2026 and never in the group: added to the group."),
        (("Added", APRIL), None, "Joined the group on 12 April 2026 and new to Mailchimp: subscribed at Mailchimp."),
        (("Added", MAY), ("unsubscribed", APRIL),
         "Joined the group on 3 May 2026, after unsubscribing at Mailchimp on 12 April: subscribed at Mailchimp."),
        (("Added", MAY), ("archived", LONG_AGO, True),
         "Joined the group on 3 May 2026, after being archived at Mailchimp (by the sync): subscribed at Mailchimp."),
        (("Added", MAY), ("unsubscribed", MAY),
         "Joined the group on 3 May 2026 at 09:00:00, in the same second as unsubscribing at Mailchimp (in a tie "
         "CiviCRM takes precedence): subscribed at Mailchimp."),
        (("Removed", MAY), ("subscribed", MAY.replace(hour=8)),
         "Left the group on 3 May 2026 at 09:00:00, after subscribing at Mailchimp on 3 May at 08:00:00: "
         "unsubscribed at Mailchimp."),
        (("Deleted", MAY), ("subscribed", LONG_AGO),
         "Was deleted from the group on 3 May 2026, after subscribing at Mailchimp: unsubscribed at Mailchimp."),
        (("Removed", LONG_AGO), ("subscribed", LONG_AGO),
         "Left the group and subscribed at Mailchimp on unknown dates: unsubscribed at Mailchimp."),
        (("Added", APRIL), ("subscribed", MAY),
         "Both sides agree: joined the group on 12 April 2026, subscribed at Mailchimp on 3 May 2026."),
        (("Removed", APRIL), None,
         "Both sides agree: left the group on 12 April 2026, not a member of the audience."),
        (None, ("unsubscribed", MAY),
         "Both sides agree: unsubscribed at Mailchimp on 3 May 2026, never in the group."),
        (None, None, "Not in the group and not in the audience."),
    ],
)  # fmt: skip
def test_a_reason_names_the_latest_change_and_the_one_before(group: Any, member: Any, sentence: str) -> None:
    assert reason(group, member) == sentence


def test_dates_are_in_the_sites_zone() -> None:
    told = reason(None, ("subscribed", LAST_YEAR), zone="Europe/Berlin")
    assert told == "Subscribed at Mailchimp on 1 January 2026 and never in the group: added to the group."


@pytest.mark.parametrize(
    ("trust", "sentence"),
    [
        (MAILCHIMP, "Unsubscribed at Mailchimp on 12 April 2026, joined the group on 3 May 2026; Mailchimp takes "
                    "precedence in this sync: removed from the group."),
        (CIVICRM, "Joined the group on 3 May 2026, unsubscribed at Mailchimp on 12 April 2026; CiviCRM takes "
                  "precedence in this sync: subscribed at Mailchimp."),
    ],
)  # fmt: skip
def test_a_side_that_takes_precedence_is_named(trust: str, sentence: str) -> None:
    assert reason(("Added", MAY), ("unsubscribed", APRIL), trust=trust) == sentence


def test_a_member_without_a_contact_gets_one_first() -> None:
    assert reason(None, ("subscribed", MAY), contact_id=None) == (
        "Subscribed at Mailchimp on 3 May 2026 and unknown to CiviCRM: a contact is created first."
    )


def test_interests_name_the_side_that_changed_them() -> None:
    both = ("Added", APRIL), ("subscribed", APRIL)
    ours = (InterestFacts("i1", 13, Standing("Added", MAY), held=False, since=APRIL),)
    theirs = (InterestFacts("i1", 13, Standing("Added", APRIL), held=False, since=MAY),)
    start = "In the group and in the audience; interests changed"
    assert reason(*both, interests=ours) == f"{start} in CiviCRM on 3 May 2026: sent to Mailchimp."
    assert reason(*both, interests=theirs) == f"{start} at Mailchimp on 3 May 2026: copied to CiviCRM."


def test_an_update_in_flight_that_is_no_longer_right_is_reversed() -> None:
    sent = OpenUpdate(1, 7, 5, MemberOperation("member", "PUT", "members/x", {"status": "unsubscribed"}))
    assert reason(("Added", MAY), ("subscribed", APRIL), open=(sent,)) == (
        "Joined the group on 3 May 2026, but an update in flight is to unsubscribe the member: "
        "subscribed again after it."
    )


@pytest.mark.parametrize(
    ("status", "taken", "sentence"),
    [
        ("subscribed", False,
         f"The contact's address in CiviCRM is now {OLD}, no longer {ADA}: changed at Mailchimp."),
        ("subscribed", True,
         f"The contact's address in CiviCRM is now {OLD}, which is a member of its own: {ADA} is archived."),
        ("pending", True,
         f"The contact's address in CiviCRM is now {OLD}, which is a member of its own: {ADA} is unsubscribed."),
        ("unsubscribed", False,
         f"The contact no longer has the address {ADA}, unsubscribed at Mailchimp on 12 April 2026: the member leaves "
         "the contact."),
    ],
)  # fmt: skip
def test_a_change_of_address_names_both_addresses(status: str, taken: bool, sentence: str) -> None:
    moved = Person(emails=1, best_email=OLD, owns_address=False, best_is_taken=taken)
    assert reason(("Added", MAY), (status, APRIL), person=moved) == sentence
