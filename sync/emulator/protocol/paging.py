"""Answers with a page of a collection, or with one resource."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sync.emulator.model.records import Json
from sync.emulator.protocol.exchange import ApiCall, Response, links, ok
from sync.emulator.protocol.selection import Selection, page_of

T = TypeVar("T")


def collection(call: ApiCall, name: str, rows: Sequence[T], show: Callable[[T], Json], **beside: Any) -> Response:
    """Answer one page of *rows* under *name*, with ``total_items``, ``_links`` and the keys in *beside*."""
    count, offset = page_of(call.query)
    body = {
        name: [show(row) for row in rows[offset : offset + count]],
        **beside,
        "total_items": len(rows),
        "_links": links(call.state.api_root + call.request.path),
    }
    return ok(Selection.from_query(call.query).apply(body), page=(count, offset))


def one(call: ApiCall, body: Json) -> Response:
    """Answer one resource, trimmed to ``fields``."""
    return ok(Selection.from_query(call.query).apply(body))
