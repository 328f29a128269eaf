"""A filter is applied or refused, never ignored: every entity, every name of every field, on every road that filters.

A script deletes what it gets, and a filter that is ignored gives everything.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.declaration.fields import BOOLEAN, DATES, STRING, TEXT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.api.dispatch import Api
from civiapi.api.parameters.params import fields_of
from civiapi.api.permissions import view
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from tests.support.databases import database_at
from tests.support.every_call import Variant, names_of, plant

REGISTRY = catalogue()
READ = [
    one for one in REGISTRY.entities() if "getcount" in REGISTRY.actions(one) and one.name not in ("Entity", "Setting")
]
NOT_PLANTED = {"MailchimpsyncCache", "MailchimpsyncWebhookEvent"}  # the first searches one audience that is configured
NOBODY = Caller(1, frozenset({"access CiviCRM", "view all contacts"}), "viewer")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One for all: what is tried here changes nothing, which each test asserts."""
    store = await open_store(database_at(tmp_path_factory.mktemp("filters") / "site"))
    await migrate(store)
    await store.write(plant, Variant())
    yield Api(store, REGISTRY)
    await store.close()


def filters(entity: Entity) -> list[tuple[str, Field]]:
    """Every name that a filter of ``get`` goes by."""
    action = REGISTRY.actions(entity)["get"]
    found = [(name, one) for one in fields_of(entity, action) for name in names_of(one)]
    return [*found, (f"{entity.snake}_id", entity.by_name["id"])] if "id" in entity.by_name else found


def nowhere(field: Field) -> list[Any]:
    """Filters that no row meets."""
    value: Any = 987_654_321
    if field.type in (STRING, TEXT):
        value = "zz is nowhere"
    elif field.type in DATES:
        value = "1971-01-01"
    elif field.type == BOOLEAN:
        return [{">": 1}]
    return [value, {"IN": [value]}, {"=": value}]


async def ask(api: Api, entity: str, action: str, sent: dict[str, Any], caller: Caller = SYSTEM) -> Any:
    return await api.respond(Call(entity, action, sent, caller))


def found(answer: Any) -> int:
    """How many rows an answer is about; none where it was refused."""
    if not isinstance(answer, dict):
        return int(answer)
    return 0 if answer.get("is_error") else len(answer.get("values", [answer]))


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_a_filter_that_nothing_meets_finds_nothing(api: Api, entity: Entity) -> None:
    ignored = []
    every = await ask(api, entity.name, "getcount", {})
    for name, field in filters(entity):
        for value in nowhere(field):
            for action, sent in (
                ("getcount", {name: value}),
                ("get", {name: value, "sequential": 1}),
                ("getlist", {"params": {name: value}}),
                ("getsingle", {name: value}),
            ):
                answer = await ask(api, entity.name, action, sent)
                assert "Unknown error" not in str(answer), (name, value)
                if found(answer):
                    ignored.append((action, sent))
    assert ignored == []
    assert await ask(api, entity.name, "getcount", {}) == every
    assert every or entity.name in NOT_PLANTED


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_lists_and_maps_in_place_of_a_value_find_nothing_and_are_refused_in_words(
    api: Api, entity: Entity
) -> None:
    for name, field in filters(entity):
        for value in ({"REGEXP": "a"}, {"=": {"a": {}}}, {"IN": [[1]]}, {"IN": [{"a": 1}]}):
            answer = await ask(api, entity.name, "getcount", {name: value})
            assert field.multiple or found(answer) == 0, (name, value)  # which holds lists itself
            assert "DB Error" not in str(answer), (name, value)
            assert "Unknown error" not in str(answer), (name, value)


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_an_operator_that_takes_one_value_does_not_ignore_a_second(api: Api, entity: Entity) -> None:
    ignored = []
    for name, field in filters(entity):
        first, *_ = nowhere(field)
        for operator in ("=", "!=", ">", "LIKE", "NOT LIKE"):
            answer = await ask(api, entity.name, "getcount", {name: {operator: [first, first]}})
            if not isinstance(answer, dict):
                ignored.append((name, operator))
    assert ignored == []


@pytest.mark.parametrize(
    "entity", [one for one in READ if REGISTRY.actions(one).get("replace")], ids=lambda one: one.name
)
async def test_replace_deletes_nothing_by_a_filter_that_is_empty_unknown_or_met_by_nothing(
    api: Api, entity: Entity
) -> None:
    before = await ask(api, entity.name, "getcount", {})
    for name, field in filters(entity):
        for value in (None, "", [], {}, *nowhere(field)):
            await ask(api, entity.name, "replace", {name: value, "values": []})
            assert await ask(api, entity.name, "getcount", {}) == before, (name, value)
    await ask(api, entity.name, "replace", {"bogus": 1, "values": []})
    assert await ask(api, entity.name, "getcount", {}) == before


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_a_field_that_the_caller_may_not_read_is_no_filter(api: Api, entity: Entity) -> None:
    seen = view(REGISTRY, NOBODY).find_entity(entity.name)
    assert seen is not None
    for name in seen.withheld_by_name:
        for action, sent in (
            ("getcount", {name: "x"}),
            ("getlist", {"params": {name: "x"}}),
            ("getlist", {"search_field": name, "input": "x"}),
        ):
            answer = await ask(api, entity.name, action, sent, NOBODY)
            assert isinstance(answer, dict), (name, action)
            assert f"'{name}'" in answer["error_message"]


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_getlist_searches_and_looks_up_by_fields_that_there_are(api: Api, entity: Entity) -> None:
    if entity.table is None:
        return  # System answers one row
    for sent in (
        {"search_field": "bogus", "input": "zz"},
        {"id_field": "bogus", "id": [1]},
        {"id_field": "bogus", "input": "1"},
    ):
        answer = await ask(api, entity.name, "getlist", sent)
        assert "'bogus'" in answer["error_message"], sent


@pytest.mark.parametrize("entity", READ, ids=[one.name for one in READ])
async def test_a_long_pattern_is_refused_in_words(api: Api, entity: Entity) -> None:
    long = "x" * 200_000
    texts = [name for name, one in filters(entity) if one.type in (STRING, TEXT)][:3]
    sent: list[tuple[str, dict[str, Any]]] = [("getlist", {"input": long})]
    for name in texts:
        sent += [("getcount", {name: {"LIKE": long}}), ("getcount", {name: {"NOT LIKE": long}})]
        sent += [("getcount", {name: f"{long}%"}), ("getlist", {"input": long, "search_field": name})]
    for action, given in sent:
        answer = await ask(api, entity.name, action, given)
        if isinstance(answer, dict) and answer.get("is_error"):
            assert "DB Error" not in answer["error_message"], (action, list(given))
            assert "Unknown error" not in answer["error_message"], (action, list(given))
