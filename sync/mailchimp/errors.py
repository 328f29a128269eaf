"""What can go wrong when we speak to Mailchimp, and what may be done about it.

    MailchimpError
    ├── InvalidApiKey        the key names no data centre; nothing was sent
    ├── Refused              Mailchimp read the request and said no (a problem document, 4xx)
    │   ├── BadKey           401, or a 403 whose title says that key, user or plan is the reason
    │   ├── NotFound         404
    │   └── MethodNotAllowed 405; on DELETE: "this member cannot be archived"
    ├── Throttled            429, or a 403 with no problem document: too fast; surely not carried out
    ├── Unreachable          no connection, no answer, an answer that is not JSON, 5xx
    ├── ResultsMissing       a batch has no results to download, now or any more
    └── BadArchive           a batch result archive that is broken or hostile

Callers ask an error two things: `may_be_retried` (would the same request later stand a chance?) and
`outcome_unknown` (the request left us and no trustworthy answer came, so it may have been carried out).

Results inside a batch archive carry the same problem documents as single calls. The predicates at the end
(`is_compliance_state` and kin) read both, by title first; titles may come translated for some accounts, so
a stable part of `detail` is the fallback.

No message holds a key, a webhook secret or a signed link: text from outside goes through `mask_secrets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SNIPPET_LENGTH = 500
"""How much of a body that is not JSON an error keeps for the log, in characters."""

KEY_REJECTED_TITLES = frozenset(
    {"api key missing", "api key invalid", "forbidden", "user disabled", "wrong datacenter"}
)

_KEY = re.compile(r"\b[0-9a-fA-F]{16,}-[a-z]{2,4}\d{1,4}\b")
_SECRET_PARAMETER = re.compile(
    r"(?i)((?:secret|token|signature|credential|password|api_?key|accesskeyid|\bsig|\bkey)(?:=|%3D))[^&\s\"'<>;,]+"
)
_AUTHORIZATION = re.compile(r"(?i)\b(Basic|Bearer|OAuth)\s+[A-Za-z0-9+/=._-]{8,}")


def mask_secrets(text: str, *known: str) -> str:
    """Return *text* with API keys, secrets in URLs, credentials and each of *known* replaced by ``***``."""
    for secret in known:
        if secret:
            text = text.replace(secret, "***")
    text = _KEY.sub("***", text)
    text = _AUTHORIZATION.sub(r"\1 ***", text)
    return _SECRET_PARAMETER.sub(r"\1***", text)


class MailchimpError(Exception):
    """Something went wrong in speaking to Mailchimp."""

    may_be_retried: bool = False
    outcome_unknown: bool = False


class InvalidApiKey(MailchimpError):
    """Invalid API key - could not extract datacentre from given API key."""

    def __init__(self) -> None:
        super().__init__("Invalid API key - could not extract datacentre from given API key.")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One entry of a problem's ``errors``: a dotted path or a bare merge tag, and what is wrong with it."""

    field: str
    message: str


class Refused(MailchimpError):
    """Mailchimp understood the request and refused it; sending it again unchanged gives the same answer.

    `problem` is the problem document as it came (secrets masked). Source: Mailchimp Marketing API, errors.
    """

    def __init__(self, call: str, status: int, problem: Mapping[str, Any]) -> None:
        self.call = call
        self.status = status
        self.problem = problem
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or "")
        self.instance = str(problem.get("instance") or "")
        self.errors = field_errors(problem)
        super().__init__(self._describe())

    def _describe(self) -> str:
        text = f"Mailchimp refused {self.call}: {self.status} {self.title}"
        if self.detail:
            text += f": {self.detail}"
        if self.errors:
            text += " (" + "; ".join(f"{error.field or 'body'}: {error.message}" for error in self.errors) + ")"
        if self.instance:
            text += f" [request {self.instance}]"
        return text


class BadKey(Refused):
    """The API key, its user or its plan is refused; stop this account and tell someone."""


class NotFound(Refused):
    """There is no such audience, member, batch or webhook."""


