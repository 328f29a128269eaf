"""Accounts, audiences, members and what belongs to them, as plain data without behaviour.

Instants are whole seconds since 1970 in UTC, 0 where Mailchimp has no value.
A member also has facts that no API shows: who unsubscribed it, and its status before it was archived.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sync.emulator.model.options import AccountOptions

Json = dict[str, Any]

SUBSCRIBED, UNSUBSCRIBED, CLEANED = "subscribed", "unsubscribed", "cleaned"
PENDING, TRANSACTIONAL, ARCHIVED = "pending", "transactional", "archived"
STATUSES = (SUBSCRIBED, UNSUBSCRIBED, CLEANED, PENDING, TRANSACTIONAL, ARCHIVED)
USER, ADMIN, API = "user", "admin", "api"
NO_INTERESTS: frozenset[str] = frozenset()


@dataclass(slots=True)
class Member:
    """One address in an audience; `extra` has what few members have (location, notes, legacy ids)."""

    serial: int
    id: str
    email: str
    status: str
    last_changed: int = 0
    timestamp_opt: int = 0
    timestamp_signup: int = 0
    merges: Json = field(default_factory=dict)
    interests: frozenset[str] = NO_INTERESTS
    tags: dict[int, int] | None = None
    unsubscribed_by: str = ""
    archived_from: str = ""
    ip_opt: str = ""
    ip_signup: str = ""
    email_type: str = "html"
    language: str = ""
    vip: bool = False
    rating: int = 2
    source: str = "API - Generic"
    extra: Json | None = None


@dataclass(slots=True)
class MergeField:
    """One merge field. `options` holds choices, formats and the default country."""

    merge_id: int
    tag: str
    name: str
    type: str = "text"
    required: bool = False
    default_value: str = ""
    public: bool = True
    display_order: int = 0
    options: Json = field(default_factory=dict)
    help_text: str = ""


@dataclass(slots=True)
class Interest:
    """One interest inside a category."""

    id: str
    category_id: str
    name: str
    display_order: int = 0


@dataclass(slots=True)
class InterestCategory:
    """A group of interests; in radio and dropdown categories a member has one choice at most."""

    id: str
    title: str
    type: str = "checkboxes"
    display_order: int = 0
    interests: dict[str, Interest] = field(default_factory=dict)


@dataclass(slots=True)
class Tag:
    """A tag, which Mailchimp also shows as a static segment."""

    id: int
    name: str
    created_at: int
    updated_at: int


@dataclass(slots=True)
class Hook:
    """A webhook of an audience, or of the account when `list_id` is empty. A disabled one is not listed."""

    id: str
    url: str
    list_id: str = ""
    events: dict[str, bool] = field(default_factory=dict)
    sources: dict[str, bool] = field(default_factory=dict)
    enabled: bool = True
    disabled_by_failures: bool = False
    signing_secret: str = ""


@dataclass(slots=True)
class Delivery:
    """One webhook request: queued, delivered, or failed for good. Times are emulator seconds."""

    id: int
    account_id: str
    hook_id: str
    url: str
    body: str
    created_at: float
    due_at: float
    signing_secret: str = ""
    attempts: int = 0
    state: str = "queued"
    last_status: int = 0


@dataclass(slots=True)
class Batch:
    """A batch of operations, from submit to expiry. `todo` is what is left; the last one runs next."""

    id: str
    submitted_at: float
    todo: list[Json]
    size: int
    status: str = "pending"
    total: int = 0
    finished: int = 0
    errored: int = 0
    started_at: float = 0.0
    ops_done_at: float = 0.0
    completed_at: float = 0.0
    results: list[Json] = field(default_factory=list)
    archive: bytes = b""
    links_given: int = 0


@dataclass(slots=True)
class Recipient:
    """One address that a campaign was sent to. `opens` are instants; `clicks` counts by the id of a link."""

    email_id: str
    email: str
    status: str = "sent"
    opens: list[int] = field(default_factory=list)
    clicks: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Campaign:
    """A campaign of an audience. `links` maps ids of links to their URLs; recipients are in the order of sending."""

    id: str
    web_id: int
    list_id: str
    subject: str = ""
    title: str = ""
    type: str = "regular"
    status: str = "sent"
    from_name: str = "Office"
    created_at: int = 0
    sent_at: int = 0
    archive_url: str = ""
    recipients: dict[str, Recipient] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class User:
    """A user of an account with their keys and OAuth tokens; role ``viewer`` may only read."""

    login: str
    keys: list[str]
    role: str = "owner"
    tokens: list[str] = field(default_factory=list)
    disabled: bool = False


@dataclass(slots=True)
class EmulatedAccount:
    """A Mailchimp account: its users, audiences, batches, webhooks and options."""

    id: str
    name: str
    users: list[User]
    dc: str = "us1"
    email: str = "office@example.org"
    timezone: str = "UTC"
    audiences: dict[str, Any] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    batch_hooks: dict[str, Hook] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    options: AccountOptions = field(default_factory=AccountOptions)
