"""The format of APIv3 answers and errors (contract section 4); endpoints wrap it, but do not change it."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from civiapi.api.declaration.spec import Result
from civiapi.api.errors import ApiError, ReturnedError

UNKNOWN_ERROR = {"is_error": 1, "error_message": "Unknown error."}


def success(result: Result, *, sequential: bool) -> Any:
    """The envelope around a result; the value itself if it is unwrapped."""
    if result.unwrapped:
        return result.values
    values = result.values
    rows: Any
    if isinstance(values, list) and result.key is not None:
        rows = values if sequential else {row[result.key]: row for row in values}
    elif isinstance(values, Mapping) and sequential and _is_rows(values):
        rows = list(values.values())
    else:
        rows = values
    envelope: dict[str, Any] = {"is_error": 0, "version": 3, "count": _count(rows)}
    if (top := result.id if result.id is not None else _top_id(values, result.key)) is not None:
        envelope["id"] = top
    envelope["values"] = rows if rows != {} else []
    envelope.update(result.extra)
    return envelope


def _is_rows(values: Mapping[str, Any]) -> bool:
    """Whether a map has rows (which ``sequential`` makes a list) and is not a record."""
    return bool(values) and all(isinstance(value, Mapping) for value in values.values())


def _count(rows: Any) -> int:
    return len(rows) if isinstance(rows, _SEVERAL) else int(bool(rows))


_SEVERAL = list, dict, Mapping  # the usual ones first: to look for a Mapping takes longest


def _top_id(values: Any, key: str | None) -> Any:
    """The key of a single value: a number if it looks like one (contract 4.1)."""
    if isinstance(values, list):
        return None if len(values) != 1 else 0 if key is None else as_key(values[0][key])
    if isinstance(values, Mapping):
        if len(values) == 1:
            return as_key(next(iter(values)))
        own = values.get("id")
        return as_key(own) if isinstance(own, int | str) and isinstance(as_key(own), int) else None
    return None


def as_key(value: Any) -> Any:
    """A map key as in PHP: text that looks like an integer becomes one."""
    if isinstance(value, str) and (value.isascii() and value.isdigit()) and (value == "0" or value[0] != "0"):
        return int(value) if len(value) < 19 or (len(value) == 19 and int(value) < 2**63) else value
    return value


def error(problem: ApiError, entity: str, action: str) -> dict[str, Any]:
    """The envelope of an error, with canonical names."""
    base = {"is_error": 1, "error_message": problem.message}
    if isinstance(problem, ReturnedError):
        return {**problem.extra, **base}
    return {**problem.extra, "error_code": problem.code, "entity": entity, "action": action, **base}


def scalar(value: Any) -> str:
    """A scalar as text, as in the answers of get and create (contract 4.3)."""
    if value.__class__ is str:
        return value
    if value is None or value is False:
        return ""
    if value is True:
        return "1"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def shown(value: Any) -> str:
    """A caller's value as messages name it: a scalar as answers have it, a list or a map as PHP's ``Array``."""
    return "Array" if isinstance(value, list | dict) else scalar(value)


def stringified(value: Any) -> Any:
    """Every scalar in *value* as text; maps and lists keep their shape."""
    if isinstance(value, dict):
        return {key: stringified(one) for key, one in value.items()}
    if isinstance(value, list):
        return [stringified(one) for one in value]
    return scalar(value)


class TextRows(list[dict[str, Any]]):
    """Rows whose scalars are text already."""


def as_texts(values: Any) -> Any:
    """Nested scalars as text; a value that is itself a scalar stays as it is."""
    if isinstance(values, TextRows) or not isinstance(values, dict | list):
        return values
    return stringified(values)
