"""The errors of calls to Mailchimp.

    MailchimpError
    ├── InvalidApiKey        the key names no data centre; nothing was sent
    ├── Refused              Mailchimp refused the request (a problem document, 4xx)
    │   ├── BadKey           401, or a 403 whose title says that key, user or plan is the reason
    │   └── NotFound         404
    ├── Throttled            429, or a 403 with no problem document: too fast; not carried out
    ├── Unreachable          no connection, no answer, an answer that is not JSON, 5xx
    ├── ResultsMissing       a batch has no results to download, now or any more
    └── BadArchive           a batch result archive that is broken or hostile

Every error has `may_be_retried` (the same request may succeed later) and `outcome_unknown` (the request was sent and no
usable answer came, so it may have been carried out).

Results in a batch archive have the same problem documents as single calls. `is_compliance_state` and `is_member_exists`
read both: by title, or by a stable part of `detail`, because some accounts get translated titles.

No message contains a key, a webhook secret or a signed link: text from outside goes through `mask_secrets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sync.mailchimp.wire import find_count

SNIPPET_LENGTH = 500
"""Characters of a body that is not JSON that an error keeps for the log."""

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
    """A call to Mailchimp failed."""

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
    """Mailchimp refused the request; the same request gets the same answer.

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
    """The API key, its user or its plan is refused; the account cannot be synced."""


class NotFound(Refused):
    """There is no such audience, member, batch or webhook."""


class Throttled(MailchimpError):
    """Too many connections or too fast; the request was not carried out and may be sent again later."""

    may_be_retried = True

    def __init__(self, call: str, status: int, body: str = "") -> None:
        self.call = call
        self.status = status
        self.body = body[:SNIPPET_LENGTH]
        super().__init__(f"Mailchimp throttled {call} ({status}); try again later with fewer connections")


class Unreachable(MailchimpError):
    """No usable answer: no connection, time-out, reset, a body that is not JSON, or a server error.

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
        is_read = call.startswith("GET ")
        tail = "; it may have been carried out" if outcome_unknown and not is_read else ""
        super().__init__(f"No usable answer from Mailchimp to {call}: {reason}{tail}")


class ResultsMissing(MailchimpError):
    """A batch has no results to download; `may_be_retried` while it is not finished yet."""

    def __init__(self, batch_id: str, status: str, *, may_be_retried: bool) -> None:
        self.batch_id = batch_id
        self.status = status
        self.may_be_retried = may_be_retried
        super().__init__(f"Batch {batch_id} ({status}) offers no results to download")


class BadArchive(MailchimpError):
    """A batch result archive is broken (then ``may_be_retried``), too large, or contains what it must not.

    Operations whose results were not read before have an unknown outcome.
    """

    outcome_unknown = True


def field_errors(problem: Mapping[str, Any]) -> tuple[FieldError, ...]:
    """Return the ``errors`` of a problem document, malformed ones left out."""
    listed = problem.get("errors")
    if not isinstance(listed, list):
        return ()
    return tuple(
        FieldError(str(entry.get("field") or ""), str(entry.get("message") or ""))
        for entry in listed
        if isinstance(entry, dict)
    )


def find_problem(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the problem document in *body*, its ``status`` as a number; None for anything else.

    Only ``status`` and ``title`` are always present: without them it may be an edge server's, which knows of no member.
    """
    status = find_count(body.get("status"))
    return {**body, "status": status} if status is not None and isinstance(body.get("title"), str) else None


def is_compliance_state(problem: Mapping[str, Any] | Refused | None) -> bool:
    """Return whether the address may not be subscribed by API: unsubscribed, bounced, or under review."""
    return _says(problem, title="Member In Compliance State", detail="is in a compliance state")


def is_unknown_interest(problem: Mapping[str, Any] | Refused | None) -> bool:
    """Return whether a member was refused because of an interest or a marketing permission, which was deleted, say."""
    document = problem.problem if isinstance(problem, Refused) else problem or {}
    if document.get("status") != 400:
        return False
    detail = str(document.get("detail") or "").casefold().replace("_", " ")
    named = tuple(error.field for error in field_errors(document))
    return any(
        one.replace("_", " ") in detail or any(field.startswith(one) for field in named)
        for one in ("interest", "marketing_permission")
    )


def is_member_exists(problem: Mapping[str, Any] | Refused | None) -> bool:
    """Return whether a member to be created exists already."""
    return _says(problem, title="Member Exists", detail="is already a list member")


TEMPORARY_WORDS = (
    "very recently",  # "… has signed up to a lot of lists very recently; we're not allowing more signups for now"
    "for now",
    "try again",
    "temporar",
    "later",
    "too many",
    "timed out",
    "not available at this time",
)
LASTING_WORDS = (
    "permanently deleted",
    "looks fake or invalid",
    "in a compliance state",
    "merge fields were invalid",
    "could not be validated",
    "must re-subscribe",
)


def is_temporary(problem: Mapping[str, Any] | None) -> bool:
    """Return whether the same request may succeed on another day.

    So says the status (server errors, too many requests, no answer), else the detail, else it is a lasting refusal.
    Source: Mailchimp Marketing API, errors.
    """
    document = problem or {}
    status, detail = document.get("status"), str(document.get("detail") or "").casefold()
    if not isinstance(status, int) or status in (0, 408, 429) or status >= 500:
        return True
    if any(words in detail for words in LASTING_WORDS):
        return False
    return any(words in detail for words in TEMPORARY_WORDS)


def _says(problem: Mapping[str, Any] | Refused | None, *, title: str, detail: str) -> bool:
    document = problem.problem if isinstance(problem, Refused) else problem or {}
    if str(document.get("title") or "").strip().casefold() == title.casefold():
        return True
    return detail.casefold() in str(document.get("detail") or "").casefold()
