"""Forms and query strings become nested fields as PHP makes them, and fields become API parameters."""

import string
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civiapi.http import forms


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        pytest.param("a=1&b=2", {"a": "1", "b": "2"}, id="Plain names are themselves"),
        pytest.param("&a=1&&", {"a": "1"}, id="Empty parts are nothing, also in front (the Ruby gem)"),
        pytest.param("a=1&a=2", {"a": "2"}, id="The last of several values counts"),
        pytest.param("a", {"a": ""}, id="A name without a value is empty"),
        pytest.param("=x", {}, id="A value without a name is nothing"),
        pytest.param("a+b=1+2", {"a_b": "1 2"}, id="A blank in a name becomes an underscore"),
        pytest.param("option.limit=5", {"option.limit": "5"}, id="A dot in a name stays"),
        pytest.param("option_limit=5", {"option_limit": "5"}, id="So does the spelling that PHP makes of it"),
        pytest.param("api.Email.get[is_primary]=1", {"api.Email.get": {"is_primary": "1"}}, id="Dots and brackets"),
        pytest.param("options[limit]=5", {"options": {"limit": "5"}}, id="Brackets make a map"),
        pytest.param("return[]=id&return[]=email", {"return": ["id", "email"]}, id="Empty brackets make a list"),
        pytest.param("id[IN][]=1&id[IN][]=2", {"id": {"IN": ["1", "2"]}}, id="A list inside a map"),
        pytest.param("a[0]=x&a[1]=y", {"a": ["x", "y"]}, id="Keys from 0 on are a list"),
        pytest.param("a[1]=y&a[0]=x", {"a": {"1": "y", "0": "x"}}, id="Keys out of order are a map"),
        pytest.param("a[5]=x&a[]=y", {"a": {"5": "x", "6": "y"}}, id="Empty brackets count on from the highest key"),
        pytest.param("a[01]=x&a[]=y", {"a": {"01": "x", "0": "y"}}, id="01 is a text, not a number"),
        pytest.param("a[b][]=1&a[b][c]=2", {"a": {"b": {"0": "1", "c": "2"}}}, id="A list that gets a name is a map"),
        pytest.param("a=1&a[b]=2", {"a": {"b": "2"}}, id="A map replaces a value"),
        pytest.param("a[b]=2&a=1", {"a": "1"}, id="A value replaces a map"),
        pytest.param("a[b=1", {"a_b": "1"}, id="A bracket that never closes is an underscore"),
        pytest.param("[a]=1", {"_a]": "1"}, id="So is one in front"),
        pytest.param("a[b]c[d]=1", {"a": {"b": "1"}}, id="What follows a closing bracket is dropped"),
        pytest.param("a%5Bb%5D=%C3%A9", {"a": {"b": "é"}}, id="Brackets and letters may be encoded"),
        pytest.param("a=%FF", {"a": "�"}, id="Bytes that are no UTF-8 are replaced"),
        pytest.param("data%5Bmerges%5D%5BFNAME%5D=A", {"data": {"merges": {"FNAME": "A"}}}, id="Mailchimp's webhooks"),
    ],
)
def test_a_form_is_read_as_php_reads_it(text: str, fields: dict[str, Any]) -> None:
    assert forms.parse(text) == fields


def test_brackets_deeper_than_php_allows_are_dropped() -> None:
    assert forms.parse("a" + "[b]" * 65 + "=1&c=2") == {"c": "2"}


names = st.text(string.ascii_letters + "_", min_size=1, max_size=6)
values: st.SearchStrategy[Any] = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def _as_form(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _as_form(f"{prefix}[{key}]", inner)]
    if isinstance(value, list):
        return [pair for place, inner in enumerate(value) for pair in _as_form(f"{prefix}[{place}]", inner)]
    return [(prefix, value)]


