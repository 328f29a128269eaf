"""What the result of an operation means, case by case."""

from typing import Any

import pytest

from sync.mailchimp.wire import OperationResult
from sync.model import MemberOperation, OperationKind
from sync.outbox.verdicts import Verdict, classify, classify_fetched, is_as_wanted, refused_fields

JOIN = MemberOperation("member", "PUT", "members/abc", {"email_address": "a@example.org", "status": "subscribed"})
LEAVE = MemberOperation("member", "PUT", "members/abc", {"email_address": "a@example.org", "status": "unsubscribed"})
ASK = MemberOperation("member", "PUT", "members/abc", {"email_address": "a@example.org", "status": "pending"})
MOVE = MemberOperation("email", "PATCH", "members/abc", {"email_address": "new@example.org"})
ARCHIVE = MemberOperation("archive", "DELETE", "members/abc")
TAGS = MemberOperation("tags", "POST", "members/abc/tags", {"tags": []})
MEMBER: dict[str, Any] = {"id": "abc", "email_address": "a@example.org", "status": "subscribed"}
COMPLIANCE = {"title": "Member In Compliance State", "status": 400, "detail": "a@example.org is in a compliance state"}
FORGOTTEN = {"title": "Forgotten Email Not Subscribed", "status": 400}
EXISTS = {"title": "Member Exists", "status": 400}
INVALID = {"title": "Invalid Resource", "status": 400, "detail": "looks fake"}
MISSING = {"title": "Resource Not Found", "status": 404}
NOT_ALLOWED = {"title": "Method Not Allowed", "status": 405}


@pytest.mark.parametrize(
    ("wanted", "status", "response", "verdict"),
    [
        pytest.param(JOIN, 200, MEMBER, Verdict.DONE, id="A member came back: done."),
        pytest.param(JOIN, 200, None, Verdict.AGAIN, id="200 without a member is no success."),
        pytest.param(JOIN, 200, {"status": "subscribed"}, Verdict.AGAIN, id="Half a member is no success."),
        pytest.param(ARCHIVE, 204, None, Verdict.DONE, id="Archived."),
        pytest.param(ARCHIVE, 404, MISSING, Verdict.FETCH_MEMBER, id="Nobody there to archive: gone, or moved?"),
        pytest.param(
            ARCHIVE, 405, NOT_ALLOWED, Verdict.FETCH_MEMBER, id="Cannot archive: archived already, or cleaned?"
        ),
        pytest.param(LEAVE, 404, MISSING, Verdict.FETCH_MEMBER, id="Nobody there to unsubscribe: gone, or moved?"),
        pytest.param(TAGS, 204, None, Verdict.DONE, id="Tags set."),
        pytest.param(TAGS, 404, MISSING, Verdict.FETCH_MEMBER, id="No member for tags: gone, or moved?"),
        pytest.param(JOIN, 400, COMPLIANCE, Verdict.AS_PENDING, id="In a compliance state: ask for pending."),
        pytest.param(ASK, 400, COMPLIANCE, Verdict.FAILED, id="Pending refused as well: that is it."),
        pytest.param(JOIN, 400, FORGOTTEN, Verdict.FAILED, id="Permanently deleted: only the person can come back."),
        pytest.param(JOIN, 400, INVALID, Verdict.FAILED, id="A fake address is refused for good."),
        pytest.param(JOIN, 400, EXISTS, Verdict.FETCH_MEMBER, id="Member Exists: perhaps as wanted."),
        pytest.param(JOIN, 404, MISSING, Verdict.FAILED, id="The audience is gone."),
        pytest.param(MOVE, 400, EXISTS, Verdict.FETCH_MEMBER, id="The new address is a member's."),
        pytest.param(MOVE, 400, INVALID, Verdict.FETCH_MEMBER, id="Or says so in other words."),
        pytest.param(MOVE, 404, MISSING, Verdict.FETCH_MEMBER, id="The old id is gone: moved already, or deleted?"),
        pytest.param(JOIN, 429, {"title": "Too Many Requests", "status": 429}, Verdict.AGAIN, id="429: again."),
        pytest.param(JOIN, 500, {"title": "Internal Server Error", "status": 500}, Verdict.AGAIN, id="500: again."),
        pytest.param(JOIN, 503, None, Verdict.AGAIN, id="503: again."),
        pytest.param(JOIN, 403, None, Verdict.AGAIN, id="A bare 403 is too fast: again."),
        pytest.param(JOIN, 0, None, Verdict.AGAIN, id="No status told: again."),
    ],
)
def test_a_result(wanted: MemberOperation, status: int, response: dict[str, Any] | None, verdict: Verdict) -> None:
    assert classify(wanted, OperationResult("civiapi-1-1", status, response)).verdict is verdict


