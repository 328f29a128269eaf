"""Every field of every entity, empty or as long as it may be: stored, or refused in words, on both databases."""

from typing import Any

import pytest

from civiapi.api.declaration.fields import BOOLEAN, DATES, INT, STRING, TEXT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store
from entities import catalogue
from tests.conftest import Ask
from tests.support.every_call import Variant, plant

REGISTRY = catalogue()
WRITTEN = [one for one in REGISTRY.entities() if one.table is not None and one.action("create")]
EMPTY = ("", "null")


@pytest.fixture(autouse=True)
async def _planted(store: Store) -> None:
    await store.write(plant, Variant())


async def required(call: Ask, entity: Entity) -> dict[str, Any]:
    """What a new row needs: the first choice, 1, a date, or the letters zz."""
    if entity.name == "Contact":
        return {"contact_type": "Organization", "organization_name": "zz"}
    found: dict[str, Any] = {}
    for one in entity.fields:
        if "create" in one.required_by:
            plain = 1 if one.type in (INT, BOOLEAN) else "2026-01-01" if one.type in DATES else "zz"
            choices = one.options and (await call(entity.name, "getoptions", {"field": one.name, "sequential": 1}))
            found[one.name] = choices["values"][0]["key"] if choices else plain
    return found


def assert_in_words(answer: Any, sent: Any) -> None:
    text = str(answer)
    assert not any(one in text for one in ("Unknown error", "database error", "does not fit")), (sent, text[:300])


@pytest.mark.parametrize("entity", WRITTEN, ids=lambda one: one.name)
async def test_a_field_is_emptied_or_that_is_refused_in_words(call: Ask, entity: Entity) -> None:
    for one in entity.fields:
        for value in EMPTY:
            sent: dict[str, Any] = {"id": 1, one.name: value} if one.name != "id" else {"id": value}
            assert_in_words(await call(entity.name, "create", sent), sent)
            sent = {"id": 1, "field": one.name, "value": value}
            assert_in_words(await call(entity.name, "setvalue", sent), sent)


@pytest.mark.parametrize("entity", WRITTEN, ids=lambda one: one.name)
async def test_a_row_is_made_without_a_value_or_that_is_refused_in_words(call: Ask, entity: Entity) -> None:
    needed = await required(call, entity)
    for one in entity.fields:
        for value in EMPTY:
            sent = {**needed, one.name: value}
            assert_in_words(await call(entity.name, "create", sent), sent)


def longest(one: Field) -> str:
    return "x" * min(one.max_length or one.byte_limit or 0, 70_000)


@pytest.mark.parametrize("entity", WRITTEN, ids=lambda one: one.name)
async def test_a_row_is_made_with_the_longest_text_of_each_field(call: Ask, api: Api, entity: Entity) -> None:
    needed = await required(call, entity)
    for one in entity.fields:
        if one.type in (STRING, TEXT) and one.options is None:
            sent = {**needed, one.name: longest(one)}
            assert_in_words(await call(entity.name, "create", sent), one.name)


async def test_a_choice_with_a_long_label_and_no_name_is_named_after_as_much_as_fits(call: Ask) -> None:
    made = await call("OptionValue", "create", {"option_group_id": 1, "label": "x<" * 102, "sequential": 1})
    [row] = made["values"]
    assert (row["label"], row["name"]) == ("x<" * 102, "x<" * 51)
