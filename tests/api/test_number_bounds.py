"""Whole numbers have the bounds of CiviCRM's columns, whatever the database would take."""

import pytest

from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.api.parameters.options import Options, read_options
from civiapi.api.parameters.params import CONTROL
from civiapi.store.databases.column_types import bounds
from entities import catalogue
from tests.conftest import Ask
from tests.support.civicrm_columns import column_types, fields_of
from tests.support.contacts import a_contact

BITS = {"tinyint": 8, "smallint": 16, "int": 32, "integer": 32, "bigint": 64}


NUMBERS = [one for one in fields_of((INT,)) if one[2].writable]


def bounds_of(kind: str) -> tuple[int, int]:
    """What a column of this type of CiviCRM's definitions holds."""
    bits = BITS[kind.partition("(")[0].partition(" ")[0]]
    return (0, 2**bits - 1) if kind.endswith(" unsigned") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize(("entity", "table", "field"), NUMBERS, ids=lambda one: getattr(one, "name", one))
def test_a_number_is_as_large_as_its_column_in_civicrm(entity: str, table: str, field: Field) -> None:
    column = catalogue().find_entity(entity).column(field.name)
    assert column is not None
    assert bounds(column.type) == bounds_of(column_types()[table, field.name])


async def test_a_number_that_no_column_holds_is_refused_on_every_road(call: Ask) -> None:
    contact_id = await a_contact(call)
    for number in (-1, 2**32, 99_999_999_999_999, "99999999999999", 1e15):
        for action, params in (
            ("create", {"employer_id": number}),
            ("update", {"employer_id": number}),
            ("setvalue", {"field": "employer_id", "value": number}),
            ("replace", {"values": [{"id": contact_id, "employer_id": number}]}),
        ):
            answer = await call("Contact", action, {"id": contact_id, **params})
            assert "employer_id is not a valid integer" in answer["error_message"], (action, number)


BY_ID = [
    one
    for one in catalogue().entities()
    if one.table is not None and "delete" in catalogue().actions(one) and one.name != "EntityTag"  # by contact and tag
]


@pytest.mark.parametrize("entity", BY_ID, ids=[one.name for one in BY_ID])
@pytest.mark.parametrize("text", ["1_0", "\N{ARABIC-INDIC DIGIT SIX}", "0x1", "1 0", "1e", "nan"])
async def test_what_only_python_or_nobody_reads_as_a_number_is_none(call: Ask, entity: Entity, text: str) -> None:
    for action in ("get", "getrefcount", "delete"):
        answer = await call(entity.name, action, {"id": text})
        assert answer["error_message"] == "id is not a valid integer", action


def test_a_limit_that_only_python_reads_as_a_number_means_all() -> None:
    for text in ("1_0", "\N{ARABIC-INDIC DIGIT SIX}"):
        assert read_options({"options": {"limit": text, "offset": text}}) == Options(
            limit=0, raw={"limit": text, "offset": text}
        )
    assert read_options({"rowCount": " 10"}).limit == 10
    assert read_options({"rowCount": "+10"}).limit == 10


def test_no_column_is_written_by_what_every_call_may_have() -> None:
    """Contacts have a key of their own, ``api_key``: in the parameters, it is no credential."""
    clashes = {
        (entity.name, field.name)
        for entity in catalogue().entities()
        for field in entity.fields
        if field.writable and field.name in CONTROL
    }
    assert clashes <= {("Contact", "api_key")}


async def test_a_domain_keeps_its_version_whatever_that_of_the_call_is(call: Ask) -> None:
    before = await call("Domain", "getvalue", {"id": 1, "return": "domain_version"})
    for action in ("create", "update"):
        made = await call("Domain", action, {"id": 1, "name": action, "version": 3})
        assert made["is_error"] == 0
    renamed = await call("Domain", "getsingle", {"id": 1})
    assert (renamed["name"], renamed["domain_version"]) == ("update", before)
    added = await call("Domain", "create", {"name": "Another", "version": 3})
    assert await call("Domain", "getvalue", {"id": added["id"], "return": "domain_version"}) == ""
