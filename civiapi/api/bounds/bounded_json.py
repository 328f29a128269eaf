"""Read JSON with limits on depth and number of values.

Without limits a short text could exhaust memory and time: a value takes twenty times the memory of its text, and is
walked, copied and written again.
"""

from typing import Any

import orjson

MAX_VALUES = 100_000
"""Values of one text, counted by the character before each (``[``, ``{``, ``,``): some 20 MB once read."""

MAX_DEPTH = 100
"""Nested lists and maps: more than any call or configuration has, and far below Python's recursion limit."""


class NotRead(ValueError):
    """The text is not JSON, or above a limit."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ``NotRead``."""
    lists, maps, commas = (
        (text.count("["), text.count("{"), text.count(","))
        if isinstance(text, str)
        else (text.count(b"["), text.count(b"{"), text.count(b","))
    )
    if lists + maps + commas > MAX_VALUES:
        raise NotRead(f"more than {MAX_VALUES} values")
    if isinstance(text, str) and not text.isascii():  # else the text keeps the bytes that orjson has it make
        text = text.encode("utf-8", "surrogatepass")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotRead("not JSON") from error
    if lists + maps > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise NotRead(f"more than {MAX_DEPTH} nested lists and maps")
    return value


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and maps are nested more than *depth* deep."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)
