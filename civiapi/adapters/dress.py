"""An API value in the dress of CiviCRM's web endpoints: scalars wrapped, JSON or XML as the request wants it. Pure."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from civiapi.adapters import forms
from civiapi.adapters.http import Answer
from civiapi.adapters.xml import to_xml

XML = "text/xml"
UNKNOWN = "Unknown error."
UNDECODABLE = "Unable to decode supplied JSON."


def dress(value: Any, fields: Mapping[str, Any]) -> Answer:
    """What the API answered, as the fields of the request (``json``, ``prettyprint``) want it sent."""
    wrapped = wrap(value)
    if not forms.wants_json(fields):
        return Answer(to_xml(wrapped), XML)
    if fields.get("prettyprint") in (None, "", "0", 0, False):
        return Answer(encode(wrapped))
    return Answer(json.dumps(wrapped, indent=4, ensure_ascii=False).encode("utf-8", "replace"))


def dress_error(message: str, fields: Mapping[str, Any], status: int = 200) -> Answer:
    """An error that no API call raised: only its message."""
    answer = dress({"error_message": message, "is_error": 1}, fields)
    return answer if status == 200 else Answer(answer.body, answer.content_type, status)


def wrap(value: Any) -> dict[str, Any] | list[Any]:
    """The value as a map or list (``contract/apiv3.md`` 1.4).

    A scalar becomes ``result`` (every falsy one the number 0), a map without any nested one gains ``is_error``.
    """
    if isinstance(value, dict):
        if "is_error" in value or any(isinstance(inner, dict | list) for inner in value.values()):
            return value
        return {**value, "is_error": 0}
    if value is None:
        return {"error_message": "Could not interpret return values from function.", "is_error": 1}
    if isinstance(value, list):
        return value or {"is_error": 0}
    return {"is_error": 0, "result": value if value not in (0, "", "0") else 0}


def encode(value: Any) -> bytes:
    """JSON bytes."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
