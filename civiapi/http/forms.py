"""The fields of a query string or form, and the API parameters in them. Pure: no HTTP, no entity, no caller.

Names with brackets are read as by PHP (``id[IN][]=1``, ``options[limit]=5``), as CiviCRM's clients write nested
parameters. Unlike in PHP, dots in names are kept: PHP changes ``option.limit`` and ``contact_id.display_name``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from yarl import query_to_pairs

from civiapi.api.bounds.bounded_json import NotRead, read_json

Fields = dict[str, Any]

MAX_DEPTH = 64  # PHP's limit of brackets; deeper fields are dropped
MAX_FIELDS = 50_000  # of one body, brackets included; PHP reads a thousand
LARGE = 65_536
"""Bytes of a value from which on a copy of it counts."""

NOT_PARAMETERS = frozenset(
    {"q", "json", "key", "api_key", "entity", "action", "fnName", "_authx", "_authxSes", "_authxSiteKey"}
)


class BadJson(ValueError):
    """The ``json`` field begins like an object and is not valid JSON."""


class TooMany(ValueError):
    """A body has too many fields."""


def parse(text: str) -> Fields:
    """The fields of a URL-encoded text; never fails. Bytes that are not UTF-8 become U+FFFD."""
    return from_pairs(query_to_pairs(text)) if text else {}


def parse_body(body: bytes) -> Fields:
    """The fields of a URL-encoded body. Raises ``TooMany``."""
    if body.count(b"&") + body.count(b"[") + body.count(b"%5B") + body.count(b"%5b") > MAX_FIELDS:
        raise TooMany(f"The form has too many fields; at most {MAX_FIELDS} are read.")
    if len(body) <= LARGE:
        return parse(body.strip().decode("utf-8", "replace"))
    return from_pairs(pair for part in body.strip().split(b"&") for pair in _pairs(part))


def _pairs(part: bytes) -> list[tuple[str, str]]:
    """The name and value of a part; a large value without anything to unquote is decoded once, not copied as text."""
    name, is_pair, value = part.partition(b"=")
    if is_pair and len(value) > LARGE and b"%" not in value and b"+" not in value:
        return [
            (key, value.decode("utf-8", "replace")) for key, _ in query_to_pairs(name.decode("utf-8", "replace") + "=")
        ]
    return query_to_pairs(part.decode("utf-8", "replace"))


def from_pairs(pairs: Iterable[tuple[str, Any]]) -> Fields:
    """Nested fields from names and values: of a repeated name the last value counts, ``name[]`` makes a list."""
    fields: Fields = {}
    nested = False
    for name, value in pairs:
        if "[" in name:
            nested = _put(fields, name, value) or nested
        elif " " in name:
            if name := name.lstrip(" ").replace(" ", "_"):
                fields[name] = value
        elif name:
            fields[name] = value
    return {name: _finished(value) for name, value in fields.items()} if nested else fields


def merge(under: Fields, over: Fields) -> Fields:
    """Both together; *over* takes precedence, and two maps of one name are merged."""
    if not under or not over:
        return under or over
    merged = dict(under)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def scalar(fields: Mapping[str, Any], name: str) -> str:
    """The field as text; ``""`` where it is missing, null or no scalar."""
    value = fields.get(name)
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, dict | list) else str(value)


def wants_json(fields: Mapping[str, Any]) -> bool:
    """Whether JSON is requested: ``json`` is not empty in PHP's sense."""
    return fields.get("json") not in (None, "", "0", 0, False)


def json_of(fields: Mapping[str, Any]) -> Any:
    """The value of ``json``: a map, a list (of a multi-call), or ``None`` if it is only a flag.

    Raises ``BadJson`` for a text that begins like an object and is not valid.
    """
    value = fields.get("json")
    if not isinstance(value, str):
        return value if isinstance(value, dict | list) else None
    text = value.lstrip()
    if text[:1] not in ("{", "["):
        return None
    try:
        return read_json(text)
    except NotRead as error:
        if text[0] == "{":
            raise BadJson from error
        return None


def api_params(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The API parameters of a request: the object in ``json``, overridden by all other fields.

    ``api_key`` and the like are credentials outside of ``json`` and API parameters inside it. ``check_permissions`` is
    always on. Raises ``BadJson``.
    """
    inside = json_of(fields)
    params = dict(inside) if isinstance(inside, dict) else {}
    for name, value in fields.items():
        if name not in NOT_PARAMETERS:
            params[name] = value
    return forced(params)


def forced(params: dict[str, Any]) -> dict[str, Any]:
    """*params* of a remote call: version 3 by default, permissions always checked."""
    params.setdefault("version", 3)
    params["check_permissions"] = True
    return params


class _Array(dict[str, Any]):
    """A PHP array being filled: keys as text, and the next number for ``[]``."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        super().__init__()
        self.next = 0

    def key(self, text: str) -> str:
        """The key for *text* between brackets; the next number if it is empty."""
        if text == "":
            text = str(self.next)
        if _is_index(text):
            self.next = max(self.next, int(text) + 1)
        return text


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 19


def _put(fields: Fields, name: str, value: Any) -> bool:
    """Store a bracketed field. True if it made an array."""
    top, keys = _split(name)
    if not top or len(keys) > MAX_DEPTH:
        return False
    if not keys:
        fields[top] = value
        return False
    here = fields.get(top)
    if not isinstance(here, _Array):
        here = fields[top] = _Array()
    for key in keys[:-1]:
        key = here.key(key)
        inner = here.get(key)
        if not isinstance(inner, _Array):
            inner = here[key] = _Array()
        here = inner
    here[here.key(keys[-1])] = value
    return True


def _split(name: str) -> tuple[str, list[str]]:
    """``a[b][]`` to ``a`` and its keys, at most one above the limit.

    An unclosed bracket becomes ``_``, as in PHP; so does one in front.
    """
    name = name.lstrip(" ")
    top, _, rest = name.partition("[")
    if not top or "]" not in rest:
        return name.replace("[", "_", 1).replace(" ", "_"), []
    keys: list[str] = []
    at = 0
    while len(keys) <= MAX_DEPTH and (end := rest.find("]", at)) >= 0:
        keys.append(rest[at:end])
        if rest[end + 1 : end + 2] != "[":
            break
        at = end + 2
    return top.replace(" ", "_"), keys


def _finished(value: Any) -> Any:
    """A filled array: a list if its keys are 0, 1, 2…, else a map."""
    if not isinstance(value, _Array):
        return value
    if value.next == len(value) and all(key == str(place) for place, key in enumerate(value)):
        return [_finished(inner) for inner in value.values()]
    return {key: _finished(inner) for key, inner in value.items()}
