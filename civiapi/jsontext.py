"""JSON as others send it, read within bounds. No HTTP, no entity: every way in and the query options read with it.

A parser that takes any depth and any number of values lets a short text stop us: what is read has to be walked, copied
and written again, and a value costs twenty times the memory of its text.
"""

from typing import Any

import orjson

MOST_VALUES = 100_000
"""Values of one text, counted by what stands before each (``[``, ``{``, ``,``): some 20 MB once read."""

MOST_DEPTH = 100
"""Lists and maps in each other; deeper than any call or configuration, and far from the end of Python's stack."""


class NotRead(ValueError):
    """The text is no JSON, or more of it than we read."""


def read_json(text: str | bytes) -> Any:
    """The value that *text* holds. Raises ``NotRead``."""
    lists, maps, commas = (
        (text.count("["), text.count("{"), text.count(","))
        if isinstance(text, str)
        else (text.count(b"["), text.count(b"{"), text.count(b","))
    )
    if lists + maps + commas > MOST_VALUES:
        raise NotRead(f"more than {MOST_VALUES} values")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotRead("no JSON") from error
    if lists + maps > MOST_DEPTH and is_deeper(value, MOST_DEPTH):
        raise NotRead(f"more than {MOST_DEPTH} lists and maps in each other")
    return value


def is_deeper(value: Any, depth: int) -> bool:
    """Whether more than *depth* lists and maps lie in each other."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)
