"""The options of a call (limit, offset, sort, return list) in every spelling that CiviCRM accepts (contract 3.2)."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.api.errors import ApiError

DEFAULT_LIMIT = 25
MAX_NAMES = 1000  # of a return list
MAX_SORTS = 32  # parts of a sort
MAX_LIST_TEXT = 20_000  # characters of a return list in Python's spelling


def is_empty(value: Any) -> bool:
    """Whether PHP considers the value empty (contract P4)."""
    return not value or value == "0"


def is_one(value: Any) -> bool:
    """Loosely equal to 1."""
    return value in (1, "1", True)


def integer(value: Any) -> int | None:
    """The whole number of 0 or more that *value* spells; ``None`` for anything else."""
    if isinstance(value, str) and not (value.isascii() and value.strip().removeprefix("+").isdigit()):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None


@dataclass(frozen=True, slots=True)
class Options:
    """``options`` and its older spellings. ``limit`` 0: no limit; ``sort``: parts such as ``id DESC``."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    sort: tuple[str, ...] = ()
    is_count: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


PLAIN_OPTIONS = Options()
_SPELLINGS = (
    "options", "option_limit", "option.limit", "rowCount", "option_offset", "option.offset", "offset", "option_sort",
    "option.sort", "sort",
)  # fmt: skip


def read_options(params: Mapping[str, Any]) -> Options:
    """Limit, offset and sort by the precedence of 3.2. A limit that is no number means all.

    Raises ``ApiError`` for a sort that is too long.
    """
    if params.keys().isdisjoint(_SPELLINGS):
        return PLAIN_OPTIONS
    raw = _as_map(params.get("options"))
    limit = _first(raw, params, "limit", "rowCount")
    sort = _first(raw, params, "sort", "sort")
    return Options(
        limit=DEFAULT_LIMIT if limit is None else integer(limit) or 0,
        offset=integer(_first(raw, params, "offset", "offset")) or 0,
        sort=_sort_parts(sort),
        is_count=not is_empty(raw.get("is_count")),
        raw=raw,
    )


def _as_map(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = read_json(value)
        except NotRead:
            return {}
    return value if isinstance(value, Mapping) else {}


def _first(raw: Mapping[str, Any], params: Mapping[str, Any], name: str, oldest: str) -> Any:
    for source, key in ((raw, name), (params, f"option_{name}"), (params, f"option.{name}"), (params, oldest)):
        if key in source and source[key] not in (None, ""):
            return source[key]
    return None


def _sort_parts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        return ()
    texts = [str(one) for one in value if not isinstance(one, list | dict)]
    if len(texts) + sum(text.count(",") for text in texts) > MAX_SORTS:
        raise ApiError(f"A sort has at most {MAX_SORTS} parts", 2000)
    return tuple(part for text in texts for part in text.split(",") if part.strip())


def read_return(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns asked for; empty: the usual ones. Lists, comma text, Python list text, ``return.X``.

    Raises ``ApiError`` for more names than any entity has.
    """
    asked = params.get("return")
    names = _names(asked) if asked else []
    by_key = [key.removeprefix("return.") for key, value in params.items() if key.startswith("return.") and value]
    names += [name for name in by_key if not name.isdigit()]
    if len(names) > MAX_NAMES:
        raise ApiError(f"At most {MAX_NAMES} names can be asked for in return", 2000)
    return tuple(dict.fromkeys(filter(None, names)))


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            value = _list_text(text)
        else:
            return text.replace(" ", "").split(",")
    if isinstance(value, Mapping):  # return[email]=1
        return [str(key if not isinstance(one, str) or is_one(one) else one) for key, one in value.items()]
    if isinstance(value, list):
        return [part for one in value if isinstance(one, str) for part in one.replace(" ", "").split(",")]
    return []


def _list_text(text: str) -> list[Any]:
    try:
        found = ast.literal_eval(text) if len(text) <= MAX_LIST_TEXT else ()
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return list(found) if isinstance(found, list | tuple) else []
