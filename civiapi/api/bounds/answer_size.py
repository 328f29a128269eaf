"""How much an answer holds, counted no further than needed: an answer may be larger than the time to count it."""

from typing import Any

VALUE_BYTES = 64
"""What a value costs besides its text: a Python object and its place in a map or list."""

_TEXTS = frozenset({str})


def answer_size(value: Any, limit: int) -> int:
    """About how many bytes *value* takes in memory, counted until it is more than *limit*."""
    size, waiting = 0, [value]
    while waiting and size <= limit:
        one = waiting.pop()
        size += VALUE_BYTES
        if one.__class__ is str:
            size += len(one)
        elif isinstance(one, dict):
            values = one.values()
            size += VALUE_BYTES * len(one)
            if _TEXTS.issuperset(map(type, values)):  # as most rows: counted without a step of Python for each value
                size += VALUE_BYTES * len(one) + sum(map(len, values))
            else:
                waiting.extend(values)
        elif isinstance(one, list):
            waiting.extend(one)
    return size
