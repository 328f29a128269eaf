"""The shapes that client and server of Mailchimp's Marketing API 3.0 agree on.

Rows that pass by the thousand (members) stay plain decoded dictionaries, described as TypedDicts. Things we
make or branch on (batch operations, batches, webhooks) are frozen dataclasses. No HTTP and no SQL here.

What a newcomer trips over: Mailchimp writes "no value" as ``""``, also for timestamps; and a member's `id` in
an old audience may be the MD5 of a mixed-case address, so use the id you were given before computing one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

import orjson


class Tag(TypedDict, total=False):
    """A tag as it stands in a member."""

    id: int
    name: str


class Member(TypedDict, total=False):
    """One address in an audience, trimmed to what a sync uses. Times are ISO 8601 in UTC, or ``""``."""

    id: str
    email_address: str
    unique_email_id: str
    contact_id: str
    status: str
    merge_fields: dict[str, Any]
    interests: dict[str, bool]
    timestamp_opt: str
    last_changed: str
    tags: list[Tag]


class Account(TypedDict, total=False):
    """Who a key belongs to (``GET /``)."""

    account_id: str
    account_name: str
    login_id: str
    email: str
    username: str
    role: str
    account_timezone: str
    total_subscribers: int


class Audience(TypedDict, total=False):
    """One audience. The counts in `stats` lag by minutes and leave archived members out."""

    id: str
    web_id: int
    name: str
    date_created: str
    double_optin: bool
    stats: dict[str, Any]


class InterestCategory(TypedDict, total=False):
    """A group of interests; `type` is one of checkboxes, dropdown, radio, hidden."""

    id: str
    list_id: str
    title: str
    display_order: int
    type: str


class Interest(TypedDict, total=False):
    """One interest. `subscriber_count` is a string on the wire."""

    id: str
    category_id: str
    list_id: str
    name: str
    subscriber_count: str
    display_order: int


class MergeField(TypedDict, total=False):
    """One merge field of an audience; EMAIL is never listed."""

    merge_id: int
    tag: str
    name: str
    type: str
    required: bool
    default_value: str
    public: bool
    display_order: int
    options: dict[str, Any]
    list_id: str


@dataclass(frozen=True, slots=True)
class BatchOperation:
    """One call inside a batch. `path` is relative to ``/3.0``; `operation_id` is the only way back from its result."""

    method: str
    path: str
    operation_id: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, str] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the operation as ``POST /batches`` takes it: method in upper case, body a string of JSON.

        Which of `params` and the path's query string the server honours for a PUT is not documented, so both are sent.
        """
        wire: dict[str, Any] = {"method": self.method.upper(), "path": self.path, "operation_id": self.operation_id}
        if self.params:
            wire["params"] = dict(self.params)
            wire["path"] += ("&" if "?" in self.path else "?") + urlencode(self.params)
        if self.body is not None:
            wire["body"] = orjson.dumps(self.body).decode()
        return wire


SKIP_MERGE_VALIDATION = {"skip_merge_validation": "true"}


def put_member_operation(
    audience_id: str, member_id: str, body: Mapping[str, Any], operation_id: str
) -> BatchOperation:
    """Return the operation that creates or updates one member; safe to send twice."""
    return BatchOperation("PUT", member_path(audience_id, member_id), operation_id, body, SKIP_MERGE_VALIDATION)


def archive_member_operation(audience_id: str, member_id: str, operation_id: str) -> BatchOperation:
    """Return the operation that archives one member; 405 in its result means "cannot, or is already"."""
    return BatchOperation("DELETE", member_path(audience_id, member_id), operation_id)


def update_tags_operation(
    audience_id: str, member_id: str, tags: Mapping[str, bool], operation_id: str
) -> BatchOperation:
    """Return the operation that adds (True) and removes (False) tags; never put it in its member's own batch."""
    return BatchOperation("POST", member_path(audience_id, member_id) + "/tags", operation_id, tags_body(tags))


def tags_body(tags: Mapping[str, bool]) -> dict[str, Any]:
    """Return the body that sets *tags*; ``is_syncing`` keeps automations on these tags from starting."""
    states = [{"name": name, "status": "active" if wanted else "inactive"} for name, wanted in tags.items()]
    return {"tags": states, "is_syncing": True}


def member_path(audience_id: str, member_id: str) -> str:
    """Return the path of one member, each id percent-encoded. Raises ValueError for an id that is no path segment."""
    return f"/lists/{path_segment(audience_id)}/members/{path_segment(member_id)}"


