"""What a chained call may name of its parent's row, and which parameters chain at all."""

from typing import Any

import pytest

from civiapi.api.call import Call
from civiapi.api.chaining import _filled
from civiapi.api.resolution import ResolvedCall, resolve
from entities import catalogue

ROW: dict[str, Any] = {
    "id": "3",
    "first_name": "Ada",
    "api.Email.get": {"count": 1, "values": [{"id": "8", "email": "ada@example.org"}]},
    "api.Email.get.2": {"values": []},
    "api.Phone.getcount": 0,
}
FILLED: dict[str, Any] = {
    "$value": "3",
    "$value.first_name": "Ada",
    "$value.bogus": None,
    "$value.api.Email.get.values.0.email": "ada@example.org",
    "$value.api.Email.get.count": 1,
    "$value.api.Email.get.values.1.email": None,
    "$value.api.Email.get.values.x": None,
    "$value.api.Email.get.2.values.0.id": None,
    "$value.api.Email.get.values": None,
    "$value.api.Phone.getcount": 0,
    "$value.first_name.x": None,
    "$valued": "$valued",
    "a $value.id": "a $value.id",
}


@pytest.mark.parametrize(("text", "value"), FILLED.items(), ids=FILLED)
def test_a_reference_becomes(text: str, value: Any) -> None:
    assert _filled(text, ROW) == value


def test_a_reference_in_an_operator_becomes_the_value_or_an_empty_text() -> None:
    assert _filled({"LIKE": "$value.first_name"}, ROW) == {"LIKE": "Ada"}
    assert _filled({"LIKE": "$value.bogus"}, ROW) == {"LIKE": ""}
    assert _filled({"IN": [1]}, ROW) == {"IN": [1]}


KEYS: dict[str, tuple[str, str] | None] = {
    "api.Email.get": ("Email", "get"),
    "api_Email_get": ("Email", "get"),
    "api.Email": ("Email", "create"),
    "api.Email.get.2": ("Email", "get"),
    "api_key": None,
    "apiEmail": None,
    "api.": None,
    "return": None,
}


@pytest.mark.parametrize(("key", "target"), KEYS.items(), ids=KEYS)
def test_a_parameter_chains_to(key: str, target: tuple[str, str] | None) -> None:
    chains = resolve(catalogue(), Call("Contact", "create", {key: {}}), 100).chains
    calls = [one.call if isinstance(one, ResolvedCall) else one for chain in chains for one in chain.calls]
    found = [(call.entity, call.action) for call in calls]
    assert found == ([target] if target else [])
