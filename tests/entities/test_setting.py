"""Setting: answers by domain, the value itself from getvalue, CiviCRM's own form in the table."""

from typing import Any

import pytest
from sqlalchemy import select

from civiapi.api.call import Caller
from civiapi.store.engine import Store
from civiapi.store.schema.tables import setting
from tests.conftest import Ask

CONFIG = '{"lists": {}, "accounts": {}, "note": "ünï"}'


async def test_a_setting_comes_back_as_it_was_set_by_domain(call: Ask) -> None:
    made = await call("Setting", "create", {"mailchimpsync_config": CONFIG})
    assert made == {
        "is_error": 0,
        "version": 3,
        "count": 1,
        "id": 1,
        "values": {"1": {"mailchimpsync_config": CONFIG}},
    }
    assert await call("Setting", "get", {"return": "mailchimpsync_config"}) == made


async def test_getvalue_gives_the_text_itself(call: Ask) -> None:
    await call("Setting", "create", {"mailchimpsync_config": CONFIG})
    assert await call("Setting", "getvalue", {"name": "mailchimpsync_config"}) == CONFIG
    assert await call("Setting", "getvalue", {"return": "mailchimpsync_config"}) == CONFIG


async def test_the_table_holds_what_php_serializes(call: Ask, store: Store) -> None:
    await call("Setting", "create", {"mailchimpsync_config": "{}"})
    rows = await store.read(lambda conn: conn.execute(select(setting.c.value, setting.c.is_domain)).all())
    assert [tuple(row) for row in rows] == [('s:2:"{}";', 1)]


async def test_a_setting_nobody_set_is_left_out_and_has_its_default(call: Ask) -> None:
    assert (await call("Setting", "get", {"return": "mailchimpsync_config"}))["values"] == {"1": []}
    assert await call("Setting", "getvalue", {"name": "mailchimpsync_config"}) is False
    assert await call("Setting", "getvalue", {"name": "authx_guards"}) == ["site_key", "perm"]


KINDS: dict[str, tuple[str, Any, Any]] = {
    "yes or no": ("contact_undelete", "false", "0"),
    "a number": ("max_attachments", 7, "7"),
    "a list": ("authx_guards", ["perm"], ["perm"]),
    "a list as comma text": ("authx_guards", "perm, site_key", ["perm", "site_key"]),
    "an empty list": ("authx_guards", [], []),
    "a map is the JSON it would be": ("mailchimpsync_config", {"lists": {}}, '{"lists":{}}'),
}


@pytest.mark.parametrize(("name", "given", "stored"), KINDS.values(), ids=KINDS.keys())
async def test_values_are_kept_by_their_kind(call: Ask, name: str, given: Any, stored: Any) -> None:
    await call("Setting", "create", {name: given})
    assert (await call("Setting", "get", {"return": [name]}))["values"] == {"1": {name: stored}}


@pytest.mark.parametrize("params", [{"contact_undelete": "maybe"}, {"max_attachments": "x"}, {"authx_guards": 5}])
async def test_a_value_of_the_wrong_kind_is_refused(call: Ask, params: dict[str, Any]) -> None:
    refused = await call("Setting", "create", params)
    assert (refused["is_error"], refused["error_code"]) == (1, 2001)
    assert (await call("Setting", "get"))["values"] == {"1": []}


async def test_unknown_settings_are_all_named_and_nothing_is_set(call: Ask) -> None:
    refused = await call("Setting", "create", {"a": 1, "b": 2, "max_attachments": 5})
    assert refused["error_message"] == "a,b not valid settings"
    assert (await call("Setting", "get"))["values"] == {"1": []}
    assert (await call("Setting", "get", {"return": "foo"}))["error_message"] == "foo not valid settings"


async def test_sequential_gives_a_list_and_keeps_the_id(call: Ask) -> None:
    answer = await call("Setting", "create", {"max_attachments": 5, "sequential": 1})
    assert (answer["id"], answer["values"]) == (1, [{"max_attachments": "5"}])


@pytest.mark.parametrize("domain", [1, "1", "all", [1], "current_domain"])
async def test_domains_can_be_said_in_many_ways(call: Ask, domain: Any) -> None:
    await call("Setting", "create", {"max_attachments": 5, "domain_id": domain})
    found = await call("Setting", "get", {"return": "max_attachments", "domain_id": domain})
    assert found["values"] == {"1": {"max_attachments": "5"}}


async def test_a_domain_that_is_not_there_is_refused(call: Ask) -> None:
    assert (await call("Setting", "get", {"domain_id": 9}))["error_code"] == 2001


async def test_a_setting_can_have_its_default_again(call: Ask) -> None:
    await call("Setting", "create", {"authx_guards": []})
    await call("Setting", "revert", {"name": "authx_guards"})
    assert await call("Setting", "getvalue", {"name": "authx_guards"}) == ["site_key", "perm"]


async def test_getfields_tells_of_one_setting_if_asked(call: Ask) -> None:
    found = await call("Setting", "getfields", {"filters": {"name": "mailchimpsync_config"}})
    assert list(found["values"]) == ["mailchimpsync_config"]
    assert found["values"]["mailchimpsync_config"]["default"] is False
    assert "authx_guards" in (await call("Setting", "getfields"))["values"]


async def test_settings_are_for_administrators(call: Ask) -> None:
    answer = await call("Setting", "get", {}, Caller(None, frozenset({"access CiviCRM"})))
    assert answer["error_code"] == "unauthorized"
