"""What a sync decides about one person: one row a rule, each with the sentence that it pins."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from sync.audience import CIVICRM, MAILCHIMP, Privacy
from sync.model import RECEIVES_MAIL, MemberOperation, OpenUpdate
from sync.reconcile.decide import (
    LONG_AGO,
    Decision,
    InterestFacts,
    Person,
    Refusal,
    RowFacts,
    Standing,
    decide,
    decide_one_way,
)
from sync.reconcile.plan import Plan, plan, plan_address
from sync.reconcile.reasons import CLEANED_TEXT, NO_EMAIL_TEXT, ON_HOLD_TEXT
from tests.sync.reconcile.rows import (
    ADA,
    AFTER,
    BEFORE,
    HASH,
    NOON,
    a_row,
    added,
    an_audience,
    in_flight,
    member,
    removed,
)

DECISIONS = [
    ("Both agree that someone is in.", added(), member("subscribed"), Decision.IN_SYNC),
    ("Both agree that someone is out.", removed(), member("unsubscribed"), Decision.IN_SYNC),
    ("Pending counts as in: it is not asked again.", added(AFTER), member("pending"), Decision.IN_SYNC),
    ("Known to neither side.", None, None, Decision.IN_SYNC),
    ("Unsubscribed there and never in the group: nothing.", None, member("unsubscribed"), Decision.IN_SYNC),
    ("New to CiviCRM: joins the group.", None, member("subscribed"), Decision.JOIN_GROUP),
    ("Pending and new to CiviCRM: joins the group.", None, member("pending"), Decision.JOIN_GROUP),
    ("New to Mailchimp: is subscribed.", added(), None, Decision.SUBSCRIBE),
    ("Left the group and never was a member: nothing.", removed(), None, Decision.IN_SYNC),
    ("Subscribed after leaving the group: joins.", removed(), member("subscribed", AFTER), Decision.JOIN_GROUP),
    ("Left the group after subscribing.", removed(), member("subscribed", BEFORE), Decision.UNSUBSCRIBE),
    ("Unsubscribed after joining: leaves the group.", added(), member("unsubscribed", AFTER), Decision.LEAVE_GROUP),
    ("Cleaned after joining: leaves the group.", added(), member("cleaned", AFTER), Decision.LEAVE_GROUP),
    ("Archived after joining: leaves the group.", added(), member("archived", AFTER), Decision.LEAVE_GROUP),
    ("Joined after unsubscribing.", added(), member("unsubscribed", BEFORE), Decision.SUBSCRIBE),
    ("Joined after being archived.", added(), member("archived", BEFORE), Decision.SUBSCRIBE),
    ("Joined as a transactional contact.", added(), member("transactional", BEFORE), Decision.SUBSCRIBE),
    (
        "A request to join waits (Pending): no leave.",
        Standing("Pending", AFTER),
        member("subscribed"),
        Decision.IN_SYNC,
    ),
    ("A request waits, not in the audience.", Standing("Pending", AFTER), member("unsubscribed"), Decision.IN_SYNC),
    ("Subscribed after the request: joins.", Standing("Pending", BEFORE), member("subscribed"), Decision.JOIN_GROUP),
    ("Changed in the same second: CiviCRM wins.", added(), member("unsubscribed"), Decision.SUBSCRIBE),
    ("Left in the same second: CiviCRM wins.", removed(), member("subscribed"), Decision.UNSUBSCRIBE),
    (
        "An echo in the same second: Mailchimp wins.",
        added(echo=True),
        member("unsubscribed"),
        Decision.LEAVE_GROUP,
    ),
    ("Mailchimp after the echo of it.", removed(echo=True), member("subscribed", AFTER), Decision.JOIN_GROUP),
    (
        "Our own write, older than the word the group echoes, does not bring anyone back.",
        removed(echo=True),
        member("subscribed", BEFORE),
        Decision.UNSUBSCRIBE,
    ),
]


@pytest.mark.parametrize(
    ("group", "at_mailchimp", "expected"), [d[1:] for d in DECISIONS], ids=[d[0] for d in DECISIONS]
)
def test_decide(group: Standing | None, at_mailchimp: Standing | None, expected: Decision) -> None:
    assert decide(group, at_mailchimp) is expected


TRUST = [
    (
        "Mailchimp is trusted though CiviCRM spoke last.",
        added(AFTER),
        member("unsubscribed"),
        MAILCHIMP,
        Decision.LEAVE_GROUP,
    ),
    (
        "CiviCRM is trusted though Mailchimp spoke last.",
        added(),
        member("unsubscribed", AFTER),
        CIVICRM,
        Decision.SUBSCRIBE,
    ),
    ("Trust does not touch those who agree.", added(), member("subscribed"), MAILCHIMP, Decision.IN_SYNC),
    ("Nobody is trusted about people Mailchimp never heard of.", added(), None, MAILCHIMP, Decision.SUBSCRIBE),
    ("Nor about people who never were in the group.", None, member("subscribed"), CIVICRM, Decision.JOIN_GROUP),
]


@pytest.mark.parametrize(
    ("group", "at_mailchimp", "trust", "expected"), [t[1:] for t in TRUST], ids=[t[0] for t in TRUST]
)
def test_trust(group: Standing | None, at_mailchimp: Standing | None, trust: str, expected: Decision) -> None:
    assert decide(group, at_mailchimp, trust) is expected


def wanted_body(found: Plan) -> dict[str, Any]:
    assert found.operation is not None
    return found.operation.body


def test_a_newcomer_is_sent_with_names_and_the_interests_that_civicrm_has() -> None:
    interests = (InterestFacts("i1", 13, added()), InterestFacts("i2", 14, removed()), InterestFacts("i3", 15))
    found = plan(a_row(added(), None, interests=interests), an_audience(interests={"i1": 13, "i2": 14, "i3": 15}))
    assert (
        found.sync_status,
        found.operation and found.operation.method,
        found.operation and found.operation.path_tail,
    ) == (
        "live",
        "PUT",
        f"members/{HASH}",
    )
    assert wanted_body(found) == {
        "email_address": ADA,
        "status_if_new": "subscribed",
        "status": "subscribed",
        "merge_fields": {"FNAME": "Ada", "LNAME": "Byron"},
        "interests": {"i1": True},
    }


def test_a_newcomer_without_a_name_empties_none_of_somebody_who_signs_up_meanwhile() -> None:
    body = {"email_address": ADA, "status_if_new": "subscribed", "status": "subscribed"}
    nameless = Person("", " ", emails=1, best_email=ADA)
    assert wanted_body(plan(a_row(added(), None, person=nameless), an_audience())) == body
    half = replace(nameless, last_name="Byron")
    assert wanted_body(plan(a_row(added(), None, person=half), an_audience())) == {
        **body,
        "merge_fields": {"LNAME": "Byron"},
    }


def test_a_newcomer_is_sent_without_names_where_the_connection_sends_none() -> None:
    found = plan(a_row(added(), None), an_audience(sends_names=False))
    assert wanted_body(found) == {"email_address": ADA, "status_if_new": "subscribed", "status": "subscribed"}


def test_a_member_is_written_to_by_the_id_it_was_listed_with_and_keeps_its_names() -> None:
    found = plan(a_row(added(), member("unsubscribed", BEFORE), member_id="f" * 32), an_audience())
    assert found.operation == MemberOperation(
        "member",
        "PUT",
        f"members/{'f' * 32}",
        {"email_address": ADA, "status_if_new": "subscribed", "status": "subscribed"},
        NOON,
    )


def test_someone_who_left_the_group_is_unsubscribed_for_the_word_that_said_so() -> None:
    found = plan(a_row(removed(), member("subscribed", BEFORE)), an_audience())
    assert wanted_body(found)["status"] == "unsubscribed"
    assert found.operation is not None
    assert found.operation.cause == NOON


def test_joining_and_leaving_the_group_need_no_update() -> None:
    joins = plan(a_row(None, member("subscribed")), an_audience())
    leaves = plan(a_row(added(), member("unsubscribed", AFTER)), an_audience())
    assert [(c.group_id, c.status, c.since) for c in (*joins.group_changes, *leaves.group_changes)] == [
        (12, "Added", NOON),
        (12, "Removed", AFTER),
    ]
    assert (joins.operation, leaves.operation, joins.sync_status, leaves.sync_status) == (None, None, "ok", "ok")


OUT = member("unsubscribed", BEFORE)
OBSTACLES: list[tuple[str, RowFacts, str]] = [
    ("Cleaned is never resubscribed.", a_row(added(), member("cleaned", BEFORE)), CLEANED_TEXT),
    ("No address at all.", a_row(added(), None, person=Person("Ada")), NO_EMAIL_TEXT),
    (
        "An address without @ has its own reason.",
        a_row(added(), None, person=Person("Ada", emails=1, malformed="ada.example.org")),
        "The only address of this contact is no email address (ada.example.org has no @), so they cannot be "
        "subscribed.",
    ),
    ("All addresses on hold.", a_row(added(), None, person=Person("Ada", emails=1)), ON_HOLD_TEXT),
    (
        "The member's address on hold.",
        a_row(added(), OUT, person=Person("Ada", emails=1, address_on_hold=True)),
        ON_HOLD_TEXT,
    ),
    (
        "The address was given up.",
        a_row(added(), OUT, person=Person("Ada", owns_address=False)),
        f"Joined the group on 9 January 2026, but no longer has the address {ADA}: not subscribed again at it.",
    ),
    (
        "Not to be mailed, and new to Mailchimp.",
        a_row(added(), None, person=Person("Ada", emails=1, best_email=ADA, objection="do not email")),
        "Joined the group on 9 January 2026, but is not to be mailed (do not email): not subscribed.",
    ),
    (
        "Not to be mailed, and unsubscribed there.",
        a_row(added(), OUT, person=Person("Ada", emails=1, best_email=ADA, objection="opted out of bulk mail")),
        "Joined the group on 9 January 2026, but is not to be mailed (opted out of bulk mail): not subscribed.",
    ),
    (
        "Somebody else in the group stands for the address.",
        a_row(added(), None, person=Person("Ada", emails=1, best_email=ADA, shared_with=2)),
        f"The address {ADA} is also that of contact 2, which represents it in this audience.",
    ),
]


@pytest.mark.parametrize(("facts", "reason"), [o[1:] for o in OBSTACLES], ids=[o[0] for o in OBSTACLES])
def test_who_is_not_subscribed_and_why(facts: RowFacts, reason: str) -> None:
    found = plan(facts, an_audience())
    assert (found.sync_status, found.reason, found.operation, found.group_changes) == ("fail", reason, None, ())


def test_without_respect_for_privacy_everybody_in_the_group_is_subscribed() -> None:
    person = Person("Ada", emails=1, best_email=ADA, objection="do not email")
    assert plan(a_row(added(), None, person=person), an_audience(privacy=Privacy.IGNORE)).sync_status == "live"


def test_privacy_takes_nobody_out_who_is_subscribed_already() -> None:
    person = Person("Ada", emails=1, best_email=ADA, objection="do not email")
    assert plan(a_row(None, member("subscribed"), person=person), an_audience()).decision is Decision.JOIN_GROUP


OBJECTING = Person("Ada", emails=1, best_email=ADA, objection="opted out of bulk mail")


@pytest.mark.parametrize("group", [None, added(), removed(BEFORE), Standing("Pending", BEFORE)])
@pytest.mark.parametrize("status", sorted(RECEIVES_MAIL))
def test_a_member_whose_contact_objects_is_unsubscribed_where_the_settings_say_so(
    group: Standing | None, status: str
) -> None:
    facts = a_row(group, member(status, AFTER), person=OBJECTING)
    found = plan(facts, an_audience(privacy=Privacy.UNSUBSCRIBE))
    assert found.decision is Decision.UNSUBSCRIBE
    assert found.operation is not None
    assert found.operation.body["status"] == "unsubscribed"
    assert found.group_changes == ()
    assert "is not to be mailed (opted out of bulk mail): unsubscribed at Mailchimp" in found.reason


@pytest.mark.parametrize("group", [added(), added(echo=True)], ids=["added by a person", "added by the sync"])
def test_an_unsubscription_for_an_objection_is_no_change_of_mind(group: Standing) -> None:
    audience = an_audience(privacy=Privacy.UNSUBSCRIBE)
    sent = plan(a_row(group, member("subscribed"), person=OBJECTING), audience).operation
    assert sent is not None
    assert sent.cause is not None
    done = a_row(group, member("unsubscribed", sent.cause), person=OBJECTING)
    assert plan(done, audience).sync_status == "fail"
    withdrawn = replace(OBJECTING, objection=None)
    assert plan(replace(done, person=withdrawn), audience).decision is Decision.SUBSCRIBE


@pytest.mark.parametrize("group", [None, added()])
def test_a_member_whose_contact_objects_stays_subscribed_by_default_and_the_plan_says_so(
    group: Standing | None,
) -> None:
    found = plan(a_row(group, member("subscribed"), person=OBJECTING), an_audience())
    assert (found.operation, found.sync_status) == (None, "ok")
    assert found.reason.endswith(
        " The contact is not to be mailed (opted out of bulk mail), but stays subscribed ([sync] on_opt_out = keep)."
    )


def test_an_objecting_contact_hands_its_address_to_another_in_the_group() -> None:
    person = replace(OBJECTING, successor=9)
    facts = a_row(added(), member("subscribed"), person=person)
    found = plan_address(facts, an_audience(privacy=Privacy.UNSUBSCRIBE))
    assert found is not None
    assert (found.successor, found.operation) == (9, None)
    assert "not to be mailed (opted out of bulk mail), but contact 9" in found.reason
    assert plan_address(facts, an_audience()) is None


@pytest.mark.parametrize("since", [BEFORE, AFTER], ids=["CiviCRM spoke last", "Mailchimp spoke last"])
def test_an_unsubscribed_address_changes_nothing_while_another_one_of_the_contact_is_subscribed(
    since: datetime,
) -> None:
    person = Person("Ada", emails=2, best_email=ADA, others=("byron@example.org",))
    found = plan(a_row(added(), member("unsubscribed", since), person=person), an_audience())
    assert (found.sync_status, found.group_changes, found.operation) == ("fail", (), None)
    assert found.reason.startswith("This CiviCRM contact has 2 emails. This one is unsubscribed at Mailchimp, but")


# ── Interests ───────────────────────────────────────────────────────────────────────────────────────────────────────

INTERESTS: list[tuple[str, InterestFacts, list[tuple[int, str]], dict[str, bool]]] = [
    ("Both have it.", InterestFacts("i1", 13, added(), True, NOON), [], {}),
    ("Neither has it.", InterestFacts("i1", 13, None, False, NOON), [], {}),
    ("Chosen at Mailchimp, never in the group.", InterestFacts("i1", 13, None, True, NOON), [(13, "Added")], {}),
    ("Chosen at Mailchimp last.", InterestFacts("i1", 13, removed(), True, AFTER), [(13, "Added")], {}),
    ("Dropped at Mailchimp last.", InterestFacts("i1", 13, added(), False, AFTER), [(13, "Removed")], {}),
    ("Chosen in CiviCRM last.", InterestFacts("i1", 13, added(), False, BEFORE), [], {"i1": True}),
    ("Dropped in CiviCRM last.", InterestFacts("i1", 13, removed(), True, BEFORE), [], {"i1": False}),
    ("Changed in the same second: CiviCRM wins.", InterestFacts("i1", 13, added(), False, NOON), [], {"i1": True}),
    (
        "Our own echo loses the tie.",
        InterestFacts("i1", 13, added(echo=True), False, NOON),
        [(13, "Removed")],
        {},
    ),
    ("An interest that Mailchimp does not know any more.", InterestFacts("i1", 13, added(), None), [], {}),
]


@pytest.mark.parametrize(("interest", "groups", "sent"), [i[1:] for i in INTERESTS], ids=[i[0] for i in INTERESTS])
def test_interests_of_someone_on_both_sides(
    interest: InterestFacts, groups: list[tuple[int, str]], sent: dict[str, bool]
) -> None:
    facts = a_row(added(), member("subscribed"), interests=(interest,))
    found = plan(facts, an_audience(interests={"i1": 13}))
    assert [(c.group_id, c.status) for c in found.group_changes] == groups
    assert (wanted_body(found).get("interests") if found.operation else {}) == sent
    assert found.operation is None or "status" not in found.operation.body


def test_trust_settles_an_interest_by_its_id() -> None:
    facts = a_row(added(), member("subscribed"), interests=(InterestFacts("i1", 13, added(), False, AFTER),))
    found = plan(facts, an_audience(interests={"i1": 13}, trust={"i1": CIVICRM}))
    assert wanted_body(found)["interests"] == {"i1": True}


@pytest.mark.parametrize(
    "facts",
    [a_row(added(), member("unsubscribed", AFTER)), a_row(removed(), member("subscribed", BEFORE))],
    ids=["unsubscribed at Mailchimp", "removed in CiviCRM"],
)
def test_who_leaves_keeps_their_interest_groups(facts: RowFacts) -> None:
    leaver = replace(facts, interests=(InterestFacts("i1", 13, added(), False, AFTER),))
    found = plan(leaver, an_audience(interests={"i1": 13}))
    assert 13 not in [c.group_id for c in found.group_changes]
    assert found.operation is None or "interests" not in found.operation.body


# ── What is under way ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_at_rest_stays_live_while_something_is_in_flight() -> None:
    owed = (in_flight({"email_address": ADA, "status": "subscribed"}),)
    assert plan(a_row(added(), member("subscribed"), open=owed), an_audience()).sync_status == "live"


def test_what_waits_and_is_not_wanted_any_more_is_dropped() -> None:
    waiting = (in_flight({"email_address": ADA, "status": "subscribed"}, batch_id=None),)
    found = plan(a_row(removed(), None, open=waiting), an_audience())
    assert (found.drops, found.operation, found.sync_status) == (("member",), None, "ok")


COUNTERMANDED = [
    ("Left in CiviCRM while being subscribed.", removed(AFTER), member("unsubscribed", BEFORE), "unsubscribed"),
    ("Unsubscribed themself while being subscribed.", added(), member("unsubscribed", AFTER), "unsubscribed"),
]


@pytest.mark.parametrize(
    ("group", "of_member", "status"), [c[1:] for c in COUNTERMANDED], ids=[c[0] for c in COUNTERMANDED]
)
def test_an_update_in_flight_that_is_wrong_by_now_is_followed_by_the_right_one(
    group: Standing, of_member: Standing, status: str
) -> None:
    owed = (in_flight({"email_address": ADA, "status": "subscribed"}),)
    assert wanted_body(plan(a_row(group, of_member, open=owed), an_audience()))["status"] == status


@pytest.mark.parametrize("group", [added(), removed(BEFORE), removed(AFTER)])
@pytest.mark.parametrize("status", ["archived", "cleaned"])
@pytest.mark.parametrize("asked", ["subscribed", "pending"])
def test_an_archived_or_cleaned_member_is_not_made_an_unsubscribed_one_by_what_is_in_flight(
    group: Standing, status: str, asked: str
) -> None:
    owed = (in_flight({"email_address": ADA, "status": asked}),)
    found = plan(a_row(group, member(status, AFTER), open=owed), an_audience())
    if status == "cleaned":
        assert found.operation is None
    elif asked == "pending":
        assert wanted_body(found)["status"] == "unsubscribed"  # Mailchimp archives nobody who has not confirmed
    else:
        assert found.operation is not None
        assert (found.operation.method, found.operation.path_tail) == ("DELETE", f"members/{HASH}")
    assert "By the setting" not in found.reason


def test_a_newcomer_who_left_while_being_subscribed_is_unsubscribed_at_the_address_that_went_to() -> None:
    names = {"FNAME": "Ada", "LNAME": "Byron"}
    owed = (in_flight({"email_address": ADA, "status": "subscribed", "merge_fields": names}),)
    found = plan(a_row(removed(AFTER), None, person=Person(), open=owed), an_audience())
    assert found.operation is not None
    assert found.operation.path_tail == f"members/{HASH}"
    unsubscribed = {"status": "unsubscribed", "status_if_new": "unsubscribed"}
    assert found.operation.body == {"email_address": ADA, "merge_fields": names, **unsubscribed}


def test_nothing_is_sent_to_a_member_whose_address_is_changing() -> None:
    owed = (in_flight({"email_address": "byron@example.org"}, kind="email"),)
    found = plan(a_row(removed(), member("subscribed", BEFORE), open=owed), an_audience())
    assert (found.operation, found.sync_status) == (None, "live")


def test_leaving_is_not_put_off_by_a_change_of_address_that_only_waits() -> None:
    owed = (in_flight({"email_address": "byron@example.org"}, kind="email", batch_id=None),)
    found = plan(a_row(removed(), member("subscribed", BEFORE), open=owed), an_audience())
    assert (found.drops, wanted_body(found)["status"]) == (("email",), "unsubscribed")


def test_what_mailchimp_refused_is_not_asked_again_for_the_same_word() -> None:
    refusal = Refusal({"email_address": ADA, "status": "pending"}, NOON, "Member In Compliance State: no")
    same = plan(a_row(added(), OUT, refusal=refusal), an_audience())
    again = plan(a_row(added(AFTER), OUT, refusal=refusal), an_audience())
    assert (same.sync_status, same.reason, same.operation) == ("fail", "Member In Compliance State: no", None)
    assert wanted_body(again)["status"] == "subscribed"


# ── Addresses ───────────────────────────────────────────────────────────────────────────────────────────────────────

MOVED = Person("Ada", emails=1, best_email="byron@example.org", owns_address=False)


def test_a_member_whose_address_the_contact_gave_up_is_moved_to_the_best_one() -> None:
    found = plan_address(a_row(added(), member("subscribed"), person=MOVED), an_audience())
    assert found is not None
    assert found.operation == MemberOperation(
        "email", "PATCH", f"members/{HASH}", {"email_address": "byron@example.org"}, NOON
    )
    assert found.sync_status == "todo"


TAKEN = replace(MOVED, best_is_taken=True)


def test_where_the_best_address_is_a_member_already_the_old_one_is_archived_and_nobody_has_changed_their_mind() -> None:
    found = plan_address(a_row(added(), member("subscribed"), person=TAKEN), an_audience())
    assert found is not None
    assert found.operation == MemberOperation("archive", "DELETE", f"members/{HASH}", {}, LONG_AGO)


def test_nobody_pending_is_archived_because_mailchimp_refuses_it() -> None:
    found = plan_address(a_row(added(), member("pending"), person=TAKEN), an_audience())
    assert found is not None
    assert found.operation is not None
    assert (wanted_body(found)["status"], found.operation.cause) == ("unsubscribed", LONG_AGO)


@pytest.mark.parametrize(("person", "drops"), [(TAKEN, ()), (replace(TAKEN, owns_address=True), ("member",))])
def test_taking_them_out_waits_while_the_address_is_given_up(person: Person, drops: tuple[str, ...]) -> None:
    moved = plan_address(a_row(added(), member("pending"), person=TAKEN), an_audience())
    assert moved is not None
    assert moved.operation is not None
    waiting = (OpenUpdate(1, 1, None, moved.operation),)
    found = plan(a_row(added(), member("pending"), person=person, open=waiting), an_audience())
    assert (found.operation, found.drops) == (None, drops)


NOT_MOVED: list[tuple[str, RowFacts]] = [
    ("The contact still owns the address.", a_row(added(), member("subscribed"))),
    ("The contact has no other address.", a_row(added(), member("subscribed"), person=replace(MOVED, best_email=None))),
    ("They left the group: that comes first.", a_row(removed(AFTER), member("subscribed"), person=MOVED)),
    (
        "It is being moved already.",
        a_row(added(), member("subscribed"), person=MOVED, open=(in_flight({"email_address": "b"}, "email"),)),
    ),
    (
        "They unsubscribed last: their word is honoured before their address is let go.",
        a_row(added(), member("unsubscribed", AFTER), person=MOVED),
    ),
]


@pytest.mark.parametrize("facts", [n[1] for n in NOT_MOVED], ids=[n[0] for n in NOT_MOVED])
def test_whose_address_stays_as_it_is(facts: RowFacts) -> None:
    assert plan_address(facts, an_audience()) is None


@pytest.mark.parametrize("status", ["unsubscribed", "cleaned", "archived"])
def test_an_address_that_is_out_and_given_up_is_let_go_when_civicrm_wants_the_person_in(status: str) -> None:
    found = plan_address(a_row(added(), member(status, BEFORE), person=MOVED), an_audience())
    assert found is not None
    assert (found.unlink, found.operation) == (True, None)


# ---- one way ----

LEFT = NOON - timedelta(hours=1)


@pytest.mark.parametrize(
    ("group", "member", "left_at", "expected"),
    [
        pytest.param("Added", None, None, Decision.SUBSCRIBE, id="A newcomer is subscribed."),
        pytest.param("Added", ("subscribed", NOON), None, Decision.IN_SYNC, id="Who is in on both sides stays."),
        pytest.param(
            "Added", ("pending", NOON), None, Decision.IN_SYNC, id="Who was asked to confirm is not asked again."
        ),
        pytest.param("Added", ("unsubscribed", NOON), None, Decision.IN_SYNC, id="A choice at Mailchimp stays."),
        pytest.param("Added", ("unsubscribed", LONG_AGO), None, Decision.IN_SYNC, id="An undated choice stays."),
        pytest.param("Added", ("cleaned", LEFT), LEFT, Decision.IN_SYNC, id="Who bounced is not subscribed again."),
        pytest.param("Added", ("unsubscribed", LEFT), LEFT, Decision.SUBSCRIBE, id="Whom this sync let go comes back."),
        pytest.param("Added", ("archived", LEFT), LEFT, Decision.SUBSCRIBE, id="Whom this sync archived comes back."),
        pytest.param("Added", ("unsubscribed", NOON), LEFT, Decision.IN_SYNC, id="A choice after leaving stays."),
        pytest.param("Removed", ("subscribed", LEFT), NOON, Decision.UNSUBSCRIBE, id="Who leaves is unsubscribed."),
        pytest.param("Removed", ("subscribed", NOON), NOON, Decision.UNSUBSCRIBE, id="In the same second, too."),
        pytest.param(
            "Removed", ("subscribed", NOON + timedelta(1)), NOON, Decision.IN_SYNC, id="Who signs up later stays."
        ),
        pytest.param(
            "Removed", ("unsubscribed", NOON), NOON, Decision.IN_SYNC, id="Who is out on both sides stays out."
        ),
        pytest.param(
            None, ("subscribed", NOON), None, Decision.IN_SYNC, id="Who was never in the group is left alone."
        ),
    ],
)
def test_one_way_from_a_smart_group(
    group: str | None, member: tuple[str, datetime] | None, left_at: datetime | None, expected: Decision
) -> None:
    standing = None if group is None else Standing(group, NOON)
    assert decide_one_way(standing, None if member is None else Standing(*member), left_at) is expected
