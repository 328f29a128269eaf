"""JSON as Mailchimp really sends it: one odd value must not make a page of a thousand members unreadable.

A name cut in the middle of an emoji arrives as half a surrogate pair, which strict parsers refuse. What strict JSON
does not allow is repaired here: half surrogates and bytes that are not UTF-8 become U+FFFD, control characters in texts
stay, numbers that are none (``NaN``) are null. A body that breaks off is no JSON here either.
"""

import json
from typing import Any

import orjson


def loads(content: bytes | str) -> Any:
    """The value in *content*, repaired where needed. Raises ValueError for what is no JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return _loads_odd(content)


def repaired(value: Any) -> Any:
    """*value* with half surrogates in its texts and keys replaced by U+FFFD."""
    if isinstance(value, str):
        return value if _is_whole(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {repaired(key): repaired(one) for key, one in value.items()}
    return [repaired(one) for one in value] if isinstance(value, list) else value


def _loads_odd(content: bytes | str) -> Any:
    text = content if isinstance(content, str) else content.decode("utf-8-sig", "replace")
    try:
        return repaired(json.loads(text, strict=False, parse_constant=lambda _: None))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _is_whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)
