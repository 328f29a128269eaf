"""Decode JSON bodies without blocking the event loop.

Decoding a page of a thousand members takes milliseconds, in which no other thread runs. So a large body is unpacked and
decoded in a thread, and a page of members a hundred at a time.
"""

import asyncio
from typing import Any

import httpx

from sync.mailchimp.lenient_json import loads

LARGE_BODY = 8_192
"""Bytes, compressed; smaller bodies are unpacked and decoded in a fraction of a millisecond."""

JSON_TYPES = frozenset({"application/json", "application/problem+json"})
MEMBERS_PER_CHUNK = 100
_HEAD, _BETWEEN, _TAIL = b'{"members":[{"id":"', b'},{"id":"', b"}]"


async def read_body(response: httpx.Response) -> tuple[httpx.Response, dict[str, Any] | None]:
    """Return the response with its body, and the JSON object in it; a large body is decoded in a thread."""
    packed = b"".join([part async for part in response.aiter_raw()])
    return await asyncio.to_thread(_unpack, response, packed) if len(packed) > LARGE_BODY else _unpack(response, packed)


def _unpack(response: httpx.Response, packed: bytes) -> tuple[httpx.Response, dict[str, Any] | None]:
    whole = httpx.Response(response.status_code, headers=response.headers, content=packed)
    return whole, _decoded(whole)


def _decoded(response: httpx.Response) -> dict[str, Any] | None:
    """Return the JSON object of an answer, {} for a 204; None unless type and content are JSON."""
    if response.status_code == 204:
        return {}
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() not in JSON_TYPES:
        return None
    return decode(response.content)


def decode(content: bytes, chunk: int = MEMBERS_PER_CHUNK) -> dict[str, Any] | None:
    """Return the JSON object in *content*, None for anything else; *chunk* members are decoded at a time."""
    try:
        body = _decode_page(content, chunk) if content.startswith(_HEAD) else loads(content)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _decode_page(content: bytes, chunk: int) -> Any:
    """Decode a page of members as Mailchimp sends it: split between members, a part at a time.

    The separator cannot occur inside a JSON string, where quotes are escaped. A split inside a member gives parts that
    are not JSON; then, and for any other page, the body is decoded whole.
    """
    end = content.rfind(_TAIL)
    members = content[len(_HEAD) : end].split(_BETWEEN)
    if end < 0 or len(members) <= chunk:
        return loads(content)
    try:
        rest = loads(b'{"members":[' + content[end + 1 :])
        rows: list[Any] = []
        for start in range(0, len(members), chunk):
            part = _BETWEEN.join(members[start : start + chunk])
            rows += loads(b'[{"id":"' + part + _TAIL)
    except ValueError:
        return loads(content)
    rest["members"] = rows
    return rest