@pytest.mark.parametrize(
    ("wanted", "problem", "seen", "verdict"),
    [
        pytest.param(ARCHIVE, NOT_ALLOWED, MEMBER | {"status": "archived"}, Verdict.DONE, id="Archived already."),
        pytest.param(ARCHIVE, NOT_ALLOWED, None, Verdict.DONE, id="Gone for good: as wanted."),
        pytest.param(ARCHIVE, NOT_ALLOWED, MEMBER | {"status": "cleaned"}, Verdict.FAILED, id="Cleaned: cannot."),
        pytest.param(ARCHIVE, MISSING, None, Verdict.DONE, id="Nobody there to archive: as wanted."),
        pytest.param(ARCHIVE, MISSING, MEMBER, Verdict.AGAIN, id="There after all: archived then."),
        pytest.param(LEAVE, MISSING, None, Verdict.GONE, id="Nobody there to unsubscribe."),
        pytest.param(LEAVE, MISSING, MEMBER, Verdict.AGAIN, id="There after all: unsubscribed then."),
        pytest.param(MOVE, MISSING, MEMBER, Verdict.DONE, id="Moved already, the answer got lost."),
        pytest.param(MOVE, MISSING, None, Verdict.GONE, id="Neither the old address nor the new one is there."),
        pytest.param(MOVE, EXISTS, MEMBER, Verdict.FAILED, id="The new address is another member's."),
        pytest.param(MOVE, INVALID, None, Verdict.FAILED, id="The new address is refused."),
        pytest.param(JOIN, EXISTS, MEMBER, Verdict.DONE, id="Exists, and as wanted."),
        pytest.param(JOIN, EXISTS, MEMBER | {"status": "pending"}, Verdict.DONE, id="Pending is as good."),
        pytest.param(JOIN, EXISTS, MEMBER | {"status": "unsubscribed"}, Verdict.AGAIN, id="Exists otherwise: again."),
        pytest.param(TAGS, MISSING, None, Verdict.GONE, id="Nobody to tag any more."),
        pytest.param(TAGS, MISSING, MEMBER, Verdict.FAILED, id="There after all: said, not guessed at."),
    ],
)
def test_a_result_that_needed_a_look(
    wanted: MemberOperation, problem: dict[str, Any], seen: Any, verdict: Verdict
) -> None:
    assert classify_fetched(wanted, problem, seen).verdict is verdict


def test_a_change_of_address_is_looked_for_under_the_new_one() -> None:
    assert classify(MOVE, OperationResult(None, 404, MISSING)).member_to_fetch == "new@example.org"


def test_tags_are_looked_for_under_their_member() -> None:
    assert classify(TAGS, OperationResult(None, 404, MISSING)).member_to_fetch == "abc"


def test_titles_may_come_translated() -> None:
    translated = {"title": "Membre non conforme", "status": 400, "detail": COMPLIANCE["detail"]}
    assert classify(JOIN, OperationResult(None, 400, translated)).verdict is Verdict.AS_PENDING


def test_asking_for_pending_changes_nothing_else() -> None:
    wanted = MemberOperation(
        "member", "PUT", "members/abc", {**JOIN.body, "status_if_new": "subscribed", "interests": {"i": True}}
    )
    body = wanted.as_pending().body
    assert (body["status"], body["status_if_new"], body["interests"]) == ("pending", "pending", {"i": True})


def test_an_interest_that_did_not_stick_is_not_as_wanted() -> None:
    wanted = MemberOperation("member", "PUT", "members/abc", {"interests": {"i": True}})
    assert is_as_wanted(wanted, "subscribed", {"i": True})
    assert not is_as_wanted(wanted, "subscribed", {"i": False})


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        pytest.param("JOB", ["JOB"], id="A merge check names the tag."),
        pytest.param("merge_fields.JOB", ["JOB"], id="A check of the body names its path."),
        pytest.param("merge_fields.HOME.zip", ["HOME"], id="And the part of an address: the address is refused."),
        pytest.param("OTHER", [], id="A field that was not sent."),
    ],
)
def test_the_fields_that_mailchimp_refused(named: str, refused: list[str]) -> None:
    body = {"merge_fields": {"JOB": "x", "HOME": {"zip": 1}}}
    sent = MemberOperation(OperationKind.FIELDS, "PATCH", "members/abc", body)
    assert refused_fields(sent, {"errors": [{"field": named, "message": "no"}]}) == refused
