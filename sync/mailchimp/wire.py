"""The data of Mailchimp's Marketing API 3.0, for client and emulator.

Rows that come by the thousand (members) stay decoded dictionaries, typed as TypedDicts; batch operations, batches and
webhooks are frozen dataclasses. Mailchimp writes "no value" as ``""``, also for timestamps. A member's `id` in an old
audience may be the MD5 of a mixed-case address, so use an id from Mailchimp before computing one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict, cast
from urllib.parse import quote, urlencode

import orjson


class Member(TypedDict, total=False):
    """One address in an audience, with the keys a sync uses. Times are ISO 8601 in UTC, or ``""``."""

    id: str
    email_address: str
    contact_id: str
    status: str
    merge_fields: dict[str, Any]
    interests: dict[str, bool]
    marketing_permissions: list[dict[str, Any]]
    timestamp_opt: str
    last_changed: str


PERMISSION = "permission:"
"""Before the id of a marketing permission where it stands among the interests of a member. To a sync a permission is
one more interest: a member has it or not, and a group may be linked with it. Mailchimp has the two apart."""
PERMISSION_ID_LENGTH = 32

MAX_COUNT = 2**31 - 1
"""Of what is counted on the wire, so that every column holds it."""
_DIGITS = re.compile(r"\s*[0-9]{1,18}\s*")
_IDS = ("id", "contact_id")
_KINDS = (
    *((name, str) for name in ("id", "email_address", "contact_id", "status", "timestamp_opt", "last_changed")),
    ("merge_fields", dict),
    ("interests", dict),
    ("marketing_permissions", list),
)


def read_member(value: object) -> Member:
    """A member from decoded JSON, in which every key that a sync uses has the type declared in `Member`.

    A value of another type counts as missing, and what is no object as a member without keys: one odd member must not
    stop the others of its page. Ids may be numbers, and interests written in other ways (`as_flag`). Its marketing
    permissions are among its interests as well (`PERMISSION`).
    """
    if not isinstance(value, dict):
        return Member()
    if plain := _as_declared(value):
        value = value | plain
    odd = [name for name, kind in _KINDS if name in value and not isinstance(value[name], kind)]
    whole = {name: one for name, one in value.items() if name not in odd} if odd else value
    if whole.get("marketing_permissions"):
        whole = whole | {"interests": _with_permissions(whole)}
    return cast(Member, whole)


def _as_declared(value: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a member whose type differs from the declared one although the meaning is plain."""
    plain: dict[str, Any] = {name: as_id(value[name]) for name in _IDS if type(value.get(name)) is int}
    interests = value.get("interests")
    if isinstance(interests, dict) and not all(isinstance(held, bool) for held in interests.values()):
        plain["interests"] = {key: as_flag(held) for key, held in interests.items()}
    return plain


