"""Contact.get by what other tables hold: addresses, phone numbers, groups, tags, accounts (beside-civicrm.md, 11)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import time_machine
from sqlalchemy import insert, update

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.civicrm.settings import write_setting
from civiapi.store.engine import Store, open_store
from civiapi.store.schema import tables
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from tests.conftest import Ask
from tests.support.contacts import a_contact, an_email
from tests.support.databases import database_at

ADA, BEA, CY = "Ada", "Bea", "Cy"


@pytest.fixture
async def people(call: Ask) -> dict[str, int]:
    """Three contacts; Ada and Bea have everything, different, and Cy nothing."""
    return await make_people(call)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ask]:
    """A way to ask about the same people, for the tests that change nothing."""
    store = await open_store(database_at(tmp_path_factory.mktemp("people") / "site.sqlite"))
    await migrate(store)
    api = Api(store, catalogue())

    async def ask(entity: str, action: str, params: dict[str, Any], caller: Caller = SYSTEM) -> Any:
        return await api.respond(Call(entity, action, params, caller))

    await make_people(ask)
    yield ask
    await store.close()


async def make_people(call: Ask) -> dict[str, int]:
    ids = {name: await a_contact(call, name) for name in (ADA, BEA, CY)}
    for name, city, code, kind in ((ADA, "Berlin", "DE", "Mobile"), (BEA, "Wien", "AT", "Fax")):
        mine = {"contact_id": ids[name]}
        await an_email(call, ids[name], f"{name}@example.org", on_hold=int(name == BEA))
        await an_email(call, ids[name], f"{name}2@example.org", on_hold=1)
        address = {"street_address": f"{city}er Str. 1", "city": city, "postal_code": f"1{city}", "country_id": code}
        await call("Address", "create", {**mine, **address})
        await call("Address", "create", {**mine, "city": "elsewhere"})
        await call("Phone", "create", {**mine, "phone": f"030 {name}", "phone_type_id": kind})
        await call("Tag", "create", {"name": f"tag of {name}"})
        await call("EntityTag", "create", {**mine, "tag_id": ids[name]})
        await call("Group", "create", {"name": f"g_{name}", "title": f"Group of {name}"})
        await call("GroupContact", "create", {**mine, "group_id": ids[name]})
    await call("GroupContact", "create", {"contact_id": ids[CY], "group_id": ids[ADA], "status": "Removed"})
    return ids


async def found(call: Ask, **filters: Any) -> list[str]:
    answer = await call("Contact", "get", {**filters, "return": "first_name", "sequential": 1})
    assert answer["is_error"] == 0, answer
    count = await call("Contact", "getcount", filters)
    assert count == len(answer["values"])
    return [row["first_name"] for row in answer["values"]]


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"city": "berlin"}, [ADA]),
    ({"city": "elsewhere"}, []),  # not the primary one
    ({"city": {"IN": ["Berlin", "Wien"]}}, [ADA, BEA]),
    ({"city": {"LIKE": "W%"}}, [BEA]),
    ({"city": "Ber%"}, [ADA]),
    ({"city": {"IS NULL": 1}}, [CY]),
    ({"street_address": "Wiener Str. 1"}, [BEA]),
    ({"postal_code": "1Wien"}, [BEA]),
    ({"country": "Germany"}, [ADA]),
    ({"country": "at"}, [BEA]),
    ({"country": "Atlantis"}, []),
    ({"country_id": "Austria"}, [BEA]),
    ({"state_province": "CA"}, []),
    ({"address_id": {"IS NOT NULL": 1}}, [ADA, BEA]),
    ({"phone": "030 Ada"}, [ADA]),
    ({"phone": "030%"}, [ADA, BEA]),
    ({"phone_type_id": "Fax"}, [BEA]),
    ({"on_hold": 1}, [BEA]),
    ({"on_hold": "No"}, [ADA]),
    ({"email_id": 1}, [ADA]),
    ({"tag": 1}, [ADA]),
    ({"tag": "tag of Bea"}, [BEA]),
    ({"tag": [1, 2]}, [ADA, BEA]),
    ({"tag": "1,2"}, [ADA, BEA]),
    ({"tag": "+1"}, [ADA]),
    ({"tag": {"IN": [2]}}, [BEA]),
    ({"tag": {"2": 1}}, [BEA]),
    ({"tag": {"NOT IN": [2]}}, [ADA, CY]),
    ({"tag": {"IS NULL": 1}}, [CY]),
    ({"tag": 99}, []),
    ({"tag": "no such tag"}, []),
    ({"group": 1}, [ADA]),
    ({"group": "Group of Bea"}, [BEA]),
    ({"group": {"!=": 1}}, [BEA, CY]),
    ({"group": {"IS NULL": 1}}, [CY]),
    ({"group": {"!=": "+1"}}, [BEA, CY]),
    ({"filter.group_id": "1,2"}, [ADA, BEA]),
    ({"current_employer": "nobody's"}, []),
    ({"uf_user": 1}, []),
    ({"uf_user": 0}, [ADA, BEA, CY]),
    ({"city": "Berlin", "group": 2}, []),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("filters", "names"), FILTERS, ids=[str(one) for one, _ in FILTERS])
async def test_contacts_are_found_by(reader: Ask, filters: dict[str, Any], names: list[str]) -> None:
    assert await found(reader, **filters) == names


REFUSED: list[dict[str, Any]] = [
    {"activity_type_id": 1},
    {"contribution_status_id": 1},
    {"im": "x"},
    {"world_region": "x"},
    {"custom_1": "x"},
    {"filters": {"x": 1}},
    {"filter.created_date_high": "now"},
    {"tag": {"LIKE": "t%"}},
    {"group": {">": 1}},
    {"group": {"NOT IN": ["no such group"]}},
    {"employer_id.display_name": "x"},
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("filters", REFUSED, ids=str)
@pytest.mark.parametrize("action", ["get", "getcount", "getsingle", "replace"])
async def test_what_cannot_be_applied_is_refused_and_named(reader: Ask, action: str, filters: dict[str, Any]) -> None:
    answer = await reader("Contact", action, {**filters, "first_name": "x", "values": []})
    assert answer["is_error"] == 1
    [name] = filters
    assert name in answer["error_message"] or "no such group" in answer["error_message"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["group", "filter.group_id", "tag"])
@pytest.mark.parametrize("given", [[], {"IN": []}, {"!=": []}, {"1": 0}], ids=str)
async def test_no_group_or_tag_at_all_is_no_filter(reader: Ask, name: str, given: Any) -> None:
    answer = await reader("Contact", "get", {name: given})
    assert answer["error_message"] == f"invalid criteria for {'!=' if '!=' in given else 'IN'}"


async def test_a_name_that_civicrm_does_not_know_is_ignored_as_there(call: Ask, people: dict[str, int]) -> None:
    assert await found(call, bogus=1) == [ADA, BEA, CY]


@pytest.mark.parametrize("name", ["api_key", "hash"])
async def test_a_filter_on_what_the_caller_may_not_read_is_refused(
    call: Ask, people: dict[str, int], name: str
) -> None:
    caller = Caller(people[ADA], frozenset({"access CiviCRM", "view all contacts"}), "viewer")
    answer = await call("Contact", "getcount", {name: "x"}, caller)
    assert answer["error_message"] == f"Contact cannot be filtered by '{name}'"


async def test_the_columns_of_other_tables(call: Ask, people: dict[str, int]) -> None:
    row = await call("Contact", "getsingle", {"id": people[ADA]})
    wanted = {
        "city": "Berlin", "street_address": "Berliner Str. 1", "country": "Germany", "phone": "030 Ada",
        "phone_type_id": "2", "phone_id": "1", "address_id": "1", "state_province": "", "on_hold": "0", "im": "",
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert row["email"] == "ada@example.org"
    nothing = await call("Contact", "getsingle", {"id": people[CY]})
    assert nothing.keys() == row.keys()
    assert {nothing[name] for name in wanted} == {""}


async def test_groups_and_tags_are_answered_by_title_and_name(call: Ask, people: dict[str, int]) -> None:
    await call("GroupContact", "create", {"contact_id": people[ADA], "group_id": 2})
    asked = {"return": "group,tag", "sequential": 1}
    rows = (await call("Contact", "get", asked))["values"]
    assert [(row["groups"], row["group"], row["tags"], row["tag"]) for row in rows] == [
        ("Group of Ada,Group of Bea",) * 2 + ("tag of Ada",) * 2,
        ("Group of Bea",) * 2 + ("tag of Bea",) * 2,
        ("", "", "", ""),
    ]
    viewer = Caller(people[ADA], frozenset({"view all contacts"}), "without access CiviCRM")
    assert {row["group"] for row in (await call("Contact", "get", asked, viewer))["values"]} == {""}


@pytest.mark.parametrize("order", ["city", "city DESC", "phone, id DESC", "country"])
async def test_an_order_by_what_is_in_another_table(call: Ask, people: dict[str, int], order: str) -> None:
    every = {"options": {"sort": order, "limit": 2}, "sequential": 1}
    page = [row["id"] for row in (await call("Contact", "get", every))["values"]]
    more = [row["id"] for row in (await call("Contact", "get", {**every, "options": {"sort": order}}))["values"]]
    assert page == more[:2]
    assert len(more) == 3


async def test_a_smart_group_is_applied_while_civicrm_would_use_the_members_it_found(
    call: Ask, store: Store, people: dict[str, int]
) -> None:
    made = await call("Group", "create", {"title": "Smart"})
    smart = int(made["id"])

    async def cache(at: str | None) -> None:
        changed = update(tables.group).where(tables.group.c.id == smart).values(saved_search_id=1, cache_date=at)
        await store.write(lambda conn: conn.execute(changed))

    rows = [{"group_id": smart, "contact_id": people[CY]}]
    await store.write(lambda conn: conn.execute(insert(tables.group_contact_cache), rows))
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        await cache("2026-03-01 11:56:00")
        assert await found(call, group=smart) == [CY]
        assert await found(call, group=[1, smart]) == [ADA, CY]
        assert await found(call, group={"NOT IN": [1, smart]}) == [BEA]
        for at in (None, "2026-03-01 11:54:00"):
            await cache(at)
            refused = await call("Contact", "getcount", {"group": smart})
            assert "it is a smart group" in refused["error_message"]
        await store.write(lambda conn: write_setting(conn, "smartGroupCacheTimeout", 10))
        assert await found(call, group=smart) == [CY]


async def test_a_field_of_another_table_is_not_set_through_the_contact(call: Ask, people: dict[str, int]) -> None:
    answer = await call("Contact", "setvalue", {"id": people[CY], "field": "city", "value": "x"})
    assert answer["error_code"] == "invalid_field"
