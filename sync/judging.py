"""What became of one operation of a batch, and what is to be done about it. Pure: no SQL, no HTTP, no clock.

Mailchimp's answer to an operation is not always the last word: a refusal may tell that things are as they should be, or
that it must be asked again, or that nobody can tell before the member has been looked at. `judge` says which;
`judge_seen` says it once somebody has looked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from sync.audience import RECEIVES_MAIL
from sync.mailchimp.errors import is_compliance_state, is_member_exists
from sync.mailchimp.wire import Member, OperationResult
from sync.updates import Wanted

SUBSCRIBED, PENDING, ARCHIVED = "subscribed", "pending", "archived"


class Verdict(Enum):
    """What is to be done about an update."""

    DONE = "it was carried out"
    GONE = "the member is no longer there"
    AGAIN = "it was not carried out for a passing reason, or nobody knows: send it again"
    AS_PENDING = "ask for pending instead, once"
    FAILED = "Mailchimp refused it"
    LOOK = "look at the member first"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, with the member as it stands now and Mailchimp's problem document, where there are any.

    *look_at* (LOOK only) is the address or id of the member to look at.
    """

    verdict: Verdict
    member: Member | None = None
    problem: Mapping[str, Any] | None = None
    look_at: str = ""


def judge(wanted: Wanted, result: OperationResult) -> Outcome:
    """What the result of an operation means for the update behind it."""
    if result.may_be_retried:
        return Outcome(Verdict.AGAIN, problem=problem_of(result))
    if result.succeeded:
        return _judge_success(wanted, result)
    problem = problem_of(result)
    if wanted.kind == "archive" and result.status_code == 404:
        return Outcome(Verdict.DONE, problem=problem)
    if _must_look(wanted, result):
        return Outcome(Verdict.LOOK, problem=problem, look_at=_whom(wanted))
    if wanted.kind == "member" and is_compliance_state(problem) and wanted.body.get("status") == SUBSCRIBED:
        return Outcome(Verdict.AS_PENDING, problem=problem)
    return Outcome(Verdict.FAILED, problem=problem)


def judge_seen(wanted: Wanted, problem: Mapping[str, Any] | None, seen: Member | None) -> Outcome:
    """What it means once the member that `judge` wanted looked at was looked at; *seen* is None where there is none."""
    if wanted.kind == "archive":
        if seen is None or seen.get("status") == ARCHIVED:
            return Outcome(Verdict.DONE, seen)
        return Outcome(Verdict.FAILED, seen, problem)
    if wanted.kind == "email":
        moved = seen is not None and (problem or {}).get("status") == 404
        return Outcome(Verdict.DONE if moved else Verdict.FAILED, seen, problem)
    if seen is None:
        return Outcome(Verdict.GONE if wanted.kind == "tags" else Verdict.AGAIN, problem=problem)
    if wanted.kind == "member" and is_as_wanted(wanted, seen.get("status"), seen.get("interests") or {}):
        return Outcome(Verdict.DONE, seen)
    return Outcome(Verdict.FAILED if wanted.kind == "tags" else Verdict.AGAIN, seen, problem)


def is_as_wanted(wanted: Wanted, status: str | None, interests: Mapping[str, Any]) -> bool:
    """True when a member stands as the update asked: pending is as good as subscribed."""
    asked = wanted.body.get("status")
    fits = asked is None or asked == status or (asked in RECEIVES_MAIL and status in RECEIVES_MAIL)
    chosen = wanted.body.get("interests") or {}
    return fits and all(interests.get(key) == value for key, value in chosen.items())


def as_pending(wanted: Wanted) -> Wanted:
    """The same update, asking Mailchimp to write to the person first."""
    body = wanted.body | {"status": PENDING}
    if "status_if_new" in body:
        body["status_if_new"] = PENDING
    return Wanted(wanted.kind, wanted.method, wanted.path_tail, body, wanted.cause)


def problem_of(result: OperationResult) -> dict[str, Any]:
    """Mailchimp's problem document, made up from the status code where the answer held none."""
    found = dict(result.response or {})
    found.setdefault("title", "No problem document" if result.status_code else "No result")
    found.setdefault("status", result.status_code)
    return found


def _judge_success(wanted: Wanted, result: OperationResult) -> Outcome:
    if wanted.kind in ("archive", "tags"):
        return Outcome(Verdict.DONE)
    told = result.response
    if told is None or not (told.get("id") and told.get("email_address") and told.get("status")):
        return Outcome(Verdict.AGAIN, problem={"title": "Answer without a member", "status": result.status_code})
    return Outcome(Verdict.DONE, cast(Member, told))


def _must_look(wanted: Wanted, result: OperationResult) -> bool:
    if wanted.kind == "archive":
        return result.status_code == 405
    if wanted.kind == "email":
        return result.status_code in (400, 404)  # the new address may be a member, or this one may have it already
    if wanted.kind == "tags":
        return result.status_code == 404
    return is_member_exists(result.response)


def _whom(wanted: Wanted) -> str:
    """The new address of a change of address, else the member that the path names, or the body where it names none."""
    member_id = wanted.path_tail.removeprefix("members").strip("/").partition("/")[0]
    if wanted.kind == "email" or not member_id:
        return str(wanted.body.get("email_address") or "")
    return member_id