def path_segment(value: str) -> str:
    """Return *value* encoded as one path segment. Raises ValueError for ``""``, ``.`` and ``..``."""
    if value.strip(". ") == "":
        raise ValueError(f"{value!r} cannot stand for one thing in a Mailchimp path")
    return quote(value, safe="")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as Mailchimp last told it. All three counts are 0 right after the submit. Times are aware UTC."""

    id: str
    status: str
    total_operations: int
    finished_operations: int
    errored_operations: int
    submitted_at: datetime | None
    completed_at: datetime | None
    response_body_url: str = field(default="", repr=False)

    @property
    def is_finished(self) -> bool:
        """True once results can be downloaded; the counts alone do not tell."""
        return self.status == "finished"

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Batch:
        """Read a batch from its JSON; missing counts are 0."""
        return cls(
            id=str(body["id"]),
            status=str(body.get("status") or ""),
            total_operations=int(body.get("total_operations") or 0),
            finished_operations=int(body.get("finished_operations") or 0),
            errored_operations=int(body.get("errored_operations") or 0),
            submitted_at=parse_instant(body.get("submitted_at")),
            completed_at=parse_instant(body.get("completed_at")),
            response_body_url=str(body.get("response_body_url") or ""),
        )


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What became of one batch operation.

    `operation_id` is None when none was sent; `status_code` is 0 when none was told; `response` is the decoded
    body of the single call, None where that was empty or not JSON.
    """

    operation_id: str | None
    status_code: int
    response: dict[str, Any] | None

    @property
    def succeeded(self) -> bool:
        """True when the operation was carried out."""
        return 200 <= self.status_code < 300

    @property
    def may_be_retried(self) -> bool:
        """True when the operation failed for a passing reason (throttled, server error, not told): queue it again."""
        bare_403 = self.status_code == 403 and self.response is None
        return bare_403 or self.status_code in (0, 408, 429) or self.status_code >= 500


AUDIENCE_EVENTS = {
    "subscribe": True,
    "unsubscribe": True,
    "profile": True,
    "cleaned": True,
    "upemail": True,
    "campaign": False,
}
AUDIENCE_SOURCES = {"user": True, "admin": True, "api": False}
"""`api` stays off, or the sync hears its own writes and never comes to rest."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of an audience. `url` and `signing_secret` hold secrets in clear and stay out of ``repr``."""

    id: str
    url: str = field(repr=False)
    events: Mapping[str, bool]
    sources: Mapping[str, bool]
    signing_secret: str | None = field(default=None, repr=False)

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Webhook:
        """Read an audience webhook from its JSON."""
        secret = body.get("signing_secret")
        return cls(
            id=str(body["id"]),
            url=str(body.get("url") or ""),
            events=dict(body.get("events") or {}),
            sources=dict(body.get("sources") or {}),
            signing_secret=secret if isinstance(secret, str) and secret else None,
        )


@dataclass(frozen=True, slots=True)
class BatchWebhook:
    """An account-wide webhook for finished batches. `url` holds a secret in clear and stays out of ``repr``."""

    id: str
    url: str = field(repr=False)
    enabled: bool

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> BatchWebhook:
        """Read a batch webhook from its JSON."""
        return cls(id=str(body["id"]), url=str(body.get("url") or ""), enabled=bool(body.get("enabled", True)))


def subscriber_hash(email: str) -> str:
    """Return Mailchimp's path id for an address: the MD5 of it, stripped and lower-cased, in UTF-8, as 32 hex digits.

    ``str.lower``, not ``casefold``. Members of very old audiences may bear the MD5 of the mixed-case address.
    """
    return hashlib.md5(email.strip().lower().encode(), usedforsecurity=False).hexdigest()


def parse_instant(text: str | None) -> datetime | None:
    """Return an ISO 8601 time from the wire as aware UTC; None for ``""`` and None. A time without zone is UTC.

    Raises ValueError for anything else.
    """
    if not text:
        return None
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def format_instant(instant: datetime) -> str:
    """Return *instant* as Mailchimp wants it: UTC, whole seconds (cut, not rounded), ending in ``+00:00``.

    Mailchimp ignores the zone part and reads fractions wrongly. Raises ValueError for a time without zone.
    """
    if instant.tzinfo is None:
        raise ValueError("a time sent to Mailchimp needs a zone")
    return instant.astimezone(UTC).replace(microsecond=0).isoformat()
