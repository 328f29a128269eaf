"""How a member changes: joining, moving between statuses, changing address, being archived, being forgotten.

Whoever acts (a person, an admin, the API) comes through here, so the hidden facts, ``last_changed`` and webhooks
are right whichever way in. Every function decides and checks first and changes afterwards: a refusal changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.mailchimp.emulator import events, problems
from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.clock import from_text
from sync.mailchimp.emulator.merging import merge_values
from sync.mailchimp.emulator.model import (
    API,
    ARCHIVED,
    CLEANED,
    PENDING,
    SUBSCRIBED,
    TRANSACTIONAL,
    UNSUBSCRIBED,
    USER,
    Account,
    Json,
    Member,
)
from sync.mailchimp.emulator.problems import field_error, schema_failed
from sync.mailchimp.wire import subscriber_hash

if TYPE_CHECKING:
    from sync.mailchimp.emulator.world import World

ADDRESS = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s.,;<>]{2,}")
SOURCES = {API: "API - Generic", "admin": "Admin Add", USER: "Hosted Signup Form"}
ARCHIVABLE = (SUBSCRIBED, UNSUBSCRIBED, TRANSACTIONAL)
ONE_CHOICE = ("radio", "dropdown")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a change happens and who makes it: *source* is ``user``, ``admin`` or ``api``."""

    world: World
    account: Account
    audience: Audience
    source: str = API

    @property
    def now(self) -> int:
        """Whole emulator seconds."""
        return self.world.clock.seconds()

    def announce(self, kind: str, data: events.Fields) -> None:
        """Queue a webhook event."""
        events.announce(self.world, self.account, self.audience, kind, self.source, data)


def join(place: Place, body: Mapping[str, Any], status: str, *, skip_required: bool = False) -> Member:
    """Create a member from *body* with *status*. Raises the 400s of section 2 for addresses that may not join."""
    email = str(body["email_address"]).strip()
    check_address(place, email)
    _check_instants(body)
    if status == SUBSCRIBED and _held_back(place, email):
        raise problems.compliance(email)
    merges = merge_values(place.audience, {}, body.get("merge_fields") or {}, skip_required=skip_required, is_new=True)
    member = Member(place.audience.members.next_serial(), subscriber_hash(email), email, status, place.now)
    member.source = SOURCES[place.source]
    member.merges = merges
    member.interests = interests_after(place.audience, frozenset(), body.get("interests") or {})
    _stamp_joining(place, member)
    _lay_on(member, body)
    names = [name for name in body.get("tags") or () if name.strip()]
    member.tags = {place.audience.tag_named(name, place.now).id: place.now for name in names} or None
    if status == UNSUBSCRIBED:
        member.unsubscribed_by = place.source
    place.audience.members.forgotten.discard(member.id)
    place.audience.members.add(member)
    if status == SUBSCRIBED:
        place.audience.last_sub_at = place.now
        place.announce("subscribe", events.profile_data(place.audience, member))
    return member


def update(place: Place, member: Member, body: Mapping[str, Any], *, skip_required: bool = False) -> None:
    """Change what *body* names and nothing else."""
    status = body.get("status") or member.status
    check_status(place, member, status)
    _check_instants(body)
    email = str(body.get("email_address") or member.email).strip()
    if email != member.email:
        check_new_address(place, member, email)
    merges = merge_values(
        place.audience, member.merges, body.get("merge_fields") or {}, skip_required=skip_required, is_new=False
    )
    interests = interests_after(place.audience, member.interests, body.get("interests") or {})
    before = (member.merges, member.interests, member.email_type, member.language, member.vip)
    old_status, old_email = member.status, member.email
    bumps = place.account.knobs.unchanged_write_bumps
    seen = _face(member)
    stamp = member.last_changed
    with place.audience.members.changing(member, place.now):
        member.merges, member.interests = merges, interests
        _lay_on(member, body)
        if email != old_email:
            place.audience.members.rename(member, email)
        if status != old_status:
            _move(place, member, status)
    if not bumps and _face(member) == seen:
        with place.audience.members.changing(member, stamp):
            pass
    _tell(place, member, old_status, old_email, changed=before != _profile(member))


