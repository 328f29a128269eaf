"""Changes of a member: joining, status, address, archiving, permanent deletion.

People, admins and the API all use these functions, so hidden facts, ``last_changed`` and webhooks are the same for all.
Every function checks before it changes: a refusal changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import from_text
from sync.emulator.model.records import (
    API,
    ARCHIVED,
    CLEANED,
    PENDING,
    SUBSCRIBED,
    TRANSACTIONAL,
    UNSUBSCRIBED,
    USER,
    EmulatedAccount,
    Json,
    Member,
)
from sync.emulator.model.state import EmulatorState
from sync.emulator.protocol import problems
from sync.emulator.protocol.problems import field_error, schema_failed
from sync.emulator.rules import webhook_events
from sync.emulator.rules.merge_values import merge_values
from sync.mailchimp.wire import subscriber_hash

ADDRESS = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s.,;<>]{2,}")
SOURCES = {API: "API - Generic", "admin": "Admin Add", USER: "Hosted Signup Form"}
ARCHIVABLE = (SUBSCRIBED, UNSUBSCRIBED, TRANSACTIONAL)
ONE_CHOICE = ("radio", "dropdown")


@dataclass(frozen=True, slots=True)
class ChangeContext:
    """The audience that a change is made in, and its *source*: ``user``, ``admin`` or ``api``."""

    state: EmulatorState
    account: EmulatedAccount
    audience: EmulatedAudience
    source: str = API

    @property
    def now(self) -> int:
        """Whole emulator seconds."""
        return self.state.clock.seconds()

    def announce(self, kind: str, data: webhook_events.Fields) -> None:
        """Queue a webhook event."""
        webhook_events.announce(self.state, self.account, self.audience, kind, self.source, data)


def join(ctx: ChangeContext, body: Mapping[str, Any], status: str, *, skip_required: bool = False) -> Member:
    """Create a member from *body* with *status*. Raises the 400s for addresses that may not join."""
    email = str(body["email_address"]).strip()
    check_address(ctx, email)
    _check_instants(body)
    if status == SUBSCRIBED and _may_not_subscribe(ctx, email):
        raise problems.compliance(email)
    merges = merge_values(ctx.audience, {}, body.get("merge_fields") or {}, skip_required=skip_required, is_new=True)
    member = Member(ctx.audience.members.next_serial(), subscriber_hash(email), email, status, ctx.now)
    member.source = SOURCES[ctx.source]
    member.merges = merges
    member.interests = interests_after(ctx.audience, frozenset(), body.get("interests") or {})
    permissions = permissions_after(ctx.audience, (), body)
    _set_optin_time(ctx, member)
    _apply_values(member, body, permissions)
    names = [name for name in body.get("tags") or () if name.strip()]
    member.tags = {ctx.audience.tag_named(name, ctx.now).id: ctx.now for name in names} or None
    if status == UNSUBSCRIBED:
        member.unsubscribed_by = ctx.source
    ctx.audience.members.forgotten.discard(member.id)
    ctx.audience.members.add(member)
    if status == SUBSCRIBED:
        ctx.audience.last_sub_at = ctx.now
        ctx.announce("subscribe", webhook_events.profile_data(ctx.audience, member))
    return member


def update(ctx: ChangeContext, member: Member, body: Mapping[str, Any], *, skip_required: bool = False) -> None:
    """Change what *body* names and nothing else."""
    status = body.get("status") or member.status
    check_status(ctx, member, status)
    _check_instants(body)
    email = str(body.get("email_address") or member.email).strip()
    if email != member.email:
        check_new_address(ctx, member, email)
    merges = merge_values(
        ctx.audience, member.merges, body.get("merge_fields") or {}, skip_required=skip_required, is_new=False
    )
    interests = interests_after(ctx.audience, member.interests, body.get("interests") or {})
    permissions = permissions_after(ctx.audience, _permissions(member), body)
    before = _profile(member)
    old_status, old_email = member.status, member.email
    bumps = ctx.account.options.unchanged_write_bumps
    seen = _visible_state(member)
    stamp = member.last_changed
    with ctx.audience.members.changing(member, ctx.now):
        member.merges, member.interests = merges, interests
        _apply_values(member, body, permissions)
        if email != old_email:
            ctx.audience.members.rename(member, email)
        if status != old_status:
            _move(ctx, member, status)
    if not bumps and _visible_state(member) == seen:
        with ctx.audience.members.changing(member, stamp):
            pass
    _announce_change(ctx, member, old_status, old_email, changed=before != _profile(member))


def set_status(ctx: ChangeContext, member: Member, status: str) -> None:
    """Set the status of *member*, with what follows from it."""
    old = member.status
    with ctx.audience.members.changing(member, ctx.now):
        _move(ctx, member, status)
    _announce_change(ctx, member, old, member.email, changed=False)


def archive(ctx: ChangeContext, member: Member) -> None:
    """Archive a member. Raises 405 for one that is cleaned, pending or archived."""
    if member.status not in ARCHIVABLE:
        raise problems.cannot_archive()
    with ctx.audience.members.changing(member, ctx.now):
        member.archived_from = member.status
        member.status = ARCHIVED
    ctx.announce("unsubscribe", webhook_events.unsubscribe_data(ctx.audience, member, "delete", "manual"))


def forget(ctx: ChangeContext, member: Member) -> None:
    """Delete for good: afterwards only the person can sign up again."""
    ctx.audience.members.remove(member)
    ctx.audience.members.forgotten.add(subscriber_hash(member.email))
    ctx.announce("unsubscribe", webhook_events.unsubscribe_data(ctx.audience, member, "delete", "manual"))


def set_tags(ctx: ChangeContext, member: Member, names: Mapping[str, bool]) -> None:
    """Add (True) and remove (False) tags by name."""
    tags = dict(member.tags or {})
    for name, wanted in names.items():
        if wanted and name.strip():
            tag = ctx.audience.tag_named(name, ctx.now)
            tags.setdefault(tag.id, ctx.now)
        elif (known := ctx.audience.find_tag(name)) is not None:
            tags.pop(known.id, None)
    if tags == (member.tags or {}):
        return
    with ctx.audience.members.changing(member, ctx.now):
        member.tags = tags or None


def check_address(ctx: ChangeContext, email: str) -> None:
    """Refuse an address that is invalid, rejected, throttled, or deleted for good (unless the person acts)."""
    options = ctx.account.options
    lowered = email.lower()
    if not ADDRESS.fullmatch(email) or lowered.rpartition("@")[2] in options.reject_domains:
        raise problems.fake_address(email)
    if lowered in options.throttled_emails:
        raise problems.throttled_person(email)
    if ctx.source == USER:
        return
    if lowered in options.forgotten_emails or subscriber_hash(email) in ctx.audience.members.forgotten:
        raise problems.forgotten(email)


def check_new_address(ctx: ChangeContext, member: Member, email: str) -> None:
    """Refuse a change of address that Mailchimp refuses."""
    check_address(ctx, email)
    other = ctx.audience.members.find_address(email)
    if other is not None and other is not member:
        raise problems.member_exists(email)
    if other is None and member.status in (UNSUBSCRIBED, CLEANED):
        raise problems.invalid("The email address of an unsubscribed or cleaned contact cannot be changed.")


def check_status(ctx: ChangeContext, member: Member, status: str) -> None:
    """Refuse a move between statuses that only the person may make."""
    if status == TRANSACTIONAL and member.status not in (TRANSACTIONAL, ARCHIVED):
        raise schema_failed([field_error("status", "A contact in this audience cannot become transactional.")])
    if ctx.source == USER or status not in (SUBSCRIBED, PENDING):
        return
    lasting = member.archived_from if member.status == ARCHIVED else member.status
    if lasting == CLEANED and member.status != status:
        raise problems.compliance(member.email)
    if status == SUBSCRIBED and (_left_for_good(ctx, member) or _may_not_subscribe(ctx, member.email)):
        raise problems.compliance(member.email)


def interests_after(audience: EmulatedAudience, held: frozenset[str], sent: Mapping[str, bool]) -> frozenset[str]:
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


def permissions_after(audience: EmulatedAudience, given: Sequence[str], body: Mapping[str, Any]) -> list[str]:
    """Return the marketing permissions given after *body*, in the audience's order: those it does not name stay.

    That a PUT leaves those alone, as a PATCH does, is not documented, nor what is done about one that the audience does
    not have: here a 400, as for an interest.
    """
    known = [str(one["marketing_permission_id"]) for one in audience.marketing_permissions]
    sent = {one["marketing_permission_id"]: bool(one.get("enabled")) for one in body.get("marketing_permissions") or ()}
    if unknown := [key for key in sent if key not in known]:
        raise problems.invalid(f"Marketing permission {unknown[0]} does not exist in this audience.")
    return [key for key in known if sent.get(key, key in given)]


def _left_for_good(ctx: ChangeContext, member: Member) -> bool:
    """True when the member unsubscribed and only they, or by the option nobody, may undo it by API."""
    if member.unsubscribed_by == USER:
        return True
    strict = ctx.account.options.resubscribe_api_unsubscribed == "compliance"
    return member.status == UNSUBSCRIBED and strict


def _may_not_subscribe(ctx: ChangeContext, email: str) -> bool:
    return ctx.source != USER and email.lower() in ctx.account.options.compliance_emails


def _move(ctx: ChangeContext, member: Member, status: str) -> None:
    """Set the status and the facts that depend on it; call inside `changing`."""
    old = member.status
    if old == ARCHIVED and status != ARCHIVED:
        member.archived_from = ""
    member.status = status
    if status == SUBSCRIBED:
        member.unsubscribed_by = ""
        _set_optin_time(ctx, member)
        ctx.audience.last_sub_at = ctx.now
    elif status == UNSUBSCRIBED:
        member.unsubscribed_by = member.unsubscribed_by or ctx.source
        member.extra = (member.extra or {}) | {"unsubscribed_at": ctx.now}
        ctx.audience.last_unsub_at = ctx.now


def _set_optin_time(ctx: ChangeContext, member: Member) -> None:
    if member.status == PENDING:
        member.timestamp_signup = ctx.now
        return
    member.timestamp_opt = ctx.now
    member.ip_opt = "192.0.2.10"


PLAIN = {"email_type": "email_type", "language": "language", "vip": "vip", "ip_signup": "ip_signup", "ip_opt": "ip_opt"}
INSTANTS = ("timestamp_signup", "timestamp_opt")


def _apply_values(member: Member, body: Mapping[str, Any], permissions: list[str]) -> None:
    """Copy the plain values in *body*, and the *permissions* given after it."""
    for name, attribute in PLAIN.items():
        if name in body:
            setattr(member, attribute, body[name])
    for name in INSTANTS:
        if body.get(name):
            setattr(member, name, from_text(body[name]))
    extra: Json = {}
    if body.get("location"):
        extra["location"] = {**(member.extra or {}).get("location", {}), **body["location"]}
    if "marketing_permissions" in body:
        extra["marketing_permissions"] = permissions
    if extra:
        member.extra = (member.extra or {}) | extra


def _check_instants(body: Mapping[str, Any]) -> None:
    """Refuse times that match the pattern but do not exist, such as a 31st of February."""
    for name in INSTANTS:
        try:
            from_text(body.get(name) or "")
        except ValueError:
            raise schema_failed([field_error(name, "This value should be a valid datetime.")]) from None


def _profile(member: Member) -> tuple[object, ...]:
    given = _permissions(member)
    return (member.merges, member.interests, given, member.email_type, member.language, member.vip)


def _permissions(member: Member) -> list[str]:
    return list((member.extra or {}).get("marketing_permissions", ()))


def _visible_state(member: Member) -> tuple[object, ...]:
    return (member.status, member.email, member.extra, member.ip_opt, member.ip_signup, *_profile(member))


def _announce_change(ctx: ChangeContext, member: Member, old_status: str, old_email: str, *, changed: bool) -> None:
    """Queue the webhook events of a finished change."""
    if old_email.lower() != member.email.lower():
        ctx.announce("upemail", webhook_events.upemail_data(old_email, member.email))
        changed = True
    if member.status != old_status:
        if member.status == SUBSCRIBED:
            ctx.announce("subscribe", webhook_events.profile_data(ctx.audience, member))
        elif member.status == UNSUBSCRIBED and old_status in (SUBSCRIBED, PENDING):
            ctx.announce("unsubscribe", webhook_events.unsubscribe_data(ctx.audience, member, "unsub", "manual"))
    if changed and member.status == SUBSCRIBED == old_status:
        ctx.announce("profile", webhook_events.profile_data(ctx.audience, member))
