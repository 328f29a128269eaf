"""The member endpoints: create, read, upsert, change, archive, delete for good."""

from __future__ import annotations

from sync.mailchimp.emulator import membership
from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.exchange import Call, Response, no_content, ok
from sync.mailchimp.emulator.membership import Place
from sync.mailchimp.emulator.model import ARCHIVED, Member
from sync.mailchimp.emulator.problems import field_error, member_exists, not_found, schema_failed
from sync.mailchimp.emulator.rendering import MEMBER_KEYS, MemberView
from sync.mailchimp.emulator.schemas import check
from sync.mailchimp.emulator.selection import Selection


def place_of(call: Call) -> Place:
    """Return where and as whom this call changes members."""
    return Place(call.world, call.account, call.audience, call.request.source)


def member_of(call: Call, audience: Audience) -> Member:
    """Return the member named second in the path. Raises a 404."""
    found = audience.members.find(call.ids[1])
    if found is None:
        raise not_found()
    return found


def show(call: Call, audience: Audience, member: Member) -> Response:
    """Answer with one member, trimmed as asked."""
    selection = Selection.from_query(call.query)
    keys = [key for key in MEMBER_KEYS if not selection.keep or key in selection.keep]
    return ok(selection.apply(MemberView(audience, call.world.api_root).render(member, keys)))


def read(call: Call) -> Response:
    """GET one member."""
    audience = call.audience
    return show(call, audience, member_of(call, audience))


def create(call: Call) -> Response:
    """POST a member: 400 Member Exists for a current one; an archived one is revived with its old data."""
    check("member_create", call.request.body)
    place = place_of(call)
    email = call.body["email_address"].strip()
    known = place.audience.members.find_address(email)
    if known is not None and known.status != ARCHIVED:
        raise member_exists(email)
    if known is None:
        known = membership.join(place, call.body, call.body["status"], skip_required=call.skips_merge_validation)
    else:
        membership.update(place, known, call.body, skip_required=call.skips_merge_validation)
        membership.set_tags(place, known, dict.fromkeys(call.body.get("tags") or (), True))
    return show(call, place.audience, known)


def upsert(call: Call) -> Response:
    """PUT a member: create with ``status_if_new`` (or ``status``), else change what is sent."""
    check("member_change", call.request.body)
    place = place_of(call)
    known = place.audience.members.find(call.ids[1])
    if known is not None:
        membership.update(place, known, call.body, skip_required=call.skips_merge_validation)
        return show(call, place.audience, known)
    missing = [name for name in ("email_address", "status_if_new") if not _given(call, name)]
    if missing:
        raise schema_failed([field_error("", "Required fields were not provided: " + ", ".join(missing))])
    email = call.body["email_address"].strip()
    if place.audience.members.find_address(email) is not None:
        raise member_exists(email)
    status = call.body.get("status_if_new") or call.body["status"]
    known = membership.join(place, _untagged(call), status, skip_required=call.skips_merge_validation)
    return show(call, place.audience, known)


def change(call: Call) -> Response:
    """PATCH a member: 404 if absent."""
    check("member_change", call.request.body)
    place = place_of(call)
    known = member_of(call, place.audience)
    membership.update(place, known, call.body, skip_required=call.skips_merge_validation)
    return show(call, place.audience, known)


def archive(call: Call) -> Response:
    """DELETE archives; 405 when it cannot."""
    place = place_of(call)
    membership.archive(place, member_of(call, place.audience))
    return no_content()


def forget(call: Call) -> Response:
    """POST .../actions/delete-permanent."""
    place = place_of(call)
    membership.forget(place, member_of(call, place.audience))
    return no_content()


def _given(call: Call, name: str) -> bool:
    return bool(call.body.get(name)) or (name == "status_if_new" and bool(call.body.get("status")))


def _untagged(call: Call) -> dict[str, object]:
    """PUT takes no tags: what is sent is ignored."""
    return {key: value for key, value in call.body.items() if key != "tags"}
