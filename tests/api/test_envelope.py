"""The shapes of answers (contract section 4), from results and errors alone."""

from typing import Any

import pytest

from civiapi.api import envelope
from civiapi.api.declaration.spec import Result
from civiapi.api.errors import ApiError, MandatoryMissing, NoSuchAction, ReturnedError, Unauthorized

ROW = {"id": "7", "email": "a@example.org"}
OTHER = {"id": "8", "email": "b@example.org"}
SHAPES: dict[str, tuple[Result, bool, dict[str, Any]]] = {
    "one row is keyed by its id, and the top id is a number": (
        Result([ROW]),
        False,
        {"count": 1, "id": 7, "values": {"7": ROW}},
    ),
    "sequential makes a list and keeps the top id": (Result([ROW]), True, {"count": 1, "id": 7, "values": [ROW]}),
    "two rows have no top id": (Result([ROW, OTHER]), False, {"count": 2, "values": {"7": ROW, "8": OTHER}}),
    "an empty map is an empty list": (Result([]), False, {"count": 0, "values": []}),
    "a text key stays text": (Result([{"id": "a1"}]), False, {"count": 1, "id": "a1", "values": {"a1": {"id": "a1"}}}),
    "a list of one has the id 0": (Result([ROW], key=None), False, {"count": 1, "id": 0, "values": [ROW]}),
    "a scalar counts as 1": (Result(1), False, {"count": 1, "values": 1}),
    "a false scalar counts as 0": (Result(0), False, {"count": 0, "values": 0}),
    "a record with an integer id gives the top id": (
        Result({"id": "9", "nick_name": "x"}),
        False,
        {"count": 2, "id": 9, "values": {"id": "9", "nick_name": "x"}},
    ),
    "a map of maps becomes a list": (Result({"a": ROW, "b": OTHER}), True, {"count": 2, "values": [ROW, OTHER]}),
    "extra keys stand beside the values": (Result(1, extra={"added": 2}), False, {"count": 1, "values": 1, "added": 2}),
}  # fmt: skip


@pytest.mark.parametrize(("result", "sequential", "shape"), SHAPES.values(), ids=SHAPES)
def test_an_answer_has_this_shape(result: Result, sequential: bool, shape: dict[str, Any]) -> None:
    assert envelope.success(result, sequential=sequential) == {"is_error": 0, "version": 3, **shape}


def test_a_bare_result_has_no_envelope() -> None:
    assert envelope.success(Result(12, unwrapped=True), sequential=False) == 12


TEXTS = {5: "5", True: "1", False: "", None: "", 1.5: "1.5", b"x": "x", "t": "t"}


@pytest.mark.parametrize(("value", "text"), TEXTS.items(), ids=[f"{v!r} is {t!r}" for v, t in TEXTS.items()])
def test_a_scalar_in_values_is_text(value: Any, text: str) -> None:
    assert envelope.as_texts([{"x": value, "y": [value]}]) == [{"x": text, "y": [text]}]


ERRORS = {
    "a plain error has the code 0": (ApiError("No."), {"error_code": 0, "error_message": "No."}),
    "missing keys are named": (
        MandatoryMissing(["a", "b"]),
        {
            "error_code": "mandatory_missing",
            "fields": ["a", "b"],
            "error_message": "Mandatory key(s) missing from params array: a, b",
        },
    ),
    "what does not exist is named": (
        NoSuchAction("Foo", "get"),
        {
            "error_code": "not-found",
            "error_message": "API (Foo, get) does not exist (join the API team and implement it!)",
        },
    ),
    "a missing permission has its code": (Unauthorized("No."), {"error_code": "unauthorized", "error_message": "No."}),
}


@pytest.mark.parametrize(("problem", "says"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_worded(problem: ApiError, says: dict[str, Any]) -> None:
    assert envelope.error(problem, "Foo", "get") == {"is_error": 1, "entity": "Foo", "action": "get", **says}


def test_a_returned_error_holds_only_its_own_keys() -> None:
    told = envelope.error(ReturnedError("Expected one Foo but found 0", count=0), "Foo", "getsingle")
    assert told == {"count": 0, "is_error": 1, "error_message": "Expected one Foo but found 0"}
