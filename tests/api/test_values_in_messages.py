"""An error names a caller's value as CiviCRM does: true is 1, and a list or a map is an Array."""

import re
from typing import Any

import pytest

from civiapi.api.declaration.spec import Entity
from entities import catalogue
from tests.conftest import Ask

ACTIONS = ("get", "create", "setvalue", "getfield", "getoptions", "getlist")
VALUES: tuple[Any, ...] = (True, [["x"]], {"a": {"b": 1}}, {"=": True}, [True])
PYTHON = re.compile(r"\b(True|False|None)\b|[\[{]'|':")
ENTITIES = [one for one in catalogue().entities() if not one.name.startswith("Mailchimpsync")]


@pytest.mark.parametrize("entity", ENTITIES, ids=[one.name for one in ENTITIES])
async def test_no_message_names_a_value_as_python_writes_it(call: Ask, entity: Entity) -> None:
    said = []
    for action in (one for name, one in catalogue().actions(entity).items() if name in ACTIONS):
        for name in {one.name for one in (*(action.params or ()), *entity.fields)}:
            for value in VALUES:
                answer = await call(entity.name, action.name, {"field": "x", "name": "x", name: value})
                if isinstance(answer, dict) and answer.get("is_error"):
                    said.append((action.name, name, answer["error_message"]))
    assert not [one for one in said if PYTHON.search(one[-1])]


@pytest.mark.parametrize(
    ("call_of", "says"),
    [
        (("Contact", "create", {"contact_type": True}), "'1' is not a valid option for field contact_type"),
        (("Contact", "get", {"birth_date": True}), "birth_date is not a valid date: 1"),
        (("Address", "get", {"geo_code_1": True}), "geo_code_1 is  not a valid amount: 1"),
        (("Setting", "get", {"domain_id": ["x"]}), "'Array' is not a valid option for field domain_id"),
        (("Email", "getoptions", {"field": ["x"]}), "The field 'Array' doesn't exist."),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_a_value_is_named_as_php_casts_it(call: Ask, call_of: tuple[str, str, dict[str, Any]], says: str) -> None:
    assert (await call(*call_of))["error_message"] == says
