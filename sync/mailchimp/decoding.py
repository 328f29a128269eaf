"""A JSON body to an object, without keeping the rest of the program waiting for it.

A page of a thousand members takes milliseconds to decode, and while one call of the decoder lasts no other thread
runs: whoever answers calls meanwhile is late by so much. So a large body is decoded in a thread of its own
(``transport.py`` sees to that), and a page of members a hundred at a time.
"""

from typing import Any

import orjson

AT_ONCE = 100
_HEAD, _BETWEEN, _TAIL = b'{"members":[{"id":"', b'},{"id":"', b"}]"


def decode(content: bytes) -> dict[str, Any] | None:
    """The JSON object that *content* is; None when it is none."""
    try:
        body = _decode_page(content) if content.startswith(_HEAD) else orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _decode_page(content: bytes) -> Any:
    """A page of members in the form that Mailchimp sends: cut between members, each part decoded by itself.

    The words that it is cut at stand in no text, where quotes are escaped. A cut at such words inside of a member
    leaves parts that are no JSON; that page, and any that ends otherwise, is decoded whole.
    """
    end = content.rfind(_TAIL)
    members = content[len(_HEAD) : end].split(_BETWEEN)
    if end < 0 or len(members) <= AT_ONCE:
        return orjson.loads(content)
    try:
        rest = orjson.loads(b'{"members":[' + content[end + 1 :])
        rows: list[Any] = []
        for start in range(0, len(members), AT_ONCE):
            part = _BETWEEN.join(members[start : start + AT_ONCE])
            rows += orjson.loads(b'[{"id":"' + part + _TAIL)
    except orjson.JSONDecodeError:
        return orjson.loads(content)
    rest["members"] = rows
    return rest
