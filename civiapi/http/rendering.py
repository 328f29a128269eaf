"""API values in the formats of CiviCRM's web endpoints: scalars wrapped, as JSON or XML. Pure."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, ParamSpec, TypeVar

import orjson

from civiapi.api.bounds.answer_size import answer_size
from civiapi.http import forms
from civiapi.http.messages import HttpResponse
from civiapi.http.xml import to_xml
from civiapi.runtime.worker_threads import in_thread

P = ParamSpec("P")
T = TypeVar("T")

XML = "text/xml"
UNKNOWN = "Unknown error."
LARGE_ANSWER = 100_000
"""Bytes, as ``answer_size`` counts, from which on XML is written in a thread: some milliseconds."""

MAX_ANSWERS = 32_000_000
"""Bytes, counted likewise, that the calls of one request may answer together."""

UNDECODABLE = "Unable to decode supplied JSON."


def render(value: Any, fields: Mapping[str, Any]) -> HttpResponse:
    """The answer of the API in the format that the request asks for (``json``, ``prettyprint``)."""
    wrapped = wrap(value)
    if not forms.wants_json(fields):
        return HttpResponse(to_xml(wrapped), XML)
    return HttpResponse(encode(wrapped) if _is_compact(fields) else _indented(wrapped))


def _is_compact(fields: Mapping[str, Any]) -> bool:
    return fields.get("prettyprint") in (None, "", "0", 0, False)


def _indented(value: Any) -> bytes:
    """JSON with indents, encoded some tokens at a time: all of them take many times the memory of the text."""
    tokens = json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value)
    text = bytearray()
    while some := list(islice(tokens, 10_000)):
        text += "".join(some).encode("utf-8", "replace")
    return bytes(text)


async def rendered(value: Any, fields: Mapping[str, Any]) -> HttpResponse:
    """``render``, in a thread where it takes long: orjson does not, and holds the interpreter in any thread."""
    if forms.wants_json(fields) and _is_compact(fields):
        return render(value, fields)
    return await off_loop(value, render, value, fields)


async def off_loop(answer: Any, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of *fn*, which takes time in proportion to *answer*: computed in a thread where that is large."""
    if answer_size(answer, LARGE_ANSWER) > LARGE_ANSWER:
        return await in_thread(fn, *args, **kwargs)
    return fn(*args, **kwargs)


class AnswerTotal:
    """The answers to several calls of one request, which are held together until the last of them."""

    def __init__(self, limit: int = MAX_ANSWERS) -> None:
        self._left = limit
        self._limit = limit

    @property
    def refusal(self) -> dict[str, Any] | None:
        """The answer to a further call, where there is no room for one."""
        if self._left >= 0:
            return None
        text = f"The calls of one request may answer {self._limit // 1_000_000} MB together; this one was not run."
        return {"is_error": 1, "error_code": "too_much", "error_message": text}

    async def add(self, answer: Any) -> None:
        """Count an answer."""
        self._left -= await off_loop(answer, answer_size, answer, self._left)


def render_error(message: str, fields: Mapping[str, Any], status: int = 200) -> HttpResponse:
    """An error outside of an API call: only a message."""
    answer = render({"error_message": message, "is_error": 1}, fields)
    return answer if status == 200 else HttpResponse(answer.body, answer.content_type, status)


def wrap(value: Any) -> dict[str, Any] | list[Any]:
    """The value as a map or list (``contract/apiv3.md`` 1.4).

    A scalar becomes ``result`` (any falsy one the number 0); a flat map gets ``is_error``.
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
