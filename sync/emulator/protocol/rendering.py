"""A member as Mailchimp renders it. Only the keys left by ``fields`` are computed, so that pages are cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import to_wire
from sync.emulator.model.member_index import unique_email_id
from sync.emulator.model.records import UNSUBSCRIBED, Json, Member

NO_LOCATION = {
    "latitude": 0,
    "longitude": 0,
    "gmtoff": 0,
    "dstoff": 0,
    "country_code": "",
    "timezone": "",
    "region": "",
}
SUBSCRIBED_STATS = {"avg_open_rate": 0, "avg_click_rate": 0}
MEMBER_LINKS = (
    ("update", "PATCH", ""),
    ("upsert", "PUT", ""),
    ("delete", "DELETE", ""),
    ("activity", "GET", "/activity"),
    ("goals", "GET", "/goals"),
    ("notes", "GET", "/notes"),
    ("events", "POST", "/events"),
    ("delete_permanent", "POST", "/actions/delete-permanent"),
)


class MemberView:
    """Renders members of one audience. Make one per answer: it caches the audience's fields and interests."""

    def __init__(self, audience: EmulatedAudience, api_root: str) -> None:
        self._audience = audience
        self._root = f"{api_root}/lists/{audience.id}"
        self._merges = audience.empty_merges()
        self._interests = dict.fromkeys(audience.interests(), False)
        self._permissions = audience.marketing_permissions

    def render(self, member: Member, keys: Sequence[str] | None = None) -> Json:
        """Return *member* with *keys* (None: all), in the order of recorded traffic."""
        makers = MAKERS if keys is None else {key: MAKERS[key] for key in keys}
        shown = {key: make(self, member) for key, make in makers.items()}
        for key in [key for key in RELEVANT_ONLY if key in shown and shown[key] is None]:
            del shown[key]
        return shown

    def merges(self, member: Member) -> Json:
        """Return every merge field with the member's value, ``""`` where there is none."""
        return {tag: member.merges.get(tag, "") for tag in self._merges}

    def full_name(self, member: Member) -> str:
        """Return first and last name joined."""
        return f"{member.merges.get('FNAME', '')} {member.merges.get('LNAME', '')}".strip()

    def contact_id(self, member: Member) -> str:
        """Return the member's contact id."""
        return self._audience.members.contact_id(member)

    def web_id(self, member: Member) -> int:
        """Return the member's web id."""
        return self._audience.members.web_id(member)

    def interests(self, member: Member) -> dict[str, bool] | None:
        """Return yes or no for every interest; None when the audience has no groups."""
        if not self._interests:
            return None
        return {**self._interests, **{key: True for key in member.interests if key in self._interests}}

    def tags(self, member: Member) -> list[Json]:
        """Return the member's tags by id and name."""
        known = self._audience.tags
        return [{"id": key, "name": known[key].name} for key in member.tags or () if key in known]

    def permissions(self, member: Member) -> list[Json] | None:
        """Return marketing permissions; None when the audience has none."""
        if not self._permissions:
            return None
        given = set((member.extra or {}).get("marketing_permissions", ()))
        return [
            {
                "marketing_permission_id": one["marketing_permission_id"],
                "text": one.get("text", ""),
                "enabled": one["marketing_permission_id"] in given,
            }
            for one in self._permissions
        ]

    def links(self, member: Member) -> list[Json]:
        """Return the links of a member."""
        own = f"{self._root}/members/{member.id}"
        schema = "https://us1.api.mailchimp.com/schema/3.0/Definitions/Lists/Members/"
        made = [
            {"rel": "self", "href": own, "method": "GET", "targetSchema": schema + "Response.json"},
            {"rel": "parent", "href": self._root + "/members", "method": "GET", "targetSchema": schema + "Coll.json"},
        ]
        return made + [
            {"rel": rel, "href": own + tail, "method": method, "targetSchema": schema + "Response.json"}
            for rel, method, tail in MEMBER_LINKS
        ]

    def list_id(self, member: Member) -> str:
        """Return the audience's id."""
        return self._audience.id


def _extra(key: str, default: Any) -> Callable[[MemberView, Member], Any]:
    return lambda view, member: (member.extra or {}).get(key, default)


def _unsubscribe_reason(_view: MemberView, member: Member) -> str | None:
    if member.status != UNSUBSCRIBED:
        return None
    reason = (member.extra or {}).get("unsubscribe_reason")
    return reason if isinstance(reason, str) else None


MAKERS: dict[str, Callable[[MemberView, Member], Any]] = {
    "id": lambda view, member: member.id,
    "email_address": lambda view, member: member.email if "@" in member.email else "",  # else a phone number
    "unique_email_id": lambda view, member: unique_email_id(member),
    "contact_id": MemberView.contact_id,
    "full_name": MemberView.full_name,
    "web_id": MemberView.web_id,
    "email_type": lambda view, member: member.email_type,
    "status": lambda view, member: member.status,
    "unsubscribe_reason": _unsubscribe_reason,
    "consents_to_one_to_one_messaging": lambda view, member: True,
    "merge_fields": MemberView.merges,
    "interests": MemberView.interests,
    "stats": lambda view, member: dict(SUBSCRIBED_STATS),
    "ip_signup": lambda view, member: member.ip_signup,
    "timestamp_signup": lambda view, member: to_wire(member.timestamp_signup),
    "ip_opt": lambda view, member: member.ip_opt,
    "timestamp_opt": lambda view, member: to_wire(member.timestamp_opt),
    "member_rating": lambda view, member: member.rating,
    "last_changed": lambda view, member: to_wire(member.last_changed),
    "language": lambda view, member: member.language,
    "vip": lambda view, member: member.vip,
    "email_client": _extra("email_client", ""),
    "location": lambda view, member: NO_LOCATION | (member.extra or {}).get("location", {}),
    "marketing_permissions": MemberView.permissions,
    "last_note": _extra("last_note", None),
    "sms_phone_number": _extra("sms_phone_number", None),
    "sms_subscription_status": _extra("sms_subscription_status", None),
    "source": lambda view, member: member.source,
    "tags_count": lambda view, member: len(member.tags or ()),
    "tags": MemberView.tags,
    "list_id": MemberView.list_id,
    "_links": MemberView.links,
}
RELEVANT_ONLY = (
    "unsubscribe_reason",
    "interests",
    "marketing_permissions",
    "last_note",
    "sms_phone_number",
    "sms_subscription_status",
)
"""Keys left out, rather than empty, when they have no value."""
MEMBER_KEYS = tuple(MAKERS)
