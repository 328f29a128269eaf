"""The values that the parts of a sync exchange: statuses, member operations, open updates and batches.

The texts are stored and shown as they are here. Each status is a `str`, so it binds, compares and serializes as one.
No SQL, no HTTP, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from civiapi.store.civicrm.group_membership import GroupStatus as GroupStatus


class SyncStatus(StrEnum):
    """The state of a cache row (``sync_status``)."""

    TODO = "todo"
    """To be reconciled by the next sync."""
    LIVE = "live"
    """An update is waiting or in flight."""
    OK = "ok"
    """Both sides agree."""
    FAIL = "fail"
    """The sides cannot be made to agree; the row has a reason."""
    REDO = "redo"
    """Mailchimp refused to subscribe the member; a request to confirm is waiting or in flight instead."""


class MemberStatus(StrEnum):
    """The status of a member of a Mailchimp audience."""

    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"
    CLEANED = "cleaned"
    PENDING = "pending"
    TRANSACTIONAL = "transactional"
    ARCHIVED = "archived"


RECEIVES_MAIL = frozenset({MemberStatus.SUBSCRIBED, MemberStatus.PENDING})
"""Statuses that count as being in the audience. A pending member was asked to confirm and is not asked again."""


class OperationKind(StrEnum):
    """What a member operation changes at Mailchimp."""

    MEMBER = "member"
    EMAIL = "email"
    ARCHIVE = "archive"
    FIELDS = "names"
    """Merge fields; stored as it was when names alone were sent."""
    TAGS = "tags"


DATA_KINDS = frozenset({OperationKind.FIELDS, OperationKind.TAGS})
"""What CiviCRM knows of a member. It does not change whether the row is in sync."""

KIND_GROUPS: Mapping[str, OperationKind] = {
    OperationKind.EMAIL: OperationKind.EMAIL,
    OperationKind.MEMBER: OperationKind.MEMBER,
    OperationKind.ARCHIVE: OperationKind.MEMBER,
    OperationKind.FIELDS: OperationKind.FIELDS,
    OperationKind.TAGS: OperationKind.TAGS,
}
"""The kinds that replace each other while they wait, in the order in which the groups of a row are sent."""


@dataclass(frozen=True, slots=True)
class MemberOperation:
    """One call that Mailchimp is to carry out for a cache row.

    *path_tail* comes after ``/lists/LIST/`` (``members/HASH``, ``members/HASH/tags``); *cause* is the time of the
    CiviCRM change behind it, and *decided* that from which a change at Mailchimp overrules it, where that is another
    (aware UTC): an undo is no change of anybody's mind, but it knows what the members were.
    """

    kind: str
    method: str
    path_tail: str
    body: dict[str, Any] = field(default_factory=dict)
    cause: datetime | None = None
    decided: datetime | None = None

    @property
    def overruled_after(self) -> datetime | None:
        """A change at Mailchimp later than this is one that the operation does not know of; None: not known."""
        return self.decided or self.cause

    @property
    def kind_group(self) -> OperationKind:
        """The group of kinds in which this replaces what waits for the row."""
        return KIND_GROUPS.get(self.kind, OperationKind.MEMBER)

    @property
    def status(self) -> str | None:
        """The status that it gives the member; None: the member keeps its own."""
        return MemberStatus.ARCHIVED if self.kind == OperationKind.ARCHIVE else self.body.get("status") or None

    @property
    def is_data(self) -> bool:
        """Whether it is about data of a member alone."""
        return self.kind in DATA_KINDS

    @property
    def needs_member(self) -> bool:
        """Whether it is about a member who exists: all but what subscribes somebody."""
        would_be = self.body.get("status") or self.body.get("status_if_new")
        return self.kind != OperationKind.MEMBER or would_be not in RECEIVES_MAIL

    def as_pending(self) -> "MemberOperation":
        """The same, but Mailchimp is to ask the person to confirm."""
        body = self.body | {"status": MemberStatus.PENDING}
        if "status_if_new" in body:
            body["status_if_new"] = MemberStatus.PENDING
        return replace(self, body=body)

    @property
    def member(self) -> str:
        """The member id that the path names, or the body's address where it names none."""
        member_id = self.path_tail.removeprefix("members").strip("/").partition("/")[0]
        return member_id or str(self.body.get("email_address") or "")


@dataclass(frozen=True, slots=True)
class OpenUpdate:
    """An update that is not completed. *batch_id* is our own batch row, None while it waits."""

    id: int
    cache_id: int
    batch_id: int | None
    operation: MemberOperation
    tries: int = 0

    @property
    def in_flight(self) -> bool:
        """Whether it belongs to a batch, sent or about to be."""
        return self.batch_id is not None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One of our batches, as last read. *batch_id* is Mailchimp's, empty while we do not know it. Site times."""

    id: int
    list_id: str
    batch_id: str
    status: str
    processed: int
    finished: int = 0
    errored: int = 0
    total: int = 0
    submitted_at: str | None = None
    completed_at: str | None = None
