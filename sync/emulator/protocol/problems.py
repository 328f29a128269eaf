"""Mailchimp's refusals, one function per row of the contract's error catalogue.

Handlers raise a `Problem`; `World.handle` renders it as a problem document.
"""

from __future__ import annotations

from typing import Any

PROBLEM_TYPE = "https://mailchimp.com/developer/marketing/docs/errors/"
SCHEMA_DETAIL = "The resource submitted could not be validated. For field-specific details, see the 'errors' array."


class Problem(Exception):
    """A refusal: HTTP status, title, detail, and field errors where there are any."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    def document(self, instance: str, *, with_type: bool = True) -> dict[str, Any]:
        """Return the problem document; *instance* is the request id."""
        body: dict[str, Any] = {"type": PROBLEM_TYPE} if with_type else {}
        body |= {"title": self.title, "status": self.status, "detail": self.detail, "instance": instance}
        if self.errors is not None:
            body["errors"] = self.errors
        return body


class Hang(Exception):
    """The request is never answered; the server ends it at its time limit."""


def field_error(name: str, message: str) -> dict[str, str]:
    """Return one entry of ``errors``."""
    return {"field": name, "message": message}


def invalid(detail: str, errors: list[dict[str, str]] | None = None) -> Problem:
    """400 Invalid Resource."""
    return Problem(400, "Invalid Resource", detail, errors=errors)


def schema_failed(errors: list[dict[str, str]]) -> Problem:
    """400: the body does not fit its schema."""
    return invalid(SCHEMA_DETAIL, errors)


def merge_fields_invalid(errors: list[dict[str, str]]) -> Problem:
    """400: merge values are missing or malformed; each error names the bare tag."""
    return invalid("Your merge fields were invalid.", errors)


def unreadable_json() -> Problem:
    """400: the body is not JSON."""
    return Problem(400, "JSON Parse Error", "We encountered an unspecified JSON parsing error.")


def fake_address(email: str) -> Problem:
    """400: not a real address."""
    return invalid(f"{email} looks fake or invalid, please enter a real email address.")


def throttled_person(email: str) -> Problem:
    """400: the address was signed up too often."""
    return invalid(f"{email} has signed up to a lot of lists very recently; we're not allowing more signups for now")


def member_exists(email: str) -> Problem:
    """400: the address is taken in this audience."""
    detail = f"{email} is already a list member. Use PUT to insert or update list members."
    return Problem(400, "Member Exists", detail)


def compliance(email: str) -> Problem:
    """400: only the person can subscribe again."""
    detail = (
        f"{email} is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be subscribed."
    )
    return Problem(400, "Member In Compliance State", detail)


def forgotten(email: str) -> Problem:
    """400: permanently deleted; only the person can subscribe again."""
    detail = (
        f"{email} was permanently deleted and cannot be re-imported. "
        "The contact must re-subscribe to get back on the list."
    )
    return Problem(400, "Forgotten Email Not Subscribed", detail)


def key_missing() -> Problem:
    """401: no credentials."""
    return Problem(401, "API Key Missing", "Your request did not include an API key.")


def key_invalid() -> Problem:
    """401: unknown credentials."""
    detail = "Your API key may be invalid, or you've attempted to access the wrong datacenter."
    return Problem(401, "API Key Invalid", detail)


def wrong_datacenter() -> Problem:
    """403: the key is of another data centre."""
    return Problem(403, "Wrong Datacenter", "The API key provided is linked to a different datacenter.")


def user_disabled() -> Problem:
    """403: account or user deactivated."""
    return Problem(403, "User Disabled", "This account has been deactivated.")


def forbidden() -> Problem:
    """403: the user's role does not allow this."""
    return Problem(403, "Forbidden", "You don't have permission to access the requested resource.")


def not_found() -> Problem:
    """404."""
    return Problem(404, "Resource Not Found", "The requested resource could not be found.")


def method_not_allowed(allow: str) -> Problem:
    """405, naming what is allowed."""
    detail = "The requested method and resource are not compatible. See the Allow header for this resource's methods."
    return Problem(405, "Method Not Allowed", detail, headers={"Allow": allow})


def cannot_archive() -> Problem:
    """405 on DELETE of a member that is cleaned, pending or archived."""
    detail = "This list member cannot be removed. Can not archive a contact that is bounced, pending or archived"
    return Problem(405, "Method Not Allowed", detail, headers={"Allow": "GET, PUT"})


def nesting_too_deep() -> Problem:
    """414: more path segments than any resource has."""
    return Problem(414, "Resource Nesting Too Deep", "The sub-resource requested is nested too deeply.")


def bad_override() -> Problem:
    """422: X-HTTP-Method-Override on something else than POST, or naming no method."""
    detail = "The X-HTTP-Method-Override header can only be used with the POST method."
    return Problem(422, "Invalid Method Override", detail)


def bad_fields(path: str) -> Problem:
    """422: `fields` or `exclude_fields` cannot be read."""
    return Problem(422, "Requested Fields Invalid", f"The fields requested from this resource are invalid: {path}")


def too_many_requests() -> Problem:
    """429: more simultaneous connections than the account may have."""
    return Problem(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")


def too_many_batches() -> Problem:
    """429: the queue of unfinished batches is full."""
    return Problem(429, "Too Many Requests", "You have more than 500 pending batches.")


def server_error() -> Problem:
    """500."""
    return Problem(500, "Internal Server Error", "An unexpected internal error has occurred. Please contact support.")


TOO_MANY_BATCH_WEBHOOKS = "You may have at most 20 batch webhooks per account."
URL_NOT_ANSWERING = "We could not reach the URL you provided. It must answer a GET request with a success status."