@given(st.dictionaries(names, values, max_size=4))
def test_whatever_a_client_nests_arrives_as_it_was(fields: dict[str, Any]) -> None:
    pairs = [pair for name, value in fields.items() for pair in _as_form(name, value)]
    assert forms.parse(urlencode(pairs)) == fields


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("[]&=%.+ "), max_size=60))
def test_no_text_is_refused(text: str) -> None:
    assert isinstance(forms.parse(text), dict)


@pytest.mark.parametrize(
    ("query", "body", "both"),
    [
        pytest.param({"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}, id="Both are there"),
        pytest.param({"a": "1"}, {"a": "2"}, {"a": "2"}, id="On a clash the body wins"),
        pytest.param({"o": {"x": "1", "y": "1"}}, {"o": {"y": "2"}}, {"o": {"x": "1", "y": "2"}}, id="Maps are merged"),
        pytest.param({"o": {"x": "1"}}, {"o": "2"}, {"o": "2"}, id="A value replaces a map"),
    ],
)
def test_query_and_body_are_merged(query: forms.Fields, body: forms.Fields, both: forms.Fields) -> None:
    assert forms.merge(query, body) == both


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        pytest.param({"json": "1", "id": "5"}, {"id": "5"}, id="json=1: the other fields"),
        pytest.param({"json": '{"id":5}'}, {"id": 5}, id="An object in json"),
        pytest.param({"json": ' \n{"id":5}'}, {"id": 5}, id="Leading blanks are skipped"),
        pytest.param({"json": "[1,2]", "id": "5"}, {"id": "5"}, id="A list counts as json=1"),
        pytest.param({"json": '"str"'}, {}, id="So does a string"),
        pytest.param({"json": {"id": 5}}, {"id": 5}, id="A JSON body may hold the object itself"),
        pytest.param({"json": '{"id":5,"a":1}', "id": "6"}, {"id": "6", "a": 1}, id="A field beats the name in json"),
        pytest.param(
            {"json": '{"api_key":"abc-us1","action":"create"}', "api_key": "caller", "action": "getfields"},
            {"api_key": "abc-us1", "action": "create"},
            id="Names stripped outside stay inside json",
        ),
        pytest.param(
            {"q": "civicrm/x/y", "key": "k", "api_key": "a", "entity": "E", "_authx": "c", "x": "1"},
            {"x": "1"},
            id="Target and credentials are no parameters",
        ),
        pytest.param({"check_permissions": "0"}, {}, id="check_permissions cannot be sent"),
        pytest.param({"json": '{"check_permissions":0}'}, {}, id="Not inside json either"),
        pytest.param({"version": "4"}, {"version": "4"}, id="A version that was sent stays"),
    ],
)
def test_parameters_of_a_request(fields: forms.Fields, params: dict[str, Any]) -> None:
    assert forms.api_params(fields) == {"version": 3, **params, "check_permissions": True}


@pytest.mark.parametrize("text", ["{bad json", '{"a":1', '{"a":\ud800}'.encode("utf-8", "replace").decode(), "{]"])
def test_a_broken_object_is_an_error(text: str) -> None:
    with pytest.raises(forms.BadJson):
        forms.api_params({"json": text})


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("{}", True), ("null", True), ("", False), ("0", False)])
def test_json_is_wanted_when_the_field_is_not_empty(value: str, wanted: bool) -> None:
    assert forms.wants_json({"json": value}) is wanted
    assert forms.wants_json({}) is False


MANY = b"x" * (forms.LARGE + 1)
BODIES = [
    b"a=1&b=2", b"a=" + MANY, b"a=" + MANY + b"&b[c]=" + MANY + b"&b[d]=1", b"a=1+2%20" + MANY, b"a b=" + MANY,
    b"=" + MANY, MANY, b"a=b=" + MANY, b" a=" + MANY + b"\n", b"a=\xff" + MANY, b"%61=" + MANY,
    b"a[]=" + MANY + b"&a[]=" + MANY, b"", b"&&", "a=😀".encode() + MANY, b"a=;" + MANY + b";b=1",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_large_value_is_read_as_a_small_one_is(body: bytes) -> None:
    assert forms.parse_body(body) == forms.parse(body.decode("utf-8", "replace").strip())
