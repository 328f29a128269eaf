"""Tags of a member, the search for tags, and the static segments that tags are."""

from __future__ import annotations

from sync.emulator.endpoints.members import change_context, member_of
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import from_text, to_wire
from sync.emulator.model.records import Json, Tag
from sync.emulator.protocol.exchange import ApiCall, Response, links, no_content, ok
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import field_error, invalid, not_found, schema_failed
from sync.emulator.protocol.schemas import check
from sync.emulator.rules import membership


def read(call: ApiCall) -> Response:
    """GET a member's tags, ten at a time unless asked otherwise."""
    audience = call.audience
    member = member_of(call, audience)
    held = [(audience.tags[key], added) for key, added in (member.tags or {}).items() if key in audience.tags]
    return collection(
        call, "tags", held, lambda pair: {"id": pair[0].id, "name": pair[0].name, "date_added": to_wire(pair[1])}
    )


def write(call: ApiCall) -> Response:
    """POST tag changes; repeating them changes nothing."""
    check("tags", call.request.body)
    ctx = change_context(call)
    member = member_of(call, ctx.audience)
    wanted = {change["name"]: change["status"] == "active" for change in call.body["tags"]}
    if not all(name.strip() for name in wanted):
        raise schema_failed([field_error("tags", "A tag needs a name.")])
    membership.set_tags(ctx, member, wanted)
    return no_content()


def search(call: ApiCall) -> Response:
    """GET tag-search: tags whose name begins with ``name``, in any case."""
    start = call.query.get("name", "").lower()
    found = [tag for tag in call.audience.tags.values() if tag.name.lower().startswith(start)]
    return ok({"tags": [{"id": tag.id, "name": tag.name} for tag in found], "total_items": len(found)})


def list_segments(call: ApiCall) -> Response:
    """GET segments: every one is static here."""
    audience = call.audience
    kind = call.query.get("type", "static")
    try:
        since = from_text(call.query.get("since_created_at", ""))
    except ValueError:
        raise schema_failed([field_error("since_created_at", "This value should be a valid datetime.")]) from None
    found = [tag for tag in audience.tags.values() if kind == "static" and tag.created_at >= since]
    return collection(call, "segments", found, lambda tag: _segment(call, audience, tag), list_id=audience.id)


def read_segment(call: ApiCall) -> Response:
    """GET one segment."""
    audience = call.audience
    return one(call, _segment(call, audience, _tag_of(call, audience)))


def create_segment(call: ApiCall) -> Response:
    """POST a static segment with the addresses to put in it; only current members are taken in."""
    check("segment", call.request.body)
    ctx = change_context(call)
    if "static_segment" not in call.body:
        raise invalid("Only static segments can be made here: send static_segment.")
    name = call.body["name"].strip()
    if not name or ctx.audience.find_tag(name) is not None:
        raise invalid("Sorry, that tag already exists." if name else "A segment needs a name.")
    tag = ctx.audience.tag_named(name, ctx.now)
    for email in call.body["static_segment"]:
        member = ctx.audience.members.find_address(email)
        if member is not None:
            membership.set_tags(ctx, member, {name: True})
    return one(call, _segment(call, ctx.audience, tag))


def delete_segment(call: ApiCall) -> Response:
    """DELETE a segment: its tag goes from every member."""
    ctx = change_context(call)
    tag = _tag_of(call, ctx.audience)
    for member in ctx.audience.members:
        if member.tags and tag.id in member.tags:
            membership.set_tags(ctx, member, {tag.name: False})
    del ctx.audience.tags[tag.id]
    return no_content()


def _tag_of(call: ApiCall, audience: EmulatedAudience) -> Tag:
    key = call.ids[1]
    tag = audience.tags.get(int(key)) if key.isascii() and key.isdigit() else None
    if tag is None:
        raise not_found()
    return tag


def _segment(call: ApiCall, audience: EmulatedAudience, tag: Tag) -> Json:
    return {
        "id": tag.id,
        "name": tag.name,
        "member_count": audience.subscriber_counts().tags[tag.id],
        "type": "static",
        "created_at": to_wire(tag.created_at),
        "updated_at": to_wire(tag.updated_at),
        "options": {"match": "any", "conditions": []},
        "list_id": audience.id,
        "_links": links(f"{call.state.api_root}/lists/{audience.id}/segments/{tag.id}", "members"),
    }
