"""API values in the dress of the web endpoints: JSON wrapping, pretty printing, XML."""

import json
import threading
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civiapi.http.rendering import AnswerTotal, off_loop, render, wrap
from civiapi.http.xml import to_xml

ENVELOPE = {"is_error": 0, "version": 3, "count": 1, "id": 3, "values": {"3": {"id": "3", "name": "A & <B>"}}}


@pytest.mark.parametrize(
    ("value", "wrapped"),
    [
        pytest.param(12, {"is_error": 0, "result": 12}, id="A number is a result"),
        pytest.param("Ada", {"is_error": 0, "result": "Ada"}, id="So is a text"),
        pytest.param("", {"is_error": 0, "result": 0}, id="An empty text is 0"),
        pytest.param("0", {"is_error": 0, "result": 0}, id="The text 0 is the number"),
        pytest.param(False, {"is_error": 0, "result": 0}, id="False is 0"),
        pytest.param(
            None,
            {"error_message": "Could not interpret return values from function.", "is_error": 1},
            id="Null cannot be sent",
        ),
        pytest.param({"id": "3"}, {"id": "3", "is_error": 0}, id="A flat record gains is_error"),
        pytest.param({"id": "3", "l": []}, {"id": "3", "l": []}, id="A record with a list in it does not"),
        pytest.param({"is_error": 1}, {"is_error": 1}, id="An error stays one"),
        pytest.param(ENVELOPE, ENVELOPE, id="An envelope is sent as it is"),
        pytest.param([1, 2], [1, 2], id="A list stays a list"),
        pytest.param([], {"is_error": 0}, id="An empty list is an empty map"),
    ],
)
def test_values_are_wrapped_for_the_web(value: Any, wrapped: Any) -> None:
    assert wrap(value) == wrapped


def test_json_is_compact_and_pretty_json_is_indented_by_four() -> None:
    assert render(ENVELOPE, {"json": "1"}).body == json.dumps(ENVELOPE, separators=(",", ":")).encode()
    pretty = render(ENVELOPE, {"json": "1", "prettyprint": "1"})
    assert pretty.body == json.dumps(ENVELOPE, indent=4).encode()
    assert pretty.content_type == "application/json"


def test_without_json_the_answer_is_xml() -> None:
    answer = render(ENVELOPE, {})
    assert answer.content_type == "text/xml"
    assert answer.body.startswith(b'<?xml version="1.0"?>')


def _results(value: Any) -> tuple[str | None, list[dict[str, str]]]:
    root = ElementTree.fromstring(to_xml(value))
    return root.get("count"), [{child.tag: child.text or "" for child in result} for result in root]


@pytest.mark.parametrize(
    ("value", "count", "results"),
    [
        pytest.param(ENVELOPE, "1", [{"id": "3", "name": "A & <B>"}], id="One result a row, escaped"),
        pytest.param({**ENVELOPE, "count": 0, "values": []}, "0", [], id="No rows, no results"),
        pytest.param(
            {"is_error": 0, "result": 14}, None, [{"is_error": "0", "result": "14"}], id="A scalar is one result"
        ),
        pytest.param(
            {"is_error": 1, "error_message": "No"},
            None,
            [{"is_error": "1", "error_message": "No"}],
            id="So is an error",
        ),
        pytest.param(
            {"count": 2, "values": ["get", "create"]},
            "2",
            [{"id": "0", "value": "get"}, {"id": "1", "value": "create"}],
            id="A scalar item has its key for an id",
        ),
        pytest.param(
            {"count": 1, "values": 1}, "1", [{"count": "1", "values": "1"}], id="Scalar values are one result"
        ),
        pytest.param({"a": "x\x01y"}, None, [{"a": "x,y"}], id="CiviCRM's separator is a comma"),
        pytest.param({"a": "x\x00\x0by"}, None, [{"a": "xy"}], id="What XML cannot hold is left out"),
        pytest.param({"a": True, "b": False, "c": None}, None, [{"a": "1", "b": "", "c": ""}], id="PHP's booleans"),
        pytest.param({"2x": 1, "a b": 2}, None, [{"_2x": "1", "a_b": "2"}], id="Names are mended"),
    ],
)
def test_xml_layout(value: Any, count: str | None, results: list[dict[str, str]]) -> None:
    assert _results(value) == (count, results)


def test_nested_lists_are_elements_that_a_parser_reads() -> None:
    root = ElementTree.fromstring(to_xml({"count": 1, "values": {"3": {"group_type": ["1", "2"]}}}))
    assert [element.tag for element in root.iter()] == ["ResultSet", "Result", "group_type", "_0", "_1"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), anything, max_size=4))
def test_any_value_is_xml_that_can_be_parsed(value: dict[str, Any]) -> None:
    ElementTree.fromstring(to_xml(value))


async def test_a_large_answer_is_rendered_in_a_thread_and_a_small_one_is_not() -> None:
    row = {"first_name": "Ada", "last_name": "Lovelace"}
    places = []

    def render_here(value: object) -> object:
        places.append(threading.current_thread().name)
        return value

    for answer in ({"values": [row] * 20_000}, {"values": [{"x": "x" * 200_000}]}, {"values": [row] * 25}):
        assert await off_loop(answer, render_here, answer) is answer
    here = threading.current_thread().name
    assert [place == here for place in places] == [False, False, True]


async def test_calls_of_one_request_are_not_run_once_their_answers_are_too_large_together() -> None:
    total = AnswerTotal(1000)
    assert total.refusal is None
    await total.add({"values": ["x" * 900]})
    await total.add({"values": ["x" * 900]})
    assert total.refusal is not None
    assert total.refusal["error_code"] == "too_much"