def set_status(place: Place, member: Member, status: str) -> None:
    """Move *member* to *status* by one of the roads no API body describes (confirmation, bounce, admin)."""
    old = member.status
    with place.audience.members.changing(member, place.now):
        _move(place, member, status)
    _tell(place, member, old, member.email, changed=False)


def touch(place: Place, member: Member) -> None:
    """Move ``last_changed`` and nothing else, as a rating or a geolocation does."""
    with place.audience.members.changing(member, place.now):
        pass


def archive(place: Place, member: Member) -> None:
    """Hide a member. Raises 405 for one that is cleaned, pending or archived."""
    if member.status not in ARCHIVABLE:
        raise problems.cannot_archive()
    with place.audience.members.changing(member, place.now):
        member.archived_from = member.status
        member.status = ARCHIVED
    place.announce("unsubscribe", events.unsubscribe_data(place.audience, member, "delete", "manual"))


def forget(place: Place, member: Member) -> None:
    """Delete for good: the address may come back only by the person's own doing."""
    place.audience.members.remove(member)
    place.audience.members.forgotten.add(subscriber_hash(member.email))
    place.announce("unsubscribe", events.unsubscribe_data(place.audience, member, "delete", "manual"))


def set_tags(place: Place, member: Member, names: Mapping[str, bool]) -> None:
    """Add (True) and remove (False) tags by name."""
    tags = dict(member.tags or {})
    for name, wanted in names.items():
        if wanted and name.strip():
            tag = place.audience.tag_named(name, place.now)
            tags.setdefault(tag.id, place.now)
        elif (known := place.audience.find_tag(name)) is not None:
            tags.pop(known.id, None)
    if tags == (member.tags or {}):
        return
    with place.audience.members.changing(member, place.now):
        member.tags = tags or None


def check_address(place: Place, email: str) -> None:
    """Refuse an address that is no address, rejected, throttled, or forgotten (except by the person's own doing)."""
    knobs = place.account.knobs
    lowered = email.lower()
    if not ADDRESS.fullmatch(email) or lowered.rpartition("@")[2] in knobs.reject_domains:
        raise problems.fake_address(email)
    if lowered in knobs.throttled_emails:
        raise problems.throttled_person(email)
    if place.source == USER:
        return
    if lowered in knobs.forgotten_emails or subscriber_hash(email) in place.audience.members.forgotten:
        raise problems.forgotten(email)


def check_new_address(place: Place, member: Member, email: str) -> None:
    """Refuse a change of address that Mailchimp refuses."""
    check_address(place, email)
    other = place.audience.members.find_address(email)
    if other is not None and other is not member:
        raise problems.member_exists(email)
    if other is None and member.status in (UNSUBSCRIBED, CLEANED):
        raise problems.invalid("The email address of an unsubscribed or cleaned contact cannot be changed.")


def check_status(place: Place, member: Member, status: str) -> None:
    """Refuse a move between statuses that only the person may make."""
    if status == TRANSACTIONAL and member.status not in (TRANSACTIONAL, ARCHIVED):
        raise schema_failed([field_error("status", "A contact in this audience cannot become transactional.")])
    if place.source == USER or status not in (SUBSCRIBED, PENDING):
        return
    lasting = member.archived_from if member.status == ARCHIVED else member.status
    if lasting == CLEANED and member.status != status:
        raise problems.compliance(member.email)
    if status == SUBSCRIBED and (_left_for_good(place, member) or _held_back(place, member.email)):
        raise problems.compliance(member.email)


