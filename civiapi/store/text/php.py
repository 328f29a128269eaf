"""PHP's ``serialize`` format, in which CiviCRM and its extensions store values. No SQL here.

Arrays are read as ``dict``, also those with keys 0, 1, 2… (``as_json`` makes lists of them). Bytes that are not UTF-8
become U+FFFD, so that every value can be written as JSON. Objects are refused.
"""

from collections.abc import Mapping
from typing import Any

import phpserialize


class BadSerial(ValueError):
    """The bytes are not PHP's ``serialize`` format, or contain an object."""


def dump_php(value: Any) -> bytes:
    """*value* (text, number, bool, None, lists and maps of those) as PHP serializes it. Raises TypeError for others."""
    written: bytes = phpserialize.dumps(value, charset="utf-8", errors="replace")
    return written


def load_php(data: bytes | str) -> Any:
    """A value that PHP has serialized. Raises ``BadSerial`` for anything else."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else bytes(data)
    try:
        return phpserialize.loads(raw, decode_strings=True, errors="replace")
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise BadSerial("not a value that PHP serialized") from error


def as_json(value: Any) -> Any:
    """*value* as PHP's ``json_encode`` writes it: a map with keys 0, 1, 2… is a list, an empty one ``[]``."""
    if isinstance(value, Mapping):
        if list(value) == list(range(len(value))):
            return [as_json(item) for item in value.values()]
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
