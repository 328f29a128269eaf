"""An API value as the XML that ``rest.php`` answers with when no JSON is asked for. Pure.

PHP's arrays have no fitting XML form, so names that XML does not allow are mended: a digit in front gets a ``_``
(CiviCRM itself sends ``<0>``, which no parser reads), other characters become ``_``.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

HEAD = '<?xml version="1.0"?>\n<ResultSet xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
SEPARATOR = "\x01"  # between the values of a multi-value field

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")  # fewer letters than XML allows, but every parser agrees on these
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", SEPARATOR: ","}
    | {chr(code): None for code in range(32) if code not in (1, 9, 10, 13)}  # XML 1.0 has no way to write these
    | {chr(0xFFFE): None, chr(0xFFFF): None}
)


def to_xml(value: dict[str, Any] | list[Any]) -> bytes:
    """A map or list as a ``ResultSet``: one ``Result`` for each item of ``values``, or one for the whole."""
    map_ = value if isinstance(value, dict) else dict(_items(value))
    count = f' count="{_text(map_["count"])}"' if "count" in map_ else ""
    results = "".join(f"<Result>{inner}</Result>\n" for inner in _results(map_))
    return f"{HEAD}{count}>\n{results}</ResultSet>\n".encode()


def _results(value: dict[str, Any]) -> Iterator[str]:
    values = value.get("values")
    if not isinstance(values, dict | list):
        yield _elements(value.items())
        return
    for key, item in _items(values):
        if isinstance(item, dict | list):
            yield _elements(_items(item))
        else:
            yield f"<id>{_text(key)}</id><value>{_text(item)}</value>"


def _items(value: dict[str, Any] | list[Any]) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ((str(place), item) for place, item in enumerate(value))


def _elements(items: Iterable[tuple[str, Any]]) -> str:
    return "".join(_element(key, value) for key, value in items)


def _element(key: str, value: Any) -> str:
    name = _name(str(key))
    inner = _elements(_items(value)) if isinstance(value, dict | list) else _text(value)
    return f"<{name}>{inner}</{name}>"


def _name(key: str) -> str:
    name = _NOT_IN_NAMES.sub("_", key)
    return name if name and (name[0].isalpha() or name[0] == "_") else f"_{name}"


def _text(value: Any) -> str:
    if value is None or value is False:
        return ""
    return "1" if value is True else str(value).translate(_ESCAPES)
