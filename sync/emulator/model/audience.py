"""One audience: settings, merge fields, interest categories, tags, webhooks, members, and counts of subscribers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sync.emulator.model.member_index import MemberIndex
from sync.emulator.model.records import SUBSCRIBED, Hook, Interest, InterestCategory, Json, MergeField, Tag

FIRST_TAG_ID = 5_000_001
DEFAULT_MERGE_FIELDS = (
    ("FNAME", "First Name", "text"),
    ("LNAME", "Last Name", "text"),
    ("ADDRESS", "Address", "address"),
    ("PHONE", "Phone Number", "phone"),
)


@dataclass(frozen=True, slots=True)
class SubscriberCounts:
    """Subscribed members per interest and per tag, at one revision of the members."""

    revision: int
    interests: Counter[str]
    tags: Counter[int]


@dataclass
class EmulatedAudience:
    """An audience and all that belongs to it. Instants are whole seconds since 1970."""

    id: str
    name: str
    created_at: int
    web_id: int = 90001
    double_optin: bool = False
    email_type_option: bool = False
    marketing_permissions: list[Json] = field(default_factory=list)
    merge_fields: dict[int, MergeField] = field(default_factory=dict)
    categories: dict[str, InterestCategory] = field(default_factory=dict)
    tags: dict[int, Tag] = field(default_factory=dict)
    hooks: dict[str, Hook] = field(default_factory=dict)
    last_sub_at: int = 0
    last_unsub_at: int = 0
    cached_stats: tuple[float, Json] | None = None

    def __post_init__(self) -> None:
        self.members = MemberIndex(self.id)
        self.cached_scan: tuple[object, list[int]] | None = None
        self._subscriber_counts: SubscriberCounts | None = None

    def add_default_merge_fields(self) -> None:
        """Add the four merge fields of a new audience."""
        for number, (tag, name, kind) in enumerate(DEFAULT_MERGE_FIELDS, start=1):
            self.merge_fields[number] = MergeField(number, tag, name, kind, display_order=number + 1)

    def merge_field(self, tag: str) -> MergeField | None:
        """Return the merge field with this tag, in any case."""
        wanted = tag.upper()
        return next((merge for merge in self.merge_fields.values() if merge.tag == wanted), None)

    def interests(self) -> dict[str, Interest]:
        """Return every interest of every category by id."""
        return {key: one for category in self.categories.values() for key, one in category.interests.items()}

    def find_tag(self, name: str) -> Tag | None:
        """Return the tag with this name, in any case."""
        wanted = name.strip().lower()
        return next((tag for tag in self.tags.values() if tag.name.lower() == wanted), None)

    def tag_named(self, name: str, now: int) -> Tag:
        """Return the tag with this name, made if new."""
        tag = self.find_tag(name)
        if tag is None:
            tag = Tag(max(self.tags, default=FIRST_TAG_ID - 1) + 1, name.strip(), now, now)
            self.tags[tag.id] = tag
        return tag

    def subscriber_counts(self) -> SubscriberCounts:
        """Return how many subscribed members have each interest and each tag."""
        if self._subscriber_counts is None or self._subscriber_counts.revision != self.members.revision:
            interests: Counter[str] = Counter()
            tags: Counter[int] = Counter()
            for member in self.members:
                if member.status == SUBSCRIBED:
                    interests.update(member.interests)
                    tags.update(tuple(member.tags or ()))
            self._subscriber_counts = SubscriberCounts(self.members.revision, interests, tags)
        return self._subscriber_counts

    def empty_merges(self) -> dict[str, Any]:
        """Return every merge tag with an empty value, in the order of creation."""
        return {merge.tag: "" for merge in self.merge_fields.values()}
