"""A request, a response, and the call a handler gets, as plain data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import API, EmulatedAccount, Json
from sync.emulator.model.state import EmulatorState
from sync.emulator.protocol.problems import not_found
from sync.emulator.protocol.selection import is_true

UNREADABLE = object()
"""A body that was not JSON."""

JSON_TYPE = "application/json; charset=utf-8"
PROBLEM_JSON = "application/problem+json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: *path* is relative to ``/3.0``, *body* is decoded JSON (None: no body).

    *url_answers* is whether a webhook URL answered the GET that Mailchimp sends before registering it.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    account: EmulatedAccount | None = None
    source: str = API
    url_answers: bool = True


@dataclass(slots=True)
class Response:
    """One answer: *body* is JSON data, text for a page that is not JSON, or None for an empty body.

    *hangs*: the server never answers. *rows* is the number of rows of a listing, for its delay; *page* is the
    (count, offset) of a paged answer.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    rows: int = 0
    page: tuple[int, int] | None = None

    def content(self) -> bytes:
        """Return the body as it goes over the wire."""
        if self.body is None:
            return b""
        if isinstance(self.body, str):
            return self.body.encode()
        try:
            return orjson.dumps(self.body)
        except orjson.JSONEncodeError:  # a text with half an emoji, which goes over the wire escaped
            return json.dumps(self.body, separators=(",", ":")).encode()

    def text(self) -> str:
        """Return the body as a batch result quotes it."""
        return self.content().decode()


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A routed request: what a handler needs, with the ids from the path in `ids`."""

    state: EmulatorState
    account: EmulatedAccount
    request: Request
    ids: tuple[str, ...]

    @property
    def now(self) -> int:
        """Whole emulator seconds."""
        return self.state.clock.seconds()

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters."""
        return self.request.query

    @property
    def body(self) -> Json:
        """The JSON object sent; routes with a schema have checked that it is one."""
        return self.request.body if isinstance(self.request.body, dict) else {}

    @property
    def audience(self) -> EmulatedAudience:
        """The audience whose id is first in the path. Raises a 404."""
        found = self.account.audiences.get(self.ids[0])
        if not isinstance(found, EmulatedAudience):
            raise not_found()
        return found

    @property
    def skips_merge_validation(self) -> bool:
        """True when required merge fields may be missing."""
        return is_true(self.query.get("skip_merge_validation"))


Handler = Callable[[ApiCall], Response]


def read_json(raw: bytes | str | None) -> Any:
    """Return the decoded body, None for an empty one, ``UNREADABLE`` for what is not JSON."""
    if not raw:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return UNREADABLE


def ok(body: Json, rows: int = 0, page: tuple[int, int] | None = None) -> Response:
    """200 with a body."""
    return Response(200, body, rows=rows, page=page)


def no_content() -> Response:
    """204, empty."""
    return Response(204)


def links(href: str, *relations: str) -> list[Json]:
    """Return ``_links``: the resource itself, and *relations* below it."""
    own = [{"rel": "self", "href": href, "method": "GET"}]
    return own + [{"rel": name, "href": f"{href}/{name}", "method": "GET"} for name in relations]
