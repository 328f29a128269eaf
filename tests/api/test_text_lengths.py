"""Texts have CiviCRM's lengths, whatever the database would take; and a LIKE pattern is short."""

import re
from typing import Any

import pytest

from civiapi.api.call import Call
from civiapi.api.declaration.fields import STRING, TEXT, Field
from civiapi.api.dispatch import Api
from civiapi.api.query import MAX_PATTERN_BYTES
from tests.conftest import Ask
from tests.support.civicrm_columns import column_types, fields_of
from tests.support.contacts import a_contact

BYTES = {"text": 65_535, "blob": 65_535, "longtext": 2**32 - 1}
TEXTS = fields_of((STRING, TEXT))


@pytest.mark.parametrize(("entity", "table", "field"), TEXTS, ids=lambda one: getattr(one, "name", one))
def test_a_text_is_as_long_as_its_column_in_civicrm(entity: str, table: str, field: Field) -> None:
    kind = column_types()[table, field.name]
    short = re.fullmatch(r"(?:var)?char\((\d+)\)", kind)
    if short:
        assert (field.max_length, field.byte_limit) == (int(short[1]), None)
    else:
        assert (field.max_length, field.byte_limit) == (None, BYTES[kind])


async def test_a_long_text_is_refused_by_its_bytes_on_every_road(call: Ask) -> None:
    contact_id = await a_contact(call)
    for text, fits in (("a" * 65_535, True), ("a" * 65_536, False), ("é" * 32_768, False)):
        for action, params in (
            ("create", {"image_URL": text}),
            ("update", {"image_URL": text}),
            ("setvalue", {"field": "image_URL", "value": text}),
            ("replace", {"values": [{"id": contact_id, "image_URL": text}]}),
        ):
            answer = await call("Contact", action, {"id": contact_id, **params})
            assert (answer["is_error"] == 0) == fits, action
            assert fits or "This field has a maxlength of 65535 bytes" in answer["error_message"]


async def test_what_holds_several_values_and_addresses_that_come_with_a_contact_are_measured(call: Ask) -> None:
    for given in (
        {"contact_sub_type": ["x" * 60] * 6},
        {"email": [{"email": "a" * 250 + "@example.org"}]},
        {"email": [{"email": "a@example.org", "location_type_id": {"a": 1}}]},
    ):
        answer = await call("Contact", "create", {"contact_type": "Individual", "first_name": "Ada", **given})
        assert answer["is_error"] == 1
        assert answer["error_message"] != "Unknown error."


LONG = "%" + "a" * MAX_PATTERN_BYTES
PATTERNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Email", "get", {"signature_text": {"LIKE": LONG}}),
    ("Email", "getcount", {"contact_id.image_URL": {"NOT LIKE": LONG}}),
    ("Contact", "get", {"image_URL": LONG}),
    ("Contact", "get", {"sort_name": LONG[1:]}),
    ("Contact", "get", {"email": {"LIKE": "é" * 257}}),
    ("Contact", "getlist", {"input": LONG[1:]}),
    ("Group", "getlist", {"search_field": "description", "input": LONG}),
)


@pytest.mark.parametrize(("entity", "action", "params"), PATTERNS)
async def test_a_long_pattern_is_refused(call: Ask, entity: str, action: str, params: dict[str, Any]) -> None:
    answer = await call(entity, action, params)
    assert "A pattern has at most 512 bytes" in answer["error_message"]


async def test_a_pattern_of_the_greatest_length_is_answered(api: Api) -> None:
    longest = "%" + "a" * (MAX_PATTERN_BYTES - 2) + "%"
    answer = await api.respond(Call("Email", "get", {"email": {"LIKE": longest}}))
    assert answer["count"] == 0
