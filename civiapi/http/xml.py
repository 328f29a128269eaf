"""An API value as the XML that ``rest.php`` answers with when no JSON is asked for. Pure.

PHP's arrays have no exact XML form, so names that XML does not allow are changed: a digit in front gets a ``_``
(CiviCRM itself sends ``<0>``, which no parser reads), other characters become ``_``.
"""

import re
from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

HEAD = b'<?xml version="1.0"?>\n'
NAMESPACE = {"xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance"}
SEPARATOR = "\x01"  # between the values of a multi-value field

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")  # XML allows more letters, but all parsers agree on these
_REPLACED = str.maketrans(
    {SEPARATOR: ","}
    | {chr(code): None for code in range(32) if code not in (1, 9, 10, 13)}  # XML 1.0 cannot express these
    | {chr(0xFFFE): None, chr(0xFFFF): None}
)


def to_xml(value: dict[str, Any] | list[Any]) -> bytes:
    """A map or list as a ``ResultSet``: one ``Result`` for each item of ``values``, or one for the whole."""
    answer = dict(_items(value))
    root = Element("ResultSet", NAMESPACE | ({"count": _text(answer["count"])} if "count" in answer else {}))
    root.text = "\n"
    head, tag, _ = tostring(root, "unicode", short_empty_elements=False).rpartition("</")
    text = bytearray(HEAD + head.encode())
    values = answer.get("values")
    if not isinstance(values, dict | list):
        text += _result(answer.items())
    else:
        for key, item in _items(values):  # one at a time: elements take thirty times the memory of their text
            text += _result(_items(item) if isinstance(item, dict | list) else (("id", key), ("value", item)))
    return bytes(text) + f"{tag}ResultSet>\n".encode()


def _result(items: Iterable[tuple[str, Any]]) -> bytes:
    result = Element("Result")
    result.tail = "\n"
    _fill(result, items)
    return tostring(result, "unicode", short_empty_elements=False).encode()


def _fill(parent: Element, items: Iterable[tuple[str, Any]]) -> None:
    for key, value in items:
        element = SubElement(parent, _name(str(key)))
        if isinstance(value, dict | list):
            _fill(element, _items(value))
        else:
            element.text = _text(value)


def _items(value: dict[str, Any] | list[Any]) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ((str(place), item) for place, item in enumerate(value))


def _name(key: str) -> str:
    name = _NOT_IN_NAMES.sub("_", key)
    return name if name and (name[0].isalpha() or name[0] == "_") else f"_{name}"


def _text(value: Any) -> str:
    if value is None or value is False:
        return ""
    return "1" if value is True else str(value).translate(_REPLACED)
