"""What people and admins do outside the API: on signup forms, by links in mails, in the web app.

Each action is one row of a table; they go through `membership`, as the API's writes do, with another source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sync.mailchimp.emulator import events, membership
from sync.mailchimp.emulator.membership import Place
from sync.mailchimp.emulator.model import (
    ADMIN,
    ARCHIVED,
    CLEANED,
    PENDING,
    SUBSCRIBED,
    UNSUBSCRIBED,
    USER,
    Json,
    Member,
)

if TYPE_CHECKING:
    from sync.mailchimp.emulator.world import World


class UnknownAction(ValueError):
    """There is no such action, or nobody to do it."""


def person(world: World, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
    """Let the person behind *email* do something; see ``PERSON`` for what. Returns the member afterwards.

    Raises UnknownAction for an action or a member that is not there, Problem where even they are refused.
    """
    return _act(world, PERSON, USER, action, email, list_id, more)


def admin(world: World, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
    """Let an admin do something to a member in the web app; see ``ADMIN_ACTIONS``."""
    return _act(world, ADMIN_ACTIONS, ADMIN, action, email, list_id, more)


Action = Callable[[Place, str, Json], Member | None]


def _act(
    world: World, table: dict[str, Action], source: str, action: str, email: str, list_id: str | None, more: Json
) -> Member | None:
    if action not in table:
        raise UnknownAction(f"There is no action {action!r}; there are {', '.join(table)}")
    account, audience = world.find_audience(list_id)
    return table[action](Place(world, account, audience, source), email, more)


def _member(place: Place, email: str) -> Member:
    found = place.audience.members.find_address(email)
    if found is None:
        raise UnknownAction(f"{email} is not in audience {place.audience.id}")
    return found


def _sign_up(place: Place, email: str, more: Json) -> Member:
    """Sign up by form, whatever stood before; with double opt-in that only asks for confirmation."""
    status = more.pop("status", PENDING if place.audience.double_optin else SUBSCRIBED)
    body = {"email_address": email, **more}
    known = place.audience.members.find_address(email)
    if known is None:
        return membership.join(place, body, status)
    membership.update(place, known, {**body, "status": status}, skip_required=True)
    return known


def _confirm(place: Place, email: str, more: Json) -> Member:
    member = _member(place, email)
    if member.status == PENDING:
        membership.set_status(place, member, SUBSCRIBED)
    return member


def _unsubscribe(place: Place, email: str, more: Json) -> Member:
    """Unsubscribe by link. Theirs is the lasting word, whoever unsubscribed them before."""
    member = _member(place, email)
    return _leave(place, member, "manual", more.get("reason", ""))


def _complain(place: Place, email: str, more: Json) -> Member:
    return _leave(place, _member(place, email), "abuse", "abuse")


def _leave(place: Place, member: Member, reason: str, words: str) -> Member:
    was_in = member.status in (SUBSCRIBED, PENDING)
    with place.audience.members.changing(member, place.now):
        member.status, member.unsubscribed_by, member.archived_from = UNSUBSCRIBED, USER, ""
        reason_given = {"unsubscribe_reason": words} if words else {}
        member.rare = (member.rare or {}) | {"unsubscribed_at": place.now} | reason_given
    place.audience.last_unsub_at = place.now
    if was_in:
        place.announce("unsubscribe", events.unsubscribe_data(place.audience, member, "unsub", reason, "c0ffee0001"))
    return member


def _edit(place: Place, email: str, more: Json) -> Member:
    """Edit a profile: anything a member body takes."""
    member = _member(place, email)
    membership.update(place, member, more, skip_required=True)
    return member


def _change_email(place: Place, email: str, more: Json) -> Member:
    return _edit(place, email, {"email_address": more["new_email"]})


def _bounce(place: Place, email: str, more: Json) -> Member:
    member = _member(place, email)
    with place.audience.members.changing(member, place.now):
        member.status = CLEANED
    place.announce("cleaned", events.cleaned_data(member, "hard", "c0ffee0001"))
    return member


def _move(place: Place, email: str, more: Json) -> Member:
    """The person opens mail elsewhere: location and rating move, and ``last_changed`` with them."""
    member = _member(place, email)
    membership.update(place, member, {"location": {"latitude": 51.5, "longitude": -0.1}}, skip_required=True)
    return member


def _archive(place: Place, email: str, more: Json) -> Member:
    """Archive, which the web app may do to anybody who is not archived yet."""
    member = _member(place, email)
    if member.status == ARCHIVED:
        return member
    with place.audience.members.changing(member, place.now):
        member.archived_from, member.status = member.status, ARCHIVED
    place.announce("unsubscribe", events.unsubscribe_data(place.audience, member, "delete", "manual"))
    return member


def _admin_unsubscribe(place: Place, email: str, more: Json) -> Member:
    member = _member(place, email)
    membership.set_status(place, member, UNSUBSCRIBED)
    return member


def _delete(place: Place, email: str, more: Json) -> None:
    membership.forget(place, _member(place, email))


def _import(place: Place, email: str, more: Json) -> Member:
    """Import one address: new or changed; tags are added. Imports fire no webhook."""
    quiet = _Quiet(place.world, place.account, place.audience, place.source)
    names = dict.fromkeys(more.pop("tags", ()), True)
    known = place.audience.members.find_address(email)
    if known is None:
        status = more.get("status", SUBSCRIBED)
        known = membership.join(quiet, {"email_address": email, **more}, status, skip_required=True)
    else:
        membership.update(quiet, known, more, skip_required=True)
    membership.set_tags(quiet, known, names)
    return known


def _tag(place: Place, email: str, more: Json) -> Member:
    member = _member(place, email)
    membership.set_tags(place, member, more["tags"])
    return member


class _Quiet(Place):
    """A place whose changes nobody hears of."""

    def announce(self, kind: str, data: events.Fields) -> None:
        """Say nothing."""


PERSON: dict[str, Action] = {
    "sign_up": _sign_up,
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
