"""Actions outside the API: of people (signup forms, links in mails) and of admins (the web app).

Each action is an entry of a table and changes members by `membership`, as the API does, with another source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sync.emulator.model.records import ADMIN, ARCHIVED, CLEANED, PENDING, SUBSCRIBED, UNSUBSCRIBED, USER, Json, Member
from sync.emulator.model.state import EmulatorState
from sync.emulator.rules import membership, webhook_events
from sync.emulator.rules.membership import ChangeContext
from sync.emulator.rules.merge_values import merge_values
from sync.mailchimp.wire import subscriber_hash


class UnknownAction(ValueError):
    """There is no such action, or no such member."""


def person(state: EmulatorState, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
    """Do an action of ``PERSON`` as the person with *email*. Returns the member afterwards.

    Raises UnknownAction for an unknown action or member, Problem when Mailchimp refuses it.
    """
    return _act(state, PERSON, USER, action, email, list_id, more)


def admin(state: EmulatorState, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
    """Do an action of ``ADMIN_ACTIONS`` to a member, as an admin in the web app."""
    return _act(state, ADMIN_ACTIONS, ADMIN, action, email, list_id, more)


Action = Callable[[ChangeContext, str, Json], Member | None]


def _act(
    state: EmulatorState,
    table: dict[str, Action],
    source: str,
    action: str,
    email: str,
    list_id: str | None,
    more: Json,
) -> Member | None:
    if action not in table:
        raise UnknownAction(f"There is no action {action!r}; there are {', '.join(table)}")
    account, audience = state.find_audience(list_id)
    return table[action](ChangeContext(state, account, audience, source), email, more)


def _member(ctx: ChangeContext, email: str) -> Member:
    found = ctx.audience.members.find_address(email)
    if found is None:
        raise UnknownAction(f"{email} is not in audience {ctx.audience.id}")
    return found


def _sign_up(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Sign up by form, whatever the status; with double opt-in the member becomes pending."""
    status = more.pop("status", PENDING if ctx.audience.double_optin else SUBSCRIBED)
    body = {"email_address": email, **more}
    known = ctx.audience.members.find_address(email)
    if known is None:
        return membership.join(ctx, body, status)
    membership.update(ctx, known, {**body, "status": status}, skip_required=True)
    return known


def _confirm(ctx: ChangeContext, email: str, more: Json) -> Member:
    member = _member(ctx, email)
    if member.status == PENDING:
        membership.set_status(ctx, member, SUBSCRIBED)
    return member


def _unsubscribe(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Unsubscribe by link, which replaces who unsubscribed them before."""
    member = _member(ctx, email)
    return _leave(ctx, member, "manual", more.get("reason", ""))


def _complain(ctx: ChangeContext, email: str, more: Json) -> Member:
    return _leave(ctx, _member(ctx, email), "abuse", "abuse")


def _leave(ctx: ChangeContext, member: Member, reason: str, text: str) -> Member:
    was_in = member.status in (SUBSCRIBED, PENDING)
    with ctx.audience.members.changing(member, ctx.now):
        member.status, member.unsubscribed_by, member.archived_from = UNSUBSCRIBED, USER, ""
        reason_given = {"unsubscribe_reason": text} if text else {}
        member.extra = (member.extra or {}) | {"unsubscribed_at": ctx.now} | reason_given
    ctx.audience.last_unsub_at = ctx.now
    if was_in:
        ctx.announce(
            "unsubscribe", webhook_events.unsubscribe_data(ctx.audience, member, "unsub", reason, "c0ffee0001")
        )
    return member


def _edit(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Edit a profile: *more* is a member body."""
    member = _member(ctx, email)
    membership.update(ctx, member, more, skip_required=True)
    return member


def _change_email(ctx: ChangeContext, email: str, more: Json) -> Member:
    return _edit(ctx, email, {"email_address": more["new_email"]})


def _bounce(ctx: ChangeContext, email: str, more: Json) -> Member:
    member = _member(ctx, email)
    with ctx.audience.members.changing(member, ctx.now):
        member.status = CLEANED
    ctx.announce("cleaned", webhook_events.cleaned_data(member, "hard", "c0ffee0001"))
    return member


def _move(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Open mail elsewhere: the location changes, and ``last_changed`` with it."""
    member = _member(ctx, email)
    membership.update(ctx, member, {"location": {"latitude": 51.5, "longitude": -0.1}}, skip_required=True)
    return member


def _archive(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Archive a member of any status."""
    member = _member(ctx, email)
    if member.status == ARCHIVED:
        return member
    with ctx.audience.members.changing(member, ctx.now):
        member.archived_from, member.status = member.status, ARCHIVED
    ctx.announce("unsubscribe", webhook_events.unsubscribe_data(ctx.audience, member, "delete", "manual"))
    return member


def _admin_unsubscribe(ctx: ChangeContext, email: str, more: Json) -> Member:
    member = _member(ctx, email)
    membership.set_status(ctx, member, UNSUBSCRIBED)
    return member


def _delete(ctx: ChangeContext, email: str, more: Json) -> None:
    membership.forget(ctx, _member(ctx, email))


def _import(ctx: ChangeContext, email: str, more: Json) -> Member:
    """Import one address, new or known; tags are added. Imports send no webhook."""
    silent = _SilentChange(ctx.state, ctx.account, ctx.audience, ctx.source)
    names = dict.fromkeys(more.pop("tags", ()), True)
    known = ctx.audience.members.find_address(email)
    if known is None:
        status = more.get("status", SUBSCRIBED)
        known = membership.join(silent, {"email_address": email, **more}, status, skip_required=True)
    else:
        membership.update(silent, known, more, skip_required=True)
    membership.set_tags(silent, known, names)
    return known


def _tag(ctx: ChangeContext, email: str, more: Json) -> Member:
    member = _member(ctx, email)
    membership.set_tags(ctx, member, more["tags"])
    return member


class _SilentChange(ChangeContext):
    """A change that sends no webhook."""

    def announce(self, kind: str, data: webhook_events.Fields) -> None:
        """Queue nothing."""


def _sign_up_by_sms(ctx: ChangeContext, phone: str, more: Json) -> Member:
    """Sign up with a phone number only: no address until `change_email` gives one. The number stands for it here."""
    members = ctx.audience.members
    member = Member(members.next_serial(), subscriber_hash(phone), phone, more.get("status", SUBSCRIBED), ctx.now)
    member.merges = merge_values(ctx.audience, {}, more.get("merge_fields") or {}, skip_required=True, is_new=True)
    member.extra = {"sms_phone_number": phone, "sms_subscription_status": SUBSCRIBED}
    members.add(member)
    return member


PERSON: dict[str, Action] = {
    "sign_up": _sign_up,
    "sign_up_by_sms": _sign_up_by_sms,
    "confirm": _confirm,
    "unsubscribe": _unsubscribe,
    "complain": _complain,
    "edit_profile": _edit,
    "change_email": _change_email,
    "hard_bounce": _bounce,
    "open_mail_elsewhere": _move,
}
ADMIN_ACTIONS: dict[str, Action] = {
    "archive": _archive,
    "edit": _edit,
    "unsubscribe": _admin_unsubscribe,
    "delete_permanently": _delete,
    "import": _import,
    "tag": _tag,
}