def interests_after(audience: Audience, held: frozenset[str], sent: Mapping[str, bool]) -> frozenset[str]:
    """Return the interests held after *sent*; in a one-choice category the last yes wins. Raises a 400."""
    if not sent:
        return held
    known = audience.interests()
    if unknown := [key for key in sent if key not in known]:
        raise problems.invalid(f"Interest {unknown[0]} does not exist in this audience.")
    result = set(held)
    for key, wanted in sent.items():
        category = audience.categories[known[key].category_id]
        if wanted and category.type in ONE_CHOICE:
            result -= category.interests.keys()
        if wanted:
            result.add(key)
        else:
            result.discard(key)
    return frozenset(result)


def _left_for_good(place: Place, member: Member) -> bool:
    """True when the member unsubscribed and only they, or by the knob nobody, may undo it by API."""
    if member.unsubscribed_by == USER:
        return True
    strict = place.account.knobs.resubscribe_api_unsubscribed == "compliance"
    return member.status == UNSUBSCRIBED and strict


def _held_back(place: Place, email: str) -> bool:
    return place.source != USER and email.lower() in place.account.knobs.compliance_emails


def _move(place: Place, member: Member, status: str) -> None:
    """Change the status and the facts that hang on it; call inside ``changing``."""
    old = member.status
    if old == ARCHIVED and status != ARCHIVED:
        member.archived_from = ""
    member.status = status
    if status == SUBSCRIBED:
        member.unsubscribed_by = ""
        _stamp_joining(place, member)
        place.audience.last_sub_at = place.now
    elif status == UNSUBSCRIBED:
        member.unsubscribed_by = member.unsubscribed_by or place.source
        member.rare = (member.rare or {}) | {"unsubscribed_at": place.now}
        place.audience.last_unsub_at = place.now


def _stamp_joining(place: Place, member: Member) -> None:
    if member.status == PENDING:
        member.timestamp_signup = place.now
        return
    member.timestamp_opt = place.now
    member.ip_opt = "192.0.2.10"


PLAIN = {"email_type": "email_type", "language": "language", "vip": "vip", "ip_signup": "ip_signup", "ip_opt": "ip_opt"}
INSTANTS = ("timestamp_signup", "timestamp_opt")


def _lay_on(member: Member, body: Mapping[str, Any]) -> None:
    """Copy the plain values that *body* names."""
    for name, attribute in PLAIN.items():
        if name in body:
            setattr(member, attribute, body[name])
    for name in INSTANTS:
        if body.get(name):
            setattr(member, name, from_text(body[name]))
    rare: Json = {}
    if body.get("location"):
        rare["location"] = {**(member.rare or {}).get("location", {}), **body["location"]}
    if "marketing_permissions" in body:
        given = [one["marketing_permission_id"] for one in body["marketing_permissions"] if one.get("enabled")]
        rare["marketing_permissions"] = given
    if rare:
        member.rare = (member.rare or {}) | rare


def _check_instants(body: Mapping[str, Any]) -> None:
    """Refuse times that look right and are not, such as a 31st of February."""
    for name in INSTANTS:
        try:
            from_text(body.get(name) or "")
        except ValueError:
            raise schema_failed([field_error(name, "This value should be a valid datetime.")]) from None


def _profile(member: Member) -> tuple[object, ...]:
    return (member.merges, member.interests, member.email_type, member.language, member.vip)


def _face(member: Member) -> tuple[object, ...]:
    return (member.status, member.email, member.rare, member.ip_opt, member.ip_signup, *_profile(member))


def _tell(place: Place, member: Member, old_status: str, old_email: str, *, changed: bool) -> None:
    """Queue the events that a finished change amounts to."""
    if old_email.lower() != member.email.lower():
        place.announce("upemail", events.upemail_data(old_email, member.email))
        changed = True
    if member.status != old_status:
        if member.status == SUBSCRIBED:
            place.announce("subscribe", events.profile_data(place.audience, member))
        elif member.status == UNSUBSCRIBED and old_status in (SUBSCRIBED, PENDING):
            place.announce("unsubscribe", events.unsubscribe_data(place.audience, member, "unsub", "manual"))
    if changed and member.status == SUBSCRIBED == old_status:
        place.announce("profile", events.profile_data(place.audience, member))
