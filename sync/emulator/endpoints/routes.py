"""The routes: path (``{}`` is an id) and verb to handler. A known path with another verb is a 405."""

from __future__ import annotations

from urllib.parse import unquote

from sync.emulator.endpoints import (
    audiences,
    batches,
    campaigns,
    interests,
    member_list,
    members,
    merge_fields,
    tags,
    webhooks,
)
from sync.emulator.protocol.exchange import Handler
from sync.emulator.protocol.problems import method_not_allowed, nesting_too_deep, not_found

MAX_DEPTH = 10

ROUTES: dict[str, dict[str, Handler]] = {
    "": {"GET": audiences.root},
    "ping": {"GET": audiences.ping},
    "lists": {"GET": audiences.list_audiences},
    "lists/{}": {"GET": audiences.read, "POST": audiences.bulk},
    "lists/{}/members": {"GET": member_list.list_members, "POST": members.create},
    "lists/{}/members/{}": {
        "GET": members.read,
        "PUT": members.upsert,
        "PATCH": members.change,
        "DELETE": members.archive,
    },
    "lists/{}/members/{}/actions/delete-permanent": {"POST": members.forget},
    "lists/{}/members/{}/tags": {"GET": tags.read, "POST": tags.write},
    "lists/{}/tag-search": {"GET": tags.search},
    "lists/{}/segments": {"GET": tags.list_segments, "POST": tags.create_segment},
    "lists/{}/segments/{}": {"GET": tags.read_segment, "DELETE": tags.delete_segment},
    "lists/{}/interest-categories": {"GET": interests.list_categories, "POST": interests.create_category},
    "lists/{}/interest-categories/{}": {
        "GET": interests.read_category,
        "PATCH": interests.change_category,
        "DELETE": interests.delete_category,
    },
    "lists/{}/interest-categories/{}/interests": {"GET": interests.list_interests, "POST": interests.create_interest},
    "lists/{}/interest-categories/{}/interests/{}": {
        "GET": interests.read_interest,
        "PATCH": interests.change_interest,
        "DELETE": interests.delete_interest,
    },
    "lists/{}/merge-fields": {"GET": merge_fields.list_merge_fields, "POST": merge_fields.create},
    "lists/{}/merge-fields/{}": {
        "GET": merge_fields.read,
        "PATCH": merge_fields.change,
        "DELETE": merge_fields.delete,
    },
    "lists/{}/webhooks": {"GET": webhooks.list_hooks, "POST": webhooks.create},
    "lists/{}/webhooks/{}": {"GET": webhooks.read, "PATCH": webhooks.change, "DELETE": webhooks.delete},
    "campaigns": {"GET": campaigns.list_campaigns},
    "campaigns/{}": {"GET": campaigns.read},
    "reports/{}/sent-to": {"GET": campaigns.list_recipients},
    "reports/{}/open-details": {"GET": campaigns.list_opens},
    "reports/{}/click-details": {"GET": campaigns.list_links},
    "reports/{}/click-details/{}/members": {"GET": campaigns.list_clicks},
    "batches": {"GET": batches.list_batches, "POST": batches.create},
    "batches/{}": {"GET": batches.read, "DELETE": batches.delete},
    "batch-webhooks": {"GET": webhooks.list_batch_hooks, "POST": webhooks.create_batch_hook},
    "batch-webhooks/{}": {
        "GET": webhooks.read_batch_hook,
        "PATCH": webhooks.change_batch_hook,
        "DELETE": webhooks.delete_batch_hook,
    },
}
BY_LENGTH: dict[int, list[tuple[list[str], dict[str, Handler]]]] = {}
for _pattern, _verbs in ROUTES.items():
    _steps = _pattern.split("/")
    BY_LENGTH.setdefault(len(_steps), []).append((_steps, _verbs))


def resolve(method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
    """Return the handler and the ids in *path* (percent-encoded, below ``/3.0``). Raises 404, 405 and 414."""
    steps = [unquote(step) for step in path.strip("/").split("/")]
    if len(steps) > MAX_DEPTH:
        raise nesting_too_deep()
    for pattern, verbs in BY_LENGTH.get(len(steps), ()):
        if all(expected in ("{}", step) for expected, step in zip(pattern, steps, strict=True)):
            if method not in verbs:
                raise method_not_allowed(", ".join(verbs))
            return verbs[method], tuple(s for expected, s in zip(pattern, steps, strict=True) if expected == "{}")
    raise not_found()