class MethodNotAllowed(Refused):
    """The verb is not allowed here; on DELETE of a member: it is cleaned, pending or archived already."""


class Throttled(MailchimpError):
    """Too many connections or too fast; the request was turned away unread and may be sent again later."""

    may_be_retried = True

    def __init__(self, call: str, status: int, body: str = "") -> None:
        self.call = call
        self.status = status
        self.body = body[:SNIPPET_LENGTH]
        super().__init__(f"Mailchimp throttled {call} ({status}); try again later with fewer connections")


class Unreachable(MailchimpError):
    """No trustworthy answer: no connection, time-out, reset, a body that is not JSON, or a server error.

    `status` is the HTTP status when one came, else None. `body` keeps the first 500 characters for the log.
    """

    may_be_retried = True

    def __init__(
        self, call: str, reason: str, *, outcome_unknown: bool, status: int | None = None, body: str = ""
    ) -> None:
        self.call = call
        self.reason = reason
        self.outcome_unknown = outcome_unknown
        self.status = status
        self.body = body[:SNIPPET_LENGTH]
        tail = "; it may have been carried out" if outcome_unknown else ""
        super().__init__(f"No usable answer from Mailchimp to {call}: {reason}{tail}")


class ResultsMissing(MailchimpError):
    """A batch has no results to download; `may_be_retried` while it is not finished yet."""

    def __init__(self, batch_id: str, status: str, *, may_be_retried: bool) -> None:
        self.batch_id = batch_id
        self.status = status
        self.may_be_retried = may_be_retried
        super().__init__(f"Batch {batch_id} ({status}) offers no results to download")


class BadArchive(MailchimpError):
    """A batch result archive cannot be trusted: broken, too large, or holding what it should not.

    Operations whose results were not read before this was raised have an unknown outcome.
    """

    outcome_unknown = True


def field_errors(problem: Mapping[str, Any]) -> tuple[FieldError, ...]:
    """Return the ``errors`` of a problem document; anything malformed in it is left out."""
    listed = problem.get("errors")
    if not isinstance(listed, list):
        return ()
    return tuple(
        FieldError(str(entry.get("field") or ""), str(entry.get("message") or ""))
        for entry in listed
        if isinstance(entry, dict)
    )


def is_problem(body: object) -> bool:
    """Tell whether *body* is a problem document; only ``status`` and ``title`` are sure to be there."""
    return isinstance(body, dict) and isinstance(body.get("status"), int) and isinstance(body.get("title"), str)


def is_compliance_state(problem: Mapping[str, Any] | Refused | None) -> bool:
    """True when the address may not be subscribed by API: it left, bounced, or is under review."""
    return _says(problem, title="Member In Compliance State", detail="is in a compliance state")


def is_forgotten(problem: Mapping[str, Any] | Refused | None) -> bool:
    """True when the address was permanently deleted; only the person can come back, by a signup form."""
    return _says(
        problem, title="Forgotten Email Not Subscribed", detail="permanently deleted and cannot be re-imported"
    )


def is_member_exists(problem: Mapping[str, Any] | Refused | None) -> bool:
    """True when a member that was to be created is there already."""
    return _says(problem, title="Member Exists", detail="is already a list member")


def is_fake_address(problem: Mapping[str, Any] | Refused | None) -> bool:
    """True when Mailchimp rejects the address itself; sending it again is no use."""
    return _says(problem, detail="looks fake or invalid")


def is_signup_throttled(problem: Mapping[str, Any] | Refused | None) -> bool:
    """True when one person was signed up too often lately; hours or days later it may pass."""
    return _says(problem, detail="signed up to a lot of lists very recently")


def _says(problem: Mapping[str, Any] | Refused | None, *, detail: str, title: str | None = None) -> bool:
    document = problem.problem if isinstance(problem, Refused) else problem or {}
    if title is not None and str(document.get("title") or "").strip().casefold() == title.casefold():
        return True
    return detail.casefold() in str(document.get("detail") or "").casefold()
