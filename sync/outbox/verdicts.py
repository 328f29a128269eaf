"""Classifies the result of an operation of a batch. Pure: no SQL, no HTTP, no clock.

An error is not always a failure: the member may be as wanted already, the operation may have to be sent again, or the
member must be fetched to know. `classify` decides from the result, `classify_fetched` from the fetched member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sync.mailchimp.errors import is_compliance_state, is_member_exists
from sync.mailchimp.wire import Member, OperationResult, read_member
from sync.model import RECEIVES_MAIL, MemberOperation, MemberStatus, OperationKind


class Verdict(Enum):
    """What to do about an update."""

    DONE = "it was carried out"
    GONE = "the member is no longer there"
    MOVED = "the member has another address by now"
    AGAIN = "a temporary error or an unknown outcome: send it again"
    AS_PENDING = "ask the person to confirm instead, once"
    FAILED = "Mailchimp refused it"
    FETCH_MEMBER = "fetch the member first"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, with the present member and Mailchimp's problem document, where there are any.

    *member_to_fetch* (FETCH_MEMBER only) is the address or id of the member to fetch. *without* (AGAIN only): interests
    that Mailchimp no longer has; the update is sent again without them.
    """

    verdict: Verdict
    member: Member | None = None
    problem: Mapping[str, Any] | None = None
    member_to_fetch: str = ""
    without: tuple[str, ...] = ()


def classify(operation: MemberOperation, result: OperationResult) -> Outcome:
    """What the result of an operation means for the update behind it."""
    if result.may_be_retried:
        return Outcome(Verdict.AGAIN, problem=problem_of(result))
    if result.succeeded:
        return _classify_success(operation, result)
    problem = problem_of(result)
    if _must_fetch_member(operation, result):
        return Outcome(Verdict.FETCH_MEMBER, problem=problem, member_to_fetch=_member_to_fetch(operation))
    if (
        operation.kind == OperationKind.MEMBER
        and is_compliance_state(problem)
        and operation.body.get("status") == MemberStatus.SUBSCRIBED
    ):
        return Outcome(Verdict.AS_PENDING, problem=problem)
    return Outcome(Verdict.FAILED, problem=problem)


def classify_fetched(operation: MemberOperation, problem: Mapping[str, Any] | None, seen: Member | None) -> Outcome:
    """What the result means, given the fetched member; *seen* is None where there is none."""
    was_missing = (problem or {}).get("status") == 404
    if operation.kind == OperationKind.ARCHIVE:
        if seen is None or seen.get("status") == MemberStatus.ARCHIVED:
            return Outcome(Verdict.DONE, seen)
        return Outcome(Verdict.AGAIN if was_missing else Verdict.FAILED, seen, problem)
    if operation.kind == OperationKind.EMAIL:
        if was_missing:
            return Outcome(Verdict.DONE if seen is not None else Verdict.GONE, seen, problem)
        return Outcome(Verdict.FAILED, seen, problem)
    if seen is None:
        return Outcome(Verdict.GONE if operation.needs_member else Verdict.AGAIN, problem=problem)
    if operation.kind == OperationKind.MEMBER and is_as_wanted(
        operation, seen.get("status"), seen.get("interests") or {}
    ):
        return Outcome(Verdict.DONE, seen)
    return Outcome(Verdict.FAILED if operation.is_data else Verdict.AGAIN, seen, problem)


def is_as_wanted(operation: MemberOperation, status: str | None, interests: Mapping[str, Any]) -> bool:
    """Whether a member is as the update asked; pending counts as subscribed."""
    asked = operation.body.get("status")
    fits = asked is None or asked == status or (asked in RECEIVES_MAIL and status in RECEIVES_MAIL)
    chosen = operation.body.get("interests") or {}
    return fits and all(interests.get(key) == value for key, value in chosen.items())


def refused_fields(operation: MemberOperation, problem: Mapping[str, Any] | None) -> list[str]:
    """The merge fields of an operation that Mailchimp's problem document names; nothing of it was carried out.

    It names a part of an address by a path (``merge_fields.ADDRESS.zip``).
    """
    sent, errors = operation.body.get("merge_fields"), (problem or {}).get("errors")
    if operation.kind != OperationKind.FIELDS or not isinstance(sent, dict) or not isinstance(errors, list):
        return []
    paths = [str(one.get("field") or "").removeprefix("merge_fields.") for one in errors if isinstance(one, dict)]
    named = {path.partition(".")[0] for path in paths}
    return [tag for tag in sent if tag in named]


def problem_of(result: OperationResult) -> dict[str, Any]:
    """Mailchimp's problem document, made from the status code where the answer has none."""
    found = dict(result.response or {})
    found.setdefault("title", "No problem document" if result.status_code else "No result")
    found.setdefault("status", result.status_code)
    return found


def _classify_success(operation: MemberOperation, result: OperationResult) -> Outcome:
    if operation.kind in (OperationKind.ARCHIVE, OperationKind.TAGS):
        return Outcome(Verdict.DONE)
    answer = read_member(result.response)
    if not (answer.get("id") and answer.get("email_address") and answer.get("status")):
        return Outcome(Verdict.AGAIN, problem={"title": "Answer without a member", "status": result.status_code})
    return Outcome(Verdict.DONE, answer)


def _must_fetch_member(operation: MemberOperation, result: OperationResult) -> bool:
    if operation.kind == OperationKind.ARCHIVE:
        return result.status_code in (404, 405)
    if operation.kind == OperationKind.EMAIL:
        return result.status_code in (400, 404)  # the new address may be a member, or this one may have it already
    return result.status_code == 404 if operation.needs_member else is_member_exists(result.response)


def _member_to_fetch(operation: MemberOperation) -> str:
    """The new address of a change of address, else the member that the operation is about."""
    new_address = operation.body.get("email_address") if operation.kind == OperationKind.EMAIL else None
    return str(new_address or operation.member)
