"""The merge fields of an audience. EMAIL is one to Mailchimp's forms but never listed here."""

from __future__ import annotations

import re

from sync.emulator.endpoints.members import change_context
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import Json, MergeField
from sync.emulator.protocol.exchange import ApiCall, Response, links, no_content
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import field_error, invalid, not_found, schema_failed
from sync.emulator.protocol.schemas import check
from sync.emulator.protocol.selection import is_true

SETTABLE = ("name", "required", "default_value", "public", "display_order", "options", "help_text")
TAG = re.compile(r"[A-Z0-9_]{1,10}")


def list_merge_fields(call: ApiCall) -> Response:
    """GET the merge fields, ten at a time unless asked otherwise."""
    audience = call.audience
    kind, required = call.query.get("type"), call.query.get("required")
    found = [
        merge
        for merge in audience.merge_fields.values()
        if (not kind or merge.type == kind) and (required is None or merge.required == is_true(required))
    ]
    return collection(call, "merge_fields", found, lambda merge: show(call, audience, merge), list_id=audience.id)


def create(call: ApiCall) -> Response:
    """POST a merge field; without a tag it gets ``MMERGE`` and its number."""
    check("merge_field_create", call.request.body)
    audience = call.audience
    number = max(audience.merge_fields, default=0) + 1
    tag = _tag(audience, call.body.get("tag") or f"MMERGE{number}")
    merge = MergeField(number, tag, call.body["name"], call.body["type"], display_order=number + 1)
    _apply_values(merge, call.body)
    audience.merge_fields[number] = merge
    return one(call, show(call, audience, merge))


def read(call: ApiCall) -> Response:
    """GET one merge field."""
    return one(call, show(call, call.audience, _merge_of(call)))


def change(call: ApiCall) -> Response:
    """PATCH a merge field; a new tag carries the members' values over."""
    check("merge_field_change", call.request.body)
    merge = _merge_of(call)
    if call.body.get("tag") and call.body["tag"].upper() != merge.tag:
        _rename(call, merge, _tag(call.audience, call.body["tag"]))
    _apply_values(merge, call.body)
    return one(call, show(call, call.audience, merge))


def delete(call: ApiCall) -> Response:
    """DELETE a merge field with every member's value."""
    merge = _merge_of(call)
    ctx = change_context(call)
    for member in ctx.audience.members:
        if merge.tag in member.merges:
            with ctx.audience.members.changing(member, ctx.now):
                del member.merges[merge.tag]
    del ctx.audience.merge_fields[merge.merge_id]
    return no_content()


def show(call: ApiCall, audience: EmulatedAudience, merge: MergeField) -> Json:
    """Return a merge field as Mailchimp shows it."""
    return {
        "merge_id": merge.merge_id,
        "tag": merge.tag,
        "name": merge.name,
        "type": merge.type,
        "required": merge.required,
        "default_value": merge.default_value,
        "public": merge.public,
        "display_order": merge.display_order,
        "options": merge.options,
        "help_text": merge.help_text,
        "list_id": audience.id,
        "_links": links(f"{call.state.api_root}/lists/{audience.id}/merge-fields/{merge.merge_id}"),
    }


def _merge_of(call: ApiCall) -> MergeField:
    key = call.ids[1]
    merge = call.audience.merge_fields.get(int(key)) if key.isascii() and key.isdigit() else None
    if merge is None:
        raise not_found()
    return merge


def _tag(audience: EmulatedAudience, text: str) -> str:
    tag = text.upper()
    if not TAG.fullmatch(tag) or tag == "EMAIL":
        raise schema_failed([field_error("tag", "A tag is up to 10 letters, digits and underscores.")])
    if audience.merge_field(tag) is not None:
        raise invalid(f'A Merge Field with the tag "{tag}" already exists for this list.')
    return tag


def _rename(call: ApiCall, merge: MergeField, tag: str) -> None:
    for member in call.audience.members:
        if merge.tag in member.merges:
            member.merges[tag] = member.merges.pop(merge.tag)
    merge.tag = tag


def _apply_values(merge: MergeField, body: Json) -> None:
    for name in SETTABLE:
        if name in body:
            setattr(merge, name, body[name])