def read_permissions(value: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """The marketing permissions in a member or a body from the wire: id, text, whether it is given.

    What is malformed is left out.
    """
    listed = value.get("marketing_permissions")
    for one in listed if isinstance(listed, list) else ():
        key = as_id(one.get("marketing_permission_id")) if isinstance(one, dict) else ""
        if 0 < len(key) <= PERMISSION_ID_LENGTH:
            yield key, str(one.get("text") or ""), as_flag(one.get("enabled"))


def body_to_wire(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body of a member update as Mailchimp takes it: permissions leave the interests for a list of their own.

    Mailchimp changes the permissions that are named, and no others.
    """
    interests = body.get("interests")
    chosen: dict[str, Any] = interests if isinstance(interests, dict) else {}
    given = [key for key in chosen if key.startswith(PERMISSION)]
    if not given:
        return body
    whole = {name: value for name, value in body.items() if name != "interests"}
    if len(given) < len(chosen):
        whole["interests"] = {key: value for key, value in chosen.items() if key not in given}
    whole["marketing_permissions"] = [
        {"marketing_permission_id": key.removeprefix(PERMISSION), "enabled": chosen[key]} for key in given
    ]
    return whole


def body_from_wire(body: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `body_to_wire`."""
    whole = {name: value for name, value in body.items() if name != "marketing_permissions"}
    return whole | {"interests": _with_permissions(body)} if len(whole) < len(body) else whole


def _with_permissions(value: Mapping[str, Any]) -> dict[str, Any]:
    interests = value.get("interests")
    known = interests if isinstance(interests, dict) else {}
    return known | {PERMISSION + key: given for key, _, given in read_permissions(value)}


def find_count(value: object) -> int | None:
    """A number from the wire, at most `MAX_COUNT`; digits as text count as one. None for anything else."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return min(int(cast(int, value)), MAX_COUNT) if is_number else None


def as_count(value: object) -> int:
    """A number of rows, or of times, from the wire: 0 for what is none, at most `MAX_COUNT`."""
    return find_count(value) or 0


def as_id(value: object) -> str:
    """An id from the wire: a text, or a number as its digits; empty for anything else."""
    return value if isinstance(value, str) else str(value) if type(value) is int else ""


def as_flag(value: object) -> bool:
    """A boolean from the wire, which may be written as text or as 0 and 1; False for anything else."""
    return value is True or (isinstance(value, str | int) and str(value).strip().lower() in ("true", "1"))


def is_last_page(rows: int, asked: int, reached: int, total: int | None) -> bool:
    """Whether a page of *rows* rows, which ends at *reached*, is the last of a listing.

    An empty one is. Fewer than the *asked* ones are not by themselves, since servers may give less than was asked for:
    the *total* must be reached; where that is not known, only an empty page ends.
    """
    return rows == 0 or (total is not None and rows < asked and reached >= total)


def _as_map(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


class AccountInfo(TypedDict, total=False):
    """The account of a key (``GET /``)."""

    account_id: str
    account_name: str
    login_id: str
    email: str
    username: str
    role: str
    account_timezone: str
    total_subscribers: int


class AudienceInfo(TypedDict, total=False):
    """One audience. The counts in `stats` lag by minutes and exclude archived members."""

    id: str
    web_id: int
    name: str
    date_created: str
    double_optin: bool
    marketing_permissions: bool
    """Whether it has GDPR fields."""
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


@dataclass(frozen=True, slots=True)
class BatchOperation:
    """One call inside a batch. `path` is relative to ``/3.0``; `operation_id` identifies its result."""

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


def tags_body(tags: Mapping[str, bool]) -> dict[str, Any]:
    """Return the body that adds (True) and removes (False) tags; ``is_syncing`` starts no automations."""
    states = [{"name": name, "status": "active" if wanted else "inactive"} for name, wanted in tags.items()]
    return {"tags": states, "is_syncing": True}


def tag_key(name: str) -> str:
    """Return what Mailchimp knows a tag by: names that differ in case or in spaces around them are one tag."""
    return name.strip().lower()


def path_segment(value: str) -> str:
    """Return *value* encoded as one path segment. Raises ValueError for ``""``, ``.`` and ``..``."""
    if value.strip(". ") == "":
        raise ValueError(f"{value!r} cannot stand for one thing in a Mailchimp path")
    return quote(value, safe="")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as Mailchimp last answered it. All counts are 0 right after the submit. Times are aware UTC."""

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
        """True once results can be downloaded; the counts do not show that."""
        return self.status == "finished"

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Batch:
        """Read a batch from its JSON; missing counts are 0."""
        return cls(
            id=str(body["id"]),
            status=str(body.get("status") or ""),
            total_operations=as_count(body.get("total_operations")),
            finished_operations=as_count(body.get("finished_operations")),
            errored_operations=as_count(body.get("errored_operations")),
            submitted_at=find_instant(body.get("submitted_at")),
            completed_at=find_instant(body.get("completed_at")),
            response_body_url=str(body.get("response_body_url") or ""),
        )


@dataclass(frozen=True, slots=True)
class OperationResult:
    """The result of one batch operation.

    `operation_id` is None when none was sent; `status_code` is 0 when it is missing; `response` is the decoded body of
    the single call, None if that was empty or not JSON.
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
        """True when the operation failed for a temporary reason (throttled, server error, no status)."""
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
"""`api` is off: else the sync would get events of its own writes, without end."""


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
            events=_as_map(body.get("events")),
            sources=_as_map(body.get("sources")),
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
        return cls(id=str(body["id"]), url=str(body.get("url") or ""), enabled=as_flag(body.get("enabled", True)))


def subscriber_hash(email: str) -> str:
    """Return Mailchimp's path id for an address: the MD5 of it, stripped and lower-cased, in UTF-8, as 32 hex digits.

    ``str.lower``, not ``casefold``. Members of very old audiences may bear the MD5 of the mixed-case address.
    """
    return hashlib.md5(email.strip().lower().encode(), usedforsecurity=False).hexdigest()


YEARS = range(1970, 2100)
"""A time outside these is a mistake. Counting with it may leave the calendar, and one far in the future would make
every later change look old."""


def parse_instant(text: str | None) -> datetime | None:
    """Return an ISO 8601 time from the wire as aware UTC; None for ``""`` and None. A time without zone is UTC.

    Raises ValueError for anything else.
    """
    if not text:
        return None
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def find_instant(value: object) -> datetime | None:
    """`parse_instant` for what others wrote: None for anything that is no time, or one outside `YEARS`."""
    try:
        instant = parse_instant(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    return instant if instant is not None and instant.year in YEARS else None


def format_instant(instant: datetime) -> str:
    """Return *instant* as Mailchimp wants it: UTC, whole seconds (cut, not rounded), ending in ``+00:00``.

    Mailchimp ignores the zone part and reads fractions wrongly. Raises ValueError for a time without zone.
    """
    if instant.tzinfo is None:
        raise ValueError("a time sent to Mailchimp needs a zone")
    return instant.astimezone(UTC).replace(microsecond=0).isoformat()
