"""Fields of a query string or form, and the API parameters in them. Pure: no HTTP, no entity, no caller.

Names with brackets are read as PHP reads them (``id[IN][]=1``, ``options[limit]=5``), because that is how CiviCRM's
clients write nested parameters. Unlike PHP a dot in a name is kept: ``option.limit`` and ``option_limit`` both arrive
as they were sent, and so does the join ``contact_id.display_name`` that PHP would spoil.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from yarl import query_to_pairs

from civiapi.jsontext import NotRead, read_json

Fields = dict[str, Any]

MAX_DEPTH = 64  # PHP's own limit on brackets; what lies deeper is dropped
MOST_FIELDS = 50_000  # of one body, every bracket counted too; PHP takes a thousand
NOT_PARAMETERS = frozenset(
    {"q", "json", "key", "api_key", "entity", "action", "fnName", "_authx", "_authxSes", "_authxSiteKey"}
)


class BadJson(ValueError):
    """The ``json`` field begins like an object and is none that we read."""


class TooMany(ValueError):
    """A body has more fields than we read."""


def parse(text: str) -> Fields:
    """The fields of an url-encoded text. Bytes that are no UTF-8 become U+FFFD; nothing is refused."""
    return from_pairs(query_to_pairs(text))


def parse_body(body: bytes) -> Fields:
    """The fields of an url-encoded body. Raises ``TooMany``."""
    if body.count(b"&") + body.count(b"[") + body.count(b"%5B") + body.count(b"%5b") > MOST_FIELDS:
        raise TooMany(f"The form has too many fields; at most {MOST_FIELDS} are read.")
    return parse(body.decode("utf-8", "replace").strip())


def from_pairs(pairs: Iterable[tuple[str, Any]]) -> Fields:
    """Names and values in order to nested fields: a repeated name takes its last value, ``name[]`` collects."""
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
    return {name: _settled(value) for name, value in fields.items()} if nested else fields


def merge(under: Fields, over: Fields) -> Fields:
    """Both together; on a clash *over* wins, and two maps of one name are merged likewise."""
    if not under or not over:
        return under or over
    merged = dict(under)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def scalar(fields: Mapping[str, Any], name: str) -> str:
    """The field as text; ``""`` where it is missing, null or not a scalar."""
    value = fields.get(name)
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, dict | list) else str(value)


def wants_json(fields: Mapping[str, Any]) -> bool:
    """Whether the answer is to be JSON: ``json`` is there and not empty in PHP's sense."""
    return fields.get("json") not in (None, "", "0", 0, False)


def json_of(fields: Mapping[str, Any]) -> Any:
    """What ``json`` holds: a map (also a list, which only a multi-call reads), or ``None`` if it is but a flag.

    Raises ``BadJson`` for a text that begins like an object and cannot be read.
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
    """The API parameters of a request: the object in ``json`` with every other field laid over it.

    A name such as ``api_key`` is the caller's credential outside ``json`` and an API parameter inside it.
    ``check_permissions`` is on whatever was sent. Raises ``BadJson``.
    """
    inside = json_of(fields)
    params = dict(inside) if isinstance(inside, dict) else {}
    for name, value in fields.items():
        if name not in NOT_PARAMETERS:
            params[name] = value
    return forced(params)


def forced(params: dict[str, Any]) -> dict[str, Any]:
    """*params* as every remote call has them: version 3 unless said otherwise, permissions checked."""
    params.setdefault("version", 3)
    params["check_permissions"] = True
    return params


class _Array(dict[str, Any]):
    """A PHP array while it is filled: keys as text, and the number that ``[]`` takes next."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        super().__init__()
        self.next = 0

    def key(self, text: str) -> str:
        """The key that *text* between brackets names; empty: the next number."""
        if text == "":
            text = str(self.next)
        if _is_index(text):
            self.next = max(self.next, int(text) + 1)
        return text


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 19


def _put(fields: Fields, name: str, value: Any) -> bool:
    """Put a bracketed field in its place. True if an array was needed for it."""
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
    """``a[b][]`` to ``a`` and its keys, one more than fit at most.

    A bracket that never closes is a ``_``, as in PHP; so is one in front.
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


def _settled(value: Any) -> Any:
    """A filled array as JSON has it: a list if its keys run 0, 1, 2…, else a map."""
    if not isinstance(value, _Array):
        return value
    if value.next == len(value) and all(key == str(place) for place, key in enumerate(value)):
        return [_settled(inner) for inner in value.values()]
    return {key: _settled(inner) for key, inner in value.items()}
