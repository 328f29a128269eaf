"""One way to answer a collection: cut the page, trim it, count it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sync.mailchimp.emulator.exchange import Call, Response, links, ok
from sync.mailchimp.emulator.model import Json
from sync.mailchimp.emulator.selection import Selection, page_of

T = TypeVar("T")


def collection(call: Call, name: str, rows: Sequence[T], show: Callable[[T], Json], **beside: Any) -> Response:
    """Answer one page of *rows* under *name*, with ``total_items``, ``_links`` and whatever stands *beside* them."""
    count, offset = page_of(call.query)
    body = {
        name: [show(row) for row in rows[offset : offset + count]],
        **beside,
        "total_items": len(rows),
        "_links": links(call.world.api_root + call.request.path),
    }
    return ok(Selection.from_query(call.query).apply(body), page=(count, offset))


def one(call: Call, body: Json) -> Response:
    """Answer one resource, trimmed as asked."""
    return ok(Selection.from_query(call.query).apply(body))
