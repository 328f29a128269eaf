"""No cache is keyed by what a caller spells, and none keeps anything long."""

import pickle
from typing import Any

from civiapi.api import query
from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from civiapi.api.parameters import params
from entities.contacts import contact_get

MARK = "spelled-by-a-caller"


def cached_texts(api: Api) -> str:
    return repr([query._compiled_queries, api.registry._found])


async def test_names_as_sent_are_in_no_cache(api: Api) -> None:
    sizes = [cache.cache_info().currsize for cache in (contact_get._columns, params._known_spec)]
    for n in range(40):
        mark = f"{MARK}{n}"
        sent: list[tuple[str, str, dict[str, Any]]] = [
            ("Contact", "get", {"return": [mark, "first_name"]}),
            ("Contact", "get", {mark: 1, "return": f"{mark}, {mark}x"}),
            ("Email", "get", {"return": mark, f"contact_id.{mark}": 1}),
            ("Contact", "get", {"options": {"sort": f"id{' ' * n}desc"}}),
            (mark, "getfields", {"action": mark}),
            (mark, "get", {}),
            (f"con_tact{'_' * n}", "get", {}),
            ("Contact", f"get{'-' * n}", {}),
        ]
        for one in sent:
            await api.respond(Call(*one))
    assert MARK not in cached_texts(api)
    grown = [cache.cache_info().currsize for cache in (contact_get._columns, params._known_spec)]
    assert grown[0] - sizes[0] <= 3
    assert grown[1] - sizes[1] <= 3
    assert len(api.registry._found) < 20


async def test_a_list_of_any_length_is_one_statement_and_a_long_statement_is_not_kept(api: Api) -> None:
    await api.respond(Call("Contact", "get", {"id": {"IN": [1]}}))
    before = len(query._compiled_queries)
    for n in range(2, 60):
        answer = await api.respond(Call("Contact", "get", {"id": {"IN": list(range(n))}}))
        assert answer["is_error"] == 0
    assert len(query._compiled_queries) == before
    many = ["first_name", *(f"contact_id.employer_id.employer_id.{n}" for n in ("first_name", "last_name", "id"))]
    await api.respond(Call("Email", "get", {"return": [*many, *(f"contact_id.{n}" for n in ("id", "first_name"))]}))
    assert all(len(one.text) <= query.MAX_CACHED_TEXT for one in query._compiled_queries.values())
    assert len(pickle.dumps([one.text for one in query._compiled_queries.values()])) < 10_000_000
