"""PHP's ``serialize`` format, as CiviCRM and its extensions keep values in columns. No SQL and no meaning here.

Maps come back as ``dict``, also those that PHP counts from 0 (``as_json`` makes lists of them). Text is UTF-8; bytes
that are not become U+FFFD, so that what is read can always be written as JSON. Objects are refused: a value that
names a PHP class is nothing that we can know, and nothing that we want.
"""

from collections.abc import Mapping
from typing import Any

import phpserialize


class BadSerial(ValueError):
    """The bytes are not what PHP's ``serialize`` writes, or hold an object."""


def dump_php(value: Any) -> bytes:
    """*value* (text, number, bool, None, lists and maps of those) as PHP serializes it. Raises TypeError for others."""
    written: bytes = phpserialize.dumps(value, charset="utf-8", errors="replace")
    return written


def load_php(data: bytes | str) -> Any:
    """What PHP serialized. Raises ``BadSerial``, whatever is wrong with it."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else bytes(data)
    try:
        return phpserialize.loads(raw, decode_strings=True, errors="replace")
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise BadSerial("not a value that PHP serialized") from error


def as_json(value: Any) -> Any:
    """*value* as PHP's ``json_encode`` shows it: a map counted from 0 is a list, an empty one is ``[]``."""
    if isinstance(value, Mapping):
        if list(value) == list(range(len(value))):
            return [as_json(item) for item in value.values()]
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
