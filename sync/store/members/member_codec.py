"""``mailchimp_data``: the last known fields of a member, each with the time of its last change.

A PHP-serialized flat map: ``status``, ``first_name``, ``last_name`` and one ``interest-ID`` for each interest, each
with its ``…@`` (site time, ``YYYYMMDDHHMMSS``). ``sent-status`` and ``sent-interest-ID`` note what was sent and,
in their ``@``, the time of the CiviCRM change behind it: a change that echoes our own write is dated by its cause.
``echo-status@`` and ``echo-interest-ID@`` are the times of the Mailchimp changes that our latest group changes
mirror. The extension of 2020 has names and a nested ``interests`` map, and changes no interest of a row without it:
the map is written as well, with the same values. Where the two differ, the flat entry counts.
Marketing permissions are flat entries only (``interest-permission:ID``), which the extension does not read: what it
finds in the map are interests to it, and Mailchimp refuses one that it does not know.

The codec is ours because this is read and written for every member of every page, ten times as fast as a general one.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sync.mailchimp.wire import PERMISSION
from sync.store.members.blobs import INTEREST, INTERESTS, load_data

Fields = dict[str, Any]

SENT = "sent-"
ECHO = "echo-"
_PERMISSION = INTEREST + PERMISSION
_HEAD = re.compile(rb"a:(\d+):\{")
NESTED, FLAT = f'"{INTERESTS}";a:'.encode(), f'"{INTEREST}'.encode()


def encode(fields: Mapping[str, Any]) -> bytes:
    """The map as PHP serializes it. Values are text, bool, int or None; None becomes an empty text."""
    nested = interests_entry(fields)
    parts = [f"a:{len(fields) + bool(nested)}:{{", nested]
    parts += [_key(key) + _value(value) for key, value in fields.items()]
    parts.append("}")
    return "".join(parts).encode("utf-8", "surrogatepass")


def encode_new(values: Mapping[str, Any], stamp: str) -> bytes:
    """The map of a member never met before: every field changed at *stamp*."""
    dated = f's:14:"{stamp}";'
    nested = interests_entry(values)
    parts = [f"a:{2 * len(values) + bool(nested)}:{{", nested]
    parts += [f"{_key(key)}{_value(value)}{_dated_key(key)}{dated}" for key, value in values.items()]
    parts.append("}")
    return "".join(parts).encode("utf-8", "surrogatepass")


def values_of(fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values whose keys begin with *prefix*, by the rest of the key; without the times beside them."""
    return {
        key.removeprefix(prefix): value
        for key, value in fields.items()
        if key.startswith(prefix) and not key.endswith("@")
    }


def interests_of(fields: Mapping[str, Any]) -> dict[str, bool]:
    """The interests in a member's data: id → chosen."""
    return {interest_id: bool(value) for interest_id, value in values_of(fields, INTEREST).items()}


def interests_entry(fields: Mapping[str, Any]) -> str:
    """The nested ``interests`` map of these fields, as PHP serializes it; empty where they have no interest."""
    chosen = [
        (key, bool(value))
        for key, value in fields.items()
        if key.startswith(INTEREST) and key[-1] != "@" and not key.startswith(_PERMISSION)
    ]
    return _interests_entry(tuple(chosen)) if chosen else ""


@lru_cache(maxsize=4096)
def _interests_entry(chosen: tuple[tuple[str, bool], ...]) -> str:
    inner = "".join(_key(key.removeprefix(INTEREST)) + _value(value) for key, value in chosen)
    return f"{_key(INTERESTS)}a:{len(chosen)}:{{{inner}}}"


@lru_cache(maxsize=4096, typed=True)
def entry(key: str, value: Any) -> bytes:
    """One entry of a map as PHP serializes it."""
    return (_key(key) + _value(value)).encode("utf-8", "surrogatepass")


def with_text(data: bytes | None, key: str, text: str) -> bytes:
    """The map with one more entry (no interest), put in its place without decoding the rest where that can be done."""
    head = _HEAD.match(data) if data else None
    is_theirs = data is not None and NESTED in data and FLAT not in data  # the extension's form
    if data is None or head is None or is_theirs or not data.endswith(b"}") or _key(key).encode() in data:
        return encode(decode(data) | {key: text})
    return b"a:%d:{%b%b}" % (int(head[1]) + 1, data[head.end() : -1], entry(key, text))


def decode(data: bytes | None) -> Fields:
    """The map as stored, the nested old form made flat; an empty one where there is nothing readable."""
    if not data:
        return {}
    try:
        return _decode_flat(data)
    except (ValueError, IndexError):
        return {key: value for key, value in load_data(data).items() if not isinstance(value, dict)}


def peek(data: bytes | None, key: str) -> str | None:
    """One text of a flat map without decoding the rest; None where it is not there or no text.

    People write names as they like: what comes before the names is looked for from the front, echoes from the end.
    """
    if not data:
        return None
    sought = _text_key(key)
    start = data.rfind(sought) if key.startswith(ECHO) else data.find(sought)
    if start < 0:
        return None
    try:
        return str(_scalar(data, start + len(sought) - 2)[0])
    except (ValueError, IndexError):
        return None


@lru_cache(maxsize=4096)
def _key(key: str) -> str:
    return f's:{len(key.encode())}:"{key}";'


@lru_cache(maxsize=4096)
def _text_key(key: str) -> bytes:
    """The key with the beginning of a text."""
    return _key(key).encode() + b"s:"


@lru_cache(maxsize=4096)
def _dated_key(key: str) -> str:
    return _key(key + "@")


def _value(value: Any) -> str:
    if isinstance(value, str):
        length = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        return f's:{length}:"{value}";'
    if value is None:
        return 's:0:"";'
    return f"b:{value:d};" if isinstance(value, bool) else f"i:{value};"


def _decode_flat(data: bytes) -> Fields:
    start = data.index(b":{") + 2
    fields: Fields = {}
    nested: Fields = {}
    end = len(data)
    while start < end and data[start] != 0x7D:  # }
        key, start = _scalar(data, start)
        if key == INTERESTS and data[start] == 0x61:  # a:2:{…}
            nested, start = _flat_map(data, start)
        else:
            fields[key], start = _scalar(data, start)
    for key, value in nested.items():
        fields.setdefault(f"{INTEREST}{key}", bool(value))
    return fields


def _flat_map(data: bytes, start: int) -> tuple[Fields, int]:
    start = data.index(b":{", start) + 2
    found: Fields = {}
    while data[start] != 0x7D:
        key, start = _scalar(data, start)
        found[key], start = _scalar(data, start)
    return found, start + 1


def _scalar(data: bytes, start: int) -> tuple[Any, int]:
    kind = data[start]
    if kind == 0x73:  # s:LENGTH:"TEXT";
        colon = data.index(b":", start + 2)
        begin = colon + 2
        stop = begin + int(data[start + 2 : colon])
        if data[stop : stop + 2] != b'";':
            raise ValueError("a text that is longer or shorter than it says")
        return data[begin:stop].decode("utf-8", "replace"), stop + 2
    if kind == 0x62:  # b:1;
        return data[start + 2] == 0x31, start + 4
    if kind == 0x69:  # i:12;
        stop = data.index(b";", start)
        return int(data[start + 2 : stop]), stop + 1
    if kind == 0x4E:  # N;
        return None, start + 2
    raise ValueError("not a flat map")
