"""The member endpoints: create, read, upsert, change, archive, delete for good."""

from __future__ import annotations

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import ARCHIVED, Member
from sync.emulator.protocol.exchange import ApiCall, Response, no_content, ok
from sync.emulator.protocol.problems import field_error, member_exists, not_found, schema_failed
from sync.emulator.protocol.rendering import MEMBER_KEYS, MemberView
from sync.emulator.protocol.schemas import check
from sync.emulator.protocol.selection import Selection
from sync.emulator.rules import membership
from sync.emulator.rules.membership import ChangeContext


def change_context(call: ApiCall) -> ChangeContext:
    """Return the context of the changes this call makes."""
    return ChangeContext(call.state, call.account, call.audience, call.request.source)


def member_of(call: ApiCall, audience: EmulatedAudience) -> Member:
    """Return the member named second in the path. Raises a 404."""
    found = audience.members.find(call.ids[1])
    if found is None:
        raise not_found()
    return found


def show(call: ApiCall, audience: EmulatedAudience, member: Member) -> Response:
    """Answer with one member, trimmed to ``fields``."""
    selection = Selection.from_query(call.query)
    keys = [key for key in MEMBER_KEYS if not selection.keep or key in selection.keep]
    return ok(selection.apply(MemberView(audience, call.state.api_root).render(member, keys)))


def read(call: ApiCall) -> Response:
    """GET one member."""
    audience = call.audience
    return show(call, audience, member_of(call, audience))


def create(call: ApiCall) -> Response:
    """POST a member: 400 Member Exists for a current one; an archived one is revived with its old data."""
    check("member_create", call.request.body)
    ctx = change_context(call)
    email = call.body["email_address"].strip()
    known = ctx.audience.members.find_address(email)
    if known is not None and known.status != ARCHIVED:
        raise member_exists(email)
    if known is None:
        known = membership.join(ctx, call.body, call.body["status"], skip_required=call.skips_merge_validation)
    else:
        membership.update(ctx, known, call.body, skip_required=call.skips_merge_validation)
        membership.set_tags(ctx, known, dict.fromkeys(call.body.get("tags") or (), True))
    return show(call, ctx.audience, known)


def upsert(call: ApiCall) -> Response:
    """PUT a member: create with ``status_if_new`` (or ``status``), else change what is sent."""
    check("member_change", call.request.body)
    ctx = change_context(call)
    known = ctx.audience.members.find(call.ids[1])
    if known is not None:
        membership.update(ctx, known, call.body, skip_required=call.skips_merge_validation)
        return show(call, ctx.audience, known)
    missing = [name for name in ("email_address", "status_if_new") if not _given(call, name)]
    if missing:
        raise schema_failed([field_error("", "Required fields were not provided: " + ", ".join(missing))])
    email = call.body["email_address"].strip()
    if ctx.audience.members.find_address(email) is not None:
        raise member_exists(email)
    status = call.body.get("status_if_new") or call.body["status"]
    known = membership.join(ctx, _untagged(call), status, skip_required=call.skips_merge_validation)
    return show(call, ctx.audience, known)


def change(call: ApiCall) -> Response:
    """PATCH a member: 404 if absent."""
    check("member_change", call.request.body)
    ctx = change_context(call)
    known = member_of(call, ctx.audience)
    membership.update(ctx, known, call.body, skip_required=call.skips_merge_validation)
    return show(call, ctx.audience, known)


def archive(call: ApiCall) -> Response:
    """DELETE archives; 405 when it cannot."""
    ctx = change_context(call)
    membership.archive(ctx, member_of(call, ctx.audience))
    return no_content()


def forget(call: ApiCall) -> Response:
    """POST .../actions/delete-permanent."""
    ctx = change_context(call)
    membership.forget(ctx, member_of(call, ctx.audience))
    return no_content()


def _given(call: ApiCall, name: str) -> bool:
    return bool(call.body.get(name)) or (name == "status_if_new" and bool(call.body.get("status")))


def _untagged(call: ApiCall) -> dict[str, object]:
    """PUT takes no tags: what is sent is ignored."""
    return {key: value for key, value in call.body.items() if key != "tags"}
